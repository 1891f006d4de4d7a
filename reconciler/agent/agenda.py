"""What is to be done next, and when: what people ask for, what events ask for, what time asks for.

One run at a time, and one poll beside it. What asks for a run while one is at work is kept, and one
whole run does what any of them would do: the queue is one deep.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.agent.schedule import NEVER, Schedule
from reconciler.agent.touched import Touched

#: Kinds of whole runs. Of several that are wanted, the first does what all of them would.
WHOLE = ("sync", "boot", "retry", "sweep")


@dataclass
class Agenda:
    """Times are of `time.monotonic`; nothing here reads a clock.

    wants: kinds of whole runs. asked: by a person, or for what was refused before: a poll, and then
    a run of all by what it brings. answering: the poll at work is for that. open_at: when a window
    opens that a commit waits for.
    """

    schedule: Schedule
    fetch_at: float
    sweep_at: float
    retry_at: float = NEVER
    open_at: float = NEVER
    wants: set[str] = field(default_factory=set)
    asked: bool = False
    answering: bool = False
    touched: Touched = field(default_factory=Touched)

    @classmethod
    def begin(cls, schedule: Schedule, now: float, *, known: bool) -> Agenda:
        """After a start. known: there is a catalog to heal by, which comes before any network."""
        first = schedule.first_fetch(now) if known else now
        wants = {"boot"} if known else set[str]()
        return cls(schedule, first, schedule.next_sweep(now), wants=wants)

    def next(self, now: float, *, running: bool) -> float:
        """When anything is due. running: a run is at work, so that no other one is."""
        if running:
            return NEVER
        times = (self.sweep_at, self.retry_at, self.open_at, self.touched.at)
        return now if self.wants else min(times)

    def due(self, now: float) -> str:
        """The kind of the whole run that is due; "" for none."""
        for at, kind in (
            (self.sweep_at, "sweep"),
            (self.retry_at, "retry"),
            (self.open_at, "sweep"),
        ):
            if now >= at:
                self.wants.add(kind)
        return next((kind for kind in WHOLE if kind in self.wants), "")

    # -- polls ---------------------------------------------------------------------------

    def ask(self, now: float, *, polling: bool) -> None:
        """Poll now, then run: a server that hangs must not keep a run, and so healing, waiting."""
        self.asked = True
        if not polling:
            self.fetch_at = now

    def poll_begins(self) -> None:
        """It answers what was asked until now."""
        self.fetch_at = NEVER
        self.answering, self.asked = self.asked, False

    def poll_ended(self, now: float, *, failed: bool) -> None:
        """Whoever asked gets a run, whatever the poll brought; who asked meanwhile, another poll."""
        self.fetch_at = (
            self.schedule.after_failure(now) if failed else self.schedule.next_fetch(now)
        )
        if self.answering:
            self.wants.add("sync")
        if self.asked:
            self.fetch_at = now

    # -- runs ----------------------------------------------------------------------------

    def run_begins(self, kind: str, now: float, *, blind: bool) -> None:
        """A whole one stands for all that was wanted. blind: as `Schedule.next_sweep` has it."""
        if kind == "heal":
            return
        self.wants.clear()
        self.touched.clear()
        self.sweep_at = self.schedule.next_sweep(now, blind=blind)
        self.retry_at = self.open_at = NEVER

    def run_ended(self, now: float, *, unfinished: bool, opens: float = NEVER) -> None:
        """unfinished: it is to be tried again. opens: seconds until a window does."""
        self.open_at = now + max(0.0, opens)
        if unfinished:
            self.retry_at = min(self.retry_at, self.schedule.retry(now))
        else:
            self.schedule.succeeded()
            self.retry_at = NEVER

    def sweep_soon(self, now: float) -> None:
        """Nobody tells of all changes any more."""
        self.sweep_at = min(self.sweep_at, self.schedule.next_sweep(now, blind=True))
