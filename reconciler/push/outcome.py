"""What came of a host in a fleet run, and of all of them: states, and one exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reconciler.catalog import Plan, Report
from reconciler.engine.wire import error_from_json, error_to_json
from reconciler.errors import (
    ConfigError,
    Held,
    Interrupted,
    LockBusy,
    ReconcilerError,
    ResourceError,
    TransportError,
    TrustError,
)
from reconciler.push.rollout import Tally

State = Literal["ok", "changed", "pending", "failed", "unreachable", "interrupted", "held"]
#: In the order in which they are shown. `pending` is a plan that differs; `held` never began.
STATES: tuple[State, ...] = (
    "ok", "changed", "pending", "failed", "unreachable", "interrupted", "held",
)  # fmt: skip
#: What a host is that needs no second run.
GOOD: frozenset[State] = frozenset(("ok", "changed", "pending"))
CHANGES = 2
BOTH = 6


@dataclass(frozen=True)
class Outcome:
    """One host.

    document: its plan or report, of which results that are in sync may have been dropped; counts:
    of all of them. error: why there is none. attempts: how often it was connected to. facts: where
    another machine asked for them, what the host says about itself.
    """

    host: str
    state: State
    document: Plan | Report | None = None
    error: ReconcilerError | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 1
    facts: Mapping[str, Any] | None = None

    @property
    def good(self) -> bool:
        """Whether nothing is left to be done or looked at."""
        return self.state in GOOD

    @property
    def tally(self) -> Tally:
        """Its part in what is held against the limits."""
        return Tally(int(self.state == "failed"), int(self.state == "unreachable"))

    @property
    def exit_code(self) -> int:
        """What a run over this host alone would end with; CHANGES where it differs or changed."""
        if self.error is not None:
            return self.error.exit_code
        codes = {"failed": ResourceError.exit_code, "interrupted": Interrupted.exit_code}
        codes.update({"changed": CHANGES, "pending": CHANGES, "held": Held.exit_code})
        return codes.get(self.state, 0)

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Outcome], tuple[dict[str, Any]]]:
        """Between processes it travels as JSON: an error is made from more than it is pickled with."""
        return _unpacked, (_packed(self),)


def of_document(host: str, document: Plan | Report, seconds: float, attempts: int) -> Outcome:
    """A host that answered."""
    state: State = "ok"
    if isinstance(document, Report) and document.interrupted:
        state = "interrupted"
    elif document.failed:
        state = "failed"
    elif isinstance(document, Plan):
        state = "pending" if document.differs else "ok"
    elif document.changed:
        state = "changed"
    return Outcome(host, state, document, None, document.counts(), seconds, attempts)


def of_error(host: str, error: ReconcilerError, seconds: float = 0.0, attempts: int = 1) -> Outcome:
    """A host that did not answer, or could not be asked."""
    error.host = error.host or host
    state: State = "failed"
    if isinstance(error, Interrupted):
        state = "interrupted"
    elif error.exit_code == TransportError.exit_code:
        state = "unreachable"
    return Outcome(host, state, None, error, {}, seconds, attempts)


def exit_code(
    outcomes: Iterable[Outcome], *, stopped: bool = False, interrupted: bool = False, detailed: bool
) -> int:
    """One code for a run over many hosts: the gravest of what went wrong with any of them.

    stopped: the rollout held hosts back, or a check failed. interrupted: it was told to stop.
    detailed: changes count, if nothing went wrong.
    """
    codes = {outcome.exit_code for outcome in outcomes}
    if stopped:
        codes.add(Held.exit_code)
    if interrupted:
        codes.add(Interrupted.exit_code)
    both = {ResourceError.exit_code, TransportError.exit_code}
    if both <= codes:
        codes.add(BOTH)
    gravest = (
        Interrupted.exit_code,
        TrustError.exit_code,
        ConfigError.exit_code,
        Held.exit_code,
        ReconcilerError.exit_code,
        BOTH,
        *sorted(both),
        LockBusy.exit_code,
    )
    found = next((code for code in gravest if code in codes), 0)
    return found or (CHANGES if detailed and CHANGES in codes else 0)


# -- between processes -------------------------------------------------------------------------


def _packed(outcome: Outcome) -> dict[str, Any]:
    document, error = outcome.document, outcome.error
    return {
        "host": outcome.host,
        "state": outcome.state,
        "plan": document.to_json() if isinstance(document, Plan) else None,
        "report": document.to_json() if isinstance(document, Report) else None,
        "error": error_to_json(error) if error is not None else None,
        "counts": dict(outcome.counts),
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "facts": outcome.facts,
    }


def _unpacked(packed: dict[str, Any]) -> Outcome:
    plan, report, error = packed["plan"], packed["report"], packed["error"]
    document: Plan | Report | None = None
    if plan is not None:
        document = Plan.from_json(plan)
    elif report is not None:
        document = Report.from_json(report)
    return Outcome(
        packed["host"],
        packed["state"],
        document,
        None if error is None else error_from_json(error),
        packed["counts"],
        packed["seconds"],
        packed["attempts"],
        packed["facts"],
    )
