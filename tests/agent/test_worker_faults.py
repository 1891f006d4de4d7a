"""Runs on a directory in place of a machine, whose memory is lost or cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.test_worker import Machine
from reconciler.agent.places import sweep
from reconciler.agent.state import State
from reconciler.agent.status import Live, compose, exit_code
from reconciler.agent.worker import Job, Run
from reconciler.engine.ledger import Ledger
from reconciler.engine.ledgerfile import place
from reconciler.errors import TrustError
from reconciler.source.mark import Marks

SITE = """\
- hosts: all
  resources:
    - {name: motd, copy: {dest: /etc/motd, content: "hello\\n"}}
    - {name: other, copy: {dest: /etc/other, content: "other\\n"}}
    - {name: by hand, drift: warn, copy: {dest: /etc/by-hand, content: "a\\n"}}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One that has converged a commit whole."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Machine(tmp_path)
    made.commit(SITE)
    assert not made.run().failed
    return made


def ready(state: State) -> tuple[str, str, int]:
    """The condition, its reason, and the exit code of the whole status."""
    document = compose(state, Live(), None, now=time.time())
    (found,) = (one for one in document["conditions"] if one["type"] == "Ready")
    return found["status"], found["reason"], exit_code(document)


def known(machine: Machine) -> set[str]:
    with Ledger.open_readonly(str(machine.root)) as ledger:
        return set(ledger.known()) if ledger is not None else set()


@pytest.mark.parametrize("how, kind", [("gone", "sweep"), ("damaged", "sync"), ("damaged", "boot")])
def test_a_lost_ledger_is_said_for_one_run_and_written_anew(
    machine: Machine, how: str, kind: str
) -> None:
    path = Path(place(str(machine.root)))
    path.unlink() if how == "gone" else path.write_text("damage" * 1000)
    (machine.root / "etc/motd").write_text("by hand\n")
    outcome = machine.run(kind)
    assert machine.motd() == "hello\n"
    assert ready(outcome.state) == ("False", "LedgerLost", 3)
    (said,) = (one for one in outcome.messages if one["message"].startswith("ledger: "))
    assert "begun anew" in said["message"]
    assert {"file:/etc/motd", "file:/etc/other"} <= known(machine)
    assert ready(machine.run().state) == ("True", "Ready", 0)


def test_drift_that_is_left_alone_stays_so_when_the_ledger_is_lost(machine: Machine) -> None:
    Path(place(str(machine.root))).unlink()
    (machine.root / "etc/by-hand").write_text("mine\n")
    for kind in ("sync", "sweep"):
        outcome = machine.run(kind)
        assert (machine.root / "etc/by-hand").read_text() == "mine\n"
        assert outcome.state.drifted == ["file:/etc/by-hand"]
    machine.commit(SITE.replace('"a\\n"', '"b\\n"'))
    machine.run()
    assert (machine.root / "etc/by-hand").read_text() == "b\n"


def test_after_a_heal_the_rest_of_a_lost_ledger_is_written_by_the_next_sweep(
    machine: Machine,
) -> None:
    Path(place(str(machine.root))).unlink()
    (machine.root / "etc/motd").write_text("by hand\n")
    machine.run("heal", ("file:/etc/motd",))
    assert machine.motd() == "hello\n"
    machine.run("sweep", fetch=False)
    assert {"file:/etc/motd", "file:/etc/other"} <= known(machine)


def test_what_is_only_looked_at_needs_none_of_the_handlers_that_it_notifies(
    machine: Machine,
) -> None:
    told = SITE
    for name in ("motd", "by hand"):
        told = told.replace(f"name: {name},", f"name: {name}, notify: tell,")
    told += "  handlers:\n    - {name: tell, copy: {dest: /etc/told, content: x}}\n"
    machine.commit(told)
    assert not machine.run().failed
    (machine.root / "etc/motd").write_text("by hand\n")
    (machine.root / "etc/by-hand").write_text("mine\n")
    for kind in ("sweep", "sync"):
        outcome = machine.run(kind)
        assert outcome.state.problems == {}
        assert outcome.state.drifted == ["file:/etc/by-hand"]
    assert machine.motd() == "hello\n"


