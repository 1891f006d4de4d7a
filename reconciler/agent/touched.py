"""What was touched and not looked at yet: soon, but not while somebody is still at it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.agent.fights import Fights
from reconciler.agent.schedule import NEVER

#: Seconds of quiet after an event, and the longest wait for quiet.
QUIET, QUIET_MAX = 0.03, 2.0


@dataclass
class Touched:
    """Resources. Times are of `time.monotonic`.

    at: when to look, `NEVER` for nothing to look at. since: when that was touched first.
    """

    ids: set[str] = field(default_factory=set)
    at: float = NEVER
    since: float = 0.0
    #: Whether `at` is when the first of those may be looked at that it was too early for.
    early: bool = False

    def settle(self, now: float) -> None:
        """There was an event: look when it has been quiet for a moment."""
        if self.at == NEVER or self.early:
            self.since, self.early = now, False
        self.at = min(now + QUIET, self.since + QUIET_MAX)

    def take(self, fights: Fights, now: float) -> list[str]:
        """Those that may be corrected now; if it is too early for all, `at` says when."""
        due = {one for one in self.ids if fights.due(one, now) <= now}
        if self.ids and not due:
            first = min(fights.due(one, now) for one in self.ids)
            if first < self.at:
                self.at, self.early = first, True
        self.ids -= due
        return sorted(due)

    def clear(self) -> None:
        """All of it was looked at."""
        self.ids, self.at, self.early = set(), NEVER, False
