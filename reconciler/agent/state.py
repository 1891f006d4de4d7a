"""What the agent remembers over restarts and reboots, and what suspends it.

Trust is not in here: it has files of its own, so that no damage here can make it forget.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from reconciler.agent import metrics
from reconciler.agent.places import Places, boot_id, read_json, write
from reconciler.errors import UsageError

SCHEMA = ["reconciler/agent-state", 1]
#: Problems on the way to the remotes.
REACH = ("fetch", "server")
#: Seconds that a suspension lasts without another word, and at most.
SUSPEND, SUSPEND_MAX = 4 * 3600.0, 7 * 86400.0


@dataclass
class State:
    """Written after each run. Times are seconds since the epoch.

    trusted: the newest commit that may be applied, as the mark of trust has it. applied: the one
    whose catalog healing goes by. good: the last one that converged whole. held_by: what keeps the
    candidate: `Suspended`, `Window`, `CompileFailed`, `Unreadable`, `RunFailed`, or "" for nothing
    but time; held_until: when its window opens. subject: who made the trusted commit, and what it
    says. keys: stamps of the files by which an offer was judged last. source: what the remotes said
    last, each below `remotes`.

    problems: what stands in the way, by kind, each an error as the wire has it, with `since`. Of the
    way to the remotes, which polls find out: `fetch`, `server`. Of what was fetched: `source` (it
    cannot be read), `trust`, `compile`, `window`. Of this machine: `run`, `ledger`.

    resources: counts. drifted: what differs and is left so, by policy or because a run was told to
    stop. failed, blocked: ids with reasons. owed: handlers that were notified and have not run.
    proven_at: when a whole run last left everything as declared. totals: counters of the metrics;
    counted_at: until when drift is counted in them.
    """

    trusted: str = ""
    keys: list[Any] = field(default_factory=list)
    held_by: str = ""
    held_until: float = 0.0
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
    blocked: dict[str, str] = field(default_factory=dict)
    owed: list[str] = field(default_factory=list)
    proven_at: float = 0.0
    prune: dict[str, Any] = field(default_factory=dict)
    last_run: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    counted_at: float = 0.0
    conditions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def candidate(self) -> str:
        """The trusted commit while it is not applied."""
        return self.trusted if self.trusted != self.applied else ""

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

    def unreached(self, error: dict[str, Any], now: float) -> bool:
        """No remote brought anything; whether that is news.

        A server that is not the one we know is a matter of trust, not of patience.
        """
        kind = "server" if error.get("type") == "UnknownServer" else "fetch"
        news = kind not in self.problems
        for other in REACH:
            self.problem(other, error if other == kind else None, now)
        return news

    def reached(self) -> bool:
        """A remote brought what it has; whether that is news."""
        found = [self.problems.pop(kind, None) for kind in REACH]
        return any(found)

    def problem(self, kind: str, error: dict[str, Any] | None, now: float) -> None:
        """Note what went wrong; None: it does not any more."""
        if error is None:
            self.problems.pop(kind, None)
            return
        before = self.problems.get(kind)
        same = before is not None and before.get("message") == error.get("message")
        since = before["since"] if same and before else now
        self.problems[kind] = {**error, "since": since}

    def heard(
        self, remotes: Iterable[Mapping[str, str]], answer: Mapping[str, Any], now: float
    ) -> None:
        """A remote answered; those before it in the list did not."""
        chosen = str(answer["remote"])
        self.source.update(last_attempt=now, last_success=now, remote=chosen, head=answer["commit"])
        tried = {str(name): str(said) for name, said in (answer.get("tried") or {}).items()}
        for name in self._list(remotes):
            if name == chosen:
                self._asked(name, now, "ok", last_success=now, error=None, head=answer["commit"])
            elif name in tried:
                self._asked(name, now, "error", error=tried[name])

    def unheard(self, remotes: Iterable[Mapping[str, str]], message: str, now: float) -> None:
        """No remote answered. message: of one, or of each on a line of its own."""
        self.source["last_attempt"] = now
        said = message.splitlines()
        for name in self._list(remotes):
            own = next((line for line in said if line.startswith(f"{name} ")), message)
            self._asked(name, now, "error", error=own)

    def _list(self, remotes: Iterable[Mapping[str, str]]) -> list[str]:
        """The names of the remotes that there are now; what others said is forgotten."""
        before = self.source.get("remotes", {})
        known: dict[str, dict[str, Any]] = {}
        for one in remotes:
            name = one.get("name", "origin")
            known[name] = {**before.get(name, {}), "url": one["url"]}
        self.source["remotes"] = known
        return list(known)

    def _asked(self, name: str, now: float, result: str, **said: object) -> None:
        self.source["remotes"][name].update(last_attempt=now, **said)
        self.count("fetch_total", remote=name, result=result)

    def catch_up(self, other: State, totals: Mapping[str, float]) -> None:
        """Take over what the remotes said to `other` while a run was at work on this one.

        totals: the counters when the run began.
        """
        self.source = {**other.source, "refused": self.source.get("refused", "")}
        self.reached()
        self.problems |= {kind: one for kind, one in other.problems.items() if kind in REACH}
        self.counted_at = other.counted_at
        for name, total in other.totals.items():
            meanwhile = total - totals.get(name, 0)
            if meanwhile:
                self.totals[name] = self.totals.get(name, 0) + meanwhile

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter of the metrics."""
        one = metrics.key(name, labels)
        self.totals[one] = self.totals.get(one, 0) + by

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a number of the metrics that is known only now and then."""
        self.totals[metrics.key(name, labels)] = round(value, 3)

    def count_drift(self, now: float) -> None:
        """Add what is not in sync since the last call, times the seconds since then."""
        span = min(max(0.0, now - self.counted_at), 600.0) if self.counted_at else 0.0
        self.counted_at = now
        bad = len(self.drifted) + len(self.failed) + len(self.blocked)
        if bad and span:
            self.count("drift_seconds_total", bad * span)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Count a value in a histogram of the metrics."""
        metrics.observe(self.totals, name, value, labels)


