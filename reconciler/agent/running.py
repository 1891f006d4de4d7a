"""A run at work in a fork, and how it is brought to an end that it does not come to by itself."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from reconciler.agent import digests, journal
from reconciler.agent.child import Child, answer, forked
from reconciler.agent.schedule import NEVER
from reconciler.agent.worker import Run

#: Seconds that a run has to end after it was told to.
GRACE = 60.0


@dataclass
class Running:
    """Times are of `time.monotonic`.

    commit: what it was to judge, if anything. totals: the counters as it got them. heir: it took
    over from one that ended early. asked: to end at the next boundary. told: since when it has
    only `GRACE` left. ids: what a heal is about; noticed: when that was touched.
    """

    child: Child
    kind: str
    since: float
    commit: str = ""
    totals: Mapping[str, float] = field(default_factory=dict)
    heir: bool = False
    asked: bool = False
    told: float = NEVER
    killed: bool = False
    ids: tuple[str, ...] = ()
    noticed: float = NEVER

    @classmethod
    def begin(cls, run: Run, kind: str, since: float, **known: Any) -> Self:
        """Carry it out in a fork. known: other fields of ours. Raises OSError."""
        start = forked(lambda end: answer(end, _carry_out(run, kind)))
        return cls(Child(start), kind, since, **known)

    def ask(self) -> None:
        """End after the resource at work, however long that takes."""
        if not self.asked:
            self.asked = True
            self.child.process.terminate()

    def tell(self, now: float) -> None:
        """The same, but within `GRACE`."""
        self.told = min(self.told, now)
        self.ask()

    def hurry(self) -> None:
        """Do not wait for the resource at work any more: its engine ends by itself."""
        self.child.process.terminate()

    def due(self, limit: float) -> float:
        """When `heed` has something to do. limit: seconds that it may take."""
        if self.killed:
            return NEVER
        return self.since + limit if self.told == NEVER else self.told + GRACE

    def heed(self, now: float, limit: float) -> None:
        """Tell it to end when its time is over, and kill it if it does not."""
        if now < self.due(limit):
            return
        if self.told == NEVER:
            journal.log("err", f"the run took longer than {limit:.0f} s and is told to stop")
            self.tell(now)
        else:
            journal.log("err", f"the run did not stop within {GRACE:.0f} s and is killed")
            self.killed = True
            self.child.kill()

    def has_outlived(self, now: float, limit: float) -> bool:
        """Whether it is still here although all that could end it is over."""
        return now > self.since + limit + 2 * GRACE


def _carry_out(run: Run, kind: str) -> dict[str, Any]:
    """In a fork: the whole run."""
    digests.fast()
    if kind == "heal":
        # We wait behind all others; what undoes a change, and is over at once, does not.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    return run.carry_out().to_json()
