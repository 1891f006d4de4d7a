"""Which changes of a condition somebody is told about: not each flicker, and also when it is over."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.agent.link import python
from reconciler.agent.places import read_json, write
from reconciler.agent.status import HEALTHY, WANTED

#: A bad condition is told once it was seen so often, or has lasted so many seconds.
SEEN, LASTED = 2, 300.0
#: For so many seconds after a condition was told, it is not told anew: what it does meanwhile
#: comes as one digest.
DIGEST = 900.0
#: What an operator does on purpose; and what InSync says already.
QUIET = ("Suspended", "Healthy")
#: Seconds that all deliveries of one message may take.
PATIENCE = 300


@dataclass
class Standing:
    """One condition. Times are seconds since the epoch.

    bad: its reason while it is bad, else "". seen, since: how often in a row, and from when.
    told: the reason that people know of. told_at: when they were told. missed: how often it was
    bad since then without being told.
    """

    bad: str = ""
    seen: int = 0
    since: float = 0.0
    told: str = ""
    told_at: float = -DIGEST
    missed: int = 0

    @property
    def lasting(self) -> bool:
        """Whether it has been bad for long enough to be more than a flicker."""
        return self.seen >= SEEN

    def look(self, bad: str, now: float) -> None:
        """How it is now. bad: the reason, "" where it is as wanted."""
        # A clock that was set back must not make anything wait for years.
        self.since, self.told_at = min(self.since, now), min(self.told_at, now)
        if bad != self.bad:
            self.missed += int(self.lasting and self.told != self.bad)
            self.bad, self.seen, self.since = bad, 0, now
        if bad:
            self.seen = SEEN if now - self.since >= LASTED else min(self.seen + 1, SEEN)

    def due(self, now: float) -> str:
        """`problem`, `resolved` or `digest` if that is to be told now, else ""."""
        quiet = now - self.told_at < DIGEST
        event = ""
        if not self.bad and self.told:
            event = "resolved"
        elif self.bad and self.lasting and self.told != self.bad and not quiet:
            event = "problem"
        elif not self.bad and self.missed and not quiet:
            event = "digest"
        return event

    def tell(self, event: str, now: float) -> int:
        """It is told; how often it was bad without being told before."""
        missed, self.missed, self.told = self.missed, 0, self.bad
        if event != "resolved":
            self.told_at = now
        return missed


@dataclass
class Notices:
    """What people know of each condition. path: where that outlives a restart, "" for nowhere;
    kept: what is there."""

    path: str = ""
    standing: dict[str, Standing] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str) -> Notices:
        """As the last process left it; anew if that is lost."""
        kept = read_json(path) or {}
        standing: dict[str, Standing] = {}
        for kind, one in kept.items():
            with contextlib.suppress(TypeError):
                standing[str(kind)] = Standing(**one)
        return cls(path, standing, kept)

    def due(self, conditions: Iterable[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
        """What is to be told now; to be called once for each run or poll that ended.

        `save` once that is on its way: who cannot be told now is told by the next start.
        """
        found: list[dict[str, Any]] = []
        for one in conditions:
            kind = str(one["type"])
            if kind in QUIET or one["status"] == "Unknown":
                continue
            fine = one["status"] == WANTED.get(kind, HEALTHY)
            standing = self.standing.setdefault(kind, Standing())
            standing.look("" if fine else str(one["reason"]), now)
            event = standing.due(now)
            if event:
                found.append({**one, "event": event, "missed": standing.tell(event, now)})
        return found

    def save(self) -> None:
        """Let it outlive a restart."""
        known = {kind: asdict(one) for kind, one in self.standing.items() if one != Standing()}
        if self.path and known != self.kept:
            with contextlib.suppress(OSError):  # then it is told once more after a restart
                write(self.path, json.dumps(known, sort_keys=True).encode())
                self.kept = known


def deliver(
    sinks: Sequence[Mapping[str, Any]],
    notices: Sequence[Mapping[str, Any]],
    status: Mapping[str, Any],
    *,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start what sends these notices to these places; it ends by itself. stderr: where it says what
    did not arrive, as `subprocess` takes it. Raises OSError."""
    job = {
        "sinks": list(sinks),
        "notices": list(notices),
        "host": status["host"],
        "id": status["agent"]["id"],
        "next": status["next"],
        "named": {name: list(status[name])[:1] for name in ("failed", "drifted", "contended")},
        "subject": {key: status["source"]["trusted"].get(key, "") for key in ("author", "subject")},
    }
    # A file that only we and it have: addresses hold secrets, and argv is everybody's.
    with open(os.memfd_create("notices"), "w+b") as file:
        file.write(json.dumps(job).encode())
        file.seek(0)
        return subprocess.Popen(
            ["timeout", str(PATIENCE), *python("reconciler.agent.tell")],
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )


def rehearse(
    sinks: Sequence[Mapping[str, Any]], who: str, status: Mapping[str, Any]
) -> tuple[bool, list[str]]:
    """Send a test to these places, the way that notices take; whether all arrived, and what was
    said about it. Raises OSError."""
    notice = {
        "type": "Test",
        "event": "test",
        "status": "True",
        "reason": "Asked",
        "message": f"{who} wants to know whether this arrives",
        "since": status["written"],
        "commit": status["source"]["applied"]["commit"],
        "missed": 0,
    }
    with deliver(sinks, [notice], status, stderr=subprocess.PIPE) as sender:
        _, said = sender.communicate()
    return sender.returncode == 0, said.decode("utf-8", "replace").splitlines()
