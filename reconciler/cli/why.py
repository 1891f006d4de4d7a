"""`reconciler why RESOURCE`: where it is declared, where its values come from, and who wrote that.

Nothing on the machine is looked at: facts are those of a file, of the last contact, or a sample.
Where an agent is, and no state repo at hand, it is about what the agent has applied.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from reconciler.catalog import Declaration, Json
from reconciler.cli.console import Line, Output, Span, line
from reconciler.cli.desired import Desired
from reconciler.cli.followed import Followed
from reconciler.cli.options import HERE_OR_FOLLOWED, facts_option, inventory_options, repo_options
from reconciler.cli.places import facts_of, open_cache, read_facts
from reconciler.cli.render import commit_text, value_text
from reconciler.compile import Compiled, Layered, Origin
from reconciler.errors import ConfigError, Mark, SourceError, UsageError
from reconciler.source.history import Touch, last_touch
from reconciler.words import did_you_mean


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("resource", metavar="RESOURCE", help="such as file:/etc/motd")
    repo_options(parser, HERE_OR_FOLLOWED)
    inventory_options(parser)
    parser.add_argument("--host", metavar="NAME", help="for which host (default: this machine)")
    facts_option(parser, "the host")


def run(args: argparse.Namespace, out: Output) -> int:
    """Explain one resource. Raises UsageError for one that the host does not have."""
    followed = Followed.asked(args)
    given = None if args.facts is None else read_facts(args.facts)
    if followed is not None:
        given = given or followed.facts()
        args = followed.options(args, ref=followed.commit(args.ref or "applied"))
    with closing(open_cache(out)) as cache:
        desired = Desired.asked(args, cache, out)
        host = _host(desired, args)
        facts, origin = facts_of(host, given, cache)
    compiled = desired.compiled(host, facts)
    found = _find(compiled.catalog.resources, args.resource, host)
    blame = Blame(args.repo, args.ref)
    if out.as_json:
        out.document(_document(compiled, found, blame))
    else:
        out.lines(list(_lines(compiled, found, blame, verbose=out.verbose)))
        out.line(Span(f"  facts: {origin}", "dim"))
    return 0


class Blame:
    """Who touched a line last; each line is asked for once."""

    def __init__(self, repo: str, ref: str | None) -> None:
        self._repo = repo
        self._ref = ref
        self._known: dict[tuple[str, int], Touch | None] = {}

    def of(self, mark: Mark) -> Touch | None:
        """None where no commit has the line, or history cannot be asked."""
        place = (mark.file, mark.line)
        if place not in self._known:
            self._known[place] = self._ask(mark) if mark.line else None
        return self._known[place]

    def _ask(self, mark: Mark) -> Touch | None:
        try:
            return last_touch(self._repo, self._ref, mark.file, mark.line)
        except (ConfigError, SourceError):
            return None  # an inventory outside of the state repo; history that is cut off


def _host(desired: Desired, args: argparse.Namespace) -> str:
    name = args.host or socket.gethostname()
    if not desired.has_inventory:
        return name
    hosts = desired.chosen(args.limit)
    if args.host is None and name not in hosts and len(hosts) == 1:
        return hosts[0]
    if name not in hosts:
        raise UsageError(
            f"which host is meant? {name} is not among those selected",
            hint=f"name one with --host: {', '.join(hosts[:5])}{' ...' if len(hosts) > 5 else ''}",
        )
    return name


def _find(resources: Sequence[Declaration], wanted: str, host: str) -> Declaration:
    """By id; or by key or title alone, where only one has it."""
    exact = [one for one in resources if one.id == wanted]
    found = exact or [one for one in resources if wanted in (one.key, one.title)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{wanted!r} is several resources", hint=f"one of: {', '.join(one.id for one in found)}"
        )
    raise UsageError(
        f"host {host} has no resource {wanted!r}",
        hint=did_you_mean(wanted, [one.id for one in resources])
        or f"it has {len(resources)}; see: reconciler plan -v",
    )


# -- text ------------------------------------------------------------------------------------


def _lines(
    compiled: Compiled, found: Declaration, blame: Blame, *, verbose: bool
) -> Iterator[Line]:
    catalog = compiled.catalog
    yield line(
        Span(found.id, "bold"), f"  on {catalog.host}, {commit_text(catalog.commit, catalog.dirty)}"
    )
    if found.title:
        yield line(f"  {found.title}")
    written = f", written as {found.declared_as}" if found.declared_as else ""
    role = f", role {found.role}" if found.role else ""
    yield line(f"  declared at {found.mark}{role}{written}")
    yield line(f"    {_touch_text(blame.of(found.mark))}")
    for name, value in sorted(found.params.items()):
        yield line(Span(f"  {name}", "bold"), f": {value_text(value, verbose=verbose)}")
    for name, origin in compiled.provenance.params(found.id).items():
        if origin.names:
            yield line(
                f"  {name} is written as {value_text(origin.raw, verbose=verbose)}",
                Span(f"  {origin.mark}", "dim"),
            )
    for name, layers in _variables(compiled, found).items():
        yield line(Span(f"  {name}", "bold"))
        for layer in reversed(layers):
            wins = layer is layers[-1]
            yield line(
                Span("    wins  " if wins else "    loses ", "green" if wins else "dim"),
                f"{value_text(layer.value, verbose=verbose)}  ",
                Span(f"{layer.layer}  {layer.mark}", "dim"),
            )
            if wins and layer.mark.line:
                yield line(f"            {_touch_text(blame.of(layer.mark))}")
    for word, ids in (
        ("requires", found.requires),
        ("notifies", found.notify),
        ("tags", found.tags),
    ):
        if ids:
            yield line(f"  {word}: {', '.join(ids)}")


def _touch_text(touch: Touch | None) -> str:
    if touch is None:
        return "no commit has this line"
    if not touch.commit:
        return touch.note
    note = f" ({touch.note})" if touch.note else ""
    return f"{touch.commit[:12]}  {touch.date[:10]}  {touch.author}  {touch.subject}{note}"


# -- JSON ------------------------------------------------------------------------------------


def _document(compiled: Compiled, found: Declaration, blame: Blame) -> Json:
    catalog = compiled.catalog
    return {
        "schema": ["reconciler/why", 1],
        "host": catalog.host,
        "commit": catalog.commit,
        "dirty": catalog.dirty,
        "resource": found.id,
        "type": found.type,
        "declared_as": found.declared_as or found.type,
        "title": found.title,
        "role": found.role,
        "source": _place(found.mark),
        "touched": _touch(blame.of(found.mark)),
        "requires": list(found.requires),
        "notify": list(found.notify),
        "tags": list(found.tags),
        "params": dict(found.params),
        "written": {
            name: {"value": origin.raw, "source": _place(origin.mark)}
            for name, origin in compiled.provenance.params(found.id).items()
        },
        "variables": [
            {
                "name": name,
                "layers": [
                    {"layer": one.layer, "value": one.value, "source": _place(one.mark)}
                    for one in layers
                ],
                "touched": _touch(blame.of(layers[-1].mark)),
            }
            for name, layers in _variables(compiled, found).items()
        ],
    }


def _variables(compiled: Compiled, found: Declaration) -> Mapping[str, Sequence[Layered]]:
    """Every variable that went into any parameter, but for facts: they have no layers."""
    variables: dict[str, Sequence[Layered]] = {}
    origins: Mapping[str, Origin] = compiled.provenance.params(found.id)
    for origin in origins.values():
        for name, layers in origin.variables.items():
            # A file can be beside the inventory and beside site.yml; where it counts last is enough.
            once = list({(one.layer, one.mark): one for one in reversed(layers)}.values())[::-1]
            if any(one.mark.file for one in once):
                variables[name] = once
    return dict(sorted(variables.items()))


def _touch(touch: Touch | None) -> Json | None:
    return None if touch is None else dict(touch._asdict())


def _place(mark: Mark) -> list[object]:
    return [mark.file, mark.line, mark.column]
