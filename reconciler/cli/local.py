"""This machine and what the state repo wants of it: what `plan` and `apply` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from reconciler.catalog import Catalog, dumps
from reconciler.cli.console import Output, Span
from reconciler.cli.followed import Followed
from reconciler.cli.options import (
    HERE_OR_FOLLOWED,
    inventory_options,
    local_options,
    repo_options,
    tag_options,
)
from reconciler.cli.places import directory_root, open_cache
from reconciler.errors import UsageError
from reconciler.transport.engine import Engine

if TYPE_CHECKING:
    from reconciler.cli.desired import Choice, Desired

DURABILITY = ("full", "batch", "none")
#: Facts by which an inventory may know this machine.
NAMES = ("nodename", "fqdn", "hostname")
#: A catalog without resources, as its canonical JSON says it.
EMPTY = b'"resources":[]'


class LocalRun(NamedTuple):
    """An engine that runs on this machine, and the catalog for it.

    content: the bytes of a content that differs. secrets: the values behind the catalog's handles.
    """

    engine: Engine
    catalog: bytes
    content: Callable[[str], Iterable[bytes]]
    secrets: Callable[[], Mapping[str, str]]


def run_options(parser: argparse.ArgumentParser) -> None:
    """The options that `plan` and `apply` share."""
    repo_options(parser, HERE_OR_FOLLOWED)
    inventory_options(parser)
    local_options(parser)
    tag_options(parser)
    parser.add_argument(
        "--diff",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show differences of text (default: yes)",
    )
    parser.add_argument(
        "--detailed-exitcode", action="store_true", help="exit 2 if there are changes"
    )
    parser.add_argument(
        "--allow-untrusted",
        action="store_true",
        help="of the agent's state repo, take also a commit that this host does not trust",
    )


@contextmanager
def on_this_machine(
    args: argparse.Namespace, out: Output, *, durability: str = "batch", remember: bool = False
) -> Iterator[LocalRun]:
    """Start the engine, learn the facts, compile, and hand over. Raises ReconcilerError.

    remember: keep the facts for `check`; a plan does not, for it must not write.
    """
    root = directory_root(args.root)
    local = args.local or args.host is not None or root != "/"
    # Nobody changes a machine by what the agent follows without having named any of it.
    followed = Followed.asked(args, unnamed=not remember or args.ref is not None)
    commit = followed.usable(args.ref, untrusted=args.allow_untrusted) if followed else ""
    if followed is None and not local and not args.inventories:
        raise UsageError(
            "which machine is meant?",
            hint="--local for this one, or -i INVENTORY for hosts with ansible_connection=local",
        )
    # The engine starts up while we read the state repo, so it comes first.
    with Engine.local(root=root, durability=durability) as engine:
        run = (
            _from_agent(args, engine, followed, commit)
            if followed
            else _from_repo(args, out, engine, local=local, remember=remember)
        )
        with run as here:
            yield here


@contextmanager
def _from_agent(
    args: argparse.Namespace, engine: Engine, followed: Followed, commit: str
) -> Iterator[LocalRun]:
    """What the part of the agent that has no privileges makes of a commit."""
    from reconciler.agent.link import Provider
    from reconciler.compile import select

    with Provider.start(followed.places) as provider:
        host, document = provider.compile(followed.config.to_json(), commit, engine.facts())
        if args.limit not in (None, host, "all", "*"):
            raise UsageError(f"--limit {args.limit} leaves out {host}, which is this machine")
        catalog = select(Catalog.from_json(document), args.tags, args.skip_tags)
        text = _selected(args, host, dumps(catalog.to_json()))
        yield LocalRun(engine, text, provider.content, provider.secrets)


@contextmanager
def _from_repo(
    args: argparse.Namespace, out: Output, engine: Engine, *, local: bool, remember: bool
) -> Iterator[LocalRun]:
    """What a state repo of the operator's says, compiled here if it was not before."""
    with closing(open_cache(out)) as cache:
        # Imported while the engine starts up.
        from reconciler.cli.desired import Choice, Desired

        desired = Desired.asked(args, cache, out)
        name = None if local else chosen_host(desired, args.limit)
        facts = engine.facts()
        choice = Choice(tuple(args.tags), tuple(args.skip_tags))
        host = name or host_name(desired, args, choice, facts)
        if (
            args.allow_empty
            and not desired.is_kept(host, facts, choice)
            and not desired.has_play(host)
        ):
            tree = desired.tree
            catalog = dumps(Catalog(host, (), commit=tree.commit, dirty=tree.dirty).to_json())
        else:
            catalog = desired.catalog(host, facts, choice)
        catalog = _selected(args, host, catalog)
        if remember:
            cache.keep_facts(host, facts)
        for warning in desired.warnings:
            out.note(Span("warning", "bold yellow"), f": {warning}")
        yield LocalRun(
            engine,
            catalog,
            partial(desired.content, host, facts),
            lambda: desired.compiled(host, facts).secrets,
        )


def _selected(args: argparse.Namespace, host: str, catalog: bytes) -> bytes:
    """The catalog. Raises UsageError if it is empty and nobody allowed that."""
    if EMPTY in catalog and not args.allow_empty:
        raise UsageError(
            f"nothing is selected for host {host}", hint="give --allow-empty if that is meant"
        )
    return catalog


def host_name(
    desired: Desired, args: argparse.Namespace, choice: Choice, facts: Mapping[str, object]
) -> str:
    """By which name the inventory knows this machine. Raises UsageError if by none."""
    limit: str | None = args.limit
    names = [args.host] if args.host else list(dict.fromkeys(str(facts[key]) for key in NAMES))
    if limit is None:
        kept = next((name for name in names if desired.is_kept(name, facts, choice)), None)
        if kept is not None:
            return kept
    if not desired.has_inventory:
        if limit is not None and limit not in (*names, "all", "*"):
            raise UsageError(
                f"--limit {limit} leaves nothing: without an inventory there is only {names[0]}"
            )
        return names[0]
    known = set(desired.select("all"))
    found = next((name for name in names if name in known), None)
    if found is None:
        raise UsageError(
            f"the inventory has no host {' or '.join(names)}",
            hint="give the name of this machine in the inventory with --host NAME",
        )
    if limit is not None and found not in desired.select(limit):
        raise UsageError(f"--limit {limit} leaves out {found}, which is this machine")
    return found


def chosen_host(desired: Desired, limit: str | None) -> str:
    """The one selected host, where all that are selected are this machine. Raises UsageError."""
    selected = desired.chosen(limit)
    if len(selected) != 1:
        raise UsageError(
            f"{len(selected)} of the selected hosts are this one machine: {', '.join(selected)}",
            hint="choose one with --limit",
        )
    return selected[0]
