"""`reconciler diff REF1 REF2`: which hosts and resources a change touches, before any host sees it.

Both commits are compiled for every host, with the facts of the last contact or of a sample, and
it is said which. Contents are compared by digest; of secrets it is said only that they differ.
"""

from __future__ import annotations

import argparse
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reconciler.catalog import HIDDEN, Declaration
from reconciler.cli.console import Line, Output, Span, line, plain
from reconciler.cli.desired import Desired
from reconciler.cli.followed import Followed
from reconciler.cli.options import HERE_OR_FOLLOWED, facts_option, inventory_options
from reconciler.cli.places import Facts, Known, facts_of, open_cache, read_facts
from reconciler.cli.render import SYMBOLS, change_line
from reconciler.cli.visible import visible
from reconciler.compile.cache import CatalogCache
from reconciler.errors import ConfigError, ConfigErrors, UsageError
from reconciler.resource import Change, Value
from reconciler.words import counted

if TYPE_CHECKING:
    from reconciler.compile import Compiled

CHANGES = 2
#: Parts of a declaration beside its parameters that change what happens on a host.
PARTS = ("requires", "notify", "handler", "timeout", "drift", "prune")
HOSTS_SHOWN = 8
#: Longest Markdown, in characters: a comment on a pull request may have 65,536.
MARKDOWN = 60_000


@dataclass(frozen=True)
class Touched:
    """One resource that a change touches. source: in the newer commit, if it is there."""

    id: str
    action: Literal["create", "change", "remove"]
    source: str
    title: str
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, object]:
        """One object of `resources`."""
        changes = [
            {"attribute": one.attribute, "before": one.before, "after": one.after}
            for one in self.changes
        ]
        return {
            "id": self.id,
            "action": self.action,
            "source": self.source,
            "title": self.title,
            "changes": changes,
        }


