"""A run without a resident process: it heals before it asks, remembers fights, and ends."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent.test_worker import SITE, Machine
from reconciler.agent import once as module
from reconciler.agent import places, state, supervisor
from reconciler.agent.alone import alone
from reconciler.agent.once import once
from reconciler.agent.places import read_json
from reconciler.agent.state import suspend
from reconciler.agent.worker import Run
from reconciler.errors import ConfigError, LockBusy

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return Machine(tmp_path)


def verdict(document: dict[str, Any], name: str) -> tuple[str, str]:
    found = next(one for one in document["conditions"] if one["type"] == name)
    return found["status"], found["reason"]


def spoil(machine: Machine) -> None:
    (machine.root / "etc/motd").write_text("by hand\n")


@pytest.fixture
def asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the machine was whenever the remotes were asked."""
    seen: list[str] = []
    really = module.ask

    def look(*about: Any) -> dict[str, Any]:
        path = machine.root / "etc/motd"
        seen.append(path.read_text() if path.exists() else "")
        return really(*about)

    monkeypatch.setattr(module, "ask", look)
    return seen


def test_after_a_boot_it_heals_before_it_asks(
    machine: Machine, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config)
    spoil(machine)
    once(machine.places, machine.config)
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    spoil(machine)
    outcome, _ = once(machine.places, machine.config)
    assert asked == ["", "by hand\n", "hello\n"]
    assert any("drift corrected" in str(one["message"]) for one in outcome.messages)


def test_with_the_server_gone_it_heals_before_it_asks(machine: Machine, asked: list[str]) -> None:
    commit = machine.commit(SITE)
    once(machine.places, machine.config)
    hidden = Path(f"{machine.repo}.hidden")
    Path(str(machine.repo)).rename(hidden)
    for _ in range(2):
        spoil(machine)
        _, document = once(machine.places, machine.config)
        assert verdict(document, "SourceFresh") == ("False", "FetchFailed")
        assert machine.motd() == "hello\n"
    assert asked == ["", "by hand\n", "hello\n"]
    hidden.rename(str(machine.repo))
    _, document = once(machine.places, machine.config)
    assert verdict(document, "SourceFresh")[0] == "True"
    assert document["source"]["good"]["commit"] == commit


def test_while_suspended_nothing_is_changed_and_the_status_says_so(machine: Machine) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config)
    suspend(machine.places, "TICKET-7", 60, "alice")
    spoil(machine)
    _, document = once(machine.places, machine.config)
    assert machine.motd() == "by hand\n"
    assert verdict(document, "Suspended")[0] == "True"
    assert document["drifted"] == ["file:/etc/motd"]


def test_what_is_fought_about_is_corrected_more_slowly_and_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config)
    document: dict[str, Any] = {}
    said: list[dict[str, Any]] = []
    for _ in range(5):
        spoil(machine)
        outcome, document = once(machine.places, machine.config)
        assert machine.motd() == "hello\n"
        said += [one for one in outcome.messages if one.get("cause") == "contended"]
    assert document["contended"] == ["file:/etc/motd"]
    assert verdict(document, "Stalled") == ("True", "Contended")
    assert [one["resource"] for one in said] == ["file:/etc/motd"]

    spoil(machine)
    (machine.root / "etc/other").write_text("by hand, too\n")
    once(machine.places, machine.config)
    assert machine.motd() == "by hand\n"
    assert (machine.root / "etc/other").read_text() == "other\n"

    now = time.monotonic
    monkeypatch.setattr(module.time, "monotonic", lambda: now() + 301)
    once(machine.places, machine.config)
    assert machine.motd() == "hello\n"

    spoil(machine)
    machine.commit(SITE.replace("hello", "good morning"))
    _, document = once(machine.places, machine.config)
    assert machine.motd() == "good morning\n"
    assert verdict(document, "Stalled")[0] == "False"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"fights": 7}', b'{"boot": 1}'])
def test_what_it_remembers_may_be_damaged(machine: Machine, damage: bytes) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config)
    boot = f'{{"boot": "{module.boot_id()}", "fights": {{"x": {{"times": "y"}}}}}}'.encode()
    for content in (damage, boot):
        Path(machine.places.once).write_bytes(content)
        spoil(machine)
        once(machine.places, machine.config)
        assert machine.motd() == "hello\n"


def test_a_run_that_takes_too_long_is_told_to_stop(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)

    def hang(run: Run) -> None:
        while not run._stopped:
            time.sleep(0.01)

    monkeypatch.setattr(Run, "_go", hang)
    outcome, _ = once(machine.places, replace(machine.config, run_limit=0.5))
    assert [one["message"] for one in outcome.messages] == [
        "the run took longer than 0 s and is told to stop"
    ]


