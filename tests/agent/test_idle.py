"""A day in which nothing happens: the supervisor itself, by a clock that only its waits move."""

from __future__ import annotations

import gc
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.agent import running, supervisor
from reconciler.agent.config import Config
from reconciler.agent.outbox import Outbox
from reconciler.agent.places import Places, read_json
from reconciler.agent.settings import key_stamps
from reconciler.agent.signals import HEARD
from reconciler.agent.state import State
from reconciler.agent.supervisor import Supervisor
from reconciler.agent.worker import Run

DAY = 86400.0
START = 1_800_000_000.0
COMMIT = "a" * 40
CONFIG = Config(({"url": "https://git.example.org/state.git"},), notify=({"command": ["true"]},))
OFFER = {"commit": COMMIT, "remote": "origin", "rebuilt": "", "tried": {}}


class Day:
    """The world of an idle host: polls that bring nothing, runs that change nothing."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.now = 0.0
        self.done: Counter[str] = Counter()
        self.sizes: list[int] = []
        settled = State(trusted=COMMIT, applied=COMMIT, good=COMMIT, resources={"total": 9})
        settled.source = {"last_success": START, "head": COMMIT}
        settled.keys = key_stamps(CONFIG)
        settled.save(places)
        self.agent = Supervisor(places, CONFIG)

    def select(self, reading: object, writing: object, odd: object, wait: float) -> Any:
        """Time passes; nothing comes but the answers of children, after half a second."""
        self.done["waits"] += 1
        busy = self.agent._poller.busy or self.agent._running is not None
        self.now += max(min(wait, 0.5) if busy else wait, 1e-3)
        if self.now >= DAY:
            self.agent._stopping = True
        if self.done["waits"] % 500 == 0:
            self.sizes.append(len(repr(vars(self.agent))) + len(repr(vars(self.agent._state))))
        return [], [], []

    def run(self, run: Run, kind: str) -> dict[str, Any]:
        self.done[kind] += 1
        state = run._outcome.state
        state.last_run = {"id": "1", "kind": kind, "started": START + self.now, "duration_s": 0.1}
        return run._outcome.to_json()


class Instant:
    """A child that has answered as soon as it was started."""

    pipe = 0
    process = SimpleNamespace(returncode=0)

    def __init__(self, work: Callable[[int], Any]) -> None:
        self._said = work(0)

    def ended(self) -> bool:
        return True

    def answer(self) -> dict[str, Any]:
        return self._said


class Polls:
    """Polls that bring the same word again and again."""

    pipe = 0
    deadline = float("inf")

    def __init__(self, day: Day) -> None:
        self.day = day
        self.busy = self.glancing = False
        self.offer: dict[str, Any] | None = None

    def start(self, *, thorough: bool, judging: bool) -> None:
        assert not thorough
        assert judging is (self.day.agent._running is not None)
        self.busy = self.glancing = True

    def take(self) -> dict[str, Any] | None:
        if not self.busy:
            return None
        self.busy = False
        self.day.done["polls"] += 1
        self.offer = {**OFFER, "received_at": START + self.day.now}
        return self.offer


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A day that has passed."""
    handlers = {number: signal.getsignal(number) for number in HEARD}
    made = Day(Places(str(tmp_path_factory.mktemp("host"))))
    clock = SimpleNamespace(monotonic=lambda: made.now, time=lambda: START + made.now)
    agenda = made.agent._agenda
    agenda.sweep_at = agenda.schedule.next_sweep(0.0)
    agenda.fetch_at = agenda.schedule.first_fetch(0.0)
    made.agent._publish_at, made.agent._ahead = 0.0, START
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "time", clock)
        patch.setattr(supervisor, "select", SimpleNamespace(select=made.select))
        patch.setattr(running, "Child", Instant)
        patch.setattr(running, "forked", lambda work: work)
        patch.setattr(running, "_carry_out", made.run)
        patch.setattr(running, "answer", lambda _, document: document)
        patch.setattr(made.agent, "_poller", Polls(made))
        patch.setattr(Outbox, "post", lambda *_: made.done.update(["notices"]))
        made.agent.run()
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.unfreeze()
    return made


def test_a_day_of_idling_is_polls_and_sweeps_and_nothing_else(day: Day) -> None:
    done = day.done
    print(dict(done))
    assert DAY / 60 / 1.27 <= done["polls"] <= DAY / 60 / 0.94
    assert DAY / 1800 / 1.15 <= done["sweep"] <= DAY / 1800 / 0.88
    assert done["boot"] == 1
    # Nobody is told anything, nothing is retried or healed.
    assert set(done) == {"waits", "polls", "sweep", "boot"}
    # The status is written each minute, after each poll and run; no other wait is needed.
    assert done["waits"] <= DAY / 60 + 3 * (done["polls"] + done["sweep"])


def test_a_day_of_idling_leaves_nothing_behind(day: Day) -> None:
    assert max(day.sizes) - min(day.sizes) < 500
    status = read_json(day.places.status) or {}
    conditions = {one["type"]: one["status"] for one in status["conditions"]}
    assert (conditions["InSync"], conditions["Trusted"], conditions["SourceFresh"]) == ("True",) * 3
    files = sorted(path.name for path in Path(day.places.root).rglob("*") if path.is_file())
    assert not [name for name in files if name.endswith(".new")]
    assert len(files) <= 6
