"""Carry a plan out: the only code in the product that changes a machine.

Each resource is looked at again at its turn, changed, and looked at once more: what still
differs has failed, whatever its commands returned. One failure stays one failure: what
depends on it is blocked, the rest converges. Handlers come last, each target once.

What must survive a kill at any instant is in the ledger before it is needed: see `ledger`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from reconciler.catalog import Catalog, Report, Result, show_value
from reconciler.engine import image
from reconciler.engine.diff import shown
from reconciler.engine.ledger import Ledger, Memory, Owning, Takeover
from reconciler.engine.limit import Boundary, limit
from reconciler.engine.order import Node, Order
from reconciler.engine.plan import (
    DIFFS,
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
    slight_paths,
)
from reconciler.errors import Moved, NotConverged, ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.resource import Diff, Secret

#: How often a resource is tried again because somebody else changed it meanwhile.
TRIES = 3
#: Results are written to the ledger at least this often, in seconds; a kill loses history, no debt.
SETTLE = 1.0


@dataclass(frozen=True)
class Run:
    """Who runs, and how. id: unique. diff: whether the report has what texts were; the ledger does."""

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
    steps = look(order, host, ledger, diff=False)  # texts are compared when they are changed
    owed, taken = recovered(order, ledger, steps)
    work = _Work(order, host, ledger, run, emit, boundary, owed)
    work.begin(catalog, steps, taken)
    try:
        work.carry_out(steps)
        work.deliver()
    finally:
        host.readonly = True
        host.before_change = lambda path: None
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
    return work.end(report, whole=not catalog.partial)


def _sweep(ledger: Ledger, host: Host) -> None:
    """Remove what a killed run left half-way: its temporary files."""
    intents = ledger.intents()
    for path in {path for intent in intents for path in intent.paths}:
        host.files.sweep(path)
    if intents:
        image.sweep(ledger.root)


@dataclass
class _Work:
    """The state of one run, while it runs.

    results: by id. unsettled: those that the ledger does not know yet. closed: resources of
    which it is known whether they were changed. intended: those whose change the ledger knows
    to be coming. tried: those whose change was begun and failed. done: changed by this run.
    opaque: the last of them that may have changed anything. room: for texts. trouble: why the
    ledger does not know all yet. fragile: what the disk may have lost, which nothing mends.
    """

    order: Order
    host: Host
    ledger: Ledger
    run: Run
    emit: Emit
    boundary: Boundary
    owed: Owed
    results: dict[str, Result] = field(default_factory=dict)
    memory: Memory = field(default_factory=lambda: Memory({}))
    unsettled: list[Result] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    intended: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    interrupted: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    opaque: str = ""
    room: int = DIFFS
    settled_at: float = field(default_factory=time.monotonic)
    trouble: str = ""
    fragile: list[str] = field(default_factory=list)

    # -- the beginning and the end -------------------------------------------------------

    def begin(self, catalog: Catalog, steps: Sequence[Step], taken: Takeover) -> None:
        self.memory = Memory.of(self.ledger, self.host.root)
        self.interrupted = {intent.resource for intent in self.ledger.intents()}
        pending = [step.node for step in steps if step.pending]
        if not pending and not self.owed and not taken.intents:
            return
        self.intended = {node.id for node in pending}
        intents = [intent_of(node) for node in pending]
        self.ledger.begin(
            self.run.id,
            self.run.mode,
            catalog.host,
            catalog.commit,
            catalog.dirty,
            intents,
            taken,
        )
        hidden = self.order.secret
        slight = slight_paths(self.order.nodes)

        def keep(path: str) -> None:
            try:
                self.ledger.keep_images(self.run.id, self.host, [path], hidden, slight)
            except sqlite3.Error as error:
                raise self._unwritable(error) from error

        try:
            paths = (path for intent in intents for path in intent.paths)
            self.ledger.keep_images(self.run.id, self.host, paths, hidden, slight)
        except ResourceError:
            pass  # it is tried again when its turn comes, and then that resource fails
        self.host.before_change = keep

    def end(self, report: Report, *, whole: bool) -> Report:
        """Flush, and write the ledger; a ledger that cannot be written now is said aloud.

        whole: the catalog has all that there is, so what is owed to a handler that it does not
        have is owed to nobody: some day another one may have that name.
        """
        owned: dict[str, Owning] = {}
        for node in self.order.nodes:
            status = self.results[node.id].status if node.id in self.results else ""
            if status in ("ok", "changed"):
                owned[node.id] = _owning(node, converged=True)
            elif status in ("failed", "blocked") and node.id in self.memory.known:
                owned[node.id] = _owning(node, converged=False)
        # What a run that was told to stop never began, it owes nothing for.
        self.closed |= self.intended - self.tried
        self.settle()
        lost: dict[str, tuple[str, ...]] = {}
        try:
            if not self.trouble:
                self.ledger.finish(report, owned)
                if whole and not report.interrupted:
                    lost = self.ledger.write_off(self.order.handlers.keys())
        except sqlite3.Error as error:
            self.trouble = self._unrecorded(error)
        forgotten = (
            f"{handler} is declared no more; that {', '.join(because)} notified it is forgotten"
            for handler, because in lost.items()
        )
        troubles = (*forgotten, *self.fragile, *filter(None, [self.trouble]))
        return replace(report, warnings=(*report.warnings, *troubles))

    def settle(self) -> None:
        """Make what was written durable, and write down what happened so far.

        If that fails the run goes on: the intents are still in the ledger, so nothing that is
        owed can be lost. A file that the disk has lost differs again after a power failure, so
        that what it owes comes up again, too.
        """
        self.settled_at = time.monotonic()
        try:
            self.host.files.flush()
        except OSError as error:
            where = f" in {error.filename}" if error.filename else ""
            self.fragile.append(
                f"what was written{where} may not survive a power failure: {error.strerror}"
            )
        try:
            if self.unsettled or self.owed or self.closed:
                self.ledger.settle(self.run.id, self.unsettled, self.owed, self.closed)
        except sqlite3.Error as error:
            self.trouble = self._unrecorded(error)
        else:
            self.unsettled, self.closed, self.trouble = [], set(), ""

    def _unrecorded(self, error: sqlite3.Error) -> str:
        return f"the run went through, but could not be recorded in {self.ledger.path}: {error}"

    def _unwritable(self, error: sqlite3.Error) -> ResourceError:
        return ResourceError(
            f"the ledger {self.ledger.path} cannot be written, so nothing is changed: {error}"
        )

    def _delivered(self, handlers: Sequence[str]) -> None:
        try:
            self.ledger.delivered(handlers)
        except sqlite3.Error as error:
            self.trouble = self._unrecorded(error)

    # -- resources -----------------------------------------------------------------------

    def carry_out(self, steps: Sequence[Step]) -> None:
        total = sum(step.pending for step in steps)
        for index, step in enumerate(steps):
            if step.node.id in self.results:
                continue  # it went along with an earlier one
            if self.boundary.reached or self._is_idle(step):
                self.results[step.node.id] = step.result
                continue
            batch = [step, *self._others(step, islice(steps, index + 1, None))]
            for one in batch:
                begun = {"id": one.node.id, "index": len(self.done), "total": total}
                self.emit({"event": "start", **begun})
            if self.boundary.reached:  # nobody was there to hear that
                self.results[step.node.id] = step.result
                continue
            self._turn(batch)

    def _is_idle(self, step: Step) -> bool:
        """In sync when planned, and nothing since then that could have changed that."""
        if step.result.status != "ok" or self.opaque:
            return False
        requires = self.order.requires[step.node.id]
        return self.done.isdisjoint(requires) and not self._blockers(step)

    def _blockers(self, step: Step) -> tuple[str, ...]:
        return blockers(self.order.requires[step.node.id], self.results.__getitem__)

    def _others(self, step: Step, later: Iterable[Step]) -> list[Step]:
        """Steps of the same batched type that may go together with `step`.

        Those that are `ahead` overtake what stands between, so that must not matter to them: they
        require neither it nor one another, and it is nothing opaque.
        """
        kind = type(step.node.resource)
        if not kind.batched or not step.pending:
            return []
        batch: list[Step] = []
        for other in later:
            if type(other.node.resource) is kind and other.pending:
                if self.results.keys() >= self.order.requires[other.node.id]:
                    batch.append(other)
            elif other.pending and (other.node.resource.opaque or kind.batched == "adjacent"):
                break
        return batch

    def _turn(self, batch: Sequence[Step]) -> None:
        """Look again, change, look once more."""
        clock = time.monotonic()
        work: list[tuple[Step, Diff]] = []
        if len(batch) > 1 or self.opaque:
            read_ahead([step.node.resource for step in batch], self.host)
        for step in batch:
            blocked = self._blockers(step)
            if blocked:
                path = chain(blocked[0], self.results.__getitem__)
                self._conclude(step, replace(
                    step.result, status="blocked", action="", changes=(), diff="", because=blocked,
                    reason=f"waits for {path}, which failed",
                ), clock)  # fmt: skip
                continue
            try:
                diff = examine(step.node, self.host)
            except ResourceError as error:
                self._fail(step, step.result, error, clock)
                continue
            if diff:
                work.append((step, diff))
            else:
                self._conclude(step, self._already_there(step), clock)
        if work:
            self._change(work, clock)

    def _already_there(self, step: Step) -> Result:
        """In sync at its turn: as planned, or because an earlier change brought it along, or
        because it was changed by a run that was killed."""
        if step.result.status != "pending":
            if step.node.id in self.interrupted:
                add_owed(self.owed, step.node)
            return replace(step.result, status="ok", action="", reason="", because=())
        add_owed(self.owed, step.node)
        bringers = tuple(sorted(self.order.requires[step.node.id] & self.done))
        if not bringers and self.opaque:
            bringers = (self.opaque,)
        reason = f"brought by {', '.join(bringers)}" if bringers else ""
        return replace(step.result, status="changed", because=bringers, reason=reason)

    def _change(self, work: Sequence[tuple[Step, Diff]], clock: float) -> None:
        described_as = {step.node.id: self._described(step, diff) for step, diff in work}
        try:
            for step, _ in work:
                if step.node.id not in self.intended:
                    self.ledger.intend(self.run.id, intent_of(step.node))
                    self.intended.add(step.node.id)
        except sqlite3.Error as error:
            for step, _ in work:
                self._fail(step, step.result, self._unwritable(error), clock)
            return
        outcomes = self._apply(work)
        nodes = [step.node for step, _ in work]
        opaque = [node.id for node in nodes if node.resource.opaque]
        self.host.forget(opaque=bool(opaque))
        self.opaque = opaque[-1] if opaque else self.opaque
        if len(nodes) > 1:
            read_ahead([node.resource for node in nodes], self.host)
        for (step, diff), error in zip(work, outcomes):
            result = described_as[step.node.id]
            error = error or self._verify(step.node)
            if error is not None:
                self.tried.add(step.node.id)
                self._fail(step, result, error, clock)
                continue
            if step.node.resource.absorbs(diff):
                self._delivered(absorb(self.order, self.owed, step.node))
            self.done.add(step.node.id)
            add_owed(self.owed, step.node)
            self._conclude(step, replace(result, status="changed"), clock)

    def _described(self, step: Step, diff: Diff) -> Result:
        """What is about to be done, which may be more than the plan could know."""
        before = replace(step.result, because=(), reason="")
        # Of what is created the ledger keeps none.
        text = self.room > 0 and (self.run.diff or diff.before is not None)
        text = text and self.order.secret.isdisjoint(step.node.files)
        result = described(before, step.node, diff, self.host, self.memory, text=text)
        self.room -= len(result.diff)
        return result

    def _apply(self, work: Sequence[tuple[Step, Diff]]) -> list[ReconcilerError | None]:
        """What came of each: None, or its error."""
        first = work[0][0].node
        seconds = max(step.node.declaration.timeout for step, _ in work)
        self.host.readonly = False
        try:
            with limit(self.host, seconds):
                if len(work) == 1:
                    self._apply_one(first, work[0][1])
                    return [None]
                pairs = [(step.node.resource, diff) for step, diff in work]
                outcomes: list[ReconcilerError | None] = [
                    *type(first.resource).apply_many(self.host, pairs)
                ]
                if len(outcomes) != len(work):
                    raise ValueError(f"{len(outcomes)} outcomes of {len(work)} changes")
                return outcomes
        except ReconcilerError as error:
            return [error] * len(work)
        except Exception as error:  # noqa: BLE001  one failure stays one failure
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
                if not diff:
                    return
        node.resource.apply(self.host, diff)

    def _verify(self, node: Node) -> ReconcilerError | None:
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

    def _fail(self, step: Step, result: Result, error: ReconcilerError, clock: float) -> None:
        self._conclude(step, failure(result, error, no_log=step.node.declaration.no_log), clock)

    def _conclude(self, step: Step, result: Result, clock: float) -> None:
        self._tell(replace(result, seconds=time.monotonic() - clock))
        if step.node.id not in self.tried:
            self.closed.add(step.node.id)
        if time.monotonic() - self.settled_at > SETTLE:
            self.settle()

    def _tell(self, result: Result) -> None:
        result = self.order.veil.over(result)
        if result.status != "ok":
            self.unsettled.append(result)
        if not self.run.diff:
            result = replace(result, diff="")
        self.results[result.id] = result
        if result.status != "ok":
            self.emit({"event": "result", "result": result.to_json()})

    # -- handlers ------------------------------------------------------------------------

    def deliver(self) -> None:
        """Carry out what is owed, in order; what fails stays owed."""
        if self.owed and not self.boundary.reached:
            self.settle()
        seen: set[str] = set()
        while not self.boundary.reached:
            call = next((c for c in calls(self.order, self.owed) if c.node.id not in seen), None)
            if call is None:
                return
            seen.update((call.node.id, *call.covers))
            count = len(self.done)
            self.emit({"event": "start", "id": call.node.id, "index": count, "total": count})
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
            result = failure(result, error, no_log=declaration.no_log)
        else:
            for handler in (call.node.id, *call.covers):
                self.owed.pop(handler, None)
            add_owed(self.owed, call.node)
            self._delivered((call.node.id, *call.covers))
        self._tell(replace(result, seconds=time.monotonic() - clock))
        status = "ok" if error is None else "failed"
        for other in call.covers:
            covered = self.order.handlers[other].declaration
            reason = f"{call.node.id} does it"
            self.results[other] = Result(other, status, covered.mark, covered.title, reason=reason)

    def _notify(self, node: Node) -> ReconcilerError | None:
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
        except Exception as error:  # noqa: BLE001  one failure stays one failure
            return bug(node, error)
        finally:
            self.host.readonly = True
            self.host.forget()


def _owning(node: Node, *, converged: bool) -> Owning:
    """How it is undone is kept, unless that would hold a secret."""
    undo = node.resource.undone()
    secret = node.declaration.no_log or any(isinstance(v, Secret) for v in (undo or {}).values())
    claims = sorted(node.resource.claims())
    return Owning(node.declaration, claims, None if secret else undo, converged)
