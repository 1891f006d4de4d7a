"""Resources that somebody else keeps changing back: corrected ever more slowly, and said aloud.

And those that are touched all the time and are as they should be, such as a log file whose mode is
declared: looked at ever more slowly, which is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.agent.schedule import HEAL_STEPS

#: So many corrections of one resource within so many seconds are a fight, which is over after as
#: many quiet ones.
MANY = 5
WINDOW = 600.0
#: Looks in vain after which the next one waits; seconds without a touch after which they are forgotten.
PATIENT, CALM = 10, 60.0


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
    """What was corrected lately. Times are of `time.monotonic`. vain: how often in a row a resource
    was touched, looked at, and as it should be; and when last."""

    streaks: dict[str, Streak] = field(default_factory=dict)
    vain: dict[str, tuple[int, float]] = field(default_factory=dict)

    def corrected(self, ids: Iterable[str], now: float) -> list[str]:
        """These were corrected; which of them are contended only since now."""
        self._forget_what_is_quiet(now)
        ids = list(ids)
        for id_ in ids:
            self.vain.pop(id_, None)
        return [id_ for id_ in ids if self.streaks.setdefault(id_, Streak()).corrected(now)]

    def looked(self, ids: Iterable[str], now: float) -> None:
        """These were touched and looked at, and nothing was to be done."""
        self._forget_what_is_quiet(now)
        for id_ in ids:
            times, _ = self.vain.get(id_, (0, now))
            self.vain[id_] = (times + 1, now)

    def forget(self) -> None:
        """There is another desired state: whoever was right, it starts anew."""
        self.streaks, self.vain = {}, {}

    def contended(self, now: float) -> list[str]:
        """What is fought about."""
        self._forget_what_is_quiet(now)
        return sorted(id_ for id_, streak in self.streaks.items() if streak.contended)

    def due(self, id_: str, now: float) -> float:
        """When it may be looked at, and corrected, again."""
        self._forget_what_is_quiet(now)
        due, streak = now, self.streaks.get(id_)
        if streak is not None:
            due = max(due, streak.times[-1] + _step(len(streak.times)))
        if id_ in self.vain:
            due = max(due, _again(*self.vain[id_]))
        return due

    def _forget_what_is_quiet(self, now: float) -> None:
        quiet = [id_ for id_, streak in self.streaks.items() if now - streak.times[-1] >= WINDOW]
        for id_ in quiet:
            del self.streaks[id_]
        for id_ in [id_ for id_, one in self.vain.items() if now - _again(*one) >= CALM]:
            del self.vain[id_]


def _again(times: int, last: float) -> float:
    """When a look may follow the last one of so many that were in vain."""
    return last + _step(times - PATIENT)


def _step(times: int) -> float:
    return HEAL_STEPS[min(max(times, 0), len(HEAL_STEPS) - 1)]
