"""Resources that somebody else keeps changing back: corrected ever more slowly, and said aloud."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reconciler.agent.schedule import HEAL_STEPS

#: So many corrections of one resource within so many seconds are a fight.
MANY = 5
WINDOW = 600.0


@dataclass
class Fights:
    """Corrections of the last minutes. Times are of `time.monotonic`."""

    corrections: dict[str, list[float]] = field(default_factory=dict)

    def corrected(self, ids: Iterable[str], now: float) -> list[str]:
        """These were corrected; which of them are contended only since now."""
        fresh: list[str] = []
        for id_ in ids:
            times = [*self._recent(id_, now), now][-len(HEAL_STEPS) :]
            self.corrections[id_] = times
            if len(times) == MANY:
                fresh.append(id_)
        return fresh

    def forget(self) -> None:
        """There is another desired state: whoever was right, it starts anew."""
        self.corrections = {}

    def contended(self, now: float) -> list[str]:
        """What is fought about."""
        found = [id_ for id_ in self.corrections if len(self._recent(id_, now)) >= MANY]
        self.corrections = {k: v for k, v in self.corrections.items() if self._recent(k, now)}
        return sorted(found)

    def due(self, id_: str, now: float) -> float:
        """When it may be corrected again."""
        times = self._recent(id_, now)
        if not times:
            return now
        return max(now, times[-1] + HEAL_STEPS[min(len(times) - 1, len(HEAL_STEPS) - 1)])

    def _recent(self, id_: str, now: float) -> list[float]:
        return [at for at in self.corrections.get(id_, ()) if now - at < WINDOW]
