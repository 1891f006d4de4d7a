"""In which order resources converge, and which cannot stand side by side.

Declared order is the order. `requires`, and needs that meet claims (a file needs its
directory, a service its unit file), move a resource behind what it depends on; among equals
the declared order stays. What is to be absent goes the other way round: first the user, then
its group. An implied requirement never overrules an explicit one: it is left out where both
together would be a cycle.
"""

from __future__ import annotations

import heapq
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import (
    Callable,
    NamedTuple,
)

from reconciler.catalog import Declaration
from reconciler.engine.diff import Veil
from reconciler.engine.loader import built
from reconciler.errors import ClaimConflict, ConfigError, ConfigErrors, CycleError, ReconcilerError
from reconciler.resource import Resource, Secret


class Node(NamedTuple):
    """A declaration with its live resource."""

    declaration: Declaration
    resource: Resource

    @property
    def id(self) -> str:
        """The declaration's id."""
        return self.declaration.id

    @property
    def files(self) -> set[str]:
        """What its claims name, also as parts of a file."""
        return {*self._names, *(re.split("[#:]", name)[0] for name in self._names)}

    @property
    def shares(self) -> bool:
        """Whether it has no more than a part of a file."""
        return any(re.search("[#:]", name) for name in self._names)

    @property
    def _names(self) -> list[str]:
        return [claim.partition(":")[2] for claim in self.resource.claims()]


@dataclass(frozen=True)
class Order:
    """nodes: in the order to converge, without handlers. handlers: by id, in declared order,
    but each before those that it notifies. requires: id -> ids that come first, explicit and
    implied. veil: hides the secrets of the nodes. hides: as `Catalog` has it."""

    nodes: tuple[Node, ...]
    handlers: Mapping[str, Node]
    requires: Mapping[str, set[str]] = field(default_factory=dict)
    veil: Veil = field(default_factory=Veil)
    hides: bool = False

    @cached_property
    def secret(self) -> set[str]:
        """Files of which `no_log` has a part, or what was left out may have one."""
        return {
            file
            for one in self.nodes
            if one.declaration.no_log or (self.hides and one.shares)
            for file in one.files
        }


def arrange(nodes: Sequence[Node], elsewhere: Iterable[str] = (), *, hides: bool = False) -> Order:
    """Put the nodes of a catalog in order. Raises ConfigErrors: conflicts, cycles.

    elsewhere: ids that are in the catalog, but not among these nodes. hides: as `Catalog` has it.
    """
    ordinary: list[_Face] = []
    errors: list[ConfigError] = []
    for node in nodes:
        if not node.declaration.handler:
            try:
                ordinary.append(_faced(node))
            except ConfigError as error:
                errors.append(error)
    handlers = {node.id: node for node in nodes if node.declaration.handler}
    claims, conflicts = _claims(ordinary)
    errors += conflicts
    errors += _twice([node for node in nodes if node.declaration.handler])
    errors += _unknown(nodes, {*handlers, *elsewhere})
    by_id = {face.node.id: face.node for face in ordinary}
    requires = {
        id: {one for one in node.declaration.requires if one in by_id} for id, node in by_id.items()
    }
    notifies = {
        id: {one for one in node.declaration.notify if one in handlers}
        for id, node in handlers.items()
    }
    errors += _cycle(requires, "requires", by_id) + _cycle(notifies, "notifies", handlers)
    if errors:
        raise ConfigErrors(errors)
    _imply(requires, list(_implied(ordinary, claims)))
    # A handler goes before those that it notifies, so that each is carried out once.
    return Order(
        tuple(by_id[one] for one in _sorted(requires)),
        {one: handlers[one] for one in _sorted(_reversed(notifies))},
        requires,
        Veil(
            value
            for node in nodes
            for value in vars(node.resource).values()
            if isinstance(value, Secret)
        ),
        hides,
    )


