"""Promise 3: a file is there whole or not at all; told to stop, a run stops at a boundary."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from behaviour.crash import Victim, kill_at
from behaviour.world import World, statuses


def test_an_old_file_is_whole_while_the_new_one_is_being_written(world: World) -> None:
    world.path("/gate").write_text("old and whole")
    world.gate("/gate")
    kill_at(world, "/gate")
    assert world.path("/gate").read_text() == "old and whole"


def test_content_is_not_readable_by_others_before_it_is_in_place(world: World) -> None:
    world.gate("/gate")
    kill_at(world, "/gate")
    (left,) = world.leftovers()
    assert Path(left).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_it_finishes_the_resource_at_hand_and_reports(
    world: World, number: signal.Signals
) -> None:
    world.file("/first", "x", notify=("handler:restarted app",))
    world.gate("/gate")
    world.file("/last", "x")
    world.bell("app", "restarted")
    with Victim(world) as victim:
        question = victim.run_to("/gate")
        victim.process.send_signal(number)
        victim.answer(question)
        report: Any = victim.report()
        assert victim.process.wait(10) == 0
    assert report["interrupted"] is True
    by_id = {result["id"]: result["status"] for result in report["results"]}
    assert by_id == {"file:/first": "changed", "file:/gate": "changed", "file:/last": "pending"}
    assert world.rung() == []
    assert statuses(world.apply()) == {
        "file:/first": "ok",
        "file:/gate": "ok",
        "file:/last": "changed",
        "handler:restarted app": "notified",
    }


def test_an_idle_engine_ends_when_told_to(world: World) -> None:
    with Victim(world) as victim:
        victim.process.send_signal(signal.SIGTERM)
        assert victim.process.wait(10) == 0


# -- a full disk -------------------------------------------------------------------------


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "size=2m") as place:
        yield place


def fill(place: Path, leave: int) -> None:
    room = os.statvfs(place)
    with (place / "ballast").open("wb") as ballast:
        ballast.write(b"x" * max(room.f_bavail * room.f_frsize - leave, 0))


def test_a_full_disk_fails_the_file_and_leaves_the_old_one_whole(small_disk: Path) -> None:
    world = World(small_disk / "root")
    world.file("/small", "x")
    world.gate("/gate")
    world.apply()
    world.path("/gate").write_text("old")
    world.path("/small").write_text("old")
    fill(small_disk, 300_000)
    report = world.apply()
    failed = next(result for result in report.results if result.status == "failed")
    assert failed.id == "file:/gate"
    assert "No space left" in failed.reason
    assert "free some space" in failed.hint
    assert world.path("/gate").read_text() == "old"
    assert world.leftovers() == []
    (small_disk / "ballast").unlink()
    assert not world.apply().failed


def test_a_disk_without_inodes_fails_what_needs_one_and_is_said_to_be_that(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4m,nr_inodes=64") as place:
        world = World(place / "root")
        world.file("/a", "x")
        world.apply()
        world.path("/a").write_text("y")
        while os.statvfs(place).f_ffree:
            (place / f"ballast{os.statvfs(place).f_ffree}").touch()
        with pytest.raises(Exception, match="No free inodes left") as refused:
            world.apply()
        assert "/var/lib/reconciler/ledger.db" in str(refused.value)
        assert "df -i" in str(refused.value)
        for n in (1, 2, 3):  # enough for the log of the ledger and its index, and for the file
            (place / f"ballast{n}").unlink()
        assert statuses(world.apply()) == {"file:/a": "changed"}
        assert not list(world.path("/var/lib/reconciler").glob("*.bad-*"))


def test_a_disk_that_is_full_before_the_first_change_costs_no_ledger(small_disk: Path) -> None:
    world = World(small_disk / "root")
    world.file("/a", "x")
    world.apply()
    world.path("/a").write_text("y")
    fill(small_disk, 0)
    with pytest.raises(Exception, match="ledger") as refused:
        world.apply()
    assert "trace" not in str(refused.value).lower()
    assert not list(world.path("/var/lib/reconciler").glob("*.bad-*"))
    (small_disk / "ballast").unlink()
    report = world.apply()
    changed = next(result for result in report.results if result.status == "changed")
    assert changed.cause == "corrective", "the ledger still knows what it had applied"


def test_a_ledger_that_becomes_unwritable_in_the_middle_is_said_aloud(small_disk: Path) -> None:
    """The ledger's disk fills up while a run is under way: what was owed is not lost."""
    world = World(small_disk / "root")
    world.file("/a", "x", notify=("handler:restarted app",))
    world.gate("/gate")
    world.bell("app", "restarted")
    with Victim(world) as victim:
        question = victim.run_to("/gate")
        fill(small_disk, 0)
        victim.answer(question)
        report: Any = victim.report()
    assert any("could not be recorded" in str(one) for one in report["warnings"]), report
    (small_disk / "ballast").unlink()
    assert not world.apply().failed
    assert "restart app" in world.rung()
    assert world.owed() == {}


def test_a_read_only_file_system_is_an_error_that_says_so(small_disk: Path) -> None:
    world = World(small_disk / "root")
    world.file("/a", "x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert world.plan().differs
    with pytest.raises(Exception, match="Read-only file system"):
        world.apply()