@dataclass(frozen=True)
class Suspension:
    """Nothing on the machine is changed until then; fetching, verifying and looking go on.

    boot, ends: the boot it was made in, and its end in seconds of that boot, which no clock moves.
    """

    reason: str
    by: str
    since: float
    until: float
    boot: str = ""
    ends: float = 0.0

    def left(self, now: float | None = None) -> float:
        """Seconds that it still lasts. now: what the clock says, to go by that alone."""
        if now is None and self.boot and self.boot == boot_id():
            return self.ends - time.clock_gettime(time.CLOCK_BOOTTIME)
        # A clock that went back must not make it last longer than it was asked for, nor end it:
        # somebody may still be at work here.
        return min(self.until - (time.time() if now is None else now), self.until - self.since)


def suspension(places: Places, now: float | None = None) -> Suspension | None:
    """The suspension that holds now."""
    found = read_json(places.suspension)
    try:
        held = Suspension(**found) if found else None
    except TypeError:
        held = None
    return held if held is not None and 0 < held.left(now) <= SUSPEND_MAX else None


def carry_over(places: Places) -> Suspension | None:
    """The suspension that holds after a boot, from now on by the clock that nobody sets.

    A host without a clock of its own boots in the past, where a suspension would never end.
    """
    held = suspension(places)
    if held is None or held.boot == boot_id():
        return held
    ends = time.clock_gettime(time.CLOCK_BOOTTIME) + held.left()
    held = replace(held, boot=boot_id(), ends=ends)
    with contextlib.suppress(OSError):  # it holds all the same, by the other clock
        write(places.suspension, json.dumps(asdict(held)).encode())
    return held


def suspend(places: Places, reason: str, seconds: float, by: str) -> Suspension:
    """Suspend until then. Raises UsageError, OSError."""
    if not reason.strip():
        raise UsageError(
            "why? a suspension needs a reason", hint="--reason 'TICKET-7: testing by hand'"
        )
    if not 0 < seconds <= SUSPEND_MAX:
        raise UsageError("a suspension lasts some time, and 7 days at most", hint="--for 2h")
    now, ends = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    held = Suspension(reason.strip(), by, now, now + seconds, boot_id(), ends)
    write(places.suspension, json.dumps(asdict(held)).encode())
    return held


def resume(places: Places) -> bool:
    """End a suspension; whether there was one."""
    held = suspension(places)
    if os.path.exists(places.suspension):
        os.unlink(places.suspension)
    return held is not None
