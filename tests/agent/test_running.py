"""How a run at work is brought to an end, and who says so when that does not help."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agent.clock import Clock
from reconciler.agent import supervisor as module
from reconciler.agent.child import Child
from reconciler.agent.config import Config
from reconciler.agent.places import Places
from reconciler.agent.running import GRACE, Running
from reconciler.agent.schedule import NEVER
from reconciler.agent.settings import PATIENCE
from reconciler.agent.supervisor import Supervisor

LIMIT = 100.0


class Stubborn:
    """A run that goes on, whatever it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.process = SimpleNamespace(terminate=lambda: self.said.append("TERM"))

    def kill(self) -> None:
        self.said.append("KILL")

    def ended(self) -> bool:
        return False


@pytest.fixture
def child() -> Stubborn:
    return Stubborn()


@pytest.fixture
def running(child: Stubborn) -> Running:
    return Running(cast("Child", child), "sweep", since=1000.0)


def test_a_run_within_its_limit_is_left_alone(running: Running, child: Stubborn) -> None:
    running.heed(1000 + LIMIT - 0.1, LIMIT)
    assert child.said == []
    assert running.due(LIMIT) == 1000 + LIMIT


def test_one_that_takes_too_long_is_told_to_stop_and_then_killed_once(
    running: Running, child: Stubborn, capsys: pytest.CaptureFixture[str]
) -> None:
    told = running.due(LIMIT)
    running.heed(told, LIMIT)
    assert child.said == ["TERM"]
    # Nobody looks at it again before its grace is over: that would be a loop without a rest.
    assert running.due(LIMIT) == told + GRACE
    running.heed(told + GRACE - 0.1, LIMIT)
    assert child.said == ["TERM"]
    for late in (0, 1, 100):
        running.heed(told + GRACE + late, LIMIT)
    assert child.said == ["TERM", "KILL"]
    assert running.due(LIMIT) == NEVER
    assert capsys.readouterr().err.splitlines() == [
        "the run took longer than 100 s and is told to stop",
        "the run did not stop within 60 s and is killed",
    ]


def test_one_that_is_asked_to_stop_has_as_long_as_its_resource_takes(
    running: Running, child: Stubborn
) -> None:
    for _ in range(3):
        running.ask()
    assert child.said == ["TERM"]
    assert running.due(LIMIT) == 1000 + LIMIT
    # The agent is to end, too: once more said would be a hurry.
    running.tell(1010.0)
    running.tell(1020.0)
    assert child.said == ["TERM"]
    assert running.due(LIMIT) == 1010 + GRACE
    running.hurry()
    assert child.said == ["TERM", "TERM"]


class TestASupervisor:
    """With a run that does not end."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        made = Clock()
        monkeypatch.setattr(module, "time", made)
        return made

    @pytest.fixture
    def fed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(module.journal, "notify", said.append)
        monkeypatch.setattr(module.journal, "watchdog", lambda: 120.0)
        return said

    @pytest.fixture
    def agent(self, tmp_path: Path, clock: Clock, running: Running) -> Iterator[Supervisor]:
        config = Config(remotes=({"url": "/nowhere", "name": "origin"},), run_limit=LIMIT)
        made = Supervisor(Places(str(tmp_path)), config)
        made._running = running
        yield made
        made._watcher.close()

    def test_is_alive_for_the_watchdog_until_all_that_could_end_the_run_is_over(
        self, agent: Supervisor, clock: Clock, child: Stubborn, fed: list[str]
    ) -> None:
        while clock.now < 1000 + LIMIT + 2 * GRACE:
            agent._take_run()
            agent._feed()
            clock.now += 5
        assert child.said == ["TERM", "KILL"]
        assert len(fed) == pytest.approx((LIMIT + 2 * GRACE) / 30, abs=1)
        assert set(fed) == {"WATCHDOG=1"}
        fed.clear()
        for _ in range(100):
            clock.now += 5
            agent._feed()
        assert fed == []

    def test_waits_for_the_limits_of_the_run_and_no_shorter(
        self, agent: Supervisor, clock: Clock, child: Stubborn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits: list[float] = []

        def pass_by(reading: object, writing: object, odd: object, wait: float) -> object:
            waits.append(wait)
            clock.now += wait
            return [], [], []

        child.pipe = 0  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "select", SimpleNamespace(select=pass_by))
        agent._agenda.fetch_at = NEVER
        while clock.now < 1000 + LIMIT + 5 * GRACE:
            agent._wait()
            agent._take_run()
            agent._feed()
            agent._show()
        assert child.said == ["TERM", "KILL"]
        # The first thing is to say that it is there.
        assert min(waits[1:]) > 1

    def test_is_alive_for_the_watchdog_while_it_reads_its_settings(
        self, agent: Supervisor, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A busy machine may take as long for that as is waited for it."""
        agent._running = None
        monkeypatch.setattr(agent._poller, "start", lambda **_: None)
        monkeypatch.setattr(agent._signals, "listen", lambda: None)
        monkeypatch.setattr(module.journal, "watchdog", lambda: 120.0)
        alive: list[float] = []
        monkeypatch.setattr(
            module.journal, "notify", lambda said: said == "WATCHDOG=1" and alive.append(clock.now)
        )
        coming = [[], [], [signal.SIGHUP], [], [signal.SIGTERM]]

        def pass_by(reading: object, writing: object, odd: object, wait: float) -> object:
            clock.now += min(wait, 89.0)
            agent._signals._came += coming.pop(0) if wait else []
            return [], [], []

        def read_for_long(_: Places) -> Config:
            clock.now += PATIENCE
            return agent._config

        monkeypatch.setattr(module.gc, "freeze", lambda: None)
        monkeypatch.setattr(module.select, "select", pass_by)
        monkeypatch.setattr(module, "load", read_for_long)
        agent.run()
        assert max(later - one for one, later in pairwise(alive)) < 120
