"""One whole run without a resident process: fetch, verify, compile, converge, tell.

What a resident process would know is in a file: which boot it was, and what was fought about.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.agent import journal
from reconciler.agent.alone import alone
from reconciler.agent.config import Config
from reconciler.agent.fights import Fights, Streak, contended
from reconciler.agent.notices import Notices, subjects
from reconciler.agent.outbox import Outbox
from reconciler.agent.outcome import unwritten
from reconciler.agent.override import shown
from reconciler.agent.places import Places, boot_id, machine_id, read_json, write
from reconciler.agent.poll import ask, confirm, is_news, take_in
from reconciler.agent.running import GRACE
from reconciler.agent.schedule import Schedule
from reconciler.agent.settings import usable
from reconciler.agent.state import REACH, State, carry_over, suspension
from reconciler.agent.status import VALID, Live, compose, exit_code, oneline, publish
from reconciler.agent.worker import Job, Outcome, Run
from reconciler.errors import ReconcilerError

#: Seconds between two looks whether to go on waiting.
STEP = 0.2


@dataclass
class Memory:
    """boot: in which the last run was. Of that boot's monotonic clock: fights, and ask_at, until
    when remotes that did not answer are left alone; failures: how often they did not."""

    boot: str = ""
    fights: Fights = field(default_factory=Fights)
    failures: int = 0
    ask_at: float = 0.0

    @classmethod
    def load(cls, places: Places) -> Memory:
        """What the last run left; nothing if that is lost, or was another boot."""
        found = read_json(places.once) or {}
        memory = cls()
        if found.get("boot") == boot_id():
            memory.boot = boot_id()
            with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
                memory.failures, memory.ask_at = int(found["failures"]), float(found["ask_at"])
                memory.fights = Fights({
                    str(id_): Streak([float(at) for at in one["times"]], bool(one["contended"]))
                    for id_, one in found["fights"].items()
                    if one["times"]
                })  # fmt: skip
        return memory

    def save(self, places: Places) -> None:
        """Raises OSError."""
        streaks = {id_: asdict(one) for id_, one in self.fights.streaks.items()}
        kept = {"failures": self.failures, "ask_at": self.ask_at, "fights": streaks}
        write(places.once, json.dumps({"boot": boot_id(), **kept}).encode())


class Once:
    """The runs of one start, on this machine."""

    def __init__(
        self, places: Places, config: Config, unread: str = "", *, patient: bool = False
    ) -> None:
        """unread: why the settings are not what the file says. patient: nobody waits for it."""
        self._places = places
        self._config = config
        self._unread = unread
        self._patient = patient
        self._state = State.load(places)
        self._memory = Memory.load(places)
        self._schedule = Schedule(
            machine_id() or socket.gethostname(), config.interval, config.sweep
        )
        self._schedule.failures = self._memory.failures
        self._messages: list[dict[str, Any]] = []
        self._run: Run | None = None
        self._stopped = False
        carry_over(places)

    def carry_out(self) -> tuple[Outcome, dict[str, Any]]:
        """What came of it, and the status."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        first = self._before_asking()
        outcome = self._carry_out(Job(first, self._config)) if first else None
        if outcome is not None and not self._stopped and self._is_time():
            self._publish(outcome)
            outcome = None
        if outcome is None:
            self._publish(None)
            offer = self._ask()
            outcome = self._carry_out(Job("sync", self._config, offer=offer))
        document = self._publish(outcome)
        outcome.messages = self._messages
        self._tell(document)
        return outcome, document

    # -- asking --------------------------------------------------------------------------

    def _before_asking(self) -> str:
        """The kind of run that comes first: healing waits for no network that may not be there."""
        if self._state.applied and not self._memory.boot:
            return "boot"
        silent = not self._state.problems.keys().isdisjoint(REACH)
        return "sweep" if self._state.applied and silent else ""

    def _is_time(self) -> bool:
        """Whether to ask now. Hosts that booted together, or lost their server together, do not all
        come to it at once."""
        if not self._patient:
            return True
        now = time.monotonic()
        if self._memory.boot:
            return now >= self._memory.ask_at
        end = self._schedule.first_fetch(now)
        while time.monotonic() < end and not self._stopped:
            time.sleep(STEP)
        return not self._stopped

    def _ask(self) -> dict[str, Any] | None:
        """What the remotes offer, if it is to be judged."""
        found, now = ask(self._places, self._config), time.time()
        self._messages += take_in(self._state, self._config, found, now)
        schedule, clock = self._schedule, time.monotonic()
        self._memory.ask_at = schedule.after_failure(clock) if "error" in found else clock
        self._memory.failures = schedule.failures if "error" in found else 0
        if "error" in found:
            return None
        if is_news(self._state, self._config, found):
            return found
        confirm(self._places, now)
        return None

    # -- runs ----------------------------------------------------------------------------

    def _carry_out(self, job: Job) -> Outcome:
        self._publish(None)
        fights, before = self._memory.fights, self._state.trusted
        now = time.monotonic()
        resting = [one for one in fights.contended(now) if fights.due(one, now) > now]
        job = dataclasses.replace(job, resting=resting)
        self._run = Run(job, self._state, self._places)
        if self._stopped:
            self._run.stop()
        with self._limited():
            outcome = self._run.carry_out()
        self._state = outcome.state
        if self._state.trusted != before:
            fights.forget()
        fought = fights.corrected([*outcome.corrected, *outcome.resisted], time.monotonic())
        try:
            self._memory.save(self._places)
        except OSError as error:
            outcome.trouble("run", unwritten(error))
        self._messages += outcome.messages
        for id_ in fought:
            self._say(contended(id_), resource=id_, cause="contended")
        return outcome

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """A run that takes too long is told to stop; if it does not, the kernel ends us all."""

        def late(*_: object) -> None:
            self._say(
                f"the run took longer than {self._config.run_limit:.0f} s and is told to stop"
            )
            self._stop()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, self._config.run_limit)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _stop(self) -> None:
        """End at the next boundary."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    # -- what is said --------------------------------------------------------------------

    def _say(self, message: str, **fields: str) -> None:
        self._messages.append({"priority": "err", "message": message, **fields})

    def _publish(self, outcome: Outcome | None) -> dict[str, Any]:
        """Write down how the host is now, and say so. outcome: None before a run."""
        places, config, now = self._places, self._config, time.time()
        rests = "degraded" if outcome and outcome.failed else "idle"
        live = Live(state=rests if outcome else "applying", pid=os.getpid(), unread=self._unread)
        live.valid = max(VALID, 3 * config.interval)
        if not outcome:
            live.valid = max(
                live.valid, config.run_limit + 2 * GRACE, config.fetch_patience + GRACE
            )
        live.next_fetch = now + max(config.interval, self._memory.ask_at - time.monotonic())
        live.override = shown(places, self._state.candidate)
        live.contended = self._memory.fights.contended(time.monotonic())
        document = compose(self._state, live, suspension(places), **config.ages, now=now)
        if outcome:
            with contextlib.suppress(OSError):  # the run was the first to find out, and said so
                self._state.save(places)
        publish(places, document, self._state.totals)
        return document

    def _tell(self, document: dict[str, Any]) -> None:
        if not self._config.notify:
            return
        config, now = self._config, time.time()
        places = self._places
        notices, outbox = Notices.load(places, places.notices), Outbox.load(places.outbox)
        due = notices.due(document["conditions"], now, subjects(document))
        if due:
            outbox.post(due, document, config.notify, now)
        notices.save()
        try:
            self._messages += outbox.wait(config.notify, now)
        except OSError as error:
            self._say(f"notifications cannot be sent now: {error.strerror}")


def once(
    places: Places, config: Config, unread: str = "", *, patient: bool = False
) -> tuple[Outcome, dict[str, Any]]:
    """What came of it, and the status. unread: why the settings are not what the file says.
    patient: nobody waits for it, so it may come to its remotes when others do not.

    Raises LockBusy if an agent is at work.
    """
    with alone(places):
        return Once(places, config, unread, patient=patient).carry_out()


def main() -> int:
    """For the timer: says everything to the journal; the exit code is that of `agent status`."""
    places = Places()
    try:
        config, unread = usable(places)
        if unread:
            journal.log("err", f"the settings are the last that could be used: {unread}")
        outcome, document = once(places, config, unread, patient=True)
    except ReconcilerError as error:
        journal.log("err", str(error))
        return error.exit_code
    last = outcome.state.last_run
    journal.log_all(outcome.messages, commit=outcome.state.applied, run=last.get("id", ""))
    journal.log("info", oneline(document))
    return exit_code(document)


if __name__ == "__main__":
    sys.exit(main())
