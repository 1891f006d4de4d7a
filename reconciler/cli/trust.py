"""`reconciler trust`: which commit this host trusts, and a person's word on another one."""

from __future__ import annotations

import argparse
import os
import time

from reconciler.agent.config import load
from reconciler.agent.places import Places
from reconciler.cli.console import Output, Span
from reconciler.cli.options import Parser, add_action
from reconciler.errors import TrustError, UsageError
from reconciler.source.mark import Marks
from reconciler.source.trust import show


def configure(parser: Parser) -> None:
    """The options of this verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_action(actions, "show", "show the last trusted commit, and how it came to be that")
    reset = add_action(actions, "reset", "trust another commit, whatever was trusted before")
    reset.add_argument("--to", metavar="COMMIT", required=True, help="full commit id")
    reset.add_argument("--reason", required=True, help="why; it is kept")


def run(args: argparse.Namespace, out: Output) -> int:
    """10 if what was trusted last is lost."""
    if os.geteuid() != 0:
        raise UsageError("this takes root", hint=f"sudo reconciler trust {args.action}")
    marks = Marks(Places().trust)
    if args.action == "reset":
        who = os.environ.get("SUDO_USER") or os.environ.get("USER") or "root"
        mark = marks.reset(args.to, args.reason, who)
        out.line(f"{mark.commit} is trusted; what comes next must be on top of it")
        out.line("the agent takes it up with: reconciler agent sync")
        return 0
    document = show(marks, load(Places().config).policy())
    if out.as_json:
        out.document(document)
    else:
        _show(document, out)
    return TrustError.exit_code if "error" in document else 0


def _show(document: dict[str, object], out: Output) -> None:
    out.line(f"mode       {document['mode']}")
    error = document.get("error")
    if isinstance(error, dict):
        out.line(Span("lost", "bold red"), f"       {error['message']}")
        for row in str(error["hint"]).splitlines():
            out.line(f"           {row}")
        return
    signers = document["signers"]
    out.line(
        f"commit     {document['commit'] or 'none yet: the first that is offered will be the first'}"
    )
    out.line(
        f"signed by  {', '.join(signers) if isinstance(signers, list) and signers else 'not verified'}"
    )
    out.line(f"confirmed  {float(str(document['age'])):.0f} s ago")
    if document["stale"]:
        out.line(Span(f"stale      {document['stale']}", "bold red"))
    resets = document["resets"]
    for one in resets if isinstance(resets, list) else []:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["at"]))
        out.line(
            f"reset      {when} by {one['by']}, from {one['before'][:12] or 'nothing'} to {one['to'][:12]}: {one['reason']}"
        )
