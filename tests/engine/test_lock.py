"""The lock within one process; between processes: tests/behaviour/test_lock.py."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from reconciler.engine.limit import Boundary
from reconciler.engine.lock import PLACE, lock
from reconciler.errors import Interrupted, LockBusy, ReconcilerError


def test_the_holder_is_written_for_people(tmp_path: Path) -> None:
    with lock(str(tmp_path), "run1", "push"):
        said = json.loads((tmp_path / PLACE).read_text())
    assert (said["pid"], said["run"], said["mode"]) == (os.getpid(), "run1", "push")
    assert (tmp_path / PLACE).stat().st_mode & 0o777 == 0o600


def test_it_is_one_at_a_time_and_free_again_after(tmp_path: Path) -> None:
    with (
        lock(str(tmp_path), "a", "push"),
        pytest.raises(LockBusy, match="push run a"),
        lock(str(tmp_path), "b", "local"),
    ):
        pass
    with lock(str(tmp_path), "b", "local"):
        pass


@pytest.mark.parametrize("said", ["", "not json", "[]", '{"mode": 1}', "\xff"])
def test_a_holder_that_says_nothing_sensible_is_no_crash(tmp_path: Path, said: str) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir(parents=True)
    place.write_text(said)
    with place.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LockBusy, match="not said who it is"), lock(str(tmp_path), "b", "local"):
            pass


def test_waiting_stops_at_the_boundary(tmp_path: Path) -> None:
    boundary = Boundary()
    boundary.reach()
    with (
        lock(str(tmp_path), "a", "push"),
        pytest.raises(Interrupted),
        lock(str(tmp_path), "b", "local", 600, boundary),
    ):
        pass


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(ReconcilerError, match="cannot open the lock"),
        lock(str(tmp_path), "a", "x"),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_does_not_keep_a_run_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with lock(str(tmp_path), "a", "x"):
        pass
