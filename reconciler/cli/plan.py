"""`reconciler plan`: what apply would do, attribute by attribute. It only looks."""

from __future__ import annotations

import argparse

from reconciler.cli.console import Output
from reconciler.cli.local import on_this_machine, run_options
from reconciler.cli.reach import is_remote, reach_options
from reconciler.cli.render import show
from reconciler.cli.rollout import fleet_options
from reconciler.errors import ResourceError

CHANGES = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    run_options(parser)
    reach_options(parser)
    fleet_options(parser, rollout=False)


def run(args: argparse.Namespace, out: Output) -> int:
    """Show the plan. 4 if something could not be looked at; with --detailed-exitcode, 2 if it differs."""
    if is_remote(args):
        from reconciler.cli.fleet import push

        code = push(args, out, "plan")
        if code is not None:
            return code
    with on_this_machine(args, out) as here, out.progress("plan") as on_event:
        plan = here.engine.plan(
            here.catalog,
            content=here.content,
            secrets=here.secrets,
            diff=args.diff,
            on_event=on_event,
        )
    if out.as_json:
        out.document(plan.to_json())
    else:
        out.lines(show(plan, diff=args.diff, verbose=out.verbose))
    if plan.failed:
        return ResourceError.exit_code
    return CHANGES if plan.differs and args.detailed_exitcode else 0
