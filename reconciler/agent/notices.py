"""Which changes of a condition somebody is told about: not each flicker, and also when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.agent.status import HEALTHY, WANTED

#: A bad condition is told once it was seen so often, or has lasted so many seconds.
SEEN, LASTED = 2, 300.0
#: What an operator does on purpose, and what is only not known yet, needs no word.
QUIET = ("Suspended",)


@dataclass
class Notices:
    """Decides; times are of `time.monotonic`. told: the reason that was told, by condition."""

    told: dict[str, str] = field(default_factory=dict)
    pending: dict[str, tuple[str, int, float]] = field(default_factory=dict)

    def due(self, conditions: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
        """What is to be told now; to be called once for each run or poll that ended."""
        found: list[dict[str, Any]] = []
        for one in conditions:
            kind, reason = str(one["type"]), str(one["reason"])
            if kind in QUIET or one["status"] == "Unknown":
                continue
            if one["status"] == WANTED.get(kind, HEALTHY):
                self.pending.pop(kind, None)
                if kind in self.told:
                    del self.told[kind]
                    found.append({**one, "event": "resolved"})
                continue
            before, seen, since = self.pending.get(kind, ("", 0, now))
            if before != reason:
                seen, since = 0, now
            self.pending[kind] = (reason, seen + 1, since)
            if self.told.get(kind) != reason and (seen + 1 >= SEEN or now - since >= LASTED):
                self.told[kind] = reason
                found.append({**one, "event": "problem"})
        return found
