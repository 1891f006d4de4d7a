"""Promise 3: killed at any instant, the next run converges, and what was owed is delivered."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from behaviour.crash import Victim, kill_after, kill_at, measured, processes_in
from behaviour.world import OWN, World, statuses

KILLS = 200
SEED = int(os.environ.get("CRASH_SEED", "20260"))


def fifty_resources(world: World, version: int) -> None:
    """Directories, files with and without content, links, hard links, things to remove; the
    version changes most of them. Half of the files notify."""
    world.resources.clear()
    world.file("/srv", state="directory", mode="0755")
    for n in range(5):
        world.file(f"/srv/d{n}", state="directory", mode="0750" if version % 2 else "0755")
    for n in range(30):
        notify = (f"handler:restarted s{n % 3}",) if n % 2 else ()
        text = f"version {version}, file {n}\n" * (1 + 2000 * (n % 4 == 0))
        world.file(f"/srv/d{n % 5}/f{n}", text, mode="0640", notify=notify)
    for n in range(6):
        world.file(f"/srv/link{n}", state="link", src=f"d{(n + version) % 5}")
    for n in range(4):
        world.file(f"/srv/hard{n}", state="hard", src=f"/srv/d{n}/f{n}")
    for n in range(4):
        world.file(f"/srv/d{n}/old{n}", state="absent" if version % 2 else "touch")
    for n in range(3):
        world.bell(f"s{n}", "restarted")


def straight_run(directory: Path, version: int) -> dict[str, object]:
    """What a run that nobody disturbs makes of a fresh host."""
    world = World(directory)
    fifty_resources(world, version)
    assert not world.apply().failed
    found = normal(world)
    shutil.rmtree(directory)
    return found


def normal(world: World) -> dict[str, object]:
    """The tree, but for what belongs to the tool."""
    return world.tree(without=OWN)


@pytest.mark.timeout(240)
def test_two_hundred_kills_end_in_the_state_of_a_straight_run(world: World, tmp_path: Path) -> None:
    rng = random.Random(SEED)  # noqa: S311 - repeatable is what it has to be
    fifty_resources(world, 0)
    assert len([one for one in world.resources if not one.handler]) == 50
    whole = measured(world)
    kills = version = 0
    while kills < KILLS:
        killed = 0
        for attempt in range(10):
            if attempt < 5:  # the wish changes under half-done runs, and then stays
                version += 1
                fifty_resources(world, version)
                world.log.unlink(missing_ok=True)
            killed += kill_after(world, rng.uniform(0, whole))
        kills += killed
        context = f"seed {SEED}, version {version}, {killed} kills, {kills} in all"
        assert not world.apply().failed, context
        assert normal(world) == straight_run(tmp_path / f"straight{version}", version), context
        assert world.leftovers() == [], context
        assert world.owed() == {}, context
        # Files that notify each of the bells were changed, so each rang at least once.
        assert set(world.rung()) == {f"restart s{n}" for n in range(3)}, context
        assert not world.apply().changed, context
    assert processes_in(world.root) == []


def test_a_kill_between_change_and_handler_leaves_the_debt_to_the_next_run(world: World) -> None:
    world.file("/a", "a", notify=("handler:restarted app",))
    world.gate("/b")
    world.bell("app", "restarted")
    kill_at(world, "/b")
    assert world.rung() == []
    report = world.apply()
    assert statuses(report) == {
        "file:/a": "ok",
        "file:/b": "changed",
        "handler:restarted app": "notified",
    }
    assert world.rung() == ["restart app"]
    assert not world.apply().changed


def test_a_debt_survives_a_run_of_a_part_of_the_catalog(world: World) -> None:
    """As with --tags: the file whose change was cut off is not in the next catalog."""
    world.file("/a", "a", notify=("handler:restarted app",))
    world.gate("/b")
    world.bell("app", "restarted")
    kill_at(world, "/b")
    everything = list(world.resources)
    world.resources[:] = [one for one in everything if one.id == "file:/b"]
    world.partial = True
    world.apply()
    assert world.rung() == []
    world.resources[:] = everything
    world.partial = False
    world.apply()
    assert world.rung() == ["restart app"]


def test_a_debt_survives_its_resource_leaving_git(world: World) -> None:
    world.file("/a", "a", notify=("handler:restarted app",))
    world.gate("/b")
    world.bell("app", "restarted")
    kill_at(world, "/b")
    world.resources[:] = [one for one in world.resources if one.id != "file:/a"]
    world.apply()
    assert world.rung() == ["restart app"]
    assert not world.apply().changed


def test_a_second_kill_before_the_handler_does_not_lose_the_debt(world: World) -> None:
    world.file("/a", "a", notify=("handler:restarted app",))
    world.gate("/b")
    world.bell("app", "restarted")
    kill_at(world, "/b")
    kill_at(world, "/b")
    assert world.rung() == []
    assert list(world.owed()) == ["handler:restarted app"]
    assert world.apply().changed
    assert world.rung() == ["restart app"]


def test_the_temporary_file_of_a_killed_write_is_swept(world: World) -> None:
    world.gate("/big")
    kill_at(world, "/big")
    assert len(world.leftovers()) == 1
    assert not world.path("/big").exists()
    assert not world.apply().failed
    assert world.leftovers() == []
    assert world.path("/big").exists()


def test_all_state_deleted_converges_from_scratch(world: World) -> None:
    fifty_resources(world, 1)
    world.apply()
    for place in OWN:
        shutil.rmtree(world.path(place))
    report = world.apply()
    assert not report.changed
    assert not report.failed


def test_a_controller_that_dies_stops_the_run_at_a_boundary(world: World) -> None:
    for n in range(200):
        world.file(f"/f{n}", f"{n}", notify=("handler:restarted app",))
    world.bell("app", "restarted")
    with Victim(world) as victim:
        victim.start()
        while victim.next().get("event") != "result":
            pass
        victim.process.stdin.close()  # type: ignore[union-attr]
        victim.process.stdout.close()  # type: ignore[union-attr]
        assert victim.process.wait(20) == 0
    assert world.leftovers() == []
    done = [path for path in world.root.glob("f*") if path.stat().st_size]
    assert 1 <= len(done) < 200
    assert world.rung() == []
    assert list(world.owed()) == ["handler:restarted app"]
    report = world.apply()
    assert not report.failed
    assert world.rung() == ["restart app"]
