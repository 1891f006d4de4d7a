"""Promise 1, the other half: a dry run leaves the machine byte-identical."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest

from behaviour.crash import kill_at
from behaviour.world import World


def declare(world: World) -> None:
    world.file("/srv", state="directory", mode="0750")
    world.file("/srv/changed", "new\n", mode="0600", notify=("handler:restarted app",))
    world.file("/srv/missing", "new\n")
    world.file("/srv/stale", state="absent")
    world.file("/srv/link", state="link", src="nowhere")
    world.bell("app", "restarted")


def populate(world: World) -> None:
    srv = world.path("/srv")
    srv.mkdir(exist_ok=True)
    (srv / "changed").write_text("old\n")
    (srv / "stale").write_text("stale\n")
    with contextlib.suppress(OSError):  # not every file system has attributes of users
        os.setxattr(srv / "changed", "user.note", b"kept")


def test_without_a_ledger(world: World) -> None:
    declare(world)
    populate(world)
    before = world.tree(times=True)
    plan = world.plan()
    assert plan.differs
    assert not plan.failed
    assert world.tree(times=True) == before
    assert world.rung() == []


def test_with_a_ledger(world: World) -> None:
    declare(world)
    world.apply()
    populate(world)
    before = world.tree(times=True)
    assert world.plan().differs
    assert world.tree(times=True) == before


def test_with_the_log_that_a_killed_run_left_beside_the_ledger(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(world)
    world.apply()
    populate(world)
    world.gate("/srv/gate")
    kill_at(world, "/srv/gate")
    wal = world.path("/var/lib/reconciler/ledger.db-wal")
    assert wal.stat().st_size > 0, "the kill came too late to leave a log"
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made = elsewhere.stat().st_mtime_ns
    before = world.tree(times=True)
    plan = world.plan()
    assert world.tree(times=True) == before
    assert elsewhere.stat().st_mtime_ns == made, "not even a temporary file"
    assert [r.id for r in plan.results if r.status == "owed"] == ["handler:restarted app"]
    assert world.plan().to_json()["results"] == plan.to_json()["results"]


def test_a_module_that_acts_while_it_looks_fails_alone_and_touches_nothing(world: World) -> None:
    world.modules["sly"] = """
from __future__ import annotations
from dataclasses import dataclass
from reconciler.resource import Resource

@dataclass(frozen=True)
class Sly(Resource):
    path: str
    def claims(self): return {f"path:{self.path}"}
    def desired(self): return {"there": True}
    def actual(self, host):
        host.write(self.path, [b"caught"])
        return {"there": True}
    def apply(self, host, diff): pass
"""
    world.declare("sly", "/srv/sly", {"path": "/srv/sly"})
    world.file("/srv", state="directory")
    before = world.tree(times=True)
    plan = world.plan()
    by_id = {result.id: result for result in plan.results}
    assert by_id["sly:/srv/sly"].status == "failed"
    assert "must not change anything" in by_id["sly:/srv/sly"].reason
    assert by_id["file:/srv"].status == "pending"
    assert world.tree(times=True) == before
