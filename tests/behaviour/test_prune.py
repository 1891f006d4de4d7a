"""What left Git leaves the host, if the policy says so: slowly, never too much, and back to before."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from behaviour.world import World
from reconciler.transport.engine import Engine


def prune(world: World, policy: dict[str, str], **more: Any) -> dict[str, Any]:
    """One prune for what the world declares now."""
    present = [one.id for one in world.resources]
    with Engine.local(str(world.root)) as engine:
        return engine.prune(present=present, host="h", commit="c" * 40, policy=policy, **more)


def drop(world: World, *paths: str) -> None:
    """Declare these files no more."""
    gone = {f"file:{path}" for path in paths}
    world.resources = [one for one in world.resources if one.id not in gone]


def ids(found: dict[str, Any], name: str) -> list[str]:
    return [one["id"] for one in found[name]]


RESTORE = {"default": "restore"}


def test_by_default_everything_is_kept_and_listed(world: World) -> None:
    world.file("/etc/a", "ours")
    world.apply()
    drop(world, "/etc/a")
    found = [prune(world, {}) for _ in range(3)][-1]
    assert ids(found, "kept") == ["file:/etc/a"]
    assert world.path("/etc/a").read_text() == "ours"


def test_it_takes_two_steps_and_what_comes_back_in_between_is_safe(world: World) -> None:
    world.file("/etc/a", "ours")
    kept = list(world.resources)
    world.apply()
    drop(world, "/etc/a")
    assert ids(prune(world, RESTORE), "waiting") == ["file:/etc/a"]
    world.resources = kept
    assert prune(world, RESTORE)["waiting"] == []
    drop(world, "/etc/a")
    assert ids(prune(world, RESTORE), "waiting") == ["file:/etc/a"]
    assert world.path("/etc/a").exists()
    assert ids(prune(world, RESTORE), "pruned") == ["file:/etc/a"]
    assert not world.path("/etc/a").exists()
    assert prune(world, RESTORE)["ready"] == []


def test_what_was_there_before_us_is_put_back(world: World) -> None:
    world.path("/etc/a").write_text("theirs")
    world.path("/etc/a").chmod(0o604)
    world.path("/etc/link").symlink_to("/somewhere")
    world.file("/etc/a", "ours", mode="0600")
    world.file("/etc/link", state="link", src="/elsewhere")
    world.apply()
    drop(world, "/etc/a", "/etc/link")
    prune(world, RESTORE)
    prune(world, RESTORE)
    assert world.path("/etc/a").read_text() == "theirs"
    assert world.path("/etc/a").stat().st_mode & 0o777 == 0o604
    assert str(world.path("/etc/link").readlink()) == "/somewhere"


def test_delete_deletes_whatever_was_there_before(world: World) -> None:
    world.path("/etc/a").write_text("theirs")
    world.file("/etc/a", "ours")
    world.apply()
    drop(world, "/etc/a")
    prune(world, {"file": "delete"})
    prune(world, {"file": "delete"})
    assert not world.path("/etc/a").exists()


def test_a_directory_with_other_things_in_it_stays(world: World) -> None:
    world.file("/srv/app", state="directory")
    world.path("/srv").mkdir()
    world.apply()
    world.path("/srv/app/data").write_text("precious")
    drop(world, "/srv/app")
    prune(world, RESTORE)
    found = prune(world, RESTORE)
    assert "not empty" in found["pruned"][0]["done"]
    assert world.path("/srv/app/data").read_text() == "precious"


def test_the_resources_own_word_outlives_its_declaration(world: World) -> None:
    world.declare("file", "/etc/a", {"path": "/etc/a", "state": "touch"}, prune="delete")
    world.declare("file", "/etc/b", {"path": "/etc/b", "state": "touch"}, prune="keep")
    world.apply()
    drop(world, "/etc/a", "/etc/b")
    prune(world, {"default": "restore"})
    found = prune(world, {"default": "restore"})
    assert ids(found, "pruned") == ["file:/etc/a"]
    assert ids(found, "kept") == ["file:/etc/b"]
    assert world.path("/etc/b").exists()


def test_more_than_the_budget_is_held_until_a_person_says_so(world: World) -> None:
    paths = [f"/etc/{n}" for n in range(40)]
    for path in paths:
        world.file(path, path)
    world.apply()
    drop(world, *paths[:6])
    for _ in range(3):
        found = prune(world, RESTORE)
        assert "6 resources" in found["held"]
        assert found["pruned"] == []
    assert all(world.path(path).exists() for path in paths)
    assert len(prune(world, RESTORE, over_budget=True)["pruned"]) == 6
    assert not any(world.path(path).exists() for path in paths[:6])


def test_a_dry_run_writes_nothing(world: World) -> None:
    world.file("/etc/a", "ours")
    world.apply()
    drop(world, "/etc/a")
    before = world.tree(times=True)
    found = prune(world, RESTORE, dry_run=True)
    assert ids(found, "waiting") == ["file:/etc/a"]
    assert world.tree(times=True) == before


def test_what_another_resource_has_taken_over_is_only_forgotten(world: World) -> None:
    world.file("/etc/a", "ours")
    world.apply()
    with sqlite3.connect(world.path("/var/lib/reconciler/ledger.db")) as database:
        database.execute(
            "INSERT INTO resources SELECT 'other:/etc/a', 'other', wish, claims, file, line,"
            " commit_id, run, since, converged, prune FROM resources WHERE id = 'file:/etc/a'"
        )
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert found["kept"] == found["ready"] == found["waiting"] == []
    assert world.path("/etc/a").exists()


@pytest.mark.parametrize("damage", ["directory", "gone"])
def test_what_changed_meanwhile_fails_or_is_done_and_stops_nothing_else(
    world: World, damage: str
) -> None:
    world.path("/etc/a").write_text("theirs")
    world.file("/etc/a", "ours")
    world.file("/etc/b", "ours")
    world.apply()
    drop(world, "/etc/a", "/etc/b")
    prune(world, RESTORE)
    world.path("/etc/a").unlink()
    if damage == "directory":
        world.path("/etc/a").mkdir()
    found = prune(world, RESTORE)
    assert not world.path("/etc/b").exists()
    if damage == "directory":
        assert "is a directory now" in found["failed"][0]
        assert ids(found, "ready") == ["file:/etc/a"]
    else:
        assert world.path("/etc/a").read_text() == "theirs"
