"""Promise 2: a second run changes nothing, always."""

from __future__ import annotations

import os

from behaviour.world import OWN, World, statuses


def everything(world: World) -> None:
    world.file("/srv", state="directory", mode="0755")
    world.file("/srv/app", state="directory", owner="root", group="root", mode="u=rwx,g=rx,o=")
    world.file("/srv/app/config", "x = 1\n", mode="0640", notify=("handler:restarted app",))
    world.file("/srv/app/current", state="link", src="releases/1")
    world.file("/srv/app/again", state="hard", src="/srv/app/config")
    world.file("/srv/app/marker", state="touch")
    world.file("/srv/app/old", state="absent")
    world.bell("app", "restarted")


def test_the_second_run_changes_nothing_and_notifies_nobody(world: World) -> None:
    everything(world)
    first = world.apply()
    assert not first.failed
    assert first.changed
    before = world.tree(times=True, without=OWN)
    second = world.apply()
    assert not second.changed
    assert set(statuses(second).values()) == {"ok"}
    assert world.tree(times=True, without=OWN) == before
    assert world.rung() == ["restart app"]


def test_a_second_run_looks_at_what_was_edited_by_hand_and_only_mends_that(world: World) -> None:
    everything(world)
    world.apply()
    os.chmod(world.path("/srv/app/marker"), 0o600)
    world.path("/srv/app/config").write_text("x = 2\n")
    report = world.apply()
    changed = {one for one, status in statuses(report).items() if status == "changed"}
    # The hard link shares the inode that was edited, and gets a new one.
    assert changed == {"file:/srv/app/config", "file:/srv/app/again"}
    assert world.path("/srv/app/config").read_text() == "x = 1\n"
    causes = {result.id: result.cause for result in report.results if result.status == "changed"}
    assert causes == dict.fromkeys(changed, "corrective")
    assert not world.apply().changed
