"""Who is told what: a change of a condition, once; not a flicker; and that it is over."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from reconciler.agent import notices as module
from reconciler.agent.notices import DIGEST, LASTED, Notices
from reconciler.agent.places import Places

START = 1_795_000_000.0


def condition(
    status: str, reason: str = "BadSignature", kind: str = "Trusted"
) -> dict[str, object]:
    return {
        "type": kind, "status": status, "reason": reason, "message": "", "since": START, "commit": "",
    }  # fmt: skip


def load(places: Places) -> Notices:
    return Notices.load(places, places.notices)


BAD, GOOD, UNKNOWN = condition("False"), condition("True", "Verified"), condition("Unknown")


def events(notices: Notices, *seen: dict[str, object], at: float) -> list[tuple[str, int]]:
    due = notices.due(seen, START + at)
    notices.save()
    return [(one["event"], one["missed"]) for one in due]


def test_a_flicker_is_not_told_and_what_lasts_is_told_once_and_resolved_once() -> None:
    notices = Notices()
    assert events(notices, BAD, at=0) == []
    assert events(notices, GOOD, at=1) == []
    assert events(notices, BAD, at=2) == []
    assert events(notices, BAD, at=3) == [("problem", 0)]
    assert events(notices, BAD, at=DIGEST + 60) == []
    assert events(notices, GOOD, at=DIGEST + 61) == [("resolved", 0)]
    assert events(notices, GOOD, at=DIGEST + 62) == []


def test_what_is_seen_once_and_lasts_five_minutes_is_told() -> None:
    notices = Notices()
    assert events(notices, BAD, at=0) == []
    assert events(notices, UNKNOWN, at=60) == []
    assert events(notices, BAD, at=LASTED) == [("problem", 0)]


def test_what_a_condition_does_soon_after_it_was_told_comes_as_a_digest() -> None:
    notices = Notices()
    for at in (0, 1):
        events(notices, BAD, at=at)
    assert events(notices, GOOD, at=60) == [("resolved", 0)]
    for at in (100, 200, 300):  # three times more, each long enough to be told
        assert events(notices, BAD, at=at) == []
        assert events(notices, BAD, at=at + 1) == []
        assert events(notices, GOOD, at=at + 2) == []
    assert events(notices, GOOD, at=DIGEST) == []
    assert events(notices, GOOD, at=DIGEST + 2) == [("digest", 3)]
    assert events(notices, GOOD, at=DIGEST + 3) == []


def test_what_is_still_bad_after_the_quiet_time_is_told_with_what_was_missed() -> None:
    notices = Notices()
    for at in (0, 1):
        events(notices, BAD, at=at)
    events(notices, GOOD, at=60)
    for at in (100, 101):
        assert events(notices, BAD, at=at) == []
    events(notices, GOOD, at=102)
    for at in (200, 201, 300):
        assert events(notices, BAD, at=at) == []
    assert events(notices, BAD, at=DIGEST + 2) == [("problem", 1)]


def test_another_reason_is_another_problem_and_other_conditions_do_not_wait() -> None:
    notices = Notices()
    other = condition("False", "FetchFailed", "SourceFresh")
    for at in (0, 1):
        events(notices, BAD, at=at)
    assert events(notices, BAD, other, at=2) == []
    assert events(notices, BAD, other, at=3) == [("problem", 0)]
    rewritten = condition("False", "NotFastForward")
    assert events(notices, rewritten, at=4) == []
    assert events(notices, rewritten, at=5) == []
    assert events(notices, rewritten, at=DIGEST + 2) == [("problem", 0)]


def test_what_fails_later_while_something_else_does_is_told_as_well() -> None:
    """Or one package that fails for months would keep everybody from hearing of the rest."""
    notices = Notices()

    def look(at: float, *ids: str) -> list[list[str]]:
        failed = condition("False", "Failed", "InSync")
        return [one["new"] for one in notices.due([failed], START + at, {"InSync": ids})]

    assert [look(at, "package:a") for at in (0, 1, 2)] == [[], [[]], []]
    later = DIGEST + 10
    assert look(later, "package:a") == []
    assert look(later + 1, "package:a", "service:b") == []
    assert look(later + 2, "package:a") == []
    assert [look(later + at, "package:a", "service:b") for at in (3, 4, 5)] == [
        [], [["service:b"]], [],
    ]  # fmt: skip
    # What was well in between is news again, but not more often than all else.
    assert look(later + 6, "package:a") == []
    assert [look(later + at, "package:a", "service:b") for at in (7, 8)] == [[], []]
    assert look(later + 4 + DIGEST, "package:a", "service:b") == [["service:b"]]


def test_what_is_meant_and_what_is_said_already_is_not_told() -> None:
    notices = Notices()
    quiet = [condition("True", "Suspended", "Suspended"), condition("False", "Failed", "Healthy")]
    assert [events(notices, *quiet, at=at) for at in range(3)] == [[], [], []]


def test_a_restart_tells_nothing_twice_and_forgets_no_end(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    notices = load(places)
    events(notices, BAD, at=0)
    notices = load(places)  # as a timer starts a process for each run
    assert events(notices, BAD, at=60) == [("problem", 0)]
    notices = load(places)
    assert events(notices, BAD, at=120) == []
    assert events(notices, GOOD, at=130) == [("resolved", 0)]


def test_a_full_disk_is_told_too_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run of a timer is a process of its own, that knows what was written only."""
    places = Places(str(tmp_path))
    really, full = module.write, [True]

    def write(path: str, content: bytes) -> None:
        if full[0] and path == places.notices:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        really(path, content)

    monkeypatch.setattr(module, "write", write)
    said = [events(load(places), BAD, at=at) for at in (0, 60, 120)]
    assert said == [[], [("problem", 0)], []]
    full[0] = False
    assert events(load(places), GOOD, at=180) == [("resolved", 0)]
    assert not Path(places.spare(places.notices)).exists()
    assert events(load(places), GOOD, at=240) == []


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    notices = load(places)
    assert events(notices, GOOD, at=0) == []
    assert not Path(places.notices).exists()
    for at in (0, 1, 2):
        events(notices, BAD, at=at)
    before = Path(places.notices).stat().st_mtime_ns
    for at in range(10, 100, 10):
        events(notices, BAD, at=at)
    assert Path(places.notices).stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["", "[]", '{"Trusted": 7}', '{"Trusted": {"x": 1}}'])
def test_lost_memory_starts_anew(tmp_path: Path, damage: str) -> None:
    places = Places(str(tmp_path))
    Path(places.notices).parent.mkdir(parents=True)
    Path(places.notices).write_text(damage)
    notices = load(places)
    assert [events(notices, BAD, at=at) for at in (0, 1)] == [[], [("problem", 0)]]


def test_a_clock_that_was_set_back_delays_nothing_for_years() -> None:
    notices = Notices()
    for at in (0, 1):
        events(notices, BAD, at=at)
    back = -10 * 365 * 86400.0
    assert events(notices, GOOD, at=back) == [("resolved", 0)]
    for at in (1, 2):
        events(notices, BAD, at=back + at)
    assert events(notices, BAD, at=back + DIGEST) == [("problem", 0)]
