"""Resources that somebody else keeps changing back: corrected ever more slowly, and said aloud."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.agent.schedule import HEAL_STEPS

#: So many corrections of one resource within so many seconds are a fight, which is over after as
#: many quiet ones.
MANY = 5
WINDOW = 600.0


def contended(id_: str) -> str:
    """What people are told of a resource."""
    return f"{id_} was corrected again and again: somebody else keeps changing it"


@dataclass
class Streak:
    """The last corrections of one resource, each within the window of the one before."""

    times: list[float] = field(default_factory=list)
    contended: bool = False

    def corrected(self, now: float) -> bool:
        """Once more; whether it is a fight, and was none before."""
        self.times = [*self.times, now][-len(HEAL_STEPS) :]
        before = self.contended
        self.contended = before or sum(now - at < WINDOW for at in self.times) >= MANY
        return self.contended and not before


@dataclass
class Fights:
    """What was corrected lately. Times are of `time.monotonic`."""

    streaks: dict[str, Streak] = field(default_factory=dict)

    def corrected(self, ids: Iterable[str], now: float) -> list[str]:
        """These were corrected; which of them are contended only since now."""
        self._forget_what_is_quiet(now)
        return [id_ for id_ in ids if self.streaks.setdefault(id_, Streak()).corrected(now)]

    def forget(self) -> None:
        """There is another desired state: whoever was right, it starts anew."""
        self.streaks = {}

    def contended(self, now: float) -> list[str]:
        """What is fought about."""
        self._forget_what_is_quiet(now)
        return sorted(id_ for id_, streak in self.streaks.items() if streak.contended)

    def due(self, id_: str, now: float) -> float:
        """When it may be corrected again."""
        self._forget_what_is_quiet(now)
        streak = self.streaks.get(id_)
        if streak is None:
            return now
        wait = HEAL_STEPS[min(len(streak.times), len(HEAL_STEPS) - 1)]
        return max(now, streak.times[-1] + wait)

    def _forget_what_is_quiet(self, now: float) -> None:
        quiet = [id_ for id_, streak in self.streaks.items() if now - streak.times[-1] >= WINDOW]
        for id_ in quiet:
            del self.streaks[id_]
