"""What is remembered, what suspends, and what is said of it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.agent import state as module
from reconciler.agent.places import Places
from reconciler.agent.state import State, carry_over, resume, suspend, suspension
from reconciler.agent.status import Live, compose, exit_code, oneline
from reconciler.errors import UsageError

GOOD = "a" * 40


def settled() -> State:
    return State(
        trusted=GOOD,
        applied=GOOD,
        good=GOOD,
        resources={"total": 3},
        source={"last_success": 100.0},
    )


def status(state: State, now: float = 110.0, **more: object) -> dict[str, str]:
    document = compose(state, Live(), None, now=now, **more)  # type: ignore[arg-type]
    return {one["type"]: one["status"] for one in document["conditions"]}


def test_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    state = settled()
    state.problem("fetch", {"message": "no route"}, 5.0)
    state.save(places)
    assert State.load(places) == state


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"trusted": 7, "problems": []}', b"\x00" * 100]
)
def test_damaged_state_starts_anew(tmp_path: Path, damage: bytes) -> None:
    places = Places(str(tmp_path))
    settled().save(places)
    Path(places.state).write_bytes(damage)
    assert State.load(places) == State()


def test_a_problem_keeps_its_beginning_until_it_is_another_one() -> None:
    state = State()
    state.problem("fetch", {"message": "a"}, 1.0)
    state.problem("fetch", {"message": "a"}, 2.0)
    assert state.problems["fetch"]["since"] == 1.0
    state.problem("fetch", {"message": "b"}, 3.0)
    assert state.problems["fetch"]["since"] == 3.0
    state.problem("fetch", None, 4.0)
    assert state.problems == {}


def test_an_unknown_server_is_a_matter_of_trust_until_a_remote_answers() -> None:
    state = settled()
    assert state.unreached({"type": "SourceError", "message": "no route"}, 1.0)
    assert state.unreached({"type": "UnknownServer", "message": "another key"}, 2.0)
    assert not state.unreached({"type": "UnknownServer", "message": "another key"}, 3.0)
    assert set(state.problems) == {"server"}
    assert status(state)["Trusted"] == "False"
    assert state.reached()
    assert not state.reached()
    assert status(state)["Trusted"] == "True"


def test_a_suspension_ends_by_itself_and_survives_what_is_in_between(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    held = suspend(places, "TICKET-7", 3600, "alice")
    assert suspension(places) == held
    assert suspension(places, held.until + 1) is None
    assert resume(places)
    assert not resume(places)
    assert suspension(places) is None


@pytest.mark.parametrize("jump", [365 * 86400.0, -365 * 86400.0])
def test_a_suspension_ends_when_it_was_asked_to_whatever_the_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    places, since_boot, clock = Places(str(tmp_path)), time.clock_gettime, time.time
    held = suspend(places, "TICKET-7", 3600, "alice")
    monkeypatch.setattr(time, "time", lambda: clock() + jump)
    assert suspension(places) == held
    monkeypatch.setattr(time, "clock_gettime", lambda kind: since_boot(kind) + 3599)
    assert suspension(places) == held
    monkeypatch.setattr(time, "clock_gettime", lambda kind: since_boot(kind) + 3601)
    assert suspension(places) is None


def test_a_suspension_outlives_a_boot_into_the_past_and_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without a clock of its own begins in 1970, until the network tells."""
    places, clock = Places(str(tmp_path)), time.time
    held = suspend(places, "TICKET-7", 3600, "alice")
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    monkeypatch.setattr(time, "time", lambda: clock() - 3650 * 86400)
    monkeypatch.setattr(time, "clock_gettime", lambda _: 5.0)
    carried = carry_over(places)
    assert carried == suspension(places)
    assert carried is not None
    assert (carried.reason, carried.until) == (held.reason, held.until)
    monkeypatch.setattr(time, "clock_gettime", lambda _: 5 + 3599.0)
    assert suspension(places) == carried
    monkeypatch.setattr(time, "clock_gettime", lambda _: 5 + 3601.0)
    assert suspension(places) is None


def test_a_suspension_needs_a_reason_and_an_end(tmp_path: Path) -> None:
    for reason, seconds in ((" ", 60), ("why", 0), ("why", 8 * 86400)):
        with pytest.raises(UsageError):
            suspend(Places(str(tmp_path)), reason, seconds, "alice")


