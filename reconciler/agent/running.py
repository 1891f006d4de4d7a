"""A run at work, and how it is brought to an end that it does not come to by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.agent import journal
from reconciler.agent.child import Child

NEVER = float("inf")
#: Seconds that a run has to end after it was told to.
GRACE = 60.0


@dataclass
class Running:
    """Times are of `time.monotonic`.

    commit: what it was to judge, if anything. totals: the counters as it got them. heir: it took
    over from one that ended early. asked: to end at the next boundary. told: since when it has
    only `GRACE` left. noticed: when what a heal is about was touched.
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
    noticed: float = NEVER

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
