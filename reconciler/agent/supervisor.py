"""The process that stays: timers, events, signals. Everything heavy is done by children.

Nothing in here parses YAML, speaks Git or touches the machine. One run at a time; what asks for
another one meanwhile sets a flag, so the queue is one deep and the newest commit wins.

There are no threads, so that a run can be a fork: what it needs is in memory already.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any

import reconciler
from reconciler.agent import journal
from reconciler.agent.agenda import Agenda
from reconciler.agent.alone import alone
from reconciler.agent.config import Config
from reconciler.agent.fights import Fights, contended
from reconciler.agent.hints import Watch, stamp
from reconciler.agent.notices import Notices, subjects
from reconciler.agent.outbox import Outbox
from reconciler.agent.override import shown
from reconciler.agent.places import Places, machine_id
from reconciler.agent.poll import Poller, confirm, is_news, take_in
from reconciler.agent.running import Running
from reconciler.agent.schedule import NEVER, Schedule
from reconciler.agent.settings import key_stamps, load, usable
from reconciler.agent.signals import Signals
from reconciler.agent.state import State, Suspension, carry_over, suspension
from reconciler.agent.status import Live, compose, oneline, publish
from reconciler.agent.watch import Watcher
from reconciler.agent.worker import Job, Run
from reconciler.errors import ReconcilerError

#: The status file is never older than this, in seconds. Longer than polls are apart by default, so
#: that a host on which nothing happens is not woken between them.
FRESH = 90.0
#: Of the time after which systemd expects a sign of life: when one is given that is due, and when one
#: is given by who is awake anyway.
LATE, EARLY = 0.75, 0.25
#: Seconds by which the two clocks part only if the machine slept, or somebody set one of them.
JUMP = 5.0
#: Seconds until settings that could not be used are read again, though their file is the same.
REREAD = 300.0
#: What holds a commit back without being a failure.
GATES = ("Suspended", "Window")
#: What a run of each kind is shown as; of any other kind, `applying`.
AT_WORK = {"heal": "healing", "sweep": "sweeping", "boot": "recovering"}


class Supervisor:
    """One agent. Times are of `time.monotonic`, unless they are shown to people."""

    def __init__(self, places: Places, config: Config, unread: str = "") -> None:
        """unread: why the settings are not what the file says."""
        now = time.monotonic()
        self._places = places
        self._config = config
        self._file = stamp(places.config)
        self._reread_at = now + REREAD
        self._code = stamp(reconciler.__file__)
        self._state = State.load(places)
        self._held: Suspension | None = carry_over(places)
        self._live = Live(pid=os.getpid(), unread=unread)
        schedule = Schedule(machine_id() or socket.gethostname(), config.interval, config.sweep)
        # The catalog tells what heals, should the state have been lost.
        known = bool(self._state.trusted) or os.path.exists(places.catalog)
        self._agenda = Agenda.begin(schedule, now, known=known)
        self._agenda.asked = "trust" in self._state.problems
        self._fights = Fights()
        self._notices = Notices.load(places, places.notices)
        self._outbox = Outbox.load(places.outbox)
        self._poller = Poller(places, config)
        self._polled_at = 0.0
        self._running: Running | None = None
        #: The commit that the last run was to judge; the run at work makes way for a newer one.
        self._begun = ""
        self._superseded = False
        self._unfinished = False
        #: The last whole run took too long, and was told to stop.
        self._cut_short = False
        self._watcher = Watcher()
        self._signals = Signals()
        self._stopping = self._leaving = self._ended = False
        self._publish_at = now
        self._said = ""
        self._fed_at = 0.0
        self._ahead = time.time() - now

    # -- the loop ------------------------------------------------------------------------

    def run(self) -> int:
        """Until it is told to stop. Raises nothing that is expected."""
        self._signals.listen()
        journal.notify("READY=1")
        journal.log(
            "info", f"following {self._config.remotes[0]['url']}, branch {self._config.branch}"
        )
        if self._live.unread:
            journal.log("err", f"the settings are the last that could be used: {self._live.unread}")
        # What is here now is in every fork, and no collector has to touch it there.
        gc.freeze()
        self._heed_watcher()
        while not (self._stopping and self._running is None) and not self._leaving:
            self._wait()
            self._feed()
            self._heed_clock()
            self._heed_signals()
            self._take_poll()
            self._take_run()
            self._heed_settings()
            self._heed_suspension()
            self._heed_renewal()
            self._heed_outbox()
            if not self._stopping:
                self._start_what_is_due()
            self._show()
        journal.notify("STOPPING=1")
        self._ended = True
        self._publish()
        # What was counted since the last run.
        with contextlib.suppress(OSError):
            self._state.save(self._places)
        self._watcher.close()
        return 0

    def _wait(self) -> None:
        now = time.monotonic()
        due = [self._publish_at]
        if journal.watchdog():
            due.append(self._fed_at + journal.watchdog() * LATE)
        if self._poller.busy:
            due.append(self._poller.deadline)
        elif not self._stopping:
            due.append(self._agenda.fetch_at)
        if self._running is not None:
            due.append(self._running.due(self._config.run_limit))
        if not self._stopping:
            due.append(self._agenda.next(now, running=self._running is not None))
        if self._outbox.due != NEVER:
            due.append(now + self._outbox.due - time.time())
        events = self._watcher.fileno()
        reading = [self._signals.fileno(), *([events] if events >= 0 else ())]
        if self._poller.busy:
            reading.append(self._poller.pipe)
        if self._running is not None:
            reading.append(self._running.child.pipe)
        ready, _, _ = select.select(reading, [], [], max(0.0, min(min(due) - now, FRESH)))
        if events in ready:
            self._watcher.read()
            self._heed_events()

    def _heed_clock(self) -> None:
        """After a sleep, or a wrong time, what is known is older than it seems: all is done anew.

        The clock by which we wait stands still while the machine sleeps; the other one does not.
        """
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        if abs(self._ahead - before) < JUMP:
            return
        seconds = self._ahead - before
        journal.log("notice", f"the machine slept or its clock was set: {seconds:+.0f} s")
        self._agenda.wants.add("sweep")
        # Keys are valid from and until some time: what was refused may not be now.
        self._ask()

    def _heed_signals(self) -> None:
        for number in self._signals.take():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP:
                self._reload()
            elif number == signal.SIGUSR1:
                self._ask()
            elif number == signal.SIGUSR2:
                self._agenda.wants.add("sweep")

    def _stop(self) -> None:
        """The run ends after the resource at work; told so twice, nobody waits for that."""
        self._leaving = self._stopping
        if self._running is not None and self._leaving:
            self._running.hurry()
        elif self._running is not None:
            self._running.tell(time.monotonic())
        self._stopping = True
        self._publish_at = 0.0

    @journal.reloading()
    def _reload(self) -> None:
        """Other settings take effect at once, and so do other keys, on what was refused."""
        before, unread = self._config, self._live.unread
        self._file, self._reread_at = stamp(self._places.config), time.monotonic() + REREAD
        try:
            self._config, self._live.unread = load(self._places), ""
            journal.log("info", "settings read again")
        except ReconcilerError as error:
            self._live.unread = str(error)
            if self._live.unread != unread:
                journal.log("err", f"the settings stay as they were: {error}")
        if self._config != before:
            self._poller.follow(self._config)
            schedule = self._agenda.schedule
            schedule.interval, schedule.sweep = self._config.interval, self._config.sweep
            self._agenda.wants.add("sweep")
        if self._config != before or self._keys_changed():
            self._ask()
        self._publish_at = 0.0

    def _heed_settings(self) -> None:
        """A file that could not be used is read again once it is another, and now and then."""
        late = time.monotonic() >= self._reread_at
        if self._live.unread and (late or stamp(self._places.config) != self._file):
            self._reload()

    def _keys_changed(self) -> bool:
        """Whether commits would be judged by other keys than the last time."""
        return key_stamps(self._config) != self._state.keys

    def _heed_suspension(self) -> None:
        held = suspension(self._places)
        if held == self._held:
            return
        if held is None:
            journal.log("notice", "the suspension has ended")
            self._agenda.wants.add("sweep")
        else:
            journal.log("notice", f"suspended by {held.by}: {held.reason}")
            if self._running is not None:
                self._running.ask()
        self._held = held
        self._publish_at = 0.0

    def _heed_renewal(self) -> None:
        """Another version was installed: a fork would import what does not fit what it has."""
        idle = self._running is None and not self._stopping
        if idle and stamp(reconciler.__file__) != self._code:
            journal.log("notice", "another version was installed: starting anew")
            self._stopping = True

    # -- polling -------------------------------------------------------------------------

    def _ask(self) -> None:
        self._agenda.ask(time.monotonic(), polling=self._poller.busy)

    def _start_poll(self) -> None:
        self._agenda.poll_begins()
        # What stands in the way may be the mirror, at which only the provider looks.
        thorough = self._agenda.answering or bool(self._state.problems)
        try:
            self._poller.start(thorough=thorough, judging=self._running is not None)
        except OSError as error:
            self._poll_ended({"error": {"message": f"cannot start a poll: {error.strerror}"}})
        if not self._poller.glancing:
            self._publish_at = 0.0

    def _take_poll(self) -> None:
        try:
            found = self._poller.take()
        except OSError as error:
            found = {"error": {"message": f"cannot start a poll: {error.strerror}"}}
        if found is not None:
            self._poll_ended(found)

    def _poll_ended(self, found: dict[str, Any]) -> None:
        refused = self._state.source.get("refused")
        journal.log_all(take_in(self._state, self._config, found, time.time()))
        if "error" not in found:
            self._poll_brought(found, refused)
        self._polled_at = time.monotonic()
        busy = found.get("error", {}).get("type") == "LockBusy"
        self._agenda.poll_ended(self._polled_at, failed="error" in found and not busy)
        self._publish_at = 0.0
        self._tell_people()

    def _poll_brought(self, offer: dict[str, Any], refused: str | None) -> None:
        """refused: what was, before this poll."""
        commit, trusted = offer["commit"], self._state.trusted
        gone = commit == trusted and bool(refused)
        if gone or offer["rebuilt"] or self._keys_changed():
            self._agenda.wants.add("sync")
        elif commit == trusted:
            confirm(self._places, time.time())
        elif commit not in (refused, self._begun):
            self._agenda.wants.add("sync")
            if offer.get("usable"):
                self._supersede()

    def _supersede(self) -> None:
        """What is newer, and may be used, is begun as soon as the resource at work is done.

        What has taken over in this way comes to its end: a busy branch must not keep all runs from
        that. And what was begun in a window may finish, which what is newer might not.
        """
        running = self._running
        if running is None or running.heir or self._config.windows:
            return
        journal.log("info", "there is a newer commit: the run at work makes way for it")
        self._superseded = True
        running.ask()

    # -- runs ----------------------------------------------------------------------------

    def _start_what_is_due(self) -> None:
        now, agenda = time.monotonic(), self._agenda
        if now >= agenda.fetch_at and not self._poller.busy:
            self._start_poll()
        if self._running is not None:
            return
        if now >= agenda.touched.at:
            self._take_events()
        kind = agenda.due(now)
        if kind:
            offer = self._poller.offer
            judge = kind == "sync" or (offer and is_news(self._state, self._config, offer))
            self._start(kind, offer=offer if judge else None)
        elif "run" not in self._state.problems:
            # After a run that broke off, a heal would, too; the retry, a whole run, is waited for.
            due = agenda.touched.take(self._fights, now)
            if due:
                self._start("heal", ids=due)

    def _take_events(self) -> None:
        self._agenda.touched.at, self._agenda.touched.early = NEVER, False
        ids, lost = self._watcher.take()
        self._agenda.touched.ids |= ids
        if lost:
            self._live.overflows = self._watcher.overflows
            self._agenda.wants.add("sweep")

    def _start(
        self, kind: str, *, offer: Mapping[str, Any] | None = None, ids: Collection[str] = ()
    ) -> None:
        now, noticed = time.monotonic(), self._agenda.touched.since
        job = Job("sync" if kind == "retry" else kind, self._config, ids=tuple(ids), offer=offer)
        run = Run(job, self._state, self._places, self._watcher.paths)
        self._agenda.run_begins(kind, now, blind=bool(self._live.unwatched))
        try:
            self._running = Running.begin(
                run,
                kind,
                now,
                commit=str(offer["commit"]) if offer else "",
                totals=dict(self._state.totals),
                heir=self._superseded,
                ids=job.ids,
                noticed=noticed,
            )
        except OSError as error:
            self._failed(f"a run cannot be started: {error.strerror}")
            return
        self._superseded = False
        self._begun = self._running.commit or self._begun
        self._publish_at = 0.0

    def _take_run(self) -> None:
        running = self._running
        if running is None:
            return
        running.heed(time.monotonic(), self._config.run_limit)
        if running.child.ended():
            self._running = None
            self._finish(running)

    def _finish(self, running: Running) -> None:
        now = time.monotonic()
        outcome = running.child.answer()
        if outcome is None:
            self._broke_off(running)
            return
        heal = running.kind == "heal"
        state = State.from_json(outcome["state"])
        before = self._state
        if self._polled_at > running.since:
            state.catch_up(before, running.totals)
        self._state = state
        if state.trusted != before.trusted:
            # It starts from the beginning: what the last one could not do, and what was fought over.
            self._agenda.schedule.succeeded()
            self._fights.forget()
        if heal and outcome["corrected"] and not outcome["failed"]:
            state.observe("heal_latency_seconds", now - running.noticed)
        about: dict[str, Any] = {"commit": state.applied, "run": state.last_run.get("id", "")}
        journal.log_all(outcome["messages"], **about)
        for id_ in self._fights.corrected(outcome["corrected"], now):
            journal.log("err", contended(id_), resource=id_, cause="contended", **about)
        self._fights.looked(set(running.ids) - set(outcome["corrected"]), now)
        waits = state.held_until if state.held_by == "Window" else 0.0
        opens = waits - time.time() if waits else NEVER
        # A window that has opened before the run was over is as good as none.
        behind = bool(state.candidate) and (state.held_by not in GATES or opens <= 0)
        self._cut_short = running.told != NEVER or (heal and self._cut_short)
        self._unfinished = outcome["failed"] or behind or self._cut_short
        self._agenda.run_ended(
            now, unfinished=self._unfinished, opens=opens if opens > 0 else NEVER
        )
        self._set_watches(running, outcome["watches"])
        self._publish_at = 0.0
        self._tell_people()

    def _broke_off(self, running: Running) -> None:
        code = running.child.process.returncode
        if running.asked and code == -signal.SIGTERM:
            self._begun = ""  # it was told to stop before it had begun
            self._publish_at = 0.0
            return
        self._failed(f"the run ended with code {code} and without a word")

    def _failed(self, reason: str) -> None:
        """A run came to nothing, not even to an outcome."""
        self._state.problem("run", {"message": reason}, time.time())
        journal.log("err", reason)
        self._unfinished = True
        self._agenda.run_ended(time.monotonic(), unfinished=True)
        self._publish_at = 0.0

    def _set_watches(self, running: Running, watches: dict[str, Any] | None) -> None:
        """What the run found is to be watched: everything, or what it was about."""
        if watches is not None:
            found = {path: _watch(entry) for path, entry in watches.items()}
            if running.kind == "heal":
                self._watcher.update(found)
            else:
                self._watcher.set(found)
        self._heed_events()
        self._heed_watcher()

    def _heed_events(self) -> None:
        if self._watcher.news:
            self._agenda.touched.settle(time.monotonic())

    def _heed_watcher(self) -> None:
        """Of what is not watched nobody tells but the sweep, which comes more often then."""
        live, watcher = self._live, self._watcher
        live.watched, live.watch_mode = watcher.count, watcher.mode
        if watcher.trouble == live.unwatched:
            return
        live.unwatched = watcher.trouble
        if not live.unwatched:
            journal.log("notice", "changes are seen at once again")
            return
        what = "no change is" if watcher.mode == "none" else "not all changes are"
        journal.log("warning", f"{what} seen before the next sweep: {live.unwatched}")
        self._agenda.sweep_soon(time.monotonic())

    # -- what is shown -------------------------------------------------------------------

    def _show(self) -> None:
        if time.monotonic() >= self._publish_at:
            self._publish()

    def _publish(self) -> None:
        now, clock = time.time(), time.monotonic()
        document = self._compose(now)
        publish(self._places, document, self._state.totals)
        said = oneline(document)
        if said != self._said:
            journal.notify(f"STATUS={said}")
        self._said = said
        self._publish_at = clock + FRESH

    def _phase(self) -> str:
        """What it is doing, or what it rests in."""
        rests = (
            ("suspended", self._held is not None),
            ("degraded", self._unfinished),
            ("contended", bool(self._live.contended)),
            ("fetching", self._poller.busy and not self._poller.glancing),
            ("gated", self._state.held_by == "Window"),
            ("backoff", "fetch" in self._state.problems),
        )
        if self._ended:
            return "stopped"
        if self._stopping:
            return "stopping"
        if self._running is not None:
            return AT_WORK.get(self._running.kind, "applying")
        return next((name for name, holds in rests if holds), "idle")

    def _compose(self, now: float) -> dict[str, Any]:
        clock, live, agenda = time.monotonic(), self._live, self._agenda
        live.contended = self._fights.contended(clock)
        live.override = shown(self._places, self._state.candidate)
        phase = self._phase()
        if phase != live.state:
            live.state, live.state_since = phase, now

        def at(due: float) -> float:
            return 0.0 if due == NEVER else now + due - clock

        live.next_fetch, live.next_sweep = at(agenda.fetch_at), at(agenda.sweep_at)
        live.next_retry = at(agenda.retry_at)
        return compose(self._state, live, self._held, **self._config.ages, now=now)

    def _tell_people(self) -> None:
        """Notices of conditions that changed go on their way."""
        if not self._config.notify:
            return
        now = time.time()
        document = self._compose(now)
        due = self._notices.due(document["conditions"], now, subjects(document))
        if due:
            self._outbox.post(due, document, self._config.notify, now)
        self._notices.save()

    def _heed_outbox(self) -> None:
        """A child sends what is due, and nobody waits for it."""
        now = time.time()
        journal.log_all(self._outbox.take(now))
        try:
            self._outbox.send(self._config.notify, now)
        except OSError as error:
            journal.log("err", f"notifications cannot be sent now: {error.strerror}")

    def _feed(self) -> None:
        """Sign of life, unless a run outlives all its limits."""
        now = time.monotonic()
        if not journal.watchdog() or now < self._fed_at + journal.watchdog() * EARLY:
            return
        running = self._running
        if running is None or not running.has_outlived(now, self._config.run_limit):
            journal.notify("WATCHDOG=1")
        self._fed_at = now


def _watch(entry: Any) -> Watch:
    """A watch as it comes back through JSON."""
    signed, ids = entry
    return Watch(tuple(signed) if signed else None, tuple(ids))


def main(root: str = "/") -> int:
    """Run the agent; 3 if its settings cannot be used, 9 if there is one already."""
    places = Places(root)
    try:
        with alone(places):
            config, unread = usable(places)
            return Supervisor(places, config, unread).run()
    except ReconcilerError as error:
        journal.log("err", str(error))
        return error.exit_code
