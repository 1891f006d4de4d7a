"""What the agent remembers over restarts and reboots, and what suspends it.

Trust is not in here: it has files of its own, so that no damage here can make it forget.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from reconciler.agent.places import Places, read_json, write
from reconciler.errors import UsageError

SCHEMA = ["reconciler/agent-state", 1]
#: Seconds that a suspension lasts without another word, and at most.
SUSPEND, SUSPEND_MAX = 4 * 3600.0, 7 * 86400.0


@dataclass
class State:
    """Written after each run. Times are seconds since the epoch.

    trusted: the newest commit that may be applied. applied: the one whose catalog healing goes
    by. good: the last one that converged whole. problems: what stands in the way, by kind
    (`fetch`, `trust`, `compile`, `run`), each an error as the wire has it, with `since`.
    resources: counts. drifted: what differs and is left so by policy. failed: ids with reasons.
    """

    trusted: str = ""
    candidate: str = ""
    applied: str = ""
    applied_since: float = 0.0
    applied_facts: str = ""
    good: str = ""
    first_seen: float = 0.0
    subject: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    resources: dict[str, int] = field(default_factory=dict)
    drifted: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    prune: dict[str, Any] = field(default_factory=dict)
    last_run: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    conditions: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any] | None) -> State:
        """The inverse; what is not of the right kind starts anew: the host is the truth."""
        state = cls()
        for one in fields(cls):
            value = (document or {}).get(one.name)
            if type(value) is type(getattr(state, one.name)) or (
                isinstance(value, int) and isinstance(getattr(state, one.name), float)
            ):
                setattr(state, one.name, value)
        return state

    @classmethod
    def load(cls, places: Places) -> State:
        """What the last run left; nothing if that is lost."""
        return cls.from_json(read_json(places.state))

    def save(self, places: Places) -> None:
        """Raises OSError."""
        write(places.state, json.dumps(self.to_json(), separators=(",", ":")).encode())

    def problem(self, kind: str, error: dict[str, Any] | None, now: float) -> None:
        """Note what went wrong; None: it does not any more."""
        if error is None:
            self.problems.pop(kind, None)
            return
        before = self.problems.get(kind)
        same = before is not None and before.get("message") == error.get("message")
        since = before["since"] if same and before else now
        self.problems[kind] = {**error, "since": since}

    def count(self, name: str, by: float = 1) -> None:
        """Add to a counter of the metrics."""
        self.totals[name] = self.totals.get(name, 0) + by


@dataclass(frozen=True)
class Suspension:
    """Nothing on the machine is changed until then; fetching, verifying and looking go on."""

    reason: str
    by: str
    since: float
    until: float


def suspension(places: Places, now: float | None = None) -> Suspension | None:
    """The suspension that holds now."""
    now = time.time() if now is None else now
    found = read_json(places.suspension)
    try:
        held = Suspension(**found) if found else None
    except TypeError:
        held = None
    # A clock that went back must not make it last longer than it could have been asked for.
    if held is None or now >= held.until or held.until - now > SUSPEND_MAX:
        return None
    return held


def suspend(places: Places, reason: str, seconds: float, by: str) -> Suspension:
    """Suspend until then. Raises UsageError, OSError."""
    if not reason.strip():
        raise UsageError(
            "why? a suspension needs a reason", hint="--reason 'TICKET-7: testing by hand'"
        )
    if not 0 < seconds <= SUSPEND_MAX:
        raise UsageError("a suspension lasts 7 days at most", hint="--for 2h")
    now = time.time()
    held = Suspension(reason.strip(), by, now, now + seconds)
    write(places.suspension, json.dumps(asdict(held)).encode())
    return held


def resume(places: Places) -> bool:
    """End a suspension; whether there was one."""
    held = suspension(places)
    if os.path.exists(places.suspension):
        os.unlink(places.suspension)
    return held is not None