def check(
    declarations: Sequence[Declaration], load_type: Callable[[str], type[Resource] | None]
) -> list[ConfigError]:
    """The errors that `arrange` would raise, for compile.

    load_type: the class of a type, None for one whose code must not run here (the state
    repo's own); those are checked by the engine.
    """
    nodes: list[Node] = []
    foreign: list[str] = []
    errors: list[ConfigError] = []
    for declaration in declarations:
        kind = load_type(declaration.type)
        try:
            if kind is not None:
                nodes.append(Node(declaration, built(declaration, kind, _AnySecret())))
                continue
        except ConfigError as error:
            errors.append(error)
        foreign.append(declaration.id)
    try:
        arrange(nodes, foreign)
    except ConfigErrors as error:
        errors += error.errors
    return errors


class _AnySecret(dict[str, str]):
    """Order does not depend on secrets: every handle stands for the same text."""

    def __missing__(self, handle: str) -> str:
        return handle


class _Face(NamedTuple):
    """What order has to know of a node."""

    node: Node
    claims: set[str]
    needs: set[str]
    absent: bool


def _faced(node: Node) -> _Face:
    resource = node.resource
    try:
        return _Face(node, resource.claims(), resource.needs(), resource.desired() is None)
    except ReconcilerError as error:
        raise ConfigError(error.message, mark=node.declaration.mark, hint=error.hint) from error
    except Exception as error:
        raise ConfigError(
            f"{node.id}: the module of type '{node.declaration.type}' failed: {type(error).__name__}: {error}",
            mark=node.declaration.mark,
        ) from error


def _claims(faces: Sequence[_Face]) -> tuple[dict[str, Node], list[ConfigError]]:
    """Who claims what; errors for what is claimed, or declared, twice."""
    claims: dict[str, Node] = {}
    errors: list[ConfigError] = []
    contested: set[tuple[str, str]] = set()
    for node, claimed, _, _ in faces:
        for claim in (*sorted(claimed, reverse=True), f"id:{node.id}"):
            other = claims.setdefault(claim, node)
            if other is not node and (other.id, node.id) not in contested:
                contested.add((other.id, node.id))
                errors.append(_conflict(claim, other, node))
    for claim, node in claims.items():
        if claim.startswith("line:"):
            other = claims.get("content:" + claim[len("line:") :].split("#", 1)[0])
            if other is not None:
                errors.append(_conflict(claim, other, node))
    return claims, errors


def _conflict(claim: str, one: Node, other: Node) -> ClaimConflict:
    what = claim.partition(":")[2].split("#", 1)[0]
    return ClaimConflict(
        f"{_named(one)} and {_named(other)} both manage {what}: "
        f"{one.declaration.mark} and {other.declaration.mark}",
        mark=other.declaration.mark,
        hint="declare it once, with all that is wanted of it",
    )


def _named(node: Node) -> str:
    written = node.declaration.declared_as or node.declaration.type
    return f"{written}:{node.declaration.key}"


def _twice(handlers: Sequence[Node]) -> Iterator[ConfigError]:
    """Handlers of one name: a notification would not say which of them it means."""
    first: dict[str, Node] = {}
    for node in handlers:
        other = first.setdefault(node.id, node)
        if other is not node:
            yield ConfigError(
                f"two handlers are named '{node.declaration.title}': "
                f"{other.declaration.mark} and {node.declaration.mark}",
                mark=node.declaration.mark,
                hint="give one of them another name",
            )


def _unknown(nodes: Sequence[Node], handlers: set[str]) -> Iterator[ConfigError]:
    for node in nodes:
        for handler in node.declaration.notify:
            if handler not in handlers:
                yield ConfigError(
                    f"{node.id} notifies {handler}, which is not there", mark=node.declaration.mark
                )


