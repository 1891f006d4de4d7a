"""In which order resources converge, and which cannot stand side by side.

Declared order is the order. `requires`, and needs that meet claims (a file needs its
directory, a service its unit file), move a resource behind what it depends on; among equals
the declared order stays. What is to be absent goes the other way round: first the user, then
its group. An implied requirement never overrules an explicit one: it is left out where both
together would be a cycle.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
)

from reconciler.catalog import Declaration, decode_param
from reconciler.errors import ClaimConflict, ConfigError, ConfigErrors, CycleError
from reconciler.resource import Resource


class Node(NamedTuple):
    """A declaration with its live resource."""

    declaration: Declaration
    resource: Resource

    @property
    def id(self) -> str:
        """The declaration's id."""
        return self.declaration.id


@dataclass(frozen=True)
class Order:
    """nodes: in the order to converge, without handlers. handlers: in declared order, by id.
    requires: id -> ids that come first, explicit and implied."""

    nodes: Tuple[Node, ...]
    handlers: Mapping[str, Node]
    requires: Mapping[str, Set[str]] = field(default_factory=dict)


def arrange(nodes: Sequence[Node]) -> Order:
    """Put the nodes of a catalog in order. Raises ConfigErrors: conflicts, cycles."""
    ordinary = [node for node in nodes if not node.declaration.handler]
    handlers = {node.id: node for node in nodes if node.declaration.handler}
    claims, errors = _claims(ordinary)
    errors += _unknown(ordinary, handlers)
    position = {node.id: index for index, node in enumerate(ordinary)}
    requires: Dict[str, Set[str]] = {
        node.id: {other for other in node.declaration.requires if other in position}
        for node in ordinary
    }
    by_id = {node.id: node for node in ordinary}
    cycle = _cycle(requires, position)
    if cycle:
        errors.append(_cycle_error([by_id[one] for one in cycle]))
    if errors:
        raise ConfigErrors(errors)
    for first, then in _implied(ordinary, claims):
        # An edge against the declared order is the only kind that can close a cycle.
        if position[first] < position[then] or not _reaches(requires, first, then):
            requires[then].add(first)
    return Order(tuple(by_id[one] for one in _sorted(requires, position)), handlers, requires)


def check(
    declarations: Sequence[Declaration], load_type: Callable[[str], Optional[Type[Resource]]]
) -> List[ConfigError]:
    """The errors that `arrange` would raise, for compile.

    load_type: the class of a type, None for one whose code must not run here (the state
    repo's own); those are checked by the engine.
    """
    nodes: List[Node] = []
    for declaration in declarations:
        kind = load_type(declaration.type)
        if kind is not None:
            hidden = _AnySecret()
            params = {
                name: decode_param(value, hidden) for name, value in declaration.params.items()
            }
            nodes.append(Node(declaration, kind(**params)))
    try:
        arrange(nodes)
    except ConfigErrors as error:
        return list(error.errors)
    return []


class _AnySecret(Dict[str, str]):
    """Order does not depend on secrets: every handle stands for the same text."""

    def __missing__(self, handle: str) -> str:
        return handle


def _claims(nodes: Sequence[Node]) -> Tuple[Dict[str, Node], List[ConfigError]]:
    """Who claims what; errors for what is claimed twice."""
    claims: Dict[str, Node] = {}
    errors: List[ConfigError] = []
    contested: Set[Tuple[str, str]] = set()
    for node in nodes:
        for claim in sorted(node.resource.claims(), reverse=True):
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


def _unknown(nodes: Sequence[Node], handlers: Mapping[str, Node]) -> List[ConfigError]:
    errors: List[ConfigError] = []
    for node in [*nodes, *handlers.values()]:
        for handler in node.declaration.notify:
            if handler not in handlers:
                errors.append(
                    ConfigError(
                        f"{node.id} notifies {handler}, which is not there",
                        mark=node.declaration.mark,
                    )
                )
    return errors


def _implied(nodes: Sequence[Node], claims: Mapping[str, Node]) -> Iterable[Tuple[str, str]]:
    """Pairs (first, then) that follow from needs and claims."""
    absent = {node.id for node in nodes if node.resource.desired() is None}
    below: Dict[str, List[Node]] = {}
    for node in nodes:
        for need in sorted(node.resource.needs()):
            if need.endswith("/**"):
                if need not in below:
                    start = need[:-2]
                    below[need] = [
                        other for claim, other in claims.items() if claim.startswith(start)
                    ]
                others = below[need]
            else:
                found = claims.get(need)
                others = [found] if found is not None else []
            for other in others:
                if other is not node and other.id not in absent and node.id not in absent:
                    yield other.id, node.id
                elif other is not node and other.id in absent and node.id in absent:
                    yield node.id, other.id


def _reaches(requires: Mapping[str, Set[str]], start: str, goal: str) -> bool:
    todo, seen = [start], {start}
    while todo:
        one = todo.pop()
        if one == goal:
            return True
        fresh = requires[one] - seen
        seen |= fresh
        todo.extend(fresh)
    return False


def _sorted(requires: Mapping[str, Set[str]], position: Mapping[str, int]) -> Iterable[str]:
    """Topological order; among those that are free, the one declared first."""
    waiting = {one: len(firsts) for one, firsts in requires.items()}
    then: Dict[str, List[str]] = {one: [] for one in requires}
    for one, firsts in requires.items():
        for first in firsts:
            then[first].append(one)
    free = [(position[one], one) for one, count in waiting.items() if count == 0]
    heapq.heapify(free)
    while free:
        _, one = heapq.heappop(free)
        yield one
        for other in then[one]:
            waiting[other] -= 1
            if waiting[other] == 0:
                heapq.heappush(free, (position[other], other))


def _cycle(requires: Mapping[str, Set[str]], position: Mapping[str, int]) -> List[str]:
    """One cycle, from the resource declared first; empty if there is none."""
    stuck = set(requires) - set(_sorted(requires, position))
    if not stuck:
        return []
    one = min(stuck, key=lambda other: position[other])
    path: List[str] = []
    while one not in path:
        path.append(one)
        one = min(requires[one] & stuck, key=lambda other: position[other])
    return path[path.index(one) :]


def _cycle_error(cycle: Sequence[Node]) -> CycleError:
    steps = [f"{node.id} ({node.declaration.mark})" for node in [*cycle, cycle[0]]]
    return CycleError(
        "these resources wait for each other: " + " requires ".join(steps),
        mark=cycle[0].declaration.mark,
        hint="take one `requires` out",
    )
