"""The lock within one process; between processes: tests/behaviour/test_lock.py."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
from pathlib import Path

import pytest

from reconciler.engine.limit import Boundary
from reconciler.engine.lock import PLACE, lock, user
from reconciler.errors import Interrupted, LockBusy, ReconcilerError


def test_the_holder_is_written_for_people(tmp_path: Path) -> None:
    with lock(str(tmp_path), "run1", "push", command="reconciler apply, from alice@desk"):
        said = json.loads((tmp_path / PLACE).read_text())
    assert (said.pop("pid"), said.pop("run"), said.pop("mode")) == (os.getpid(), "run1", "push")
    assert said.pop("command") == "reconciler apply, from alice@desk"
    assert said.pop("user") == user()
    assert 0 <= time.time() - said.pop("since") < 60
    assert said == {}
    assert (tmp_path / PLACE).stat().st_mode & 0o777 == 0o600


def test_the_user_is_whoever_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert user() == "alice"
    monkeypatch.delenv("SUDO_USER")
    assert user() == pwd.getpwuid(os.geteuid()).pw_name


def test_who_is_waited_for_is_told_once_and_only_if_anybody_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    told: list[str] = []
    root = str(tmp_path)
    with lock(root, "a", "push", 60, command="reconciler apply", waiting=told.append):
        assert told == []
        with pytest.raises(LockBusy), lock(root, "b", "local", 0, waiting=told.append):
            pass
        assert told == []
        with pytest.raises(LockBusy), lock(root, "b", "local", 0.35, waiting=told.append):
            pass
    (holder,) = told
    assert holder.startswith(f"push run a, pid {os.getpid()}, by alice (reconciler apply), for ")


def test_a_clock_that_was_set_back_makes_no_age_of_less_than_nothing(tmp_path: Path) -> None:
    place = tmp_path / PLACE
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"mode": "m", "run": "r", "pid": 1, "since": time.time() + 3600}))
    with place.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(LockBusy, match="m run r, pid 1, for 0 s"),
            lock(str(tmp_path), "b", "x"),
        ):
            pass


def test_it_is_one_at_a_time_and_free_again_after(tmp_path: Path) -> None:
    with (
        lock(str(tmp_path), "a", "push"),
        pytest.raises(LockBusy, match="push run a"),
        lock(str(tmp_path), "b", "local"),
    ):
        pass
    with lock(str(tmp_path), "b", "local"):
        pass


@pytest.mark.parametrize(
    "said", ["", "not json", "[]", '{"mode": 1}', "\xff", '{"since": 1, "user": 1}']
)
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
