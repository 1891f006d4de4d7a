"""One whole run without a resident process: fetch, verify, compile, converge, tell.

What a resident process would know is in a file: which boot it was, and what was fought about.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.agent import journal
from reconciler.agent.alone import alone
from reconciler.agent.config import Config
from reconciler.agent.fights import Fights, Streak, contended
from reconciler.agent.notices import Notices, deliver
from reconciler.agent.places import Places, boot_id, read_json, write
from reconciler.agent.running import GRACE
from reconciler.agent.settings import usable
from reconciler.agent.state import REACH, State, suspension
from reconciler.agent.status import VALID, Live, compose, exit_code, oneline, publish
from reconciler.agent.worker import Job, Outcome, Run
from reconciler.errors import ReconcilerError


@dataclass
class Memory:
    """boot: in which the last run was. fights: in times of that boot's monotonic clock."""

    boot: str = ""
    fights: Fights = field(default_factory=Fights)

    @classmethod
    def load(cls, places: Places) -> Memory:
        """What the last run left; nothing if that is lost, or was another boot."""
        found = read_json(places.once) or {}
        memory = cls()
        if found.get("boot") == boot_id():
            memory.boot = boot_id()
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                memory.fights = Fights({
                    str(id_): Streak([float(at) for at in one["times"]], bool(one["contended"]))
                    for id_, one in found["fights"].items()
                    if one["times"]
                })  # fmt: skip
        return memory

    def save(self, places: Places) -> None:
        """Raises OSError."""
        streaks = {id_: asdict(one) for id_, one in self.fights.streaks.items()}
        write(places.once, json.dumps({"boot": boot_id(), "fights": streaks}).encode())


class Once:
    """The runs of one start, on this machine."""

    def __init__(self, places: Places, config: Config, unread: str = "") -> None:
        """unread: why the settings are not what the file says."""
        self._places = places
        self._config = config
        self._unread = unread
        self._state = State.load(places)
        self._memory = Memory.load(places)
        self._messages: list[dict[str, Any]] = []
        self._run: Run | None = None
        self._stopped = False

    def carry_out(self) -> tuple[Outcome, dict[str, Any]]:
        """What came of it, and the status. Raises OSError where the state cannot be written."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        ask = Job("sync", self._config, fetch=True)
        job = self._before_asking() or ask
        outcome = self._carry_out(job)
        if job is not ask and not self._stopped:
            self._publish(outcome)
            outcome = self._carry_out(ask)
        document = self._publish(outcome)
        outcome.messages = self._messages
        if self._config.notify:
            notices = Notices.load(self._places.notices)
            due = notices.due(document["conditions"], document["written"])
            if due:
                deliver(self._config.notify, due, document).wait()
        return outcome, document

    def _before_asking(self) -> Job | None:
        """Healing waits for no network that may not be up yet, or was not there the last time."""
        if self._state.applied and not self._memory.boot:
            return Job("boot", self._config)
        if self._state.applied and not self._state.problems.keys().isdisjoint(REACH):
            return Job("sweep", self._config)
        return None

    def _carry_out(self, job: Job) -> Outcome:
        fights, before = self._memory.fights, self._state.trusted
        now = time.monotonic()
        resting = [one for one in fights.contended(now) if fights.due(one, now) > now]
        job = dataclasses.replace(job, resting=resting)
        self._run = Run(job, self._state, self._places)
        with self._limited():
            outcome = self._run.carry_out()
        self._state = outcome.state
        self._messages += outcome.messages
        if self._state.trusted != before:
            fights.forget()
        for id_ in fights.corrected([*outcome.corrected, *outcome.resisted], time.monotonic()):
            self._say(contended(id_), resource=id_, cause="contended")
        self._memory.save(self._places)
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

    def _say(self, message: str, **fields: str) -> None:
        self._messages.append({"priority": "err", "message": message, **fields})

    def _publish(self, outcome: Outcome) -> dict[str, Any]:
        """Write down how the host is now, and say so."""
        places, config, now = self._places, self._config, time.time()
        live = Live(state="degraded" if outcome.failed else "idle", pid=os.getpid())
        live.unread = self._unread
        live.valid = max(VALID, 3 * config.interval)
        live.next_fetch = now + config.interval
        live.contended = self._memory.fights.contended(time.monotonic())
        document = compose(self._state, live, suspension(places), **config.ages, now=now)
        self._state.save(places)
        publish(places, document, self._state.totals)
        return document


def once(places: Places, config: Config, unread: str = "") -> tuple[Outcome, dict[str, Any]]:
    """What came of it, and the status. unread: why the settings are not what the file says.

    Raises LockBusy if an agent is at work, OSError where the state cannot be written.
    """
    with alone(places):
        return Once(places, config, unread).carry_out()


def main() -> int:
    """For the timer: says everything to the journal; the exit code is that of `agent status`."""
    places = Places()
    try:
        outcome, document = once(places, *usable(places))
    except ReconcilerError as error:
        journal.log("err", str(error))
        return error.exit_code
    except OSError as error:
        journal.log("err", f"the agent cannot write its state: {error}")
        return ReconcilerError.exit_code
    last = outcome.state.last_run
    journal.log_all(outcome.messages, commit=outcome.state.applied, run=last.get("id", ""))
    journal.log("info", oneline(document))
    return exit_code(document)


if __name__ == "__main__":
    sys.exit(main())
