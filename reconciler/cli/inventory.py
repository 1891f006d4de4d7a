"""`reconciler inventory`: which hosts there are, in which groups, and why a variable has its value."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing

from reconciler.catalog import Json
from reconciler.cli.console import Line, Output, Span, line
from reconciler.cli.desired import Desired
from reconciler.cli.options import Parser, add_action, inventory_options, repo_options
from reconciler.cli.places import is_state_repo, open_cache
from reconciler.cli.render import value_text
from reconciler.compile.expressions import InventoryExpressions
from reconciler.errors import Mark, UsageError
from reconciler.inventory import Disk, Inventory, Layer
from reconciler.source.program import run_program
from reconciler.words import did_you_mean


def configure(parser: Parser) -> None:
    """The actions of this verb, each with its options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (
        ("list", "list the hosts and their groups"),
        ("graph", "show groups, what is in them, and their hosts as a tree"),
        ("host", "show the variables of one host"),
        ("explain", "show every layer of variables of a host, and which one wins"),
    ):
        action = add_action(actions, name, what)
        if name in ("host", "explain"):
            action.add_argument("host", metavar="HOST")
        if name == "explain":
            action.add_argument("variable", metavar="VAR", nargs="?", help="only this variable")
        repo_options(action)
        inventory_options(action)


def run(args: argparse.Namespace, out: Output) -> int:
    """Read the inventory and show what was asked for. Raises UsageError without an inventory."""
    inventory = _load(args, out)
    selected = inventory.chosen(args.limit, Disk(), allow_empty=args.allow_empty)
    inventory.check(selected)
    if args.action == "list":
        _list(inventory, selected, out)
    elif args.action == "graph":
        _graph(inventory, selected, out)
    elif args.action == "host":
        _host(inventory, args.host, out)
    else:
        _explain(inventory, args.host, args.variable, out)
    for warning in inventory.warnings:
        out.note(Span("warning", "bold yellow"), f": {warning}")
    return 0


def _load(args: argparse.Namespace, out: Output) -> Inventory:
    """An inventory can be looked at without a state repo; with one, its variables count too."""
    with closing(open_cache(out)) as cache:
        if args.inventories and args.ref is None and not is_state_repo(args.repo):
            expressions = InventoryExpressions(cache.facts)
            return Inventory.load(
                args.inventories,
                Disk(run_program),
                expressions=expressions,
                allow_missing=args.allow_empty,
            )
        return Desired.asked(args, cache, out).inventory


def _list(inventory: Inventory, selected: Sequence[str], out: Output) -> None:
    if out.as_json:
        out.document(_only(inventory.to_list_json(), set(selected)))
        return
    width = max(map(len, selected), default=0)
    for host in selected:
        groups = [name for name in inventory.groups_of(host) if name not in ("all", "ungrouped")]
        out.line(Span(f"{host:<{width}}", "bold"), f"  {', '.join(groups)}" if groups else "")


def _only(document: Json, selected: set[str]) -> Json:
    """The document with no other hosts than these; groups stay, for their names are asked for."""
    for name, group in document.items():
        if not isinstance(group, dict):
            continue
        if name == "_meta":
            group["hostvars"] = {
                host: values for host, values in group["hostvars"].items() if host in selected
            }
        elif "hosts" in group:
            group["hosts"] = [host for host in group["hosts"] if host in selected]
    return document


def _graph(inventory: Inventory, selected: Sequence[str], out: Output) -> None:
    document = _only(inventory.to_list_json(), set(selected))
    if out.as_json:
        groups = {
            name: {"children": group.get("children", []), "hosts": group.get("hosts", [])}
            for name, group in document.items()
            if name != "_meta" and isinstance(group, dict)
        }
        out.document({"schema": ["reconciler/inventory-graph", 1], "groups": groups})
    else:
        out.lines(list(_branch(document, "all", 0)))


def _branch(document: Json, name: str, depth: int) -> Iterator[Line]:
    """A group as `ansible-inventory --graph` draws it. A group cannot be below itself."""
    yield line("  |" * depth + ("--" if depth else ""), Span(f"@{name}:", "bold"))
    group = document.get(name)
    if not isinstance(group, dict):
        return
    for child in group.get("children", ()):
        yield from _branch(document, child, depth + 1)
    for host in group.get("hosts", ()):
        yield line("  |" * (depth + 1) + f"--{host}")


def _host(inventory: Inventory, host: str, out: Output) -> None:
    known = _known(inventory, host)
    if out.as_json:
        out.document(inventory.to_host_json(known))
    else:
        for name, value in sorted(inventory.variables(known).items()):
            out.line(Span(name, "bold"), f": {value_text(value, verbose=True)}")


def _explain(inventory: Inventory, host: str, variable: str | None, out: Output) -> None:
    layers = inventory.layers(_known(inventory, host))
    names = sorted({str(name) for layer in layers for name in layer.values})
    if variable is not None and variable not in names:
        raise UsageError(
            f"host {host} has no variable {variable!r}", hint=did_you_mean(variable, names)
        )
    chosen = names if variable is None else [variable]
    if out.as_json:
        explained = {
            name: [_layer(layer, name) for layer in layers if name in layer.values]
            for name in chosen
        }
        out.document(
            {"schema": ["reconciler/inventory-explain", 1], "host": host, "variables": explained}
        )
        return
    for name in chosen:
        out.line(Span(name, "bold"))
        speaking = [layer for layer in layers if name in layer.values]
        for layer in reversed(speaking):
            wins = layer is speaking[-1]
            out.line(
                Span("  wins  " if wins else "  loses ", "green" if wins else "dim"),
                f"{value_text(layer.values[name], verbose=out.verbose)}  ",
                Span(f"{layer.name}  {_place(layer, name)}", "dim"),
            )


def _layer(layer: Layer, name: str) -> Json:
    mark = _place(layer, name)
    return {
        "layer": layer.name,
        "value": layer.values[name],
        "source": [mark.file, mark.line, mark.column],
    }


def _place(layer: Layer, name: str) -> Mark:
    return layer.values.key_place(name)


def _known(inventory: Inventory, host: str) -> str:
    hosts = inventory.hosts()
    if host not in hosts and not inventory.is_implicit(host):
        raise UsageError(
            f"host {host!r} is not in the inventory",
            hint=did_you_mean(host, hosts) or "see: reconciler inventory list",
        )
    return host
