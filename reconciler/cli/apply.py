"""`reconciler apply`: make the machine match the state repo, and say what that took."""

from __future__ import annotations

import argparse
import os

from reconciler.cli.console import Output
from reconciler.cli.local import DURABILITY, on_this_machine, run_options
from reconciler.cli.options import lock_option
from reconciler.cli.plan import CHANGES
from reconciler.cli.reach import is_remote, reach_options
from reconciler.cli.render import show
from reconciler.cli.rollout import fleet_options
from reconciler.errors import Interrupted, ResourceError, UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    run_options(parser)
    reach_options(parser)
    fleet_options(parser, rollout=True)
    parser.add_argument(
        "--durability",
        choices=DURABILITY,
        default="batch",
        help="what survives a power cut: each file at once, all files at the end of the run, or what the kernel likes",
    )
    lock_option(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Converge, and show the report. 4 if something failed, 130 if it was told to stop."""
    if is_remote(args):
        from reconciler.cli.fleet import push

        code = push(args, out, "apply")
        if code is not None:
            return code
    if os.geteuid() != 0 and os.path.abspath(args.root) == "/":
        raise UsageError("apply needs root", hint="run it with sudo; plan works without")
    with (
        on_this_machine(args, out, durability=args.durability, remember=True) as here,
        out.progress("apply") as on_event,
    ):
        report = here.engine.apply(
            here.catalog,
            content=here.content,
            secrets=here.secrets,
            diff=args.diff,
            on_event=on_event,
            lock_timeout=args.lock_timeout,
        )
    if out.as_json:
        out.document(report.to_json())
    else:
        out.lines(show(report, diff=args.diff, verbose=out.verbose))
    if report.interrupted:
        return Interrupted.exit_code
    if report.failed:
        return ResourceError.exit_code
    return CHANGES if report.changed and args.detailed_exitcode else 0