@dataclass(frozen=True)
class HostDiff:
    """What a change means for one host. facts: `file`, `last contact` or `sample`."""

    host: str
    facts: str
    touched: tuple[Touched, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("ref1", metavar="REF1", help="a commit, branch or tag: before")
    parser.add_argument("ref2", metavar="REF2", help="a commit, branch or tag: after")
    parser.add_argument(
        "-C",
        dest="repo",
        metavar="REPO",
        default=".",
        help=f"the state repo (default: {HERE_OR_FOLLOWED})",
    )
    inventory_options(parser)
    parser.add_argument(
        "--host", metavar="NAME", help="without an inventory: the name of the one host"
    )
    facts_option(parser, "every host")
    parser.add_argument("--markdown", action="store_true", help="for a comment on a pull request")
    parser.add_argument(
        "--detailed-exitcode", action="store_true", help="exit 2 if any host is touched"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Compare, and say so. Raises ConfigErrors with everything that does not compile."""
    followed = Followed.asked(args)
    given = None if args.facts is None else read_facts(args.facts)
    refs = [args.ref1, args.ref2]
    if followed is not None:
        given = given or followed.facts()
        args, refs = followed.options(args), [followed.commit(ref) for ref in refs]
    with closing(open_cache(out)) as cache:
        sides = [
            Desired(args.repo, ref, args.inventories, cache, out, allow_empty=args.allow_empty)
            for ref in refs
        ]
        hosts = _hosts(sides, args)
        diffs = _compare_all(sides, hosts, given, cache, out)
    if out.as_json:
        out.document(_document(args, sides, diffs))
    elif args.markdown:
        out.text(_markdown(args, diffs))
    else:
        out.lines(list(_lines(args, diffs)))
    touched = any(one.touched for one in diffs)
    return CHANGES if touched and args.detailed_exitcode else 0


def _hosts(sides: Sequence[Desired], args: argparse.Namespace) -> list[str]:
    """The hosts of either side: one that is added or removed is touched, too."""
    if not args.inventories:
        return [args.host or socket.gethostname()]
    limit = "all" if args.limit is None else args.limit
    found = list(dict.fromkeys(host for side in sides for host in side.select(limit)))
    if not found and not args.allow_empty:
        raise UsageError(f"no host matches {limit!r}", hint="see: reconciler inventory list")
    return found


def _compare_all(
    sides: Sequence[Desired],
    hosts: Sequence[str],
    given: Known | None,
    cache: CatalogCache,
    out: Output,
) -> list[HostDiff]:
    errors: list[ConfigError] = []
    diffs: list[HostDiff] = []
    known = [set(side.select("all")) if side.has_inventory else set(hosts) for side in sides]
    with out.progress("diff") as on_event:
        for index, host in enumerate(hosts, 1):
            on_event({"id": host, "index": index, "total": len(hosts)})
            facts, origin = facts_of(host, given, cache)
            try:
                before, after = (
                    _compiled(side, host, facts) if host in names else None
                    for side, names in zip(sides, known, strict=True)
                )
            except ConfigError as error:
                errors.append(error)
                continue
            diffs.append(HostDiff(host, origin, tuple(compare(before, after))))
    if errors:
        raise ConfigErrors(errors)
    return diffs


def _compiled(side: Desired, host: str, facts: Facts) -> Compiled | None:
    return side.project(host).compile(host, facts) if side.has_play(host) else None


# -- comparing -------------------------------------------------------------------------------


def compare(before: Compiled | None, after: Compiled | None) -> Iterator[Touched]:
    """What differs between two compiles of one host; None: there is nothing for it."""
    old, new = _by_id(before), _by_id(after)
    for id_, one in new.items():
        if id_ not in old:
            yield _touched(one, "create", _changes(None, _shown(one, after)))
            continue
        changes = list(_changes(_shown(old[id_], before), _shown(one, after)))
        changes += _secrets(old[id_], before, one, after)
        changes += _module(one.type, before, after)
        if changes:
            yield _touched(one, "change", changes)
    for id_, one in old.items():
        if id_ not in new:
            yield _touched(one, "remove", _changes(_shown(one, before), None))


def _by_id(compiled: Compiled | None) -> dict[str, Declaration]:
    return {} if compiled is None else {one.id: one for one in compiled.catalog.resources}


def _touched(
    one: Declaration, action: Literal["create", "change", "remove"], changes: Iterable[Change]
) -> Touched:
    return Touched(one.id, action, str(one.mark), one.title, tuple(changes))


def _shown(one: Declaration, compiled: Compiled | None) -> dict[str, Value]:
    """What a person may see of a declaration."""
    shown = {
        name: HIDDEN if one.no_log or _is_secret(value) else value
        for name, value in one.params.items()
    }
    parts = one.to_json()
    shown.update({name: parts[name] for name in PARTS if parts.get(name)})
    return shown  # type: ignore[return-value]  # what a catalog holds is JSON


def _is_secret(value: object) -> bool:
    return isinstance(value, dict) and "$secret" in value


def _changes(
    before: Mapping[str, Value] | None, after: Mapping[str, Value] | None
) -> Iterator[Change]:
    old, new = before or {}, after or {}
    for name in dict.fromkeys([*new, *old]):
        if old.get(name) != new.get(name):
            yield Change(name, old.get(name), new.get(name))


def _secrets(
    old: Declaration, before: Compiled | None, new: Declaration, after: Compiled | None
) -> Iterator[Change]:
    """Parameters whose value is not shown, and differs."""
    for name in dict.fromkeys([*old.params, *new.params]):
        one, other = old.params.get(name), new.params.get(name)
        hidden = old.no_log or new.no_log or _is_secret(one) or _is_secret(other)
        if hidden and _value(one, before) != _value(other, after):
            yield Change(name, f"{HIDDEN} (before)", f"{HIDDEN} (after)")


def _value(value: object, compiled: Compiled | None) -> object:
    if _is_secret(value) and compiled is not None:
        return compiled.secrets.get(value["$secret"])  # type: ignore[index]  # it is a mapping
    return value


def _module(type_: str, before: Compiled | None, after: Compiled | None) -> Iterator[Change]:
    """The state repo's own module of a type, which does what it says."""
    old, new = (one.catalog.modules.get(type_) if one else None for one in (before, after))
    if old != new:
        yield Change("module", "another text", "this text")


# -- showing ---------------------------------------------------------------------------------


def _groups(diffs: Sequence[HostDiff]) -> list[tuple[list[str], tuple[Touched, ...]]]:
    """Hosts that are touched in the same way; the largest group first."""
    groups: dict[str, tuple[list[str], tuple[Touched, ...]]] = {}
    for diff in diffs:
        if diff.touched:
            groups.setdefault(repr(diff.touched), ([], diff.touched))[0].append(diff.host)
    return sorted(groups.values(), key=lambda group: -len(group[0]))


def _summary(diffs: Sequence[HostDiff]) -> str:
    touched = sum(bool(diff.touched) for diff in diffs)
    ids = len({one.id for diff in diffs for one in diff.touched})
    origins = Counter(diff.facts for diff in diffs)
    facts = ", ".join(f"{origin}: {count}" for origin, count in origins.items())
    from_ = f" (facts from {facts})" if facts else ""
    return f"{touched} of {counted(len(diffs), 'host')} touched, {counted(ids, 'resource')}{from_}"


def _lines(args: argparse.Namespace, diffs: Sequence[HostDiff]) -> Iterator[Line]:
    yield line(Span("diff", "bold"), f" from {args.ref1} to {args.ref2}")
    for hosts, touched in _groups(diffs):
        yield line()
        yield line(Span(f"{counted(len(hosts), 'host')}: {_named(hosts)}", "bold"))
        for one in touched:
            yield from _resource(one)
    yield line()
    yield line(Span(f"diff: {_summary(diffs)}", "bold"))


def _resource(one: Touched) -> Iterator[Line]:
    symbol, style = SYMBOLS[one.action]
    title = f"  {one.title}" if one.title else ""
    yield line(Span(f"{symbol} {one.id}", style), title, Span(f"  {one.source}", "dim"))
    if one.action != "remove":
        yield from (change_line(change, one.action) for change in one.changes)


def _named(hosts: Sequence[str]) -> str:
    more = len(hosts) - HOSTS_SHOWN
    return ", ".join(hosts[:HOSTS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _markdown(args: argparse.Namespace, diffs: Sequence[HostDiff]) -> str:
    """What comes out of Git stands in code, where it is neither markup nor a mention."""
    text = f"### reconciler: {_summary(diffs)}\n\n{_code(args.ref1)} → {_code(args.ref2)}\n"
    for hosts, touched in _groups(diffs):
        rows = [plain(row) for one in touched for row in _resource(one)]
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "\n".join(rows))), default=0))
        part = (
            f"\n<details><summary>{counted(len(hosts), 'host')}, "
            f"{counted(len(touched), 'resource')}</summary>\n\n{_code(_named(hosts))}\n\n"
            f"{fence}diff\n" + "\n".join(_as_diff(row) for row in rows) + f"\n{fence}\n</details>\n"
        )
        if len(text) + len(part) > MARKDOWN:
            return f"{text}\nThere is more: `reconciler diff` shows all of it.\n"
        text += part
    return text


def _as_diff(row: str) -> str:
    """`~` is nothing that a viewer of diffs knows; `!` is shown as a change."""
    return f"!{row[1:]}" if row.startswith("~") else row


def _code(text: str) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{visible(text)}{space}{fence}"


def _document(
    args: argparse.Namespace, sides: Sequence[Desired], diffs: Sequence[HostDiff]
) -> dict[str, object]:
    before, after = sides
    return {
        "schema": ["reconciler/diff", 1],
        "from": {"ref": args.ref1, "commit": before.tree.commit},
        "to": {"ref": args.ref2, "commit": after.tree.commit},
        "touched": sum(bool(diff.touched) for diff in diffs),
        "hosts": [
            {
                "host": diff.host,
                "facts": diff.facts,
                "resources": [one.to_json() for one in diff.touched],
            }
            for diff in diffs
        ],
    }
