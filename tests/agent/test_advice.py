"""What is said to come next is what the agent does; no condition is told without a word of that."""

from __future__ import annotations

import time
from typing import Any

import pytest

from reconciler.agent.advice import more, next_step
from reconciler.agent.state import State
from reconciler.agent.status import Live, compose

AT = 1_795_000_060.0
THEN = ", at 2026-11-18 11:07:40 UTC"


def notice(kind: str, reason: str) -> dict[str, str]:
    return {"type": kind, "reason": reason}


@pytest.mark.parametrize(
    "kind, reason, name, said",
    [
        ("SourceFresh", "FetchFailed", "fetch", f"the remotes are asked again{THEN}"),
        ("SourceFresh", "Stale", "fetch", f"the remotes are asked again{THEN}"),
        ("Trusted", "UnknownServer", "fetch", f"the remotes are asked again{THEN}"),
        ("Trusted", "NotFastForward", "fetch", f"another commit is looked for{THEN}"),
        ("Ready", "CompileFailed", "retry", f"by itself{THEN}, a newer commit at once"),
        ("Ready", "LedgerLost", "sweep", f"begins it anew{THEN}"),
        ("InSync", "NewCommit", "retry", f"by itself{THEN}, a newer commit at once"),
        ("InSync", "Window", "gate_opens", f"when the window opens{THEN}"),
    ],
)
def test_a_time_is_said_where_it_is_known(kind: str, reason: str, name: str, said: str) -> None:
    others = dict.fromkeys(("fetch", "sweep", "retry", "gate_opens"), 1.0)
    found = next_step(notice(kind, reason), {**others, name: AT})
    assert said in found
    assert "1970" not in found
    for unknown in ({**others, name: None}, {**others, name: 0.0}, {}):
        without = next_step(notice(kind, reason), unknown)
        assert without == found.replace(THEN, "")


@pytest.mark.parametrize(
    "reason", ["StateLost", "Contended", "Drifted", "PruneHeld", "BadSettings"]
)
def test_what_nothing_is_tried_about_is_not_said_to_be_tried(reason: str) -> None:
    kinds = {"StateLost": "Trusted", "BadSettings": "Ready"}
    found = next_step(notice(kinds.get(reason, "InSync"), reason), {"retry": AT, "fetch": AT})
    assert found
    assert "2026" not in found
    assert "tried again" not in found


def test_each_condition_of_a_status_and_a_dead_agent_have_a_next_step() -> None:
    kinds = [one["type"] for one in compose(State(), Live(), None, now=time.time())["conditions"]]
    told = {*kinds, "Agent"} - {"Suspended", "Healthy"}  # these are never told
    assert [kind for kind in told if not next_step(notice(kind, "Any"), {})] == []


@pytest.mark.parametrize(
    "kind, reason, command",
    [
        ("InSync", "Failed", "reconciler why 'file:/srv/my app'"),
        ("InSync", "Drifted", "reconciler drift file:/etc/motd"),
        ("InSync", "Contended", "reconciler drift service:nginx"),
        ("InSync", "PruneHeld", "reconciler prune --dry-run"),
        ("InSync", "NewCommit", ""),
        ("SourceFresh", "Stale", ""),
        ("Stalled", "Contended", "reconciler history --cause corrective"),
    ],
)
def test_a_command_shows_more_of_the_resource_that_it_is_about(
    kind: str, reason: str, command: str
) -> None:
    named: dict[str, Any] = {
        "failed": ["file:/srv/my app"],
        "drifted": ["file:/etc/motd", "file:/etc/issue"],
        "contended": ["service:nginx"],
    }
    assert more(notice(kind, reason), named) == command
    assert "RESOURCE" not in more(notice(kind, reason), {})
