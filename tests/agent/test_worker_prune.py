"""What left Git, on a directory in place of a machine: done away with, failed, held, or too late."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.test_worker import SITE, Machine
from behaviour.world import NOTE, WORDS
from reconciler.agent.config import Config
from reconciler.agent.outcome import Outcome
from reconciler.agent.state import resume, suspend
from reconciler.agent.status import Live, compose, exit_code, oneline
from reconciler.agent.windows import DAYS, WEEK
from reconciler.agent.worker import Run

#: Each run starts a provider, which fetches and compiles.
pytestmark = pytest.mark.slow

GUESTS = """\
    - {copy: {dest: /etc/guest, content: "ours\\n"}, prune: restore}
    - {copy: {dest: /etc/visitor, content: "ours\\n"}, prune: restore}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One of which two files have left Git, and are marked."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Machine(tmp_path)
    guest(made).write_text("theirs\n")
    made.commit(SITE + GUESTS)
    assert not made.run().failed
    made.commit(SITE)
    made.run()
    return made


def guest(machine: Machine) -> Path:
    return machine.root / "etc/guest"


def said(outcome: Outcome) -> tuple[str, str, int]:
    """Whether the host is in sync, why not, and the exit code of the whole status."""
    document = compose(outcome.state, Live(), None, now=time.time())
    (found,) = (one for one in document["conditions"] if one["type"] == "InSync")
    if found["status"] != "True":
        assert f"InSync=False ({found['reason']})" in oneline(document)
    return found["status"], found["reason"], exit_code(document)


def messages(outcome: Outcome, priority: str) -> list[str]:
    return [one["message"] for one in outcome.messages if one["priority"] == priority]


def test_a_run_counts_what_it_has_pruned_and_not_what_another_one_did(machine: Machine) -> None:
    outcome = machine.run("sweep", fetch=False)
    assert guest(machine).read_text() == "theirs\n"
    assert outcome.state.last_run["cause"]["prune"] == 2
    assert outcome.state.last_run["outcome"] == "changed"
    (machine.root / "etc/motd").write_text("by hand\n")
    healed = machine.run("heal", ("file:/etc/motd",))
    assert healed.state.last_run["cause"] == {"intentional": 0, "corrective": 1, "prune": 0}


def test_what_cannot_be_pruned_is_an_error_until_it_can(machine: Machine) -> None:
    guest(machine).unlink()
    guest(machine).mkdir()
    outcome = machine.run("sweep", fetch=False)
    assert said(outcome) == ("False", "PruneFailed", 4)
    assert outcome.failed
    assert outcome.state.last_run["outcome"] == "failed"
    (text,) = messages(outcome, "err")
    assert "file:/etc/guest" in text
    assert "is a directory now" in text
    assert not (machine.root / "etc/visitor").exists()
    guest(machine).rmdir()
    again = machine.run("sweep", fetch=False)
    assert guest(machine).read_text() == "theirs\n"
    assert said(again) == ("True", "Converged", 0)


def test_more_than_the_budget_is_held_and_said_once_and_is_not_green(machine: Machine) -> None:
    within = machine.config
    machine.config = Config(remotes=within.remotes, prune_max=1, prune_percent=0)
    outcome = machine.run("sweep", fetch=False)
    assert said(outcome) == ("False", "PruneHeld", 7)
    assert not outcome.failed
    (text,) = messages(outcome, "warning")
    assert "2 resources left the state repo at once" in text
    assert messages(machine.run("sweep", fetch=False), "warning") == []
    assert guest(machine).read_text() == "ours\n"
    machine.config = within
    assert said(machine.run("sweep", fetch=False)) == ("True", "Converged", 0)
    assert guest(machine).read_text() == "theirs\n"


def test_the_last_of_a_type_of_the_state_repos_own_goes_by_its_module(machine: Machine) -> None:
    machine.repo.write({"modules/note.py": NOTE, "modules/_words.py": WORDS})
    machine.commit(SITE + "    - {note: {path: /etc/note}, prune: delete}\n")
    assert not machine.run().failed
    assert (machine.root / "etc/note").exists()
    machine.commit(SITE)
    assert not machine.run().failed
    outcome = machine.run("sweep", fetch=False)
    assert not outcome.failed
    assert outcome.pruned == ["note:/etc/note"]
    assert not (machine.root / "etc/note").exists()


def test_nothing_is_pruned_once_a_suspension_has_begun(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Outcome.count

    def suspend_then(outcome: Outcome, *found: Any) -> None:
        counted(outcome, *found)
        suspend(machine.places, "TICKET-7", 60, "alice")

    with monkeypatch.context() as patched:
        patched.setattr(Outcome, "count", suspend_then)
        outcome = machine.run("sweep", fetch=False)
    assert guest(machine).read_text() == "ours\n"
    assert outcome.state.last_run["outcome"] == "held"
    resume(machine.places)
    machine.run("sweep", fetch=False)
    assert guest(machine).read_text() == "theirs\n"


@pytest.mark.parametrize("by", ["a suspension", "a signal"])
def test_nothing_is_changed_once_a_person_has_said_stop_while_the_run_looked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    (machine.root / "etc/motd").write_text("by hand\n")
    settled = Run._settled

    def say_stop(run: Run, *about: Any) -> bool:
        if by == "a suspension":
            suspend(machine.places, "TICKET-7", 60, "alice")
        else:
            run._stopped = True
        return settled(run, *about)

    with monkeypatch.context() as patched:
        patched.setattr(Run, "_settled", say_stop)
        outcome = machine.run("sweep", fetch=False)
    assert machine.motd() == "by hand\n"
    assert guest(machine).read_text() == "ours\n"
    assert outcome.state.drifted == ["file:/etc/motd"]


@pytest.mark.parametrize("held", ["by a window", "by an error of its own"])
def test_nothing_is_pruned_that_a_newer_commit_which_waits_may_declare(
    machine: Machine, held: str
) -> None:
    """It was dropped by mistake, and is back already."""
    shut = {"kind": "deny", "days": list(DAYS), "from": "00:00", "seconds": WEEK, "zone": "UTC"}
    if held == "by a window":
        machine.config = replace(machine.config, windows=(shut,))
        machine.commit(SITE + GUESTS)
    else:
        machine.commit(SITE + GUESTS + "    - nonsense: {}\n")
    for _ in range(2):
        outcome = machine.run()
        assert outcome.pruned == []
        assert outcome.state.candidate
    assert guest(machine).read_text() == "ours\n"
    machine.config = replace(machine.config, windows=())
    machine.commit(SITE)
    assert machine.run().state.candidate == ""
    machine.run("sweep", fetch=False)
    assert guest(machine).read_text() == "theirs\n"
