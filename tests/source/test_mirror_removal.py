"""Mirrors that nobody follows any more go, and no fetch that is under way with one is disturbed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from reconciler.errors import LockBusy
from reconciler.source.mirror import Mirror, mirror_path, remove_others


@pytest.fixture
def kept(tmp_path: Path) -> Mirror:
    return made(tmp_path, "main")


def made(directory: Path, branch: str) -> Mirror:
    mirror = Mirror(mirror_path(str(directory), "/srv/state.git", branch))
    with mirror.lock():
        mirror.create()
    return mirror


def left(mirror: Mirror) -> list[str]:
    """The endings of what is there of it."""
    directory, name = os.path.split(mirror.path)
    return sorted(one.removeprefix(name) for one in os.listdir(directory) if one.startswith(name))


def test_others_go_with_all_that_is_beside_them_and_nothing_else_does(
    tmp_path: Path, kept: Mirror
) -> None:
    other, half = made(tmp_path, "old"), made(tmp_path, "half")
    other.suspect()
    kept.suspect()
    os.rename(half.path, f"{half.path}.old")
    strangers = ["mirror-of-mine.git", "notes", f"mirror-{'a' * 32}.github"]
    for name in strangers:
        (tmp_path / name).mkdir()
    remove_others(kept)
    assert (left(other), left(half)) == ([], [])
    assert left(kept) == ["", ".lock", ".suspect"]
    assert set(strangers) <= set(os.listdir(tmp_path))


def test_one_that_somebody_writes_to_stays_until_the_next_time(
    tmp_path: Path, kept: Mirror
) -> None:
    other = made(tmp_path, "old")
    with other.lock():
        remove_others(kept)
        with pytest.raises(LockBusy):
            other.remove()
        assert left(other) == ["", ".lock"]
    remove_others(kept)
    assert left(other) == []


def test_who_waited_for_a_mirror_that_was_removed_holds_the_lock_that_others_see(
    kept: Mirror,
) -> None:
    seen: list[bool] = []

    def wait() -> None:
        with kept.lock(patience=10):
            try:
                with kept.lock():
                    seen.append(False)
            except LockBusy:
                seen.append(True)

    with kept.lock():
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)  # it has opened the file by now
        os.unlink(f"{kept.path}.lock")
    waiting.join(20)
    assert seen == [True]
