"""One run at a time on a host; the lock is the kernel's, so a dead holder holds nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

import pytest

from behaviour.crash import Victim, kill_at
from behaviour.world import World
from reconciler.engine.lock import user
from reconciler.engine.wire import Message
from reconciler.errors import Interrupted, LockBusy
from reconciler.transport.engine import Engine


def holding(world: World) -> Victim:
    """An apply that waits for us in the middle of a change."""
    victim = Victim(world)
    victim.start()
    while victim.wire.receive().get("ask") != "content":
        pass
    return victim


@pytest.fixture
def busy(world: World) -> World:
    world.gate("/gate")
    return world


def test_a_second_run_is_refused_and_told_who_holds_the_lock(busy: World) -> None:
    with holding(busy) as victim:
        with pytest.raises(LockBusy) as refused:
            busy.apply()
        assert f"pid {victim.process.pid}" in refused.value.message
        assert "local run" in refused.value.message
        assert f"by {user()}" in refused.value.message
        assert "--lock-timeout" in refused.value.hint
        assert refused.value.exit_code == 9


def test_a_plan_needs_no_lock(busy: World) -> None:
    with holding(busy):
        assert busy.plan().differs


def test_a_run_that_waits_says_for_whom_and_gets_the_lock_when_it_is_free(busy: World) -> None:
    told: list[Message] = []

    def end_it(event: Message) -> None:
        told.append(event)
        victim.kill()

    with holding(busy) as victim, Engine.local(str(busy.root)) as engine:
        report = engine.apply(
            busy.catalog(), content=busy.fetch, secrets=dict, lock_timeout=60, on_event=end_it
        )
        assert report.changed
    assert (told[0]["event"], told[0]["seconds"]) == ("waiting", 60)
    assert f"pid {victim.process.pid}" in str(told[0]["holder"])
    assert [one["event"] for one in told].count("waiting") == 1


@pytest.mark.parametrize(
    "mode, command",
    [
        ("local", "(reconciler apply)"),
        ("agent", "(reconciler agent)"),
        ("push", f"(reconciler apply, from {user()}@{os.uname().nodename})"),
    ],
)
def test_each_kind_of_run_says_what_it_is(busy: World, mode: str, command: str) -> None:
    said: list[str] = []

    def content(sha256: str) -> Iterable[bytes]:
        with pytest.raises(LockBusy) as refused:
            busy.apply()
        said.append(refused.value.message)
        return busy.fetch(sha256)

    with Engine.local(str(busy.root)) as engine:
        engine.apply(busy.catalog(), content=content, secrets=dict, mode=mode)
    assert f"{mode} run " in said[0]
    assert command in said[0]


def test_waiting_ends_after_its_time(busy: World) -> None:
    with holding(busy), Engine.local(str(busy.root)) as engine:
        begun = time.monotonic()
        with pytest.raises(LockBusy):
            engine.apply(busy.catalog(), content=busy.fetch, secrets=dict, lock_timeout=0.5)
        assert 0.4 < time.monotonic() - begun < 5


def test_waiting_ends_when_told_to_stop(busy: World) -> None:
    with holding(busy), Victim(busy) as second:
        second.wire.send({"op": "apply", "root": str(busy.root), "lock_timeout": 600})
        second.wire.send_json(busy.catalog())
        assert second.wire.receive()["event"] == "waiting"
        second.process.send_signal(signal.SIGTERM)
        answer = second.wire.receive()
        assert answer["error"]["type"] == Interrupted.__name__  # type: ignore[index]


def test_a_killed_holder_holds_nothing_whatever_the_file_says(busy: World) -> None:
    kill_at(busy, "/gate")
    assert "pid" in busy.path("/run/reconciler/lock").read_text()
    assert not busy.apply().failed


def test_a_program_that_a_module_started_does_not_inherit_the_lock(world: World) -> None:
    world.modules["daemon"] = """
from __future__ import annotations
import os
import subprocess
from dataclasses import dataclass
from reconciler.resource import Resource

@dataclass(frozen=True)
class Daemon(Resource):
    pidfile: str
    def claims(self): return {f"daemon:{self.pidfile}"}
    def desired(self): return {"runs": True}
    def actual(self, host):
        return {"runs": os.path.exists(self.pidfile)}
    def apply(self, host, diff):
        child = subprocess.Popen(["sleep", "30"], close_fds=False, start_new_session=True)
        with open(self.pidfile, "w") as file:
            file.write(str(child.pid))
"""
    pidfile = world.root.parent / "pid"
    world.declare("daemon", "d", {"pidfile": str(pidfile)})
    try:
        assert world.apply().changed
        assert not world.apply().changed
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
