"""What the supervisor starts, and when: with a clock of its own, and nothing that is really run."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import Clock
from reconciler.agent import running, watch
from reconciler.agent import supervisor as module
from reconciler.agent.config import Config
from reconciler.agent.hints import watch_list
from reconciler.agent.places import Places, read_json, write
from reconciler.agent.running import Running
from reconciler.agent.schedule import NEVER
from reconciler.agent.state import State, resume, suspend
from reconciler.agent.supervisor import Supervisor
from reconciler.agent.touched import QUIET_MAX
from reconciler.agent.worker import Run

OLD, NEW, NEWER = "a" * 40, "b" * 40, "c" * 40


class Child:
    """A run that has ended, with this answer."""

    pipe = 0

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self._answer = answer
        self.said: list[str] = []
        self.process = SimpleNamespace(returncode=-9, terminate=lambda: self.said.append("TERM"))

    def answer(self) -> Mapping[str, Any] | None:
        return self._answer


class Tried(Supervisor):
    """started: what it has begun, which is noted and goes no further."""

    started: list[tuple[str, tuple[str, ...]]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def agent(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tried]:
    places = Places(str(tmp_path))
    settled = State(trusted=OLD, applied=OLD, good=OLD, resources={"total": 1})
    settled.save(places)
    write(places.status, b"{}")
    made = Tried(places, Config(remotes=({"url": "/nowhere", "name": "origin"},)))
    made._state.keys = module.key_stamps(made._config)
    made.started = []

    def begin(run: Run, kind: str, since: float, **known: Any) -> Running:
        made.started.append((kind, run._job.ids))
        return Running(cast("running.Child", Child()), kind, since, **known)

    monkeypatch.setattr(module.Running, "begin", begin)
    monkeypatch.setattr(made._poller, "start", lambda **_: made.started.append(("poll", ())))
    made._start_what_is_due()
    assert made.started == [("boot", ())]
    made.started.clear()
    end(made, clock)
    yield made
    made._watcher.close()


def end(agent: Tried, clock: Clock, *, state: State | None = None, **said: Any) -> None:
    """The run at work ends, having said this."""
    ended = agent._running
    assert ended is not None
    agent._running = None
    if state is not None:
        state.keys = agent._state.keys
    answer = {
        "state": (state or agent._state).to_json(),
        "corrected": [],
        "failed": False,
        "messages": [],
        "watches": None,
        **said,
    }
    child = cast("running.Child", Child(None if said.get("broken") else answer))
    agent._finish(replace(ended, child=child))


def wanting(agent: Tried, *kinds: str) -> None:
    """These runs are wanted, and time asks for nothing."""
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    agent._agenda.wants = set(kinds)


def due(agent: Tried) -> list[str]:
    """What is started now."""
    agent.started.clear()
    agent._start_what_is_due()
    return [kind for kind, _ in agent.started]


def test_a_run_that_fails_is_tried_again_after_5_10_20_seconds_and_so_on(
    agent: Tried, clock: Clock
) -> None:
    wanting(agent, "sweep")
    waits: list[float] = []
    for _ in range(10):
        assert due(agent) != []
        end(agent, clock, failed=True)
        waits.append(agent._agenda.retry_at - clock.now)
        clock.now = agent._agenda.retry_at - 0.001
        assert due(agent) == []
        clock.now = agent._agenda.retry_at
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_a_newer_commit_does_not_wait_for_the_retry_of_an_older_one(
    agent: Tried, clock: Clock
) -> None:
    agent._agenda.sweep_at = NEVER
    agent._agenda.wants = {"sync"}
    failing = State(trusted=NEW, applied=NEW, good=OLD)
    for _ in range(8):
        due(agent)
        end(agent, clock, state=failing, failed=True)
        clock.now = agent._agenda.retry_at
    due(agent)
    end(agent, clock, state=failing, failed=True)
    assert agent._agenda.retry_at - clock.now == 900
    clock.now += 1
    offer(agent, NEWER)
    assert due(agent) == ["sync"]
    newer = State(trusted=NEWER, applied=NEWER, good=OLD)
    end(agent, clock, state=newer, failed=True)
    assert agent._agenda.retry_at - clock.now == 5


def test_a_run_that_dies_without_a_word_is_tried_again_and_nothing_is_healed_before(
    agent: Tried, clock: Clock
) -> None:
    wanting(agent, "sweep")
    due(agent)
    end(agent, clock, broken=True)
    assert "run" in agent._state.problems
    agent._agenda.touched.ids = {"file:/etc/motd"}
    assert due(agent) == []
    clock.now = agent._agenda.retry_at
    assert due(agent) == ["retry"]


def test_a_commit_that_waits_for_its_window_is_looked_at_again_when_that_opens(
    agent: Tried, clock: Clock
) -> None:
    wanting(agent, "sync")
    due(agent)
    waiting = State(trusted=NEW, applied=OLD, good=OLD)
    waiting.held_by, waiting.held_until = "Window", clock.now + 3600
    end(agent, clock, state=waiting)
    assert agent._phase() == "gated"
    agent._agenda.sweep_at = NEVER
    clock.now += 3599
    assert due(agent) == []
    clock.now += 1
    assert due(agent) == ["sweep"]
    end(agent, clock, state=State(trusted=NEW, applied=NEW, good=NEW))
    agent._agenda.sweep_at = NEVER
    clock.now += 1e6
    assert due(agent) == []


@pytest.mark.parametrize("held_by", ["Suspended", "Window"])
def test_a_window_that_has_opened_meanwhile_is_no_reason_to_run_without_a_rest(
    agent: Tried, clock: Clock, held_by: str
) -> None:
    """A suspension holds the commit as well; or the run broke off before it came to the window."""
    wanting(agent, "sync")
    due(agent)
    waiting = State(trusted=NEW, applied=OLD, good=OLD, held_by=held_by)
    waiting.held_until = clock.now - 60
    for wait in (5, 10, 20):
        end(agent, clock, state=waiting)
        agent._agenda.sweep_at = NEVER
        clock.now += wait - 1
        assert due(agent) == []
        clock.now += 1
        if held_by == "Suspended":
            assert due(agent) == []
            return
        assert due(agent) == ["retry"]


def test_a_heal_that_goes_well_does_not_stand_for_a_run_that_took_too_long(
    agent: Tried, clock: Clock
) -> None:
    wanting(agent, "sweep")
    assert due(agent) == ["sweep"]
    assert agent._running is not None
    agent._running.told = clock.now
    end(agent, clock)
    retry = agent._agenda.retry_at
    assert retry == clock.now + 5
    agent._agenda.sweep_at = NEVER
    agent._agenda.touched.ids = {"file:/etc/motd"}
    assert due(agent) == ["heal"]
    clock.now += 1
    end(agent, clock)
    assert agent._phase() == "degraded"
    clock.now = retry
    assert due(agent) == ["retry"]
    end(agent, clock)
    assert agent._phase() == "idle"


def test_what_asks_for_a_run_during_a_run_is_one_more_run(agent: Tried, clock: Clock) -> None:
    wanting(agent, "sweep")
    due(agent)
    agent._agenda.wants |= {"sweep", "sync"}
    assert due(agent) == []
    end(agent, clock)
    assert due(agent) == ["sync"]
    end(agent, clock)
    assert due(agent) == []


def told(agent: Tried) -> list[str]:
    """What the run at work was told."""
    assert agent._running is not None
    return cast("Child", agent._running.child).said


def offer(agent: Tried, commit: str, **more: object) -> None:
    """A poll that the running agent has made brings this, which may be used."""
    brought = {"commit": commit, "remote": "origin", "rebuilt": "", "tried": {}, "usable": True}
    agent._poller.offer = brought | more
    agent._poll_ended(brought | more)
    agent._agenda.fetch_at = NEVER


def test_a_run_makes_way_for_a_newer_commit_but_one_that_took_over_so_does_not(
    agent: Tried, clock: Clock
) -> None:
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    offer(agent, NEW)
    assert due(agent) == ["sync"]
    offer(agent, NEW)
    assert told(agent) == []
    offer(agent, NEWER)
    assert told(agent) == ["TERM"]
    end(agent, clock, state=State(trusted=NEW, applied=OLD, good=OLD))
    assert due(agent) == ["sync"]
    offer(agent, "d" * 40)
    # Or a branch with many commits would keep every run from its end.
    assert told(agent) == []
    end(agent, clock, state=State(trusted=NEWER, applied=NEWER, good=NEWER))
    assert due(agent) == ["sync"]
    offer(agent, "e" * 40)
    assert told(agent) == ["TERM"]


def test_what_was_begun_in_a_window_makes_way_for_nothing(agent: Tried, clock: Clock) -> None:
    agent._config = replace(agent._config, windows=({"deny": {}},))
    offer(agent, NEW)
    assert due(agent) == ["sync"]
    offer(agent, NEWER)
    assert told(agent) == []
    end(agent, clock, state=State(trusted=NEW, applied=NEW, good=NEW))
    assert due(agent) == ["sync"]


def test_a_commit_that_a_run_judges_is_no_news_while_it_does(agent: Tried, clock: Clock) -> None:
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    for _ in range(3):
        offer(agent, NEW)
        due(agent)
    end(agent, clock, state=State(trusted=NEW, applied=NEW, good=NEW))
    assert due(agent) == []


def test_a_suspension_ends_the_run_at_work_and_nothing_is_tried_again_before_it_is_over(
    agent: Tried, clock: Clock
) -> None:
    wanting(agent, "sync")
    due(agent)
    suspend(agent._places, "TICKET-7", 60, "alice")
    for _ in range(3):
        agent._heed_suspension()
    assert told(agent) == ["TERM"]
    # A package may take its time: nobody kills it for that.
    assert agent._running is not None
    assert agent._running.due(1800) == clock.now + 1800
    broken_off = State(trusted=NEW, applied=OLD, good=OLD, held_by="Suspended")
    end(agent, clock, state=broken_off)
    agent._agenda.sweep_at = NEVER
    clock.now += 3600
    assert due(agent) == []
    resume(agent._places)
    agent._heed_suspension()
    assert due(agent) == ["sweep"]


def test_a_run_that_was_told_to_stop_before_it_had_begun_has_not_failed(
    agent: Tried, clock: Clock
) -> None:
    wanting(agent, "sweep")
    due(agent)
    assert agent._running is not None
    agent._running.ask()
    ended, agent._running = agent._running, None
    ended.child.process.returncode = -signal.SIGTERM
    agent._finish(ended)
    assert agent._state.problems == {}
    assert due(agent) == []


def test_a_run_that_took_too_long_is_tried_again(agent: Tried, clock: Clock) -> None:
    wanting(agent, "sweep")
    due(agent)
    assert agent._running is not None
    agent._running.heed(clock.now + 1800, 1800)
    end(agent, clock)
    clock.now = agent._agenda.retry_at
    assert due(agent) == ["retry"]


class TestWhatAnOperatorRepairs:
    """Settings and keys: nobody waits half an hour until they are looked at."""

    @pytest.fixture(autouse=True)
    def settings(self, agent: Tried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        file = Path(agent._places.config)
        file.parent.mkdir(parents=True)
        file.write_text(f"repo: /nowhere\nallowed_signers: {tmp_path}/signers\n")
        agent._reload()
        agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
        agent._agenda.wants.clear()
        agent._agenda.asked = False
        return file

    def refuse(self, agent: Tried, clock: Clock) -> None:
        """The newest commit is judged, and refused."""
        agent._state.keys = module.key_stamps(agent._config)
        offer(agent, NEW)
        assert due(agent) == ["sync"]
        refused = State(trusted=OLD, applied=OLD, good=OLD, source={"refused": NEW})
        refused.problem("trust", {"message": "nobody we know"}, clock.now)
        end(agent, clock, state=refused)

    def test_other_settings_take_effect_at_once_and_the_same_do_nothing(
        self, agent: Tried, settings: Path
    ) -> None:
        agent._reload()
        assert due(agent) == []
        settings.write_text(settings.read_text() + "drift: warn\n")
        agent._reload()
        # What is known is gone by at once, whatever becomes of the poll.
        assert due(agent) == ["poll", "sweep"]
        assert agent._agenda.answering or agent._agenda.asked

    def test_a_commit_that_was_refused_is_judged_again_by_other_keys(
        self, agent: Tried, clock: Clock, tmp_path: Path
    ) -> None:
        self.refuse(agent, clock)
        offer(agent, NEW)
        assert due(agent) == []
        (tmp_path / "signers").write_text("alice\n")
        offer(agent, NEW)
        assert due(agent) == ["sync"]

    def test_the_applied_commit_is_judged_again_by_other_keys(
        self, agent: Tried, clock: Clock, tmp_path: Path
    ) -> None:
        """Its key may have been revoked, which is an alarm."""
        agent._state.keys = module.key_stamps(agent._config)
        offer(agent, OLD)
        assert due(agent) == []
        (tmp_path / "signers").write_text("alice\n")
        offer(agent, OLD)
        assert due(agent) == ["sync"]

    def test_keys_that_are_others_are_asked_for_by_a_reload(
        self, agent: Tried, clock: Clock, tmp_path: Path
    ) -> None:
        self.refuse(agent, clock)
        agent._reload()
        agent._agenda.fetch_at = NEVER
        assert due(agent) == []
        (tmp_path / "signers").write_text("alice\n")
        agent._reload()
        assert due(agent)[0] == "poll"

    def test_settings_that_cannot_be_used_are_said_until_they_are_mended(
        self, agent: Tried, settings: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def ready() -> dict[str, Any]:
            agent._publish()
            document = read_json(agent._places.status) or {}
            return next(one for one in document["conditions"] if one["type"] == "Ready")

        good, before = settings.read_text(), agent._config
        settings.write_text(good + "intervall: 5s\n")
        agent._reload()
        for _ in range(3):
            agent._heed_settings()
        assert agent._config == before
        assert (ready()["status"], ready()["reason"]) == ("False", "BadSettings")
        assert "intervall" in ready()["message"]
        settings.write_text(good + "interval: 5m\n")
        agent._heed_settings()
        assert agent._config.interval == 300
        assert ready()["reason"] == "Ready"
        said = capsys.readouterr().err
        assert said.count("the settings stay as they were") == 1


def test_healing_goes_on_while_a_commit_is_refused(agent: Tried, clock: Clock) -> None:
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    agent._state.problem("trust", {"message": "not signed"}, clock.now)
    agent._agenda.touched.ids = {"file:/etc/motd"}
    assert due(agent) == ["heal"]


def test_what_is_fought_about_is_healed_ever_later_and_the_rest_at_once(
    agent: Tried, clock: Clock
) -> None:
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    waits: list[float] = []
    for _ in range(8):
        touched = clock.now
        agent._agenda.touched.ids = {"file:/fought"}
        while due(agent) == []:
            clock.now = agent._agenda.touched.at
        waits.append(clock.now - touched)
        end(agent, clock, corrected=["file:/fought"])
    assert waits == [0, 2, 6, 18, 54, 162, 300, 300]
    agent._publish()
    assert agent._live.contended == ["file:/fought"]
    agent._agenda.touched.ids = {"file:/fought", "file:/other"}
    due(agent)
    assert agent.started == [("heal", ("file:/other",))]


def test_events_are_waited_for_until_it_is_quiet_but_not_for_ever(
    agent: Tried, clock: Clock, tmp_path: Path
) -> None:
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    path = tmp_path / "motd"
    path.write_text("good")
    agent._watcher.set(watch_list({"file:motd": [f"path:{path}"]}))
    path.write_text("by hand")
    agent._watcher.read()
    began = clock.now
    while due(agent) == []:
        agent._agenda.touched.settle(clock.now)  # somebody writes and writes
        clock.now += 0.02
        assert clock.now - began < 3
    assert agent.started == [("heal", ("file:motd",))]
    assert clock.now - began == pytest.approx(QUIET_MAX, abs=0.05)


def test_what_is_touched_all_the_time_and_is_as_it_should_be_is_looked_at_ever_more_slowly(
    agent: Tried, clock: Clock, tmp_path: Path
) -> None:
    """A log file whose mode is declared: no program that writes may keep the agent at work."""
    agent._agenda.fetch_at = agent._agenda.sweep_at = NEVER
    log, other = tmp_path / "log", tmp_path / "other"
    watches = watch_list({"file:log": [f"path:{log}"], "file:other": [f"path:{other}"]})
    agent._watcher.set(watches)
    began, looks = clock.now, 0
    while clock.now < began + 3600:
        log.write_text(f"at {clock.now}")
        agent._watcher.read()
        agent._heed_events()
        clock.now += 0.5
        if due(agent) == ["heal"]:
            looks += 1
            end(agent, clock)
    assert looks <= 40
    # Others are still looked at as soon as it is quiet.
    other.write_text("by hand")
    agent._watcher.read()
    agent._heed_events()
    assert agent._agenda.touched.at == pytest.approx(clock.now, abs=0.1)
    clock.now += 0.1
    due(agent)
    assert agent.started == [("heal", ("file:other",))]
    end(agent, clock, corrected=["file:other"])


def test_without_events_sweeps_are_more_frequent_until_there_are_some_again(
    agent: Tried, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    def sweep() -> float:
        agent._agenda.wants = {"sweep"}
        Supervisor._start(agent, "sweep")
        end(agent, clock, watches={})
        return agent._agenda.sweep_at - clock.now

    monkeypatch.setattr(running, "Child", lambda _: Child())
    with monkeypatch.context() as patch:
        patch.setattr(watch, "InotifyFD", refuse)
        agent._watcher.close()
        agent._watcher = watch.Watcher()
        agent._heed_watcher()
        assert agent._agenda.sweep_at - clock.now <= 330
        for _ in range(3):
            assert 270 <= sweep() <= 330
        agent._publish()
        shown = (read_json(agent._places.status) or {})["watch"]
        assert (shown["mode"], shown["paths"]) == ("none", 0)
        assert "sysctl fs.inotify.max_user_instances" in shown["trouble"]
    sweep()
    assert 1620 <= sweep() <= 1980
    agent._publish()
    shown = (read_json(agent._places.status) or {})["watch"]
    assert (shown["mode"], shown["trouble"]) == ("inotify", None)
    # Each of both is said once.
    said = [line for line in capsys.readouterr().err.splitlines() if "seen" in line]
    assert [line.partition(":")[0] for line in said] == [
        "no change is seen before the next sweep",
        "changes are seen at once again",
    ]


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_after_a_sleep_or_with_another_time_all_is_asked_and_compared_at_once(
    agent: Tried, clock: Clock, jump: float
) -> None:
    agent._agenda.fetch_at = agent._agenda.sweep_at = clock.now + 1000
    # Clocks are corrected by little all the time.
    for slew in (0.5, -0.5, 4.9):
        clock.ahead += slew
        agent._heed_clock()
    assert due(agent) == []
    clock.ahead += jump
    agent._heed_clock()
    assert due(agent) == ["poll", "sweep"]
    end(agent, clock)
    agent._agenda.sweep_at = clock.now + 1000
    agent._heed_clock()
    assert due(agent) == []


def test_another_version_on_the_disk_ends_the_process_between_two_runs(
    agent: Tried, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "__init__.py"
    installed.write_text("")
    monkeypatch.setattr(module.reconciler, "__file__", str(installed))
    agent._code = module.stamp(str(installed))
    agent._agenda.wants = {"sweep"}
    due(agent)
    installed.unlink()
    installed.write_text("")
    agent._heed_renewal()
    assert not agent._stopping
    end(agent, clock)
    agent._heed_renewal()
    assert agent._stopping


def test_what_remotes_said_and_how_often_they_were_asked_survives_a_run_that_began_before(
    agent: Tried, clock: Clock
) -> None:
    offer(agent, OLD)
    agent._agenda.wants = {"sweep"}
    assert due(agent) == ["sweep"]
    told = State.from_json(agent._state.to_json())
    told.count("runs_total", kind="sweep")
    clock.now += 1
    offer(agent, OLD)
    agent._polled_at = clock.now
    end(agent, clock, state=told)
    assert agent._state.source["last_success"] == clock.now
    counted = {name.split("{")[0]: total for name, total in agent._state.totals.items()}
    assert counted == {"fetch_total": 2, "runs_total": 1}


def test_a_machine_that_has_no_process_left_is_waited_for(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    settled = State(trusted=OLD, applied=OLD, good=OLD)
    settled.save(Places(str(tmp_path)))
    config = Config(({"url": "/nowhere", "name": "o"},), notify=({"command": ["true"]},))
    agent = Supervisor(Places(str(tmp_path)), config)
    monkeypatch.setattr(os, "fork", full)
    monkeypatch.setattr(subprocess, "Popen", full)
    agenda = agent._agenda
    try:
        for _ in range(3):
            clock.now = max(clock.now, agenda.retry_at if agenda.retry_at != NEVER else 0.0)
            agenda.fetch_at = agenda.sweep_at = clock.now
            agent._start_what_is_due()
            assert agent._running is None
            assert not agent._poller.busy
            for kind in ("run", "fetch"):
                assert "Resource temporarily unavailable" in agent._state.problems[kind]["message"]
            agent._heed_outbox()
            # Nothing is due again at once, not even what was due by time.
            assert agenda.next(clock.now, running=False) >= clock.now + 5
            assert clock.now < agenda.fetch_at < clock.now + 10
        # Nobody could be told, which is not forgotten.
        assert agent._outbox.parcels
    finally:
        agent._watcher.close()


def test_a_commit_that_cannot_be_judged_is_tried_at_the_pace_of_retries(
    agent: Tried, clock: Clock
) -> None:
    """And not with each poll."""
    offer(agent, NEW)
    assert due(agent) == ["sync"]
    unread = State(trusted=OLD, applied=OLD, good=OLD)
    unread.problem("source", {"message": "cannot be read"}, clock.now)
    end(agent, clock, state=unread, failed=True)
    offer(agent, NEW)
    assert due(agent) == []
    clock.now = agent._agenda.retry_at
    assert due(agent) == ["retry"]


def test_a_run_makes_way_for_nothing_that_may_not_be_used(agent: Tried, clock: Clock) -> None:
    offer(agent, NEW)
    assert due(agent) == ["sync"]
    offer(agent, NEWER, usable=False)
    assert told(agent) == []
    end(agent, clock, state=State(trusted=NEW, applied=NEW, good=NEW))
    assert due(agent) == ["sync"]


def test_after_a_sleep_all_is_asked_and_judged_anew(agent: Tried, clock: Clock) -> None:
    """Keys are valid from some time on: what was refused in 1970 may not be now."""
    agent._agenda.fetch_at = NEVER
    agent._ahead -= 3600
    agent._heed_clock()
    assert due(agent) == ["poll", "sweep"]
    assert agent._agenda.answering


def test_what_it_rests_in_is_its_state(agent: Tried, clock: Clock) -> None:
    assert agent._phase() == "idle"
    agent._poll_ended({"error": {"type": "SourceError", "message": "no route"}})
    assert agent._phase() == "backoff"
    agent._agenda.wants = {"sweep"}
    agent._start_what_is_due()
    assert agent._phase() == "sweeping"
    end(agent, clock, failed=True)
    assert agent._phase() == "degraded"
    suspend(agent._places, "TICKET-7", 60, "alice")
    agent._heed_suspension()
    assert agent._phase() == "suspended"
