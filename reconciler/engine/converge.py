"""Carry a plan out: the only code in the product that changes a machine.

Each resource is looked at again at its turn, changed, and looked at once more: what still
differs has failed, whatever its commands returned. One failure stays one failure: what
depends on it is blocked, the rest converges. Handlers come last, each target once.

What must survive a kill at any instant is in the ledger before it is needed: see `ledger`.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Sequence, Set, Tuple

from reconciler.catalog import Catalog, Declaration, Report, Result, show_value
from reconciler.engine.diff import shown
from reconciler.engine.ledger import Known, Ledger
from reconciler.engine.limit import Boundary, limit
from reconciler.engine.order import Node, Order
from reconciler.engine.plan import (
    Call,
    Emit,
    Owed,
    Step,
    absorb,
    add_owed,
    blockers,
    bug,
    calls,
    chain,
    described,
    examine,
    failure,
    intent_of,
    look,
    read_ahead,
    recovered,
)
from reconciler.errors import Moved, NotConverged, ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.resource import Diff

#: How often a resource is tried again because somebody else changed it meanwhile.
TRIES = 3
#: Results are written to the ledger at least this often, in seconds; a kill loses history, no debt.
SETTLE = 1.0


@dataclass(frozen=True)
class Run:
    """Who runs, and how. id: unique. diff: whether texts are compared for the report."""

    id: str
    mode: str = "local"
    diff: bool = True


def converge(
    catalog: Catalog,
    order: Order,
    host: Host,
    ledger: Ledger,
    run: Run,
    boundary: Boundary,
    emit: Emit,
) -> Report:
    """Make the machine match the catalog. Fails per resource, never as a whole, unless the
    ledger cannot be written before the first change (ReconcilerError)."""
    started, clock = time.time(), time.monotonic()
    _sweep(ledger, host)
    steps = look(order, host, ledger, diff=run.diff)
    work = _Work(order, host, ledger, run, emit, recovered(order, ledger, steps))
    work.begin(catalog, steps)
    try:
        work.carry_out(steps, boundary)
        if not boundary.reached:
            work.deliver()
    finally:
        host.readonly = True
    report = Report(
        host=catalog.host,
        results=tuple(work.results.values()),
        commit=catalog.commit,
        dirty=catalog.dirty,
        warnings=(*ledger.warnings, *host.warnings),
        seconds=time.monotonic() - clock,
        run=run.id,
        mode=run.mode,
        started=started,
        interrupted=boundary.reached,
    )
    return work.end(report)


def _sweep(ledger: Ledger, host: Host) -> None:
    """Remove what a killed run left half-way: its temporary files."""
    for intent in ledger.intents():
        for path in intent.paths:
            host.files.sweep(path)


@dataclass
class _Work:
    """The state of one run, while it runs."""

    order: Order
    host: Host
    ledger: Ledger
    run: Run
    emit: Emit
    owed: Owed
    results: Dict[str, Result] = field(default_factory=dict)
    known: Dict[str, Known] = field(default_factory=dict)
    done: Set[str] = field(default_factory=set)  # changed by this run
    stale: bool = False  # something opaque has changed since the plan
    unsettled: List[Result] = field(default_factory=list)
    settled_at: float = 0.0
    intended: Set[str] = field(default_factory=set)

    # -- the beginning and the end -------------------------------------------------------

    def begin(self, catalog: Catalog, steps: Sequence[Step]) -> None:
        self.known = self.ledger.known()
        pending = [step.node for step in steps if step.pending]
        if not pending and not self.owed and not self.ledger.intents():
            return
        self.intended = {node.id for node in pending}
        intents = [intent_of(node) for node in pending]
        run = self.run
        self.ledger.begin(
            run.id, run.mode, catalog.host, catalog.commit, catalog.dirty, intents, self.owed
        )
        hidden = {
            path
            for node in self.order.nodes
            if node.declaration.no_log
            for path in intent_of(node).paths
        }

        def keep(path: str) -> None:
            self.ledger.keep_images(self.run.id, self.host, [path], hidden)

        self.ledger.keep_images(
            self.run.id, self.host, (path for intent in intents for path in intent.paths), hidden
        )
        self.host.before_change = keep

    def end(self, report: Report) -> Report:
        """Flush, and write the ledger; a ledger that cannot be written now is said aloud."""
        owned: Dict[str, Tuple[Declaration, Sequence[str], bool]] = {}
        for node in self.order.nodes:
            status = self.results[node.id].status if node.id in self.results else ""
            if status in ("ok", "changed"):
                owned[node.id] = (node.declaration, sorted(node.resource.claims()), True)
            elif status in ("failed", "blocked") and node.id in self.known:
                owned[node.id] = (node.declaration, sorted(node.resource.claims()), False)
        try:
            self.host.files.flush()
            self.settle()
            self.ledger.finish(report, owned)
        except (OSError, sqlite3.Error) as error:
            warning = f"the run went through, but could not be recorded: {error}"
            return replace(report, warnings=(*report.warnings, warning))
        return report

    def settle(self) -> None:
        """Write down what happened so far."""
        if self.unsettled or self.owed:
            self.ledger.settle(self.run.id, self.unsettled, self.owed)
            self.unsettled = []
        self.settled_at = time.monotonic()

    # -- resources -----------------------------------------------------------------------

    def carry_out(self, steps: Sequence[Step], boundary: Boundary) -> None:
        total = sum(step.pending for step in steps)
        queue = list(steps)
        while queue and not boundary.reached:
            step = queue.pop(0) if not self._is_idle(queue[0]) else None
            if step is None:
                self._pass_over(queue)
                continue
            batch = [step, *self._others(step, queue)]
            for one in batch:
                self.emit(
                    {"event": "start", "id": one.node.id, "index": len(self.done), "total": total}
                )
            self._turn(batch)
        self.results.update((step.node.id, step.result) for step in queue)

    def _is_idle(self, step: Step) -> bool:
        """In sync when planned, and nothing since then that could have changed that."""
        return (
            step.result.status == "ok"
            and not self.stale
            and not (self.order.requires[step.node.id] & self.done)
            and not blockers(self.order.requires[step.node.id], self.results.__getitem__)
        )

    def _pass_over(self, queue: List[Step]) -> None:
        count = 0
        while count < len(queue) and self._is_idle(queue[count]):
            result = queue[count].result
            self.results[result.id] = result
            count += 1
        del queue[:count]

    def _others(self, step: Step, queue: List[Step]) -> List[Step]:
        """Steps of the same batched type that may go together with `step`: taken from the queue.

        They overtake what stands between, so what stands between must not matter to them: they
        do not require it, and it is nothing opaque.
        """
        kind = type(step.node.resource)
        if not kind.batched or not step.pending:
            return []
        batch: List[Step] = []
        taken = {step.node.id}
        for other in list(queue):
            if type(other.node.resource) is kind and other.pending:
                if all(
                    one in self.results or one in taken
                    for one in self.order.requires[other.node.id]
                ):
                    batch.append(other)
                    taken.add(other.node.id)
                    queue.remove(other)
            elif other.pending and other.node.resource.opaque:
                break
        return batch

    def _turn(self, batch: Sequence[Step]) -> None:
        """Look again, change, look once more."""
        clock = time.monotonic()
        work: List[Tuple[Step, Diff]] = []
        if len(batch) > 1 or self.stale:
            read_ahead([step.node.resource for step in batch], self.host)
        for step in batch:
            blocked = blockers(self.order.requires[step.node.id], self.results.__getitem__)
            if blocked:
                self._conclude(step, replace(
                    step.result, status="blocked", action="", changes=(), diff="", because=blocked,
                    reason=f"waits for {chain(blocked[0], self.results.__getitem__)}, which failed",
                ), clock)  # fmt: skip
                continue
            try:
                diff = examine(step.node, self.host)
            except ResourceError as error:
                self._conclude(step, failure(step.result, error), clock)
                continue
            if diff:
                work.append((step, diff))
            else:
                self._conclude(step, self._already_there(step), clock)
        if work:
            self._change(work, clock)

    def _already_there(self, step: Step) -> Result:
        """In sync at its turn: as planned, or because an earlier change brought it along."""
        bringers = (
            tuple(sorted(self.order.requires[step.node.id] & self.done))
            or tuple(sorted(self.done))[-1:]
        )
        if step.result.status == "pending":
            add_owed(self.order, self.owed, step.node)
            return replace(
                step.result,
                status="changed",
                because=bringers,
                reason=f"brought by {', '.join(bringers)}" if bringers else "",
            )
        return replace(step.result, status="ok", action="", reason="", because=())

    def _change(self, work: Sequence[Tuple[Step, Diff]], clock: float) -> None:
        described_as = {
            step.node.id: described(
                replace(step.result, because=(), reason=""),
                step.node,
                diff,
                self.host,
                self.known,
                text=self.run.diff,
            )
            for step, diff in work
        }
        try:
            for step, _ in work:
                if step.node.id not in self.intended:
                    self.ledger.intend(self.run.id, intent_of(step.node))
        except sqlite3.Error as error:
            for step, _ in work:
                self._conclude(
                    step,
                    failure(
                        step.result,
                        ResourceError(
                            f"the ledger cannot be written, so nothing is changed: {error}"
                        ),
                    ),
                    clock,
                )
            return
        outcomes = self._apply(work)
        nodes = [step.node for step, _ in work]
        self.host.forget(opaque=any(node.resource.opaque for node in nodes))
        self.stale = self.stale or any(node.resource.opaque for node in nodes)
        if len(nodes) > 1:
            read_ahead([node.resource for node in nodes], self.host)
        for (step, diff), error in zip(work, outcomes):
            result = described_as[step.node.id]
            error = error or self._verify(step.node)
            if error is not None:
                self._conclude(step, failure(result, error), clock)
                continue
            if step.node.resource.absorbs(diff):
                self.ledger.delivered(absorb(self.order, self.owed, step.node))
            self.done.add(step.node.id)
            add_owed(self.order, self.owed, step.node)
            self._conclude(step, replace(result, status="changed"), clock)

    def _apply(self, work: Sequence[Tuple[Step, Diff]]) -> List[Optional[ReconcilerError]]:
        """What came of each: None, or its error."""
        first = work[0][0].node
        seconds = max(step.node.declaration.timeout for step, _ in work)
        self.host.readonly = False
        try:
            with limit(self.host, seconds):
                if len(work) > 1:
                    return list(
                        type(first.resource).apply_many(
                            self.host, [(s.node.resource, d) for s, d in work]
                        )
                    )
                self._apply_one(first, work[0][1])
                return [None]
        except ReconcilerError as error:
            return [error] * len(work)
        except Exception as error:
            return [bug(first, error)] * len(work)
        finally:
            self.host.readonly = True

    def _apply_one(self, node: Node, diff: Diff) -> None:
        for _ in range(TRIES - 1):
            try:
                node.resource.apply(self.host, diff)
                return
            except Moved:
                self.host.forget()
                diff = Diff(node.resource.actual(self.host), node.resource.desired())
        node.resource.apply(self.host, diff)

    def _verify(self, node: Node) -> Optional[ReconcilerError]:
        try:
            left = examine(node, self.host)
        except ReconcilerError as error:
            return error
        if not left:
            return None
        changes = shown(left, node.declaration.no_log)
        still = ", ".join(
            f"{c.attribute} is {show_value(c.before)}, not {show_value(c.after)}" for c in changes
        )
        return NotConverged(
            f"applied without an error, but still differs: {still or 'it is still there'}"
        )

    def _conclude(self, step: Step, result: Result, clock: float) -> None:
        result = replace(result, seconds=time.monotonic() - clock)
        self.results[result.id] = result
        if result.status != "ok":
            self.unsettled.append(result)
            self.emit({"event": "result", "result": result.to_json()})
        elif step.node.id in self.intended:
            self.unsettled.append(result)
        if time.monotonic() - self.settled_at > SETTLE:
            try:
                self.settle()
            except sqlite3.Error:
                return  # tried again at the end, where it is said aloud

    # -- handlers ------------------------------------------------------------------------

    def deliver(self) -> None:
        """Carry out what is owed, in declared order; what fails stays owed."""
        if not self.owed:
            return
        self.host.files.flush()
        self.settle()
        seen: Set[str] = set()
        while True:
            call = next((c for c in calls(self.order, self.owed) if c.node.id not in seen), None)
            if call is None:
                return
            seen.update((call.node.id, *call.covers))
            self.emit(
                {
                    "event": "start",
                    "id": call.node.id,
                    "index": len(self.done),
                    "total": len(self.done),
                }
            )
            self._deliver_one(call)

    def _deliver_one(self, call: Call) -> None:
        clock = time.monotonic()
        declaration = call.node.declaration
        result = Result(
            call.node.id,
            "notified",
            declaration.mark,
            declaration.title,
            "notify",
            because=call.because,
            tags=declaration.tags,
        )
        error = self._notify(call.node)
        if error is not None:
            result = failure(result, error)
        else:
            delivered = [call.node.id, *call.covers]
            for handler in delivered:
                self.owed.pop(handler, None)
            self.ledger.delivered(delivered)
            add_owed(self.order, self.owed, call.node)
        result = replace(result, seconds=time.monotonic() - clock)
        self.results[result.id] = result
        self.unsettled.append(result)
        self.emit({"event": "result", "result": result.to_json()})
        for other in call.covers:
            covered = self.order.handlers[other].declaration
            self.results[other] = Result(
                other,
                "ok" if error is None else result.status,
                covered.mark,
                covered.title,
                reason=f"{call.node.id} does it",
            )

    def _notify(self, node: Node) -> Optional[ReconcilerError]:
        """A handler that can be notified is; any other is converged like a resource."""
        self.host.forget()
        try:
            if node.resource.refresh() is None:
                diff = examine(node, self.host)
                if not diff:
                    return None
                return self._apply(
                    [(Step(node, Result(node.id, "pending", node.declaration.mark)), diff)]
                )[0] or self._verify(node)
            self.host.readonly = False
            with limit(self.host, node.declaration.timeout):
                node.resource.on_notify(self.host)
            return None
        except ReconcilerError as error:
            return error
        except Exception as error:
            return bug(node, error)
        finally:
            self.host.readonly = True
            self.host.forget()
