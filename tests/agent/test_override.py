"""A commit that a person lets through its window: which one, for how long, and who is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from reconciler.agent import journal
from reconciler.agent import override as module
from reconciler.agent.override import LASTS, let_through, overridden, override, shown
from reconciler.agent.places import Places

URGENT, OTHER = "a" * 40, "b" * 40
WAITS = {"source": {"candidate": {"commit": URGENT, "held_by": "Window", "since": 1.0}}}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    said: list[dict[str, object]] = []

    def record(priority: str, message: str, **fields: object) -> bool:
        said.append({"priority": priority, "message": message, **fields})
        return True

    monkeypatch.setattr(journal, "record", record)
    return said


def test_the_commit_that_waits_is_let_through_and_no_other(
    places: Places, recorded: list[dict[str, object]]
) -> None:
    assert not overridden(places, URGENT)
    assert let_through(places, WAITS, "TICKET-7", "alice")
    assert overridden(places, URGENT)
    assert not overridden(places, OTHER)
    assert not overridden(places, "")
    assert recorded == [
        {
            "priority": "notice",
            "message": f"alice lets {URGENT[:12]} through its window: TICKET-7",
            "cause": "override",
            "commit": URGENT,
            "by": "alice",
            "reason": "TICKET-7",
        }
    ]
    assert stat.S_IMODE(Path(places.override).stat().st_mode) == 0o600


@pytest.mark.parametrize("held_by", ["Suspended", "CompileFailed", None])
def test_nothing_else_is_overridden_by_that(
    places: Places, recorded: list[dict[str, object]], held_by: str | None
) -> None:
    other: dict[str, Any] = {"source": {"candidate": {"commit": URGENT, "held_by": held_by}}}
    for status in (other, {"source": {"candidate": None}}):
        assert not let_through(places, status, "TICKET-7", "alice")
    assert override(places) is None
    assert recorded == []


def test_it_holds_for_hours_whatever_clocks_say_and_not_for_ever(
    places: Places, recorded: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_through(places, WAITS, "TICKET-7", "alice")
    begun = module._since_boot()
    for later, holds in ((LASTS - 60, True), (LASTS + 1, False), (-60.0, False)):
        monkeypatch.setattr(module, "_since_boot", lambda at=begun + later: at)
        assert overridden(places, URGENT) == holds


def test_a_status_shows_it_while_the_commit_is_not_applied_yet(
    places: Places, recorded: list[dict[str, object]]
) -> None:
    assert shown(places, URGENT) is None
    let_through(places, WAITS, "TICKET-7", "alice")
    found = shown(places, URGENT)
    assert found is not None
    assert (found["commit"], found["reason"], found["by"]) == (URGENT, "TICKET-7", "alice")
    assert set(found) == {"commit", "reason", "by", "since"}
    assert shown(places, "") is None
    assert shown(places, OTHER) is None


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"commit": 1}', b'{"nonsense": 1}'])
def test_a_file_that_is_damaged_opens_nothing(
    places: Places, recorded: list[dict[str, object]], damage: bytes
) -> None:
    let_through(places, WAITS, "TICKET-7", "alice")
    Path(places.override).write_bytes(damage)
    assert override(places) is None
    Path(places.override).write_text(
        json.dumps({"commit": URGENT, "reason": 1, "by": 1, "since": 1, "ends": 1.0})
    )
    assert override(places) is None
