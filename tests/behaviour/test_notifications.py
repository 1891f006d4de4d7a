"""Notifications: owed before the change, delivered once, whatever comes in between."""

from __future__ import annotations

import signal
from typing import Any

from behaviour.crash import Victim, kill_at
from behaviour.world import World, statuses
from reconciler.transport.engine import Engine


def test_several_changes_ring_one_target_once(world: World) -> None:
    for n in range(5):
        world.file(f"/f{n}", "x", notify=("handler:restarted app",))
    world.bell("app", "restarted")
    report = world.apply()
    assert world.rung() == ["restart app"]
    call = next(result for result in report.results if result.status == "notified")
    assert call.because == tuple(f"file:/f{n}" for n in range(5))


def test_restart_beats_reload_and_reload_alone_reloads(world: World) -> None:
    world.file("/a", "1", notify=("handler:reloaded app",))
    world.file("/b", "1", notify=("handler:restarted app",))
    world.bell("app", "reloaded")
    world.bell("app", "restarted")
    report = world.apply()
    assert world.rung() == ["restart app"]
    assert statuses(report)["handler:reloaded app"] == "ok"
    world.path("/a").write_text("2")
    world.apply()
    assert world.rung() == ["restart app", "reload app"]


def test_a_service_that_this_run_started_is_not_restarted(world: World) -> None:
    world.file("/a", "1", notify=("handler:restarted app",))
    world.bell("app")
    world.bell("app", "restarted")
    assert not any(result.status == "owed" for result in world.plan().results)
    world.apply()
    assert world.rung() == ["start app"]
    assert world.owed() == {}


def test_a_change_after_the_start_restarts_it(world: World) -> None:
    world.bell("app")
    world.file("/a", "1", notify=("handler:restarted app",))
    world.bell("app", "restarted")
    assert [r.id for r in world.plan().results if r.status == "owed"] == ["handler:restarted app"]
    world.apply()
    assert world.rung() == ["start app", "restart app"]


def test_the_start_of_one_service_absorbs_nothing_of_another(world: World) -> None:
    world.file("/a", "1", notify=("handler:restarted app", "handler:restarted web"))
    world.bell("app")
    world.bell("app", "restarted")
    world.bell("web", "restarted")
    world.apply()
    assert world.rung() == ["start app", "restart web"]


def test_a_handler_that_fails_stays_owed_and_blocks_no_other(world: World) -> None:
    world.file("/a", "1", notify=("handler:restarted app", "handler:restarted web"))
    broken = world.root.parent / "broken"
    broken.touch()
    world.bell("app", "restarted", broken=str(broken))
    world.bell("web", "restarted")
    report = world.apply()
    assert statuses(report) == {
        "file:/a": "changed",
        "handler:restarted app": "failed",
        "handler:restarted web": "notified",
    }
    assert world.owed() == {"handler:restarted app": ("file:/a",)}
    assert [r.id for r in world.plan().results if r.status == "owed"] == ["handler:restarted app"]
    assert statuses(world.apply())["handler:restarted app"] == "failed"
    broken.unlink()
    assert statuses(world.apply()) == {"file:/a": "ok", "handler:restarted app": "notified"}
    assert world.rung() == ["restart web", "restart app"]
    assert not world.apply().changed


def test_what_fails_after_it_changed_something_still_owes(world: World) -> None:
    """A later run finds the file in sync: its content came with the run that failed."""
    world.modules["half"] = """
from __future__ import annotations
import os
from dataclasses import dataclass
from reconciler.errors import ResourceError
from reconciler.resource import Resource

@dataclass(frozen=True)
class Half(Resource):
    path: str
    def claims(self): return {f"path:{self.path}"}
    def desired(self): return {"there": True}
    def actual(self, host): return {"there": host.lstat(self.path) is not None}
    def apply(self, host, diff):
        host.write(self.path, [b"x"])
        raise ResourceError("too late")
"""
    world.declare("half", "/h", {"path": "/h"}, notify=("handler:restarted app",))
    world.bell("app", "restarted")
    assert statuses(world.apply()) == {"half:/h": "failed"}
    assert world.rung() == []
    assert statuses(world.apply()) == {"half:/h": "ok", "handler:restarted app": "notified"}
    assert not world.apply().changed


