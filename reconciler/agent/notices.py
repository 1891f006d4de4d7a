"""Which changes of a condition somebody is told about: not each flicker, and also when it is over."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.agent.places import Places, read_json, write
from reconciler.agent.status import HEALTHY, WANTED

#: A bad condition is told once it was seen so often, or has lasted so many seconds.
SEEN, LASTED = 2, 300.0
#: For so many seconds after a condition was told, it is not told anew: what it does meanwhile
#: comes as one digest.
DIGEST = 900.0
#: Resources of one condition that are told apart.
MOST = 200
#: What an operator does on purpose; and what InSync says already.
QUIET = ("Suspended", "Healthy")


@dataclass
class Standing:
    """One condition. Times are seconds since the epoch.

    bad: its reason while it is bad, else "". seen, since: how often in a row, and from when.
    told: the reason that people know of. told_at: when they were told. missed: how often it was
    bad since then without being told. about: what it is about now, each with how often it was so in
    a row; known: what of that people know of.
    """

    bad: str = ""
    seen: int = 0
    since: float = 0.0
    told: str = ""
    told_at: float = -DIGEST
    missed: int = 0
    about: dict[str, int] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)

    @property
    def lasting(self) -> bool:
        """Whether it has been bad for long enough to be more than a flicker."""
        return self.seen >= SEEN

    @property
    def new(self) -> list[str]:
        """What it is about besides what people know of, and that is no flicker either."""
        seen = {one for one, times in self.about.items() if times >= SEEN}
        return sorted(seen - set(self.known))

    def look(self, bad: str, now: float, about: Iterable[str] = ()) -> None:
        """How it is now. bad: the reason, "" where it is as wanted. about: resources, commits."""
        # A clock that was set back must not make anything wait for years.
        self.since, self.told_at = min(self.since, now), min(self.told_at, now)
        if bad != self.bad:
            self.missed += int(self.lasting and self.told != self.bad)
            self.bad, self.seen, self.since = bad, 0, now
        if bad:
            self.seen = SEEN if now - self.since >= LASTED else min(self.seen + 1, SEEN)
        ids = sorted(about)[:MOST]
        self.about = {one: min(self.about.get(one, 0) + 1, SEEN) for one in ids}
        self.known = [one for one in self.known if one in self.about]

    def due(self, now: float) -> str:
        """`problem`, `resolved` or `digest` if that is to be told now, else ""."""
        quiet = now - self.told_at < DIGEST
        event = ""
        if not self.bad and self.told:
            event = "resolved"
        elif self.bad and self.lasting and (self.told != self.bad or self.new) and not quiet:
            event = "problem"
        elif not self.bad and self.missed and not quiet:
            event = "digest"
        return event

    def tell(self, event: str, now: float) -> int:
        """It is told; how often it was bad without being told before."""
        missed, self.missed, self.told = self.missed, 0, self.bad
        self.known = list(self.about)
        if event != "resolved":
            self.told_at = now
        return missed


@dataclass
class Notices:
    """What people know of each condition. path: where that outlives a restart, "" for nowhere;
    spare: where it does so while there is no room, of which people are to be told, too; kept: what
    is there."""

    path: str = ""
    spare: str = ""
    standing: dict[str, Standing] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, places: Places, path: str) -> Notices:
        """As the last process left it; anew if that is lost."""
        spare = places.spare(path)
        kept = read_json(spare) or read_json(path) or {}
        standing: dict[str, Standing] = {}
        for kind, one in kept.items():
            with contextlib.suppress(TypeError):
                standing[str(kind)] = Standing(**one)
        return cls(path, spare, standing, kept)

    def due(
        self,
        conditions: Iterable[Mapping[str, Any]],
        now: float,
        about: Mapping[str, Iterable[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """What is to be told now; to be called once for each run or poll that ended. about: what
        each condition is about, by its type: what comes to it later is told as well.

        `save` once that is on its way: who cannot be told now is told by the next start.
        """
        found: list[dict[str, Any]] = []
        for one in conditions:
            kind = str(one["type"])
            if kind in QUIET or one["status"] == "Unknown":
                continue
            fine = one["status"] == WANTED.get(kind, HEALTHY)
            standing = self.standing.setdefault(kind, Standing())
            ids = () if fine else (about or {}).get(kind, ())
            standing.look("" if fine else str(one["reason"]), now, ids)
            event = standing.due(now)
            if event:
                again = standing.told == standing.bad
                new = standing.new if again else []
                found.append(
                    {**one, "event": event, "new": new, "missed": standing.tell(event, now)}
                )
        return found

    def save(self) -> None:
        """Let it outlive a restart."""
        known = {kind: asdict(one) for kind, one in self.standing.items() if one != Standing()}
        if self.path and known != self.kept:
            with contextlib.suppress(OSError):  # then it is told once more after a restart
                self._write(json.dumps(known, sort_keys=True).encode())
                self.kept = known

    def _write(self, content: bytes) -> None:
        try:
            write(self.path, content)
        except OSError:
            write(self.spare, content)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.spare)


def subjects(status: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the conditions of a status are about, by their type."""
    refused = [str(one["commit"]) for one in status["source"]["quarantine"]]
    different = [one for name in ("failed", "drifted", "contended") for one in status[name]]
    unpruned = list(status["prune"].get("failed", ()))
    return {
        "Trusted": refused,
        "Ready": refused,
        "InSync": [*different, *unpruned],
        "Stalled": list(status["contended"]),
    }
