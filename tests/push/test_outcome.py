"""Many hosts, one exit code."""

from __future__ import annotations

import pytest

from reconciler.catalog import Plan, Report, Result
from reconciler.errors import (
    AuthFailed,
    ConfigError,
    ConnectionLost,
    HostUnfit,
    HostUnreachable,
    Interrupted,
    LockBusy,
    Mark,
    ProtocolError,
    ReconcilerError,
    TrustError,
)
from reconciler.push.outcome import Outcome, exit_code, of_document, of_error

HELD = Outcome("last", "held")


def report(status: str = "ok", *, interrupted: bool = False) -> Outcome:
    results = (Result("file:/x", status, Mark("site.yml")),)
    return of_document("web", Report("web", results, interrupted=interrupted), 1.0, 1)


def plan(status: str) -> Outcome:
    return of_document("web", Plan("web", (Result("file:/x", status, Mark("site.yml")),)), 1.0, 1)


def error(what: ReconcilerError) -> Outcome:
    return of_error("web", what)


OK, CHANGED, FAILED = report(), report("changed"), report("failed")
GONE = error(HostUnreachable("no"))


@pytest.mark.parametrize(
    "outcomes, stopped, interrupted, expected",
    [
        ([], False, False, 0),
        ([OK], False, False, 0),
        ([CHANGED, OK], False, False, 2),
        ([report("notified")], False, False, 2),
        ([plan("pending")], False, False, 2),
        ([plan("ok")], False, False, 0),
        ([plan("failed")], False, False, 4),
        ([FAILED, CHANGED], False, False, 4),
        ([report("blocked")], False, False, 4),
        ([GONE, OK], False, False, 5),
        ([error(AuthFailed("no")), CHANGED], False, False, 5),
        ([error(ConnectionLost("no")), error(HostUnfit("no"))], False, False, 5),
        ([FAILED, GONE], False, False, 6),
        ([FAILED, GONE, error(LockBusy("no"))], False, False, 6),
        ([error(LockBusy("no")), OK], False, False, 9),
        ([error(LockBusy("no")), FAILED], False, False, 4),
        ([error(ProtocolError("no")), OK], False, False, 1),
        ([FAILED, HELD], True, False, 7),
        ([GONE, HELD], True, False, 7),
        ([OK], True, False, 7),
        ([error(ConfigError("no")), FAILED, GONE], False, False, 3),
        ([error(ConfigError("no")), HELD], True, False, 3),
        ([error(TrustError("no")), OK], False, False, 10),
        ([report(interrupted=True), FAILED], False, False, 130),
        ([error(Interrupted("no")), OK, HELD], False, True, 130),
        ([OK, HELD], False, True, 130),
    ],
)
def test_the_exit_code_says_the_gravest_of_what_went_wrong(
    outcomes: list[Outcome], stopped: bool, interrupted: bool, expected: int
) -> None:
    assert exit_code(outcomes, stopped=stopped, interrupted=interrupted, detailed=True) == expected
    plain = exit_code(outcomes, stopped=stopped, interrupted=interrupted, detailed=False)
    assert plain == (0 if expected == 2 else expected)


@pytest.mark.parametrize(
    "outcome, state, failed, unreachable",
    [
        (OK, "ok", 0, 0),
        (CHANGED, "changed", 0, 0),
        (FAILED, "failed", 1, 0),
        (GONE, "unreachable", 0, 1),
        (error(ConfigError("no")), "failed", 1, 0),
        (error(LockBusy("no")), "failed", 1, 0),
        (error(ProtocolError("no")), "failed", 1, 0),
        (error(HostUnfit("no")), "unreachable", 0, 1),
        (report(interrupted=True), "interrupted", 0, 0),
    ],
)
def test_every_host_is_in_one_state_and_counts_once(
    outcome: Outcome, state: str, failed: int, unreachable: int
) -> None:
    assert outcome.state == state
    assert (outcome.tally.failed, outcome.tally.unreachable) == (failed, unreachable)
    assert outcome.good is (failed + unreachable == 0 and state != "interrupted")
