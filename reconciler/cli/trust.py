"""`reconciler trust`: which commit this host trusts, and a person's word on another one."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from reconciler.agent.config import load
from reconciler.agent.places import Places
from reconciler.cli.agent import nudge, who
from reconciler.cli.console import Output, Span
from reconciler.cli.options import Parser, add_action
from reconciler.errors import Stale, TrustError, UsageError
from reconciler.source.mark import Marks
from reconciler.source.trust import show


def configure(parser: Parser) -> None:
    """The options of this verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_action(actions, "show", "show the last trusted commit, and how it came to be that")
    reset = add_action(actions, "reset", "trust another commit, whatever was trusted before")
    reset.add_argument("--to", metavar="COMMIT", required=True, help="full commit id")
    reset.add_argument("--reason", metavar="WHY", required=True, help="why; it is kept")


def run(args: argparse.Namespace, out: Output) -> int:
    """10 if what was trusted last is lost, 5 if no remote has confirmed it for too long."""
    if os.geteuid() != 0:
        raise UsageError("this takes root", hint=f"sudo reconciler trust {args.action}")
    marks = Marks(Places().trust)
    if args.action == "reset":
        mark = marks.reset(args.to, args.reason, who())
        if out.as_json:
            out.document({"schema": ["reconciler/trust-reset", 1], **vars(mark.resets[-1])})
        out.line(f"{mark.commit} is trusted; what comes next must be on top of it")
        now = nudge(signal.SIGUSR1)
        out.line("the agent takes it up now" if now else "reconciler agent once takes it up")
        return 0
    document = show(marks, load(Places().config).policy())
    if out.as_json:
        out.document(document)
    else:
        _show(document, out)
    if "error" in document:
        return TrustError.exit_code
    return Stale.exit_code if document["stale"] else 0


def _show(document: Mapping[str, Any], out: Output) -> None:
    out.line(f"mode       {document['mode']}")
    for kind, where in document["keys"].items():
        if where and document["mode"] != "none":
            shown = where if isinstance(where, str) else ", ".join(where)
            out.line(f"keys       {kind.replace('_', ' ')}: {shown}")
    for name, state in document["copies"].items():
        if state != "valid":
            out.line(Span(f"damage     {name} is {state}", "yellow"))
    if "error" in document:
        error = document["error"]
        out.line(Span("lost", "bold red"), f"       {error['message']}")
        for row in str(error["hint"]).splitlines():
            out.line(f"           {row}")
        return
    first = "none yet: the first that is offered will be the first"
    out.line(f"commit     {document['commit'] or first}")
    if document["ref"]:
        out.line(f"ref        {document['ref']}")
    out.line(f"signed by  {', '.join(document['signers']) or 'not verified'}")
    out.line(f"confirmed  {document['age']:.0f} s ago")
    if document["stale"]:
        out.line(Span(f"stale      {document['stale']}", "bold red"))
    for one in document["resets"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["at"]))
        out.line(
            f"reset      {when} by {one['by']}, from {one['before'][:12] or 'nothing'} to {one['to'][:12]}: {one['reason']}"
        )