def test_who_is_told_to_stop_while_the_remotes_are_asked_begins_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    really = module.ask

    def ask(*about: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        return really(*about)

    monkeypatch.setattr(module, "ask", ask)
    before = signal.getsignal(signal.SIGTERM)
    try:
        once(machine.places, machine.config)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (machine.root / "etc/motd").exists()


def test_while_the_remotes_are_asked_the_status_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an agent with a slow server would be taken for a dead one."""
    seen: list[dict[str, Any]] = []
    really = module.ask

    def ask(*about: Any) -> dict[str, Any]:
        seen.append(read_json(machine.places.status) or {})
        return really(*about)

    monkeypatch.setattr(module, "ask", ask)
    machine.commit(SITE)
    config = replace(machine.config, run_limit=60)
    for _ in range(2):
        once(machine.places, config)
    for during in seen:
        assert during["state"] == "applying"
        assert during["valid_until"] - time.time() > config.fetch_patience


def test_a_full_disk_is_told_and_keeps_nothing_from_being_healed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config)
    spoil(machine)
    really = places.write

    def full(path: str, *content: Any, **how: Any) -> None:
        if path in (machine.places.state, machine.places.once):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        really(path, *content, **how)

    for one in (module, state):
        monkeypatch.setattr(one, "write", full)
    told = tmp_path / "told"
    config = replace(machine.config, notify=({"command": ["tee", str(told)]},))
    said: list[str] = []
    document: dict[str, Any] = {}
    for _ in range(2):
        outcome, document = once(machine.places, config)
        said += [str(one["message"]) for one in outcome.messages]
    assert machine.motd() == "hello\n"
    assert "file:/etc/motd drift corrected: content" in said
    assert verdict(document, "Ready") == ("False", "RunFailed")
    assert read_json(machine.places.status) == document
    assert "No space left on device" in told.read_text()


def test_a_run_that_does_not_heed_that_is_ended_by_the_kernel(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(_: Run) -> NoReturn:
        while True:
            time.sleep(1)

    monkeypatch.setattr(Run, "carry_out", deaf)
    monkeypatch.setattr(module, "GRACE", 0.2)
    config = replace(machine.config, run_limit=0.2)
    assert in_a_child(lambda: once(machine.places, config)) == -signal.SIGALRM


def test_while_it_is_at_work_the_status_says_so_for_as_long_as_that_may_take(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a first run of ten minutes would be taken for a dead agent."""
    machine.commit(SITE)
    seen: list[dict[str, Any]] = []
    really = Run.carry_out

    def look(run: Run) -> Any:
        seen.append(read_json(machine.places.status) or {})
        return really(run)

    monkeypatch.setattr(Run, "carry_out", look)
    _, document = once(machine.places, replace(machine.config, run_limit=3600))
    (during,) = seen
    assert during["state"] == "applying"
    assert during["valid_until"] - during["written"] >= 3600
    assert document["state"] == "idle"
    assert document["valid_until"] - document["written"] < 3600


def test_a_timer_asks_ever_less_often_while_nobody_answers_and_heals_all_the_same(
    machine: Machine, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config, patient=True)
    machine.repo.path.rename(f"{machine.repo.path}.gone")
    passed, now = [0.0], time.monotonic
    monkeypatch.setattr(module.time, "monotonic", lambda: now() + passed[0])
    del asked[:]
    for _ in range(60):
        passed[0] += 60
        once(machine.places, machine.config, patient=True)
    # Once a minute would be 60 times; at most a quarter of an hour lies between two.
    assert 3600 / 900 <= len(asked) <= 25
    spoil(machine)
    # Who waits for it is not kept waiting.
    once(machine.places, machine.config)
    assert machine.motd() == "hello\n"
    Path(f"{machine.repo.path}.gone").rename(machine.repo.path)
    _, document = once(machine.places, machine.config)
    assert verdict(document, "SourceFresh") == ("True", "Fetched")


def test_hosts_that_booted_together_come_to_their_server_one_after_the_other(
    machine: Machine, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    once(machine.places, machine.config, patient=True)
    spoil(machine)
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    waits: list[float] = []

    def pass_by(seconds: float) -> None:
        waits.append(seconds)
        assert machine.motd() == "hello\n"

    first = time.monotonic() + 2.5
    monkeypatch.setattr(module.Schedule, "first_fetch", lambda *_: first)
    monkeypatch.setattr(module.time, "sleep", pass_by)
    once(machine.places, machine.config, patient=True)
    assert waits
    assert len(asked) == 2


def in_a_child(work: Callable[[], object]) -> int:
    """How a child ends that does this."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_there_is_one_agent_at_a_time(machine: Machine) -> None:
    machine.commit(SITE)
    with alone(machine.places), pytest.raises(LockBusy, match="at work on this host already"):
        once(machine.places, machine.config)
    once(machine.places, machine.config)
    assert machine.motd() == "hello\n"


def test_a_second_resident_agent_is_refused(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(machine.places):
        assert supervisor.main(str(machine.root)) == LockBusy.exit_code
    assert "an agent is at work on this host already" in capsys.readouterr().err


def test_settings_that_cannot_be_used_keep_nothing_from_being_healed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Places", lambda: machine.places)
    machine.commit(SITE)
    settings = Path(machine.places.config)
    settings.parent.mkdir(parents=True)
    settings.write_text(f"repo: {machine.repo}\n")
    assert module.main() == 0
    spoil(machine)
    settings.write_text(f"repo: {machine.repo}\nintervall: 5s\n")
    assert module.main() == ConfigError.exit_code
    assert machine.motd() == "hello\n"
    document = read_json(machine.places.status) or {}
    assert verdict(document, "Ready") == ("False", "BadSettings")
