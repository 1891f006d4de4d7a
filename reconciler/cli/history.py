"""`reconciler history`: what runs changed on this machine, from its own ledger."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping

from reconciler.cli.console import Output, Span
from reconciler.cli.options import positive, root_option
from reconciler.cli.render import change_line, diff_lines, duration
from reconciler.engine.ledger import Ledger
from reconciler.engine.ledgerfile import place
from reconciler.errors import ReconcilerError, UsageError
from reconciler.resource import Change

LIMIT = 50
WORDS = {"ok": "in sync"}
STYLES = {"failed": "red", "interrupted": "magenta", "running": "magenta"}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "resource", metavar="RESOURCE", nargs="?", help="only this resource: file:/etc/motd"
    )
    parser.add_argument("--runs", action="store_true", help="runs instead of changes")
    parser.add_argument(
        "--cause",
        choices=("intentional", "corrective", "prune", "unknown"),
        help="only what Git changed, only drift that was undone, or only what was pruned",
    )
    parser.add_argument(
        "-n",
        dest="limit",
        metavar="N",
        type=positive,
        default=LIMIT,
        help=f"at most this many (default: {LIMIT})",
    )
    parser.add_argument(
        "--diff",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show what texts were before (default: yes)",
    )
    root_option(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Show changes or runs, newest first. A machine without a ledger has no history."""
    entries: list[dict[str, object]] = []
    limit = min(args.limit, sys.maxsize)
    # No resource is called by what is no text.
    resource = args.resource and args.resource.encode("utf-8", "backslashreplace").decode()
    with Ledger.open_readonly(args.root) as ledger:
        if ledger is not None and args.runs:
            entries = ledger.runs(limit)
        elif ledger is not None:
            entries = ledger.changes(resource, args.cause, limit)
        else:
            _check_absent(place(args.root))
    if out.as_json:
        out.document(
            {"schema": ["reconciler/history", 1], "runs" if args.runs else "changes": entries}
        )
    elif not entries:
        out.line(
            "nothing: no run has changed anything here" if ledger is None else "nothing that fits"
        )
    else:
        for entry in entries:
            if args.runs:
                _show_run(entry, out)
            else:
                _show_change(entry, out, diff=args.diff)
    return 0


def _check_absent(path: str) -> None:
    """That nobody could read it must not look like an empty history. Raises ReconcilerError."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return
    except PermissionError:
        pass  # of a directory above; said below
    if not os.access(path, os.R_OK):
        raise UsageError("this takes root", hint="sudo reconciler history")
    raise ReconcilerError(
        f"the ledger {path} is damaged", hint="the next run keeps it aside and begins a new one"
    )


def _show_run(run: Mapping[str, object], out: Output) -> None:
    summary = run["summary"]
    counts = (
        ", ".join(f"{n} {WORDS.get(status, status)}" for status, n in summary.items() if n)
        if isinstance(summary, dict)
        else ""
    )
    status = str(run["status"])
    took = duration(_number(run["seconds"]))
    dirty = " (work tree)" if run["dirty"] else ""
    out.line(
        Span(_when(run["started"]), "dim"),
        f"  {run['run']}  {run['mode']}  {_commit(run['commit'])}{dirty}  ",
        Span(status, STYLES.get(status, "green")),
        f"  {counts} in {took}",
    )


def _show_change(change: Mapping[str, object], out: Output, *, diff: bool) -> None:
    drift = Span("  drift", "yellow") if change["cause"] == "corrective" else Span("")
    status = str(change["status"])
    out.line(
        Span(_when(change["at"]), "dim"),
        "  ",
        Span(str(change["resource"]), "bold"),
        "  ",
        Span(
            str(change["action"] or status) if status != "failed" else status,
            STYLES.get(status, ""),
        ),
        drift,
        Span(
            f"  {_commit(change['commit'])}  {change['file']}:{change['line']}  run {change['run']}",
            "dim",
        ),
    )
    attributes = change["changes"]
    for one in attributes if isinstance(attributes, list) else []:
        difference = Change(one["attribute"], one["before"], one["after"])
        out.lines([change_line(difference, str(change["action"]), verbose=out.verbose)])
    if diff:
        out.lines(diff_lines(str(change["diff"])))
    for row in str(change["reason"] or "").splitlines():
        out.line(f"    {row}")


def _when(seconds: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_number(seconds)))


def _commit(commit: object) -> str:
    return str(commit or "")[:12] or "no commit"


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
