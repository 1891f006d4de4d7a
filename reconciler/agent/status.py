"""What the agent says about itself: `status.json`, one line, the metrics. One truth, three forms."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import reconciler
from reconciler.agent import metrics, motd
from reconciler.agent.places import UNIT, Places, boot_id, machine_id, write
from reconciler.agent.state import State, Suspension
from reconciler.errors import ConfigError, Held, ResourceError, SourceError, TrustError
from reconciler.words import counted

SCHEMA = "status/1"
#: Exit codes by the first condition that is not as it should be.
EXITS = (
    ("Trusted", TrustError.exit_code),
    ("Suspended", Held.exit_code),
    ("SourceFresh", SourceError.exit_code),
    ("Ready", ConfigError.exit_code),
    ("InSync", ResourceError.exit_code),
)
#: What cannot be reached, and what failed all the same.
BOTH = 6
#: Reasons why a host is not in sync that are nobody's failure: something waits for its time, or
#: for a person's word.
HOLDS = ("Window", "PruneHeld")
#: What each condition should be.
WANTED = {"Suspended": "False", "Stalled": "False", "RebootRequired": "False"}
HEALTHY = "True"
#: Seconds for which a status counts, unless the next one is farther away.
VALID = 180.0
#: Debian's packages leave word here; the second file has their names.
REBOOT, REBOOT_FOR = "/run/reboot-required", "/run/reboot-required.pkgs"
#: Ids that a message names.
NAMED = 5

Condition = dict[str, Any]
Make = Callable[..., Condition]


@dataclass
class Live:
    """What only the process that writes it knows. Times are seconds since the epoch.

    valid: for how many seconds the status counts. override: what `override.shown` says. watched: paths; watch_mode: as `Watcher` has it;
    unwatched: why not everything is watched. unread: why the settings are not what the file says.
    """

    state: str = "starting"
    state_since: float = field(default_factory=time.time)
    started: float = field(default_factory=time.time)
    pid: int = 0
    valid: float = VALID
    next_fetch: float = 0.0
    next_sweep: float = 0.0
    next_retry: float = 0.0
    override: dict[str, Any] | None = None
    contended: list[str] = field(default_factory=list)
    overflows: int = 0
    watched: int = 0
    watch_mode: str = "none"
    unwatched: str = ""
    unread: str = ""


def compose(
    state: State,
    live: Live,
    held: Suspension | None,
    *,
    max_age: float = 0.0,
    max_quiet: float = 0.0,
    now: float,
) -> dict[str, Any]:
    """The status document; also brings `state.conditions` up to date, and counts drift."""
    state.count_drift(now)
    stale = _stale(state, max_age, max_quiet, now)
    reboot = _reboot()
    state.conditions = list(_conditions(state, live, held, stale, now, reboot))
    return {
        "schema": SCHEMA,
        "host": socket.gethostname(),
        "agent": {
            "version": reconciler.__version__,
            "id": agent_id(),
            "boot_id": boot_id(),
            "pid": live.pid,
            "started": live.started,
        },
        "state": live.state,
        "state_since": live.state_since,
        "written": now,
        "valid_until": now if live.state == "stopped" else now + live.valid,
        "next": {
            "fetch": live.next_fetch,
            "sweep": live.next_sweep,
            "retry": live.next_retry or None,
            "gate_opens": state.held_until or None,
        },
        "source": _source(state, now, stale=bool(stale)),
        "resources": _counts(state, live),
        "drifted": state.drifted,
        "failed": state.failed,
        "blocked": state.blocked,
        "owed": state.owed,
        "contended": live.contended,
        "prune": {
            key: state.prune.get(key)
            for key in ("held", "kept", "waiting", "ready", "failed")
            if state.prune.get(key)
        },
        "conditions": state.conditions,
        "last_run": state.last_run,
        "suspensions": [_suspended(held)] if held else [],
        "override": live.override,
        "reboot_required": reboot is not None,
        "proof": {"deep_verified_at": state.proven_at},
        "watch": {
            "mode": live.watch_mode,
            "paths": live.watched,
            "overflows": live.overflows,
            "trouble": live.unwatched or None,
        },
    }


def _source(state: State, now: float, *, stale: bool) -> dict[str, Any]:
    source = state.source
    remotes: dict[str, dict[str, Any]] = source.get("remotes", {})
    return {
        "remotes": [
            {
                "name": name,
                "url_redacted": redact(one["url"]),
                "last_attempt": one.get("last_attempt", 0),
                "last_success": one.get("last_success", 0),
                "error": one.get("error"),
                "head": one.get("head", ""),
            }
            for name, one in remotes.items()
        ],
        "remote": source.get("remote", ""),
        "head": source.get("head", ""),
        "last_attempt": source.get("last_attempt", 0),
        "last_success": source.get("last_success", 0),
        "error": state.problems.get("fetch", {}).get("message"),
        "trusted": {**state.subject, "commit": state.trusted},
        "candidate": {
            "commit": state.candidate,
            "since": state.first_seen,
            "held_by": state.held_by or None,
        }
        if state.candidate
        else None,
        "applied": {"commit": state.applied, "since": state.applied_since},
        "good": {"commit": state.good},
        "quarantine": _quarantine(state),
        "stale": stale,
        "age_s": round(now - source["last_success"], 1) if source.get("last_success") else None,
    }


def _suspended(held: Suspension) -> dict[str, Any]:
    shown = {name: getattr(held, name) for name in ("reason", "by", "since", "until")}
    return {"scope": "all", **shown}


def _quarantine(state: State) -> list[dict[str, Any]]:
    """Commits that are offered and cannot be used, each with why."""
    found: list[dict[str, Any]] = []
    for kind, commit in (
        ("trust", state.source.get("refused", "")),
        ("compile", state.problems.get("compile", {}).get("commit", "")),
    ):
        problem = state.problems.get(kind)
        if problem and commit:
            reason = str(problem.get("type", "")) or kind
            said = str(problem.get("message", "")) or _text(problem)
            found.append(
                {"commit": commit, "reason": reason, "message": said, "since": problem["since"]}
            )
    return found


def _counts(state: State, live: Live) -> dict[str, int]:
    """What is not in sync is counted once, and what is fought about beside that."""
    apart = {
        "drifted": len(state.drifted),
        "failed": len(state.failed),
        "blocked": len(state.blocked),
        "ignored": state.resources.get("ignored", 0),
    }
    total = state.resources.get("total", 0)
    return {
        "total": total,
        "in_sync": max(0, total - sum(apart.values())),
        **apart,
        "contended": len(live.contended),
        "pending_prune": len(state.prune.get("waiting", ())) + len(state.prune.get("ready", ())),
    }


def _conditions(
    state: State, live: Live, held: Suspension | None, stale: str, now: float,
    reboot: list[str] | None,
) -> Iterator[Condition]:  # fmt: skip
    before = {one["type"]: one for one in state.conditions}

    def condition(kind: str, good: bool | None, reason: str, message: str = "") -> Condition:
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

    yield _ready(condition, state, live)
    yield _fresh(condition, state, stale)
    yield _trusted(condition, state)
    yield _in_sync(condition, state, live, held)
    yield _healthy(condition, state, live, held)
    if held:
        said = condition("Suspended", True, "Suspended", f"{held.reason} (by {held.by})")
        yield {**said, "since": held.since}
    else:
        yield condition("Suspended", False, "Running")
    if reboot is None:
        yield condition("RebootRequired", False, "NotNeeded")
    else:
        yield condition("RebootRequired", True, "Packages", ", ".join(reboot[:NAMED]))
    if live.contended:
        said = f"somebody keeps changing {', '.join(live.contended[:NAMED])}"
        yield condition("Stalled", True, "Contended", said)
    else:
        yield condition("Stalled", False, "NoFight")


def _ready(condition: Make, state: State, live: Live) -> Condition:
    """Whether there is a catalog to go by, and runs go through."""
    if live.unread:
        said = (
            f"{redact(live.unread)}\nuntil it is mended, the last settings that could be used hold"
        )
        return condition("Ready", False, "BadSettings", said)
    wrong = (
        ("compile", "CompileFailed"),
        ("run", "RunFailed"),
        ("ledger", "LedgerLost"),
        ("window", "BadWindow"),
    )
    for kind, reason in wrong:
        if kind in state.problems:
            return condition("Ready", False, reason, _text(state.problems[kind]))
    if not state.applied:
        return condition("Ready", None, "NothingYet")
    return condition("Ready", True, "Ready")


def _stale(state: State, max_age: float, max_quiet: float, now: float) -> str:
    """Why what is known may be old; "" if it is not.

    Of a time that is yet to come nobody knows how long ago it was: the clock was set back.
    """
    contact = state.source.get("last_success")
    age, quiet = abs(now - (contact or now)), abs(now - (state.first_seen or now))
    if 0 < max_age < age:
        return f"no remote has confirmed the state for {age:.0f} s; {max_age:.0f} s are allowed"
    if 0 < max_quiet < quiet:
        return f"the branch has not advanced for {quiet:.0f} s; {max_quiet:.0f} s are allowed"
    return ""


def _fresh(condition: Make, state: State, stale: str) -> Condition:
    """Whether a remote has answered, and lately, and what it brought can be read."""
    failed, unread = state.problems.get("fetch"), state.problems.get("source")
    if stale:
        more = f"\n{_text(failed)}" if failed else ""
        return condition("SourceFresh", False, "Stale", stale + more)
    if failed:
        return condition("SourceFresh", False, "FetchFailed", _text(failed))
    if unread:
        return condition("SourceFresh", False, "Unreadable", _text(unread))
    if not state.source.get("last_success"):
        return condition("SourceFresh", None, "NeverFetched")
    return condition("SourceFresh", True, "Fetched")


def _trusted(condition: Make, state: State) -> Condition:
    """Whether what is offered may be used."""
    refused = state.problems.get("trust") or state.problems.get("server")
    if refused:
        return condition("Trusted", False, str(refused.get("type", "Refused")), _text(refused))
    if not state.trusted:
        return condition("Trusted", None, "NothingYet")
    reasons = {"order-only": "OrderOnly", "reset": "Reset"}
    return condition("Trusted", True, reasons.get(state.subject.get("verified", ""), "Verified"))


def _in_sync(condition: Make, state: State, live: Live, held: Suspension | None) -> Condition:
    """Whether the machine is as the newest trusted commit says."""
    unseen = _unseen(state, held)
    if unseen:
        return condition("InSync", None, *unseen)
    other = _other(state, live) or _waiting(state)
    return condition("InSync", False, *other) if other else condition("InSync", True, "Converged")


def _unseen(state: State, held: Suspension | None) -> tuple[str, str] | None:
    """Why nobody knows how the machine is."""
    if held:
        return "Suspended", "nothing is corrected while suspended"
    if not state.resources:
        return "NothingYet", ""
    if "run" in state.problems:
        return "RunFailed", _text(state.problems["run"])
    return None


def _other(state: State, live: Live) -> tuple[str, str] | None:
    """Why the machine is not as it is declared."""
    if state.failed or state.blocked:
        return "Failed", _failures(state)
    if live.contended:
        return "Contended", ", ".join(live.contended[:NAMED])
    if state.drifted:
        return "Drifted", ", ".join(state.drifted[:NAMED])
    if state.prune.get("failed"):
        return "PruneFailed", _unpruned(state.prune["failed"])
    return None


def _waiting(state: State) -> tuple[str, str] | None:
    """What is not done yet, and what it waits for."""
    if state.held_by == "Window":
        opens = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(state.held_until))
        when = f", which opens at {opens}" if state.held_until else ""
        return "Window", f"{state.trusted[:12]} waits for its window{when}"
    if state.trusted != state.applied or state.good != state.applied:
        return "NewCommit", f"{state.trusted[:12]} is not applied whole yet"
    if state.prune.get("held"):
        return "PruneHeld", f"{state.prune['held']}\nreconciler prune --dry-run"
    return None


def _healthy(condition: Make, state: State, live: Live, held: Suspension | None) -> Condition:
    """Whether what was applied works: nothing failed, and nobody fights it."""
    if state.failed or state.blocked:
        return condition("Healthy", False, "Failed", _failures(state))
    if live.contended:
        return condition("Healthy", False, "Contended", ", ".join(live.contended[:NAMED]))
    if not state.good or (state.good != state.applied and held):
        return condition("Healthy", None, "NothingYet")
    if state.good != state.applied:
        said = f"{state.applied[:12]} has not converged whole yet"
        return condition("Healthy", False, "NotConverged", said)
    return condition("Healthy", True, "Converged")


def _failures(state: State) -> str:
    id_, reason = next(iter((state.failed or state.blocked).items()))
    waiting = f", {len(state.blocked)} wait for them" if state.blocked else ""
    return f"{len(state.failed)} failed{waiting}; {id_}: {reason}"


def _unpruned(failed: Sequence[str]) -> str:
    return f"{counted(len(failed), 'resource')} left Git and could not be pruned; {failed[0]}"


def _text(problem: Mapping[str, Any] | None) -> str:
    problem = problem or {}
    text, hint = (
        str(problem.get("text") or problem.get("message") or ""),
        str(problem.get("hint") or ""),
    )
    return text if hint in text else f"{text}\n{hint}"


def exit_code(document: Mapping[str, Any]) -> int:
    """The exit code that a status stands for: 0 only for a host that is as it should be."""
    known = {one["type"]: one for one in document.get("conditions", ())}
    codes = [
        Held.exit_code if kind == "InSync" and known[kind]["reason"] in HOLDS else code
        for kind, code in EXITS
        if kind in known and not _is_fine(known[kind])
    ]
    failed = known.get("InSync", {}).get("status") == "False" and codes[-1:] == [
        ResourceError.exit_code
    ]
    if codes[:1] == [SourceError.exit_code] and failed:
        return BOTH
    return codes[0] if codes else 0


def _is_fine(one: Condition) -> bool:
    # That nothing was offered yet to be trusted is no violation of trust, and whose run broke off
    # has said so as one that is not ready.
    unknown = one["type"] == "Trusted" or one["reason"] == "RunFailed"
    return one["status"] in (WANTED.get(one["type"], HEALTHY), "Unknown" if unknown else None)


def believe(document: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A status as it reads now: one that is too old says nothing of the host any more."""
    if now <= float(document.get("valid_until", 0)):
        return dict(document)
    stopped = document["state"] == "stopped"
    said = f"the agent has said nothing for {now - document['written']:.0f} s"
    silent = {
        "type": "Ready",
        "status": "False",
        "reason": "Stopped" if stopped else "Silent",
        "message": f"{'the agent was stopped' if stopped else said}\nsystemctl status {UNIT}",
        "since": document["valid_until"],
        "commit": document["source"]["applied"]["commit"],
    }
    conditions = [
        silent
        if one["type"] == "Ready"
        else {**one, "status": "Unknown", "reason": "Silent", "message": ""}
        if one["type"] in ("InSync", "Healthy")
        else one
        for one in document["conditions"]
    ]
    return {**document, "conditions": conditions}


