"""What the agent says about itself: `status.json`, one line, the metrics. One truth, three forms."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import reconciler
from reconciler.agent.places import Places, write
from reconciler.agent.state import State, Suspension

SCHEMA = "status/1"
#: Exit codes by the first condition that is not as it should be.
EXITS = (("Trusted", 10), ("Suspended", 7), ("SourceFresh", 5), ("Ready", 3), ("InSync", 4))
#: What each condition should be.
WANTED = {"Suspended": "False", "Stalled": "False"}
HEALTHY = "True"


@dataclass
class Live:
    """What only the running supervisor knows. Times are seconds since the epoch."""

    state: str = "starting"
    state_since: float = field(default_factory=time.time)
    started: float = field(default_factory=time.time)
    pid: int = 0
    next_fetch: float = 0.0
    next_sweep: float = 0.0
    contended: list[str] = field(default_factory=list)
    overflows: int = 0
    watched: int = 0


def compose(
    state: State, live: Live, held: Suspension | None, *, max_age: float = 0.0, now: float
) -> dict[str, Any]:
    """The status document; also brings `state.conditions` up to date."""
    age = now - float(state.source.get("last_success") or 0)
    state.conditions = list(_conditions(state, live, held, max_age, age, now))
    problem = state.problems.get("fetch", {})
    counts = state.resources
    return {
        "schema": SCHEMA,
        "agent": {
            "version": reconciler.__version__,
            "boot_id": _boot_id(),
            "pid": live.pid,
            "started": live.started,
        },
        "state": live.state,
        "state_since": live.state_since,
        "written": now,
        "next": {"fetch": live.next_fetch, "sweep": live.next_sweep},
        "source": {
            "remote": state.source.get("remote", ""),
            "head": state.source.get("head", ""),
            "last_attempt": state.source.get("last_attempt", 0),
            "last_success": state.source.get("last_success", 0),
            "error": problem.get("message"),
            "trusted": {"commit": state.trusted, **state.subject},
            "candidate": state.trusted if state.trusted != state.applied else None,
            "applied": {"commit": state.applied, "since": state.applied_since},
            "good": {"commit": state.good},
            "age_s": round(age, 1) if state.source.get("last_success") else None,
        },
        "resources": {
            "total": counts.get("total", 0),
            "drifted": len(state.drifted),
            "failed": len(state.failed),
            "contended": len(live.contended),
            "pending_prune": len(state.prune.get("waiting", ()))
            + len(state.prune.get("ready", ())),
        },
        "drifted": state.drifted,
        "failed": state.failed,
        "contended": live.contended,
        "prune": {
            key: state.prune.get(key)
            for key in ("held", "kept", "waiting", "ready")
            if state.prune.get(key)
        },
        "conditions": state.conditions,
        "last_run": state.last_run,
        "suspensions": [{"scope": "all", **asdict(held)}] if held else [],
        "watch": {"paths": live.watched, "overflows": live.overflows},
    }


def _conditions(
    state: State, live: Live, held: Suspension | None, max_age: float, age: float, now: float
) -> Iterator[dict[str, Any]]:
    before = {one["type"]: one for one in state.conditions}

    def condition(kind: str, good: bool | None, reason: str, message: str = "") -> dict[str, Any]:
        status = "Unknown" if good is None else str(good)
        old = before.get(kind, {})
        same = old.get("status") == status and old.get("reason") == reason
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "since": old.get("since", now) if same else now,
            "commit": state.applied,
        }

    problems = state.problems
    fetch, trust, wrong = problems.get("fetch"), problems.get("trust"), problems.get("compile")
    stale = 0 < max_age < age
    if fetch or stale:
        message = _text(fetch) if fetch else f"no remote has confirmed the state for {age:.0f} s"
        yield condition("SourceFresh", False, "Stale" if stale else "FetchFailed", message)
    elif not state.source.get("last_success"):
        yield condition("SourceFresh", None, "NeverFetched")
    else:
        yield condition("SourceFresh", True, "Fetched")
    if trust:
        yield condition("Trusted", False, str(trust.get("type", "Refused")), _text(trust))
    else:
        yield condition(
            "Trusted",
            True if state.trusted else None,
            "Verified" if state.trusted else "NothingYet",
        )
    if wrong:
        yield condition("Ready", False, "CompileFailed", _text(wrong))
    elif "run" in problems:
        yield condition("Ready", False, "RunFailed", _text(problems["run"]))
    else:
        yield condition(
            "Ready", True if state.applied else None, "Ready" if state.applied else "NothingYet"
        )
    yield _in_sync(condition, state, live, held)
    if held:
        yield condition("Suspended", True, "Suspended", f"{held.reason} (by {held.by})")
    else:
        yield condition("Suspended", False, "Running")
    stalled = bool(live.contended)
    message = f"somebody keeps changing {', '.join(live.contended[:5])}" if stalled else ""
    yield condition("Stalled", stalled, "Contended" if stalled else "NoFight", message)


def _in_sync(condition: Any, state: State, live: Live, held: Suspension | None) -> dict[str, Any]:
    if held:
        return condition("InSync", None, "Suspended", "nothing is corrected while suspended")
    if not state.resources:
        return condition("InSync", None, "NothingYet")
    if state.failed:
        id_, reason = next(iter(state.failed.items()))
        return condition("InSync", False, "Failed", f"{len(state.failed)} failed, {id_}: {reason}")
    if live.contended:
        return condition("InSync", False, "Contended", ", ".join(live.contended[:5]))
    if state.drifted:
        return condition("InSync", False, "Drifted", ", ".join(state.drifted[:5]))
    if state.trusted != state.applied or state.good != state.applied:
        return condition(
            "InSync", False, "NewCommit", f"{state.trusted[:12]} is not applied whole yet"
        )
    return condition("InSync", True, "Converged")


def _text(problem: Mapping[str, Any] | None) -> str:
    problem = problem or {}
    text, hint = (
        str(problem.get("text") or problem.get("message") or ""),
        str(problem.get("hint") or ""),
    )
    return text if hint in text else f"{text}\n{hint}"


def exit_code(document: Mapping[str, Any]) -> int:
    """The exit code that a status stands for: 0 only for a host that is as it should be."""
    status = {one["type"]: one["status"] for one in document.get("conditions", ())}
    for kind, code in EXITS:
        if status.get(kind) not in (WANTED.get(kind, HEALTHY), None):
            return code
    return 0


def oneline(document: Mapping[str, Any]) -> str:
    """`in sync at 1a2b3c4d5e6f, 231 resources, checked 12 s ago`, or what is wrong."""
    status = {one["type"]: one for one in document.get("conditions", ())}
    counts = document.get("resources", {})
    at = str(document.get("source", {}).get("applied", {}).get("commit", ""))[:12] or "no commit"
    bad = [one for kind, one in status.items() if one["status"] != WANTED.get(kind, HEALTHY)]
    if not bad:
        return f"in sync at {at}, {counts.get('total', 0)} resources"
    words = [f"{one['type']}={one['status']} ({one['reason']})" for one in bad]
    return f"{', '.join(words)}; at {at}, {counts.get('total', 0)} resources"


def metrics(document: Mapping[str, Any], totals: Mapping[str, float]) -> str:
    """The same for Prometheus, as a text file."""
    lines: list[str] = []

    def gauge(name: str, value: float, **labels: str) -> None:
        shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(
            f"reconciler_{name}{{{shown}}} {value:g}" if shown else f"reconciler_{name} {value:.3f}"
        )

    gauge("build_info", 1, version=document["agent"]["version"])
    gauge("state", 1, state=document["state"])
    for one in document["conditions"]:
        for status in ("True", "False", "Unknown"):
            gauge("condition", one["status"] == status, type=one["type"], status=status)
    source = document["source"]
    gauge("last_fetch_success_timestamp_seconds", float(source["last_success"] or 0))
    for role in ("trusted", "applied", "good"):
        if source[role]["commit"]:
            gauge("commit_info", 1, role=role, commit=source[role]["commit"])
    for name, count in document["resources"].items():
        gauge("resources", count, state=name)
    run = document["last_run"]
    if run:
        gauge("last_run_timestamp_seconds", run["started"], kind=run["kind"])
        gauge("last_run_duration_seconds", run["duration_s"], kind=run["kind"])
    gauge("suspended", bool(document["suspensions"]))
    if document["suspensions"]:
        gauge("suspended_until_timestamp_seconds", document["suspensions"][0]["until"])
    gauge("prune_held", bool(document["prune"].get("held")))
    gauge("watch_overflows_total", document["watch"]["overflows"])
    for name, value in sorted(totals.items()):
        gauge(name, value)
    return "\n".join(lines) + "\n"


def publish(places: Places, document: Mapping[str, Any], totals: Mapping[str, float]) -> None:
    """Write both files, readable by everybody. A full disk is no reason to stop."""
    try:
        text = json.dumps(document, separators=(",", ":")).encode()
        write(places.status, text, 0o644, durable=False)
        write(places.metrics, metrics(document, totals).encode(), 0o644, durable=False)
    except OSError:
        return


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
