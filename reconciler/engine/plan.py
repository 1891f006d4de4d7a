"""Compare a catalog with the machine, without touching it.

A plan on an empty host neither fails nor lies because a package, a user or a directory will
only exist after an earlier resource: what is not there yet, but will be brought by something
that is pending before it, is planned as if it were absent; what only that earlier change can
decide is `unknown`, and says what it waits for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable

from reconciler.catalog import TIMEOUT, Catalog, Plan, Result
from reconciler.engine.diff import harmless, shown, unified
from reconciler.engine.ledger import Intent, Ledger, Memory, Takeover
from reconciler.engine.limit import limit
from reconciler.engine.order import Node, Order
from reconciler.errors import NotYet, ReconcilerError, ResourceError, unforeseen
from reconciler.host import Host
from reconciler.resource import Diff, Resource, Secret

Emit = Callable[[Mapping[str, object]], None]

#: Seconds for the text of one difference: difflib may take long over two that are unlike, and what
#: is to be healed waits for it.
TEXT_TIMEOUT = 5.0
#: Characters of text in one plan or report: it must fit into a frame.
DIFFS = 8 << 20


@dataclass(frozen=True)
class Step:
    """What a plan found for one node. diff: None where it could not be looked at."""

    node: Node
    result: Result
    diff: Diff | None = None

    @property
    def pending(self) -> bool:
        """Whether converge has something to do here, or must look to know."""
        return self.result.status in ("pending", "unknown")


def plan(
    catalog: Catalog, order: Order, host: Host, ledger: Ledger | None, *, diff: bool = True
) -> Plan:
    """The plan of a whole catalog: every resource, then the handlers that will be notified."""
    started = time.monotonic()
    steps = look(order, host, ledger, diff=diff)
    results = [step.result for step in steps]
    results += _foreseen(order, steps, recovered(order, ledger, steps)[0])
    return Plan(
        host=catalog.host,
        results=tuple(results),
        commit=catalog.commit,
        dirty=catalog.dirty,
        warnings=tuple(order.veil.text(one) for one in host.warnings),
        seconds=time.monotonic() - started,
    )


def look(order: Order, host: Host, ledger: Ledger | None, *, diff: bool) -> list[Step]:
    """Look at every node, in order. Nothing is changed: acts of the host raise."""
    host.readonly = True
    memory = Memory.of(ledger, host.root)
    steps: list[Step] = []
    found: dict[str, Step] = {}
    opaque: list[str] = []
    room = DIFFS
    with host.files.reading():
        read_ahead((node.resource for node in order.nodes), host)
        for node in order.nodes:
            waits = [one for one in sorted(order.requires[node.id]) if found[one].pending]
            step = _look_at(node, host, found, order, waits or opaque[-1:], memory)
            if step.pending and step.diff is not None:
                text = diff and room > 0 and order.secret.isdisjoint(node.files)
                result = described(step.result, node, step.diff, host, memory, text=text)
                step = replace(step, result=result)
                room -= len(result.diff)
            if step.pending and node.resource.opaque:
                opaque.append(node.id)
            if step.result.status != "ok":
                step = replace(step, result=order.veil.over(step.result))
            found[node.id] = step
            steps.append(step)
    return steps


def read_ahead(resources: Iterable[Resource], host: Host) -> None:
    """Let each type read for all its resources at once."""
    by_type: dict[type[Resource], list[Resource]] = {}
    for resource in resources:
        by_type.setdefault(type(resource), []).append(resource)
    for kind, members in by_type.items():
        if kind.actual_many.__func__ is Resource.actual_many.__func__:
            continue
        try:
            with limit(host, TIMEOUT):
                kind.actual_many(members, host)
        except Exception:  # noqa: BLE001, S112  each of them meets the same error, and says so
            continue


def examine(node: Node, host: Host) -> Diff:
    """The difference, now. Raises ResourceError; a bug in a module becomes one."""
    try:
        with limit(host, node.declaration.timeout):
            return Diff(node.resource.actual(host), node.resource.desired())
    except ResourceError:
        raise
    except Exception as error:
        raise bug(node, error) from error


def bug(node: Node, error: Exception) -> ResourceError:
    """An exception that no module should let through, as an error that names the place."""
    return ResourceError(
        f"the module of type '{node.declaration.type}' failed: {unforeseen(error)}",
        hint="this is a bug in the module, not in the state repo",
    )


def blockers(requires: Iterable[str], result_of: Callable[[str], Result]) -> tuple[str, ...]:
    """The requirements that failed or are blocked themselves."""
    return tuple(one for one in sorted(requires) if result_of(one).status in ("failed", "blocked"))


def chain(first: str, result_of: Callable[[str], Result]) -> str:
    """The way from a blocked resource to the failure behind it, for a person."""
    path = [first]
    while result_of(path[-1]).status == "blocked":
        path.append(result_of(path[-1]).because[0])
    return " <- ".join(path)


def _look_at(
    node: Node,
    host: Host,
    found: Mapping[str, Step],
    order: Order,
    waits: Sequence[str],
    memory: Memory,
) -> Step:
    declaration = node.declaration
    result = Result(node.id, "ok", declaration.mark, declaration.title, tags=declaration.tags)
    blocked = blockers(order.requires[node.id], lambda id: found[id].result)
    if blocked:
        path = chain(blocked[0], lambda id: found[id].result)
        return Step(
            node,
            replace(
                result, status="blocked", because=blocked, reason=f"waits for {path}, which failed"
            ),
        )
    try:
        diff = examine(node, host)
    except NotYet as error:
        if not waits:
            return Step(node, failure(result, error, no_log=declaration.no_log))
        reason = f"after {', '.join(waits)}"
        wish = Diff(None, node.resource.desired())
        if node.resource.opaque or not wish:
            verb = "run" if node.resource.opaque else "remove"
            return Step(node, _undecided(result, verb, f"decided {reason}", waits))
        pending = replace(result, status="pending", reason=reason, because=tuple(waits))
        return Step(node, pending, wish)
    except ResourceError as error:
        if any(one in order.requires[node.id] for one in waits):
            reason = f"decided after {', '.join(waits)}; now: {error.message}"
            return Step(node, _undecided(result, "change", reason, waits))
        return Step(node, failure(result, error, no_log=declaration.no_log))
    if diff:
        return _pending(node, diff, host, result, order, waits)
    brought = diff.after is None and waits and found[waits[0]].node.resource.opaque
    if brought and not memory.settled(declaration):
        # What a package brings is not known before it was there once.
        reason = f"absent now; looked at again after {waits[0]}"
        return Step(node, _undecided(result, "remove", reason, waits), diff)
    return Step(node, result, diff)


def _pending(
    node: Node, diff: Diff, host: Host, result: Result, order: Order, waits: Sequence[str]
) -> Step:
    """A difference to close, if what that takes is there, or comes before it."""
    pending = replace(result, status="pending")
    if diff.after is None:
        return Step(node, pending, diff)
    try:
        node.resource.ready(host)
    except NotYet as error:
        if not waits:
            return Step(node, failure(result, error, no_log=node.declaration.no_log))
        if any(one in order.requires[node.id] for one in waits):
            return Step(node, pending, diff)
        reason = f"after {', '.join(waits)}"
        return Step(node, replace(pending, reason=reason, because=tuple(waits)), diff)
    return Step(node, pending, diff)


def _undecided(result: Result, verb: str, reason: str, waits: Sequence[str]) -> Result:
    return replace(result, status="unknown", action=verb, reason=reason, because=tuple(waits))


def failure(result: Result, error: ReconcilerError, *, no_log: bool) -> Result:
    """The result of a resource that failed. What a program said may be secret: after the first
    line of a message comes nothing else."""
    reason = error.message.partition("\n")[0] if no_log else error.message
    return replace(result, status="failed", reason=harmless(reason), hint=harmless(error.hint))


def described(
    result: Result, node: Node, diff: Diff, host: Host, memory: Memory, *, text: bool
) -> Result:
    """A result with the difference in it: verb, attributes, texts, and why it differs."""
    if not diff:
        return result
    hidden = node.declaration.no_log
    verb = "remove" if diff.after is None else "create" if diff.before is None else "change"
    return replace(
        result,
        action="run" if node.resource.opaque and diff.before == {"done": False} else verb,
        changes=shown(diff, hidden),
        diff="" if hidden or not text or not _showable(diff) else _text(node, diff, host),
        cause=memory.cause(node.declaration),
    )


def _showable(diff: Diff) -> bool:
    return not any(isinstance(value, Secret) for value in (diff.after or {}).values())


def _text(node: Node, diff: Diff, host: Host) -> str:
    """The texts before and after as a unified diff. A plan must not fail for want of one."""
    try:
        with limit(host, min(TEXT_TIMEOUT, node.declaration.timeout), grace=0.0):
            texts = node.resource.preview(host, diff)
            return unified(*texts, node.declaration.key.split("#", 1)[0]) if texts else ""
    except Exception:  # noqa: BLE001  whatever a module's preview does
        return ""


# -- notifications -----------------------------------------------------------------------

Owed = dict[str, list[str]]
"""Handlers that must be notified: id -> the resources that did it."""


@dataclass(frozen=True)
class Call:
    """A handler to carry out. covers: weaker handlers of the same target, done by this one."""

    node: Node
    because: tuple[str, ...]
    covers: tuple[str, ...] = ()


def _foreseen(order: Order, steps: Sequence[Step], owed: Owed) -> list[Result]:
    """The handlers that will act, and those that may: a service that a package brings is perhaps
    started by that package, before what it is notified of, or only later by us."""
    unsure: Owed = {}
    starter: dict[str, str] = {}
    for step in steps:
        if not step.pending:
            continue
        if step.diff is not None and step.node.resource.absorbs(step.diff):
            before = dict(owed)
            for handler in absorb(order, owed, step.node):
                if step.result.because:
                    unsure[handler] = before[handler]
                    starter[handler] = step.node.id
        add_owed(owed, step.node)
    results = [_call(call, "owed") for call in calls(order, owed)]
    for call in calls(order, {one: unsure[one] for one in unsure if one not in owed}):
        reason = f"unless {starter[call.node.id]} is started only by this run"
        results.append(replace(_call(call, "unknown"), reason=reason))
    return results


def _call(call: Call, status: str) -> Result:
    declaration = call.node.declaration
    return Result(
        call.node.id,
        status,
        declaration.mark,
        declaration.title,
        "notify",
        because=call.because,
    )


def add_owed(owed: Owed, node: Node) -> None:
    """A change of `node` notifies its handlers."""
    for handler in node.declaration.notify:
        because = owed.setdefault(handler, [])
        if node.id not in because:
            because.append(node.id)


def absorb(order: Order, owed: Owed, node: Node) -> list[str]:
    """`node` was just started: what was owed to it so far is done. The handlers concerned."""
    claims = node.resource.claims()
    done: list[str] = []
    for handler in list(owed):
        refresh = order.handlers[handler].resource.refresh() if handler in order.handlers else None
        if refresh is not None and refresh.target in claims:
            del owed[handler]
            done.append(handler)
    return done


def recovered(order: Order, ledger: Ledger | None, steps: Sequence[Step]) -> tuple[Owed, Takeover]:
    """What earlier runs still owe to the handlers of this catalog, killed runs included; and
    what of that the ledger does not know yet.

    An intent whose resource is in sync now: its change went through before the kill. So it
    may be with one that this catalog does not have.
    """
    if ledger is None:
        return {}, Takeover({}, ())
    status = {step.node.id: step.result.status for step in steps}
    taken: Owed = {}
    answered: list[str] = []
    for intent in ledger.intents():
        if status.get(intent.resource, "ok") == "ok":
            answered.append(intent.resource)
            for handler in intent.notify:
                taken.setdefault(handler, []).append(intent.resource)
    owed: Owed = {handler: list(because) for handler, because in ledger.owed().items()}
    for handler, because in taken.items():
        known = owed.setdefault(handler, [])
        known += [one for one in because if one not in known]
    mine = {handler: because for handler, because in owed.items() if handler in order.handlers}
    return mine, Takeover(taken, tuple(answered))


def calls(order: Order, owed: Mapping[str, Sequence[str]]) -> list[Call]:
    """The handlers to carry out, in declared order; of several on one target only the
    strongest, for a restart does what a reload would."""
    strongest: dict[str, tuple[int, str]] = {}
    members: dict[str, list[str]] = {}
    for id, node in order.handlers.items():
        refresh = node.resource.refresh() if id in owed else None
        if refresh is not None:
            members.setdefault(refresh.target, []).append(id)
            if refresh.strength > strongest.get(refresh.target, (-1, ""))[0]:
                strongest[refresh.target] = (refresh.strength, id)
    found: list[Call] = []
    for id, node in order.handlers.items():
        if id not in owed:
            continue
        refresh = node.resource.refresh()
        if refresh is None:
            found.append(Call(node, tuple(owed[id])))
        elif strongest[refresh.target][1] == id:
            covers = tuple(other for other in members[refresh.target] if other != id)
            because = dict.fromkeys(one for member in (id, *covers) for one in owed[member])
            found.append(Call(node, tuple(because), covers))
    return found


def intent_of(node: Node) -> Intent:
    """What the ledger is told before `node` is changed."""
    claims = (claim.partition(":") for claim in node.resource.claims())
    paths = {
        what.split("#", 1)[0] if kind == "line" else what
        for kind, _, what in claims
        if kind in ("path", "line")
    }
    return Intent(node.id, node.declaration.notify, tuple(sorted(paths)))


def slight_paths(nodes: Iterable[Node]) -> set[str]:
    """The paths of which only attributes are declared: owner, group, mode."""
    slight: set[str] = set()
    others: set[str] = set()
    for node in nodes:
        kinds = {claim.partition(":")[0] for claim in node.resource.claims()}
        paths = slight if kinds == {"path", "attribute"} else others
        paths.update(intent_of(node).paths)
    return slight - others