def _implied(faces: Sequence[_Face], claims: Mapping[str, Node]) -> Iterator[tuple[str, str]]:
    """Pairs (first, then) that follow from needs and claims."""
    absent = {face.node.id for face in faces if face.absent}
    below = _Below(claims)
    for node, _, needs, gone in faces:
        for need in sorted(needs):
            if need.endswith("/**"):
                others = below.claimants(need[:-2])
            else:
                found = claims.get(need)
                others = [found] if found is not None else []
            for other in others:
                if other is not node and (other.id in absent) == gone:
                    yield (node.id, other.id) if gone else (other.id, node.id)


class _Below:
    """Finds who claims something below a directory; a catalog has many of both."""

    def __init__(self, claims: Mapping[str, Node]) -> None:
        self._claims = claims
        self._sorted = sorted(claims)
        self._place = {claim: place for place, claim in enumerate(claims)}

    def claimants(self, start: str) -> list[Node]:
        """Those whose claim begins with `start`, which ends with a slash, as they were declared."""
        first = bisect_left(self._sorted, start)
        last = bisect_left(self._sorted, start[:-1] + chr(ord("/") + 1), first)
        found = sorted(self._sorted[first:last], key=self._place.__getitem__)
        return [self._claims[claim] for claim in found]


def _imply(requires: dict[str, set[str]], pairs: Sequence[tuple[str, str]]) -> None:
    """Add the implied pairs to what is explicit; where all together would be a cycle, leave
    out those against the order that the explicit ones alone give."""
    whole = {id: set(firsts) for id, firsts in requires.items()}
    for first, then in pairs:
        whole[then].add(first)
    if len(list(_sorted(whole))) == len(whole):
        requires.update(whole)
        return
    place = {id: index for index, id in enumerate(_sorted(requires))}
    against = [(first, then) for first, then in pairs if place[first] > place[then]]
    for first, then in pairs:
        if place[first] < place[then]:
            requires[then].add(first)
    for first, then in against:
        if not _reaches(requires, first, then):
            requires[then].add(first)


def _reaches(requires: Mapping[str, set[str]], start: str, goal: str) -> bool:
    todo, seen = [start], {start}
    while todo:
        one = todo.pop()
        if one == goal:
            return True
        fresh = requires[one] - seen
        seen |= fresh
        todo.extend(fresh)
    return False


def _reversed(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    turned: dict[str, set[str]] = {one: set() for one in edges}
    for one, others in edges.items():
        for other in others:
            turned[other].add(one)
    return turned


def _sorted(requires: Mapping[str, set[str]]) -> Iterator[str]:
    """Topological order; among those that are free, the one declared first. What is in a
    cycle, or behind one, is not in it."""
    names = list(requires)
    position = {one: index for index, one in enumerate(names)}
    waiting = {one: len(firsts) for one, firsts in requires.items()}
    then = _reversed(requires)
    free = [position[one] for one, count in waiting.items() if count == 0]
    while free:
        one = names[heapq.heappop(free)]
        yield one
        for other in then[one]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(free, position[other])


def _cycle(
    edges: Mapping[str, set[str]], verb: str, nodes: Mapping[str, Node]
) -> list[ConfigError]:
    """The error that names one cycle, from the resource declared first; none if there is none."""
    done = set(_sorted(edges))
    stuck = {one: index for index, one in enumerate(edges) if one not in done}
    if not stuck:
        return []
    one = min(stuck, key=stuck.__getitem__)
    path: dict[str, int] = {}
    while one not in path:
        path[one] = len(path)
        one = min(edges[one] & stuck.keys(), key=stuck.__getitem__)
    cycle = list(path)[path[one] :]
    mark = nodes[cycle[0]].declaration.mark
    steps = [f"{id} ({nodes[id].declaration.mark})" for id in [*cycle, cycle[0]]]
    if verb == "requires":
        waits, hint = "these resources wait for each other", "take one `requires` out"
    else:
        waits, hint = "these handlers notify each other without end", "take one `notify` out"
    return [CycleError(f"{waits}: " + f" {verb} ".join(steps), mark=mark, hint=hint)]
