"""Which commit a run goes by, whatever became of the memory of it, and whatever fails on the way."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.test_worker import SITE, Machine, pointers
from reconciler.agent import windows
from reconciler.agent.asking import Asking
from reconciler.agent.link import Provider
from reconciler.agent.state import State
from reconciler.agent.status import Live, compose, exit_code
from reconciler.errors import ConfigError
from reconciler.source.mark import Marks

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return Machine(tmp_path)


def code(state: State) -> int:
    return exit_code(compose(state, Live(), None, now=time.time()))


def test_what_a_person_resets_trust_to_is_what_the_host_is_held_to(machine: Machine) -> None:
    """A commit with a stolen key was applied: going back is what the reset is for."""
    good = machine.commit(SITE)
    machine.run()
    evil = machine.commit(SITE.replace("hello", "owned"))
    assert pointers(machine.run().state) == (evil, "", evil, evil)
    Marks(machine.places.trust).reset(good, "a stolen key", "alice")
    state = machine.run("sweep", fetch=False).state
    assert pointers(state) == (good, "", good, good)
    assert machine.motd() == "hello\n"
    assert state.subject["commit"] == good
    assert state.subject["subject"] == "a change"
    assert (state.subject["signer"], state.subject["verified"]) == ("reset by alice", "reset")


def test_a_run_that_was_killed_before_it_had_written_its_state_leads_nowhere_back(
    machine: Machine,
) -> None:
    machine.commit(SITE)
    machine.run()
    before = Path(machine.places.state).read_bytes()
    second = machine.commit(SITE.replace("hello", "good morning"))
    machine.run()
    Path(machine.places.state).write_bytes(before)
    state = machine.run("boot", fetch=False).state
    assert pointers(state) == (second, "", second, second)
    assert machine.motd() == "good morning\n"


@pytest.mark.parametrize("place", ["judge", "choose"])
def test_a_flaw_of_ours_on_the_way_to_a_catalog_keeps_nothing_from_being_healed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning"))
    (machine.root / "etc/motd").write_text("by hand\n")

    def stumble(*_: object) -> Any:
        raise KeyError("nobody thought of this")

    with monkeypatch.context() as patched:
        if place == "judge":
            patched.setattr(Asking, "judge", stumble)
        else:
            patched.setattr(Provider, "compile", stumble)
        outcome = machine.run()
    assert machine.motd() == "hello\n"
    assert outcome.state.applied == first
    (problem,) = outcome.state.problems.values()
    assert "KeyError: 'nobody thought of this' at test_choice.py:" in problem["message"]
    assert problem["hint"] == "this is a bug in reconciler"
    assert pointers(machine.run().state) == (second, "", second, second)


def test_a_window_in_a_zone_that_nobody_knows_any_more_stays_shut_and_healing_goes_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning"))
    (machine.root / "etc/motd").write_text("by hand\n")

    def gone(*_: object) -> float:
        raise ConfigError("there is no zone 'US/Pacific' any more")

    machine.config = replace(machine.config, windows=({"kind": "allow"},))
    with monkeypatch.context() as patched:
        patched.setattr(windows, "opens", gone)
        outcome = machine.run()
    assert machine.motd() == "hello\n"
    assert pointers(outcome.state) == (second, second, first, first)
    assert outcome.state.held_by == "Window"
    said = [one["message"] for one in outcome.messages if "US/Pacific" in one["message"]]
    assert said == ["window: there is no zone 'US/Pacific' any more"]
    assert code(outcome.state) == 3
    with monkeypatch.context() as patched:
        patched.setattr(windows, "opens", lambda *_: 0.0)
        assert machine.run("sweep", fetch=False).state.problems == {}


def test_a_provider_whose_time_is_over_is_asked_anew_for_the_next_content(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    ended: list[int] = []
    content = Asking.content

    def end_first(asking: Asking, sha256: str) -> Any:
        ended.extend(end_providers())
        return content(asking, sha256)

    monkeypatch.setattr(Asking, "content", end_first)
    outcome = machine.run()
    assert outcome.state.problems == {}
    assert machine.motd() == "hello\n"
    assert len(ended) == 2


def end_providers() -> list[int]:
    """Those of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = [
        int(pid)
        for pid in children
        if b"reconciler.agent.provider" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


def test_whoever_made_the_trusted_commit_is_known_though_the_state_was_lost(
    machine: Machine,
) -> None:
    machine.commit(SITE)
    machine.run()
    Path(machine.places.state).unlink()
    assert machine.run("sweep", fetch=False).state.subject["author"] == "Ada"


def test_an_offer_that_nobody_could_judge_is_a_problem_until_somebody_can(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning"))

    def gone(*_: object) -> Any:
        raise ConfigError("cannot read what is to be judged")

    with monkeypatch.context() as patched:
        patched.setattr(Asking, "judge", gone)
        outcome = machine.run()
    assert outcome.failed
    assert code(outcome.state) == 5
    assert pointers(outcome.state) == (first, "", first, first)
    # A poll that works says nothing of it.
    assert outcome.state.reached() is False
    assert set(outcome.state.problems) == {"source"}
    outcome = machine.run()
    assert outcome.state.problems == {}
    assert pointers(outcome.state) == (second, "", second, second)


def test_a_run_that_could_not_do_what_it_was_for_has_not_gone_well(machine: Machine) -> None:
    """Nobody may read `ok` beside a commit that does not compile."""
    machine.commit(SITE)
    proven = machine.run().state.proven_at
    machine.commit(SITE + "    - nonsense: {}\n")
    state = machine.run().state
    assert state.last_run["outcome"] == "failed"
    # Of what is applied everything was seen to be as declared, all the same.
    assert state.proven_at > proven
