"""`reconciler prune`: what the state repo declares no more, and what becomes of it."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.agent.config import load
from reconciler.agent.places import Places
from reconciler.agent.state import State, suspension
from reconciler.cli.agent import nudge
from reconciler.cli.console import Output, Span
from reconciler.cli.drift import applied
from reconciler.cli.options import lock_option
from reconciler.errors import Held, ResourceError
from reconciler.transport.engine import Engine


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--dry-run", action="store_true", help="only list what would be done")
    parser.add_argument(
        "--over-budget",
        action="store_true",
        help="also if it is more than agent.yml allows at once",
    )
    lock_option(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Prune what is due; 7 if it is held back, 4 if some of it failed."""
    places = Places()
    catalog, config, state = applied(places), load(places.config), State.load(places)
    if not args.dry_run:
        _check(places, state)
    with Engine.local(root=places.root) as engine, out.progress("prune") as on_event:
        found = engine.prune(
            dry_run=args.dry_run,
            present=[one.id for one in catalog.resources],
            modules=dict(catalog.modules),
            host=catalog.host,
            commit=catalog.commit,
            policy=config.prune,
            most=config.prune_max,
            percent=config.prune_percent,
            over_budget=args.over_budget,
            lock_timeout=args.lock_timeout,
            on_event=on_event,
        )
    if found.get("pruned"):
        nudge(signal.SIGUSR2)  # what the agent says was so before us
    if out.as_json:
        out.document(found)
    else:
        _show(found, out, dry=args.dry_run)
    if found.get("failed"):
        return ResourceError.exit_code
    return Held.exit_code if found.get("held") else 0


def _check(places: Places, state: State) -> None:
    """Raises Held where it would not be safe to remove anything."""
    if suspension(places) is not None:
        raise Held("the agent is suspended", hint="reconciler agent resume")
    if not state.applied or state.good != state.applied:
        raise Held(
            "the commit that is applied has not converged whole yet",
            hint="nothing is pruned before that: reconciler agent status",
        )


def _show(found: Mapping[str, Any], out: Output, *, dry: bool) -> None:
    parts: Sequence[tuple[str, str, str]] = (
        ("pruned", "-", "red"),
        ("ready", "-", "yellow"),
        ("waiting", "~", "yellow"),
        ("kept", "=", "dim"),
    )
    for name, symbol, style in parts:
        for one in found.get(name, ()):
            what = one.get("done") or (
                f"{one['act']}, {_when(name, dry=dry)}" if one["act"] else "kept"
            )
            why = f" ({one['why']})" if one["why"] else ""
            file, line = one["source"]
            out.line(Span(f"{symbol} {one['id']}", style), f"  {what}{why}  was at {file}:{line}")
    for text in found.get("failed", ()):
        out.line(Span("! ", "bold red"), text)
    if found.get("held"):
        out.line(Span(f"held: {found['held']}", "bold red"))
        out.line("  if that is meant: reconciler prune --over-budget")
    counts = {name: len(found.get(name, ())) for name, _, _ in parts}
    out.line(
        f"prune: {counts['pruned']} removed, {counts['ready']} ready, {counts['waiting']} waiting, {counts['kept']} kept"
    )


def _when(name: str, *, dry: bool) -> str:
    if name == "waiting":
        return "not before the run after the next whole one"
    return "at the next whole run" if dry else "next time"