def test_what_was_never_tried_owes_nothing(world: World) -> None:
    world.file("/dir/a", "1", notify=("handler:restarted app",))
    world.bell("app", "restarted")
    assert statuses(world.apply()) == {"file:/dir/a": "failed"}
    world.file("/dir", state="directory")
    assert statuses(world.apply())["handler:restarted app"] == "notified"
    assert world.rung() == ["restart app"]


def test_a_handler_that_notifies_another_is_carried_out_first(world: World) -> None:
    world.file("/a", "1", notify=("handler:restarted app",))
    world.bell("web", "restarted")
    world.bell("app", "restarted", notify=("handler:restarted web",))
    world.apply()
    assert world.rung() == ["restart app", "restart web"]
    assert world.owed() == {}
    assert not world.apply().changed


def test_the_debt_of_a_killed_run_coalesces_with_new_ones(world: World) -> None:
    world.file("/a", "1", notify=("handler:reloaded app",))
    world.gate("/gate")
    world.bell("app", "reloaded")
    world.bell("app", "restarted")
    kill_at(world, "/gate")
    world.file("/b", "1", notify=("handler:restarted app",))
    report = world.apply()
    call = next(result for result in report.results if result.status == "notified")
    assert call.id == "handler:restarted app"
    assert set(call.because) == {"file:/a", "file:/b"}
    assert world.rung() == ["restart app"]


def test_what_a_plan_says_is_owed_after_a_kill_is_delivered_by_the_next_apply(world: World) -> None:
    world.file("/a", "1", notify=("handler:restarted app",))
    world.gate("/gate")
    world.bell("app", "restarted")
    kill_at(world, "/gate")
    owed = [r.id for r in world.plan().results if r.status == "owed"]
    assert owed == ["handler:restarted app"]
    assert [r.id for r in world.apply().results if r.status == "notified"] == owed


def unheard(world: World) -> None:
    """A handler that could not run, and has left the state repo since."""
    broken = world.root.parent / "broken"
    broken.touch()
    world.file("/a", "1", notify=("handler:restarted app",))
    world.bell("app", "restarted", broken=str(broken))
    world.apply()
    assert world.owed() == {"handler:restarted app": ("file:/a",)}
    world.resources.clear()
    world.file("/a", "1")


def test_what_is_owed_to_a_handler_that_left_git_is_forgotten_and_said(world: World) -> None:
    unheard(world)
    assert world.apply().warnings == (
        "handler:restarted app is declared no more; that file:/a notified it is forgotten",
    )
    assert world.owed() == {}
    # A year later another one has that name.
    world.bell("app", "restarted")
    assert not world.apply().changed
    assert world.rung() == []


def test_a_run_of_a_part_forgets_nothing_that_is_owed(world: World) -> None:
    unheard(world)
    world.partial = True
    assert world.apply().warnings == ()
    assert world.owed() == {"handler:restarted app": ("file:/a",)}


def test_a_run_that_was_told_to_stop_forgets_nothing_that_is_owed(world: World) -> None:
    unheard(world)
    world.gate("/gate")
    with Victim(world) as victim:
        question = victim.run_to("/gate")
        victim.process.send_signal(signal.SIGTERM)
        victim.answer(question)
        assert victim.report()["interrupted"]
    assert world.owed() == {"handler:restarted app": ("file:/a",)}


def test_to_prune_is_not_a_run_of_all_that_there_is(world: World) -> None:
    unheard(world)
    world.path("/conf").write_text("")
    world.partial = True
    world.declare("lineinfile", "/conf#a", {"path": "/conf", "line": "a"})
    world.apply()
    rules = {"default": "delete"}
    wish: dict[str, Any] = {"present": ["file:/a"], "host": "h", "commit": "c", "policy": rules}
    with Engine.local(str(world.root)) as engine:
        done = [engine.prune(**wish) for _ in range(2)][-1]
    assert [one["id"] for one in done["pruned"]] == ["lineinfile:/conf#a"]
    assert world.owed() == {"handler:restarted app": ("file:/a",)}
