"""A person lets one commit through a closed window: that one and no other, said why, and not for long.

It is told in a file that goes with this boot, and in the journal.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reconciler.agent import journal
from reconciler.agent.places import Places, read_json, write

#: Seconds that it holds, should the commit not be applied before.
LASTS = 4 * 3600.0


@dataclass(frozen=True)
class Override:
    """commit: the trusted commit that no window holds back. since: seconds since the epoch. ends: in
    seconds since boot, which no clock moves."""

    commit: str
    reason: str
    by: str
    since: float
    ends: float


def override(places: Places) -> Override | None:
    """The one that holds now."""
    found = read_json(places.override)
    try:
        said = Override(**found) if found else None
    except TypeError:
        said = None
    return said if said is not None and 0 < said.ends - _since_boot() <= LASTS else None


def overridden(places: Places, commit: str) -> bool:
    """Whether this commit is not to wait for a window."""
    said = override(places)
    return said is not None and said.commit == commit


def shown(places: Places, candidate: str) -> dict[str, Any] | None:
    """For the status, while the commit that is not applied yet is the one that is let through."""
    said = override(places) if candidate else None
    if said is None or said.commit != candidate:
        return None
    return {name: getattr(said, name) for name in ("commit", "reason", "by", "since")}


def let_through(places: Places, status: Mapping[str, Any], reason: str, by: str) -> bool:
    """Let the commit through that waits for its window in this status; whether one does.

    Raises OSError.
    """
    waits = status["source"]["candidate"] or {}
    if waits.get("held_by") != "Window":
        return False
    said = Override(waits["commit"], reason, by, time.time(), _since_boot() + LASTS)
    write(places.override, json.dumps(asdict(said)).encode(), durable=False)
    journal.record(
        "notice",
        f"{by} lets {said.commit[:12]} through its window: {reason}",
        cause="override",
        commit=said.commit,
        by=by,
        reason=reason,
    )
    return True


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