def test_a_host_that_is_as_it_should_be_is_green_and_no_other() -> None:
    state = settled()
    document = compose(state, Live(), None, now=110.0)
    assert exit_code(document) == 0
    assert oneline(document) == f"in sync at {GOOD[:12]}, 3 resources"
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    "kind, condition, code",
    [
        ("trust", "Trusted", 10),
        ("server", "Trusted", 10),
        ("fetch", "SourceFresh", 5),
        ("compile", "Ready", 3),
        ("run", "Ready", 3),
    ],
)
def test_each_problem_has_its_condition_and_its_exit_code(
    kind: str, condition: str, code: int
) -> None:
    state = settled()
    state.problem(kind, {"message": "no", "type": "TrustError"}, 1.0)
    document = compose(state, Live(), None, now=110.0)
    assert {one["type"]: one["status"] for one in document["conditions"]}[condition] == "False"
    assert exit_code(document) == code
    assert condition in oneline(document)


def test_suspended_is_never_green(tmp_path: Path) -> None:
    held = suspend(Places(str(tmp_path)), "why", 60, "bob")
    document = compose(settled(), Live(), held, now=time.time())
    assert exit_code(document) == 7
    assert "in sync" not in oneline(document)


def test_an_old_word_of_the_remote_is_an_alarm() -> None:
    assert status(settled(), now=110.0, max_age=60.0)["SourceFresh"] == "True"
    assert status(settled(), now=1000.0, max_age=60.0)["SourceFresh"] == "False"
    # A clock that was set back: nobody knows how long ago it was.
    assert status(settled(), now=10.0, max_age=60.0)["SourceFresh"] == "False"


def test_a_branch_that_has_not_advanced_for_too_long_is_an_alarm() -> None:
    state = replace(settled(), first_seen=100.0)
    assert status(state, now=150.0, max_quiet=60.0)["SourceFresh"] == "True"
    state.source["last_success"] = 1000.0
    assert status(state, now=1000.0, max_age=60.0)["SourceFresh"] == "True"
    assert status(state, now=1000.0, max_quiet=60.0)["SourceFresh"] == "False"


def test_drift_failures_and_fights_are_out_of_sync() -> None:
    for state, live in (
        (settled(), Live(contended=["file:/a"])),
        (replace(settled(), drifted=["file:/a"]), Live()),
        (replace(settled(), failed={"file:/a": "no"}), Live()),
        (replace(settled(), good="b" * 40), Live()),
    ):
        document = compose(state, live, None, now=110.0)
        assert exit_code(document) == 4


def test_a_condition_keeps_its_beginning_while_it_stays() -> None:
    state = settled()
    compose(state, Live(), None, now=110.0)
    first = {one["type"]: one["since"] for one in state.conditions}
    compose(state, Live(), None, now=500.0)
    assert {one["type"]: one["since"] for one in state.conditions} == first


def test_what_cannot_be_reached_and_what_failed_are_one_exit_code() -> None:
    state = settled()
    state.problem("fetch", {"message": "no route"}, 1.0)
    assert exit_code(compose(state, Live(), None, now=110.0)) == 5
    state.failed = {"file:/etc/motd": "no space"}
    assert exit_code(compose(state, Live(), None, now=110.0)) == 6
    state.problem("trust", {"message": "not signed"}, 1.0)
    assert exit_code(compose(state, Live(), None, now=110.0)) == 10


def test_a_run_that_broke_off_says_nothing_of_the_machine() -> None:
    state = settled()
    state.problem("run", {"message": "the run ended with code -9"}, 1.0)
    assert (status(state)["Ready"], status(state)["InSync"]) == ("False", "Unknown")
    assert exit_code(compose(state, Live(), None, now=110.0)) == 3


def test_drift_of_the_time_of_a_run_is_counted_once() -> None:
    before, after = settled(), settled()
    before.drifted = after.drifted = ["file:/etc/motd"]
    before.counted_at = after.counted_at = 100.0
    totals = dict(before.totals)
    before.count_drift(130.0)
    after.catch_up(before, totals)
    after.count_drift(140.0)
    assert after.totals["drift_seconds_total"] == 40.0