def oneline(document: Mapping[str, Any]) -> str:
    """`in sync at 1a2b3c4d5e6f, 231 resources`, or what is wrong."""
    status = {one["type"]: one for one in document.get("conditions", ())}
    resources = counted(document.get("resources", {}).get("total", 0), "resource")
    at = str(document.get("source", {}).get("applied", {}).get("commit", ""))[:12] or "no commit"
    reboot = ", reboot required" if document.get("reboot_required") else ""
    bad = [
        one
        for kind, one in status.items()
        if one["status"] != WANTED.get(kind, HEALTHY) and kind != "RebootRequired"
    ]
    if not bad:
        return f"in sync at {at}, {resources}{reboot}"
    words = [f"{one['type']}={one['status']} ({one['reason']})" for one in bad]
    return f"{', '.join(words)}; at {at}, {resources}{reboot}"


def publish(places: Places, document: Mapping[str, Any], totals: Mapping[str, float]) -> None:
    """Write the files, readable by everybody. A full disk is no reason to stop."""
    try:
        text = json.dumps(document, separators=(",", ":")).encode()
        write(places.status, text, 0o644, durable=False)
        write(places.metrics, metrics.render(document, totals).encode(), 0o644, durable=False)
        motd.tell(places, document["suspensions"])
    except OSError:
        return


def agent_id() -> str:
    """Which host this is, for those who gather statuses: the same for ever, and not the machine
    id itself, from which others make secrets."""
    return hmac.new(machine_id().encode(), b"reconciler", hashlib.sha256).hexdigest()[:32]


def redact(url: str) -> str:
    """An address as everybody may see it: no password, and no token in the place of a name."""
    return re.sub(r"(?i)(https?://)[^/@]*@|(//[^/@:]*:)[^/@]*@", r"\1\2***@", url)


def _reboot() -> list[str] | None:
    """The packages that want this host to be booted again; None if none does."""
    if not os.path.exists(REBOOT):
        return None
    try:
        with open(REBOOT_FOR, encoding="utf-8", errors="replace") as file:
            return sorted(
                {line.strip() for line in file.read(1 << 16).splitlines() if line.strip()}
            )
    except OSError:
        return []
