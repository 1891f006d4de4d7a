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
import subprocess
import time
from collections.abc import Collection, Mapping
from typing import Any

import reconciler
from reconciler.agent import journal
from reconciler.agent.alone import alone
from reconciler.agent.config import Config
from reconciler.agent.fights import Fights, contended
from reconciler.agent.hints import Watch, signature
from reconciler.agent.notices import Notices, deliver
from reconciler.agent.places import Places, machine_id
from reconciler.agent.poll import Poller
from reconciler.agent.running import Running
from reconciler.agent.schedule import NEVER, Schedule
from reconciler.agent.settings import keys, load, usable
from reconciler.agent.signals import Signals
from reconciler.agent.state import State, Suspension, suspension
from reconciler.agent.status import Live, compose, oneline, publish
from reconciler.agent.touched import Touched
from reconciler.agent.watch import Watcher
from reconciler.agent.worker import Job, Run
from reconciler.errors import ReconcilerError

#: The status file is never older than this, in seconds.
FRESH = 60.0
#: Seconds by which the two clocks part only if the machine slept, or somebody set one of them.
JUMP = 5.0
#: What holds a commit back without being a failure.
GATES = ("Suspended", "Window")


class Supervisor:
    """One agent. Times are of `time.monotonic`, unless they are shown to people."""

    def __init__(self, places: Places, config: Config, unread: str = "") -> None:
        """unread: why the settings are not what the file says."""
        self._places = places
        self._config = config
        self._file = signature(places.config)
        self._keys = keys(config)
        self._state = State.load(places)
        self._live = Live(pid=os.getpid(), unread=unread)
        self._schedule = Schedule(
            machine_id() or socket.gethostname(), config.interval, config.sweep
        )
        self._fights = Fights()
        self._notices = Notices.load(places.notices)
        self._running: Running | None = None
        self._superseded = False
        self._poller = Poller(places, config)
        self._tellers: list[subprocess.Popen[bytes]] = []
        self._watcher = Watcher()
        self._signals = Signals()
        self._stopping = False
        self._leaving = False
        now = time.monotonic()
        # The catalog tells what heals, should the state have been lost.
        known = bool(self._state.trusted) or os.path.exists(places.catalog)
        self._want: set[str] = {"boot"} if known else set()
        # A run of all by what the next poll brings: for a person, or for what was refused before.
        self._asked = "trust" in self._state.problems
        self._answering = False
        self._polled_at = 0.0
        self._fetch_at = self._schedule.first_fetch(now) if known else now
        self._sweep_at = self._schedule.next_sweep(now)
        self._retry_at = NEVER
        # A window is looked at by runs; the first is there at once.
        self._open_at = NEVER
        self._touched = Touched()
        self._publish_at = now
        self._fed_at = 0.0
        self._ahead = time.time() - now
        self._held: Suspension | None = suspension(places)
        self._code = signature(reconciler.__file__)

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
            self._heed_clock()
            self._heed_signals()
            self._take_poll()
            self._take_run()
            self._heed_settings()
            self._heed_suspension()
            self._heed_renewal()
            if not self._stopping:
                self._start_what_is_due()
            self._show()
            self._feed()
        journal.notify("STOPPING=1")
        self._enter("stopped")
        self._publish()
        self._watcher.close()
        return 0

    def _wait(self) -> None:
        now = time.monotonic()
        due = [self._publish_at, self._fed_at + (journal.watchdog() or FRESH)]
        if self._poller.busy:
            due.append(self._poller.deadline)
        elif not self._stopping:
            due.append(self._fetch_at)
        if self._running is not None:
            due.append(self._running.due(self._config.run_limit))
        elif not self._stopping:
            due += [self._sweep_at, self._retry_at, self._open_at, self._touched.at]
            due.append(now if self._want else NEVER)
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
        self._want.add("sweep")
        if not self._poller.busy:
            self._fetch_at = time.monotonic()

    def _heed_signals(self) -> None:
        for number in self._signals.take():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP:
                self._reload()
            elif number == signal.SIGUSR1:
                self._ask()
            elif number == signal.SIGUSR2:
                self._want.add("sweep")

    def _stop(self) -> None:
        """The run ends after the resource at work; told so twice, nobody waits for that."""
        self._leaving = self._stopping
        if self._running is not None and self._leaving:
            self._running.hurry()
        elif self._running is not None:
            self._running.tell(time.monotonic())
        self._stopping = True
        self._enter("stopping")

    @journal.reloading()
    def _reload(self) -> None:
        """Other settings take effect at once, and so do other keys, on what was refused."""
        before = (self._config, self._keys)
        self._file = signature(self._places.config)
        try:
            self._config, self._live.unread = load(self._places), ""
            journal.log("info", "settings read again")
        except ReconcilerError as error:
            self._live.unread = str(error)
            journal.log("err", f"the settings stay as they were: {error}")
        if (self._config, keys(self._config)) != before:
            self._poller.follow(self._config)
            self._schedule.interval = self._config.interval
            self._schedule.sweep = self._config.sweep
            self._want.add("sweep")
            self._ask()
        self._publish_at = 0.0

    def _heed_settings(self) -> None:
        """A file that could not be used is read again once it is another."""
        if self._live.unread and signature(self._places.config) != self._file:
            self._reload()

    def _heed_suspension(self) -> None:
        held = suspension(self._places)
        if held == self._held:
            return
        if held is None:
            journal.log("notice", "the suspension has ended")
            self._want.add("sweep")
        else:
            journal.log("notice", f"suspended by {held.by}: {held.reason}")
            if self._running is not None:
                self._running.ask()
        self._held = held
        self._publish_at = 0.0

    def _heed_renewal(self) -> None:
        """Another version was installed: a fork would import what does not fit what it has."""
        idle = self._running is None and not self._stopping
        if idle and signature(reconciler.__file__) != self._code:
            journal.log("notice", "another version was installed: starting anew")
            self._stopping = True

    # -- polling -------------------------------------------------------------------------

    def _ask(self) -> None:
        """Poll now, then run: a server that hangs must not keep a run, and so healing, waiting."""
        self._asked = True
        if not self._poller.busy:
            self._fetch_at = time.monotonic()

    def _start_poll(self) -> None:
        self._fetch_at = NEVER
        self._answering, self._asked = self._asked, False
        # What stands in the way may be the mirror, at which only the provider looks.
        thorough = self._answering or bool(self._state.problems)
        try:
            self._poller.start(thorough=thorough)
        except OSError as error:
            self._poll_failed({"message": f"cannot start a poll: {error.strerror}"})

    def _take_poll(self) -> None:
        try:
            found = self._poller.take()
        except OSError as error:
            found = {"error": {"message": f"cannot start a poll: {error.strerror}"}}
        if found is None:
            return
        if "error" in found:
            self._poll_failed(found["error"])
        else:
            self._poll_brought(found)
        if self._answering:
            self._want.add("sync")
        if self._asked:
            self._fetch_at = time.monotonic()
        self._polled_at = time.monotonic()
        self._publish_at = 0.0
        self._tell_people()

    def _poll_failed(self, error: dict[str, Any]) -> None:
        now, clock, state = time.time(), time.monotonic(), self._state
        if error.get("type") == "LockBusy":
            self._fetch_at = self._schedule.next_fetch(clock)
            return
        state.unheard(self._config.remotes, str(error.get("message", "")), now)
        if state.unreached(error, now):
            journal.log("err", f"fetch: {error.get('text') or error['message']}")
        self._fetch_at = self._schedule.after_failure(clock)

    def _poll_brought(self, offer: dict[str, Any]) -> None:
        now, state = time.time(), self._state
        if state.reached():
            journal.log("info", "fetching works again")
        if offer["rebuilt"]:
            journal.log("warning", f"the mirror was damaged and made anew: {offer['rebuilt']}")
        commit, refused = offer["commit"], state.source.get("refused")
        state.heard(self._config.remotes, offer, now)
        self._fetch_at = self._schedule.next_fetch(time.monotonic())
        gone = commit == state.trusted and bool(refused)
        repaired = commit == refused and keys(self._config) != self._keys
        if gone or repaired or offer["rebuilt"]:
            self._want.add("sync")
        elif commit == state.trusted:
            # The word of a remote is remembered where trust is, for the alarm of `max_age`.
            with contextlib.suppress(OSError):
                os.utime(os.path.join(self._places.trust, "contact"), (now, now))
        elif commit != refused and (self._running is None or commit != self._running.commit):
            self._want.add("sync")
            self._supersede()

    def _supersede(self) -> None:
        """What is newer is begun as soon as the resource at work is done.

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
        now = time.monotonic()
        if now >= self._fetch_at and not self._poller.busy:
            self._start_poll()
        if self._running is not None:
            return
        self._note_what_is_due(now)
        for kind in ("sync", "boot", "retry", "sweep"):
            if kind in self._want:
                # One whole run does what any of them would do.
                judge = self._is_news() or "sync" in self._want or "trust" in self._state.problems
                self._want.clear()
                self._start(kind, offer=self._poller.offer if judge else None)
                return
        self._start_healing(now)

    def _is_news(self) -> bool:
        """Whether nobody has judged yet what the last poll brought: a run may have broken off."""
        known = (self._state.trusted, self._state.source.get("refused"))
        offer = self._poller.offer
        return offer is not None and offer["commit"] not in known

    def _note_what_is_due(self, now: float) -> None:
        if now >= self._sweep_at:
            self._want.add("sweep")
        if now >= self._retry_at:
            self._want.add("retry")
        if now >= self._open_at:
            self._want.add("sweep")
        if now >= self._touched.at:
            self._take_events()

    def _start_healing(self, now: float) -> None:
        if "run" in self._state.problems:
            return  # it would break off like the last one; the retry, a whole run, is waited for
        due = self._touched.take(self._fights, now)
        if due:
            self._start("heal", ids=due)

    def _take_events(self) -> None:
        self._touched.at = NEVER
        ids, lost = self._watcher.take()
        self._touched.ids |= ids
        if lost:
            self._live.overflows = self._watcher.overflows
            self._want.add("sweep")

    def _start(
        self, kind: str, *, offer: Mapping[str, Any] | None = None, ids: Collection[str] = ()
    ) -> None:
        now = time.monotonic()
        kind_of_job = "sync" if kind == "retry" else kind
        job = Job(kind_of_job, self._config, ids=tuple(ids), offer=offer)
        if offer is not None:
            self._keys = keys(self._config)
        run = Run(job, self._state, self._places, self._watcher.paths)
        try:
            self._running = Running.begin(
                run,
                kind,
                now,
                commit=str(offer["commit"]) if offer else "",
                totals=dict(self._state.totals),
                heir=self._superseded,
                noticed=self._touched.since,
            )
        except OSError as error:
            self._failed(f"a run cannot be started: {error.strerror}")
            return
        self._superseded = False
        if kind != "heal":
            self._sweep_at = self._schedule.next_sweep(now, blind=bool(self._live.unwatched))
            self._retry_at = self._open_at = NEVER
            self._touched.clear()
        self._enter(
            {"heal": "healing", "sweep": "sweeping", "boot": "recovering"}.get(kind, "applying")
        )

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
        state = State.from_json(outcome["state"])
        before = self._state
        if self._polled_at > running.since:
            state.catch_up(before, running.totals)
        self._state = state
        if state.trusted != before.trusted:
            # It starts from the beginning: what the last one could not do, and what was fought over.
            self._schedule.succeeded()
            self._fights.forget()
        if running.kind == "heal" and outcome["corrected"] and not outcome["failed"]:
            state.observe("heal_latency_seconds", now - running.noticed)
        run = state.last_run.get("id", "")
        journal.log_all(outcome["messages"], commit=state.applied, run=run)
        for id_ in self._fights.corrected(outcome["corrected"], now):
            journal.log(
                "err",
                contended(id_),
                resource=id_,
                cause="contended",
                commit=state.applied,
                run=run,
            )
        behind = bool(state.candidate) and state.held_by not in GATES
        unfinished = outcome["failed"] or behind or running.told != NEVER
        opens = state.held_until - time.time() if state.held_until else NEVER
        self._open_at = now + max(0.0, opens)
        if unfinished:
            self._retry_at = min(self._retry_at, self._schedule.retry(now))
        else:
            self._schedule.succeeded()
            self._retry_at = NEVER
        self._set_watches(running, outcome["watches"])
        self._enter("degraded" if unfinished else "idle")
        self._tell_people()

    def _broke_off(self, running: Running) -> None:
        code = running.child.process.returncode
        if running.asked and code == -signal.SIGTERM:
            self._enter("idle")  # it was told to stop before it had begun
            return
        self._failed(f"the run ended with code {code} and without a word")

    def _failed(self, reason: str) -> None:
        """A run came to nothing, not even to an outcome."""
        self._state.problem("run", {"message": reason}, time.time())
        journal.log("err", reason)
        self._retry_at = self._schedule.retry(time.monotonic())
        self._enter("degraded")

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
            self._touched.settle(time.monotonic())

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
        soon = self._schedule.next_sweep(time.monotonic(), blind=True)
        self._sweep_at = min(self._sweep_at, soon)

    # -- what is shown -------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        if self._live.state != state:
            self._live.state, self._live.state_since = state, time.time()
        self._publish_at = 0.0

    def _show(self) -> None:
        if self._live.state == "starting" and self._running is None:
            self._enter("idle")
        if time.monotonic() >= self._publish_at:
            self._publish()

    def _publish(self) -> None:
        now, clock, live = time.time(), time.monotonic(), self._live
        live.contended = self._fights.contended(clock)
        live.next_fetch = now + self._fetch_at - clock if self._fetch_at != NEVER else 0.0
        live.next_sweep = now + self._sweep_at - clock
        document = self._compose(now)
        publish(self._places, document, self._state.totals)
        journal.notify(f"STATUS={oneline(document)}")
        self._publish_at = clock + FRESH

    def _compose(self, now: float) -> dict[str, Any]:
        return compose(self._state, self._live, self._held, **self._config.ages, now=now)

    def _tell_people(self) -> None:
        """Notices of conditions that changed, sent by a child that nobody waits for."""
        self._tellers = [one for one in self._tellers if one.poll() is None]
        if not self._config.notify:
            return
        now = time.time()
        document = self._compose(now)
        due = self._notices.due(document["conditions"], now)
        if due:
            self._tellers.append(deliver(self._config.notify, due, document))

    def _feed(self) -> None:
        """Sign of life, unless a run outlives all its limits."""
        now = time.monotonic()
        every = journal.watchdog()
        if every and now < self._fed_at + every:
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
