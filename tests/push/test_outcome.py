"""Many hosts, one exit code."""

from __future__ import annotations

import pickle

import pytest

from reconciler.catalog import Plan, Report, Result
from reconciler.errors import (
    AuthFailed,
    CommandFailed,
    ConfigError,
    ConfigErrors,
    ConnectionLost,
    HostUnfit,
    HostUnreachable,
    Interrupted,
    InventoryError,
    LockBusy,
    Mark,
    ProtocolError,
    ReconcilerError,
    ResourceError,
    SchemaError,
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


class NoSource(InventoryError):
    """A kind of error that only the room it is raised in knows."""


def sent(outcome: Outcome) -> Outcome:
    """As another process gets it."""
    found: Outcome = pickle.loads(pickle.dumps(outcome))  # noqa: S301  our own
    return found


@pytest.mark.parametrize("outcome", [OK, CHANGED, FAILED, HELD, plan("changed")])
def test_an_outcome_goes_to_another_process_and_back(outcome: Outcome) -> None:
    assert sent(outcome) == outcome


@pytest.mark.parametrize(
    "before, after",
    [
        (LockBusy("busy", hint="wait"), LockBusy),
        (NoSource("there is no hosts.yml"), InventoryError),
        (CommandFailed(["ls"], 2, "no such file"), ResourceError),
    ],
)
def test_an_error_goes_to_another_process_under_the_nearest_name_of_its_kind(
    before: ReconcilerError, after: type[ReconcilerError]
) -> None:
    found = sent(of_error("web", before))
    assert found.error is not None
    assert type(found.error) is after
    assert (found.error.message, found.error.hint) == (before.message, before.hint)
    assert (found.state, found.error.host, found.exit_code) == ("failed", "web", before.exit_code)


def test_several_errors_go_to_another_process_each_with_its_place() -> None:
    wrong = [SchemaError(f"{n}", mark=Mark("site.yml", n, 2)) for n in (1, 2)]
    found = sent(of_error("web", ConfigErrors(wrong))).error
    assert isinstance(found, ConfigErrors)
    assert [(type(one), one.mark) for one in found.errors] == [
        (SchemaError, Mark("site.yml", 1, 2)), (SchemaError, Mark("site.yml", 2, 2)),
    ]  # fmt: skip