@pytest.mark.parametrize("name", ["state", "catalog", "facts"])
def test_what_cannot_be_written_is_said_with_its_path(machine: Machine, name: str) -> None:
    path = getattr(machine.places, name)
    os.unlink(path)
    os.mkdir(path)
    machine.commit(SITE.replace("hello", "good morning"))
    outcome = machine.run()
    assert machine.motd() == "good morning\n"
    assert outcome.failed
    assert path in outcome.state.problems["run"]["message"]
    os.rmdir(path)
    assert not machine.run().failed


def test_what_a_killed_process_was_writing_is_swept(machine: Machine) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    gone = Path(f"{machine.places.state}.{done.pid}.new")
    alive = Path(f"{machine.places.suspension}.{os.getpid()}.new")
    for path in (gone, alive):
        path.write_text("half")
    sweep(machine.places)
    assert (gone.exists(), alive.exists()) == (False, True)


TORN: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "garbage": lambda _: bytes(range(256)) * 40,
    "half": lambda whole: whole[: len(whole) // 2],
    "a whole one with half of another": lambda whole: whole + whole[: len(whole) // 2],
}


@pytest.mark.parametrize("how", TORN)
@pytest.mark.parametrize("name", ["state", "catalog", "facts"])
def test_whatever_is_left_of_a_file_the_next_start_goes_on_from_the_mirror(
    machine: Machine, name: str, how: str
) -> None:
    before = State.load(machine.places)
    path = Path(getattr(machine.places, name))
    left = TORN[how](path.read_bytes())
    path.unlink() if left is None else path.write_bytes(left)
    (machine.root / "etc/motd").write_text("by hand\n")
    (machine.root / "etc/by-hand").write_text("mine\n")
    machine.repo.path.rename(machine.repo.path.with_name("unreachable"))
    outcome = machine.run("boot", fetch=False)
    assert machine.motd() == "hello\n"
    assert (machine.root / "etc/by-hand").read_text() == "mine\n"
    assert outcome.state.problems == {}
    kept = State.load(machine.places)
    assert (kept.trusted, kept.applied) == (before.trusted, before.applied)
    (machine.root / "etc/motd").write_text("by hand\n")
    assert machine.run("heal", ("file:/etc/motd",)).corrected == ["file:/etc/motd"]


def test_a_lost_memory_heals_by_the_last_catalog_though_a_newer_commit_cannot_be_used(
    machine: Machine,
) -> None:
    first = State.load(machine.places).applied
    second = machine.commit(SITE + "    - nonsense: {}\n")
    machine.run()
    os.unlink(machine.places.state)
    (machine.root / "etc/motd").write_text("by hand\n")
    outcome = machine.run("boot", fetch=False)
    assert machine.motd() == "hello\n"
    assert (outcome.state.applied, outcome.state.trusted) == (first, second)
    assert outcome.state.held_by == "CompileFailed"


def test_a_machine_whose_whole_memory_is_gone_trusts_nothing_until_a_person_says_what(
    machine: Machine,
) -> None:
    remembered = State.load(machine.places)  # by the supervisor, which lives on
    shutil.rmtree(machine.places.trust)
    second = machine.commit(SITE.replace("hello", "good morning"))
    (machine.root / "etc/motd").write_text("by hand\n")
    job = Job("sync", machine.config, offer=machine.poll(remembered))
    outcome = Run(job, remembered, machine.places).carry_out()
    assert machine.motd() == "hello\n"
    assert outcome.state.applied == outcome.state.trusted != second
    assert outcome.state.problems["trust"]["type"] == "StateLost"
    assert ready(outcome.state)[2] == TrustError.exit_code
    assert any("trust reset --to COMMIT --reason" in one["message"] for one in outcome.messages)
    for _ in range(2):
        assert machine.run().state.applied != second
    Marks(machine.places.trust).reset(second, "the disk was replaced", "alice")
    assert ready(machine.run().state) == ("True", "Ready", 0)
    assert machine.motd() == "good morning\n"
