"""Promise 5: what depends on a failure is blocked, with the chain; the rest converges."""

from __future__ import annotations

import os
import time

from behaviour.world import World, statuses

ODD = """
from __future__ import annotations
from dataclasses import dataclass
from reconciler.resource import Resource

@dataclass(frozen=True)
class Odd(Resource):
    name: str
    how: str = ""
    def claims(self): return {f"odd:{self.name}"}
    def desired(self): return {"done": True}
    def actual(self, host):
        if self.how == "bug":
            raise ZeroDivisionError("oops")
        return {"done": False}
    def apply(self, host, diff): pass
"""


def test_dependants_are_blocked_with_the_chain_and_the_rest_converges(world: World) -> None:
    world.file("/blocker", "a file, where a directory is wanted")
    world.apply()
    world.resources.clear()
    world.file("/blocker", state="directory")
    world.file("/blocker/sub", state="directory")
    world.file("/blocker/sub/deep", "x")
    world.file("/explicit", "x", requires=("file:/blocker/sub/deep",))
    world.file("/free", "x")
    plan, report = world.plan(), world.apply()
    expected = {
        "file:/blocker": "failed",
        "file:/blocker/sub": "blocked",
        "file:/blocker/sub/deep": "blocked",
        "file:/explicit": "blocked",
    }
    assert statuses(plan) == {**expected, "file:/free": "pending"}
    assert statuses(report) == {**expected, "file:/free": "changed"}
    deep = next(result for result in report.results if result.id == "file:/explicit")
    assert deep.reason.endswith("file:/blocker, which failed")
    assert deep.because == ("file:/blocker/sub/deep",)
    failed = next(result for result in report.results if result.status == "failed")
    assert failed.hint == "declare force: true to replace it"
    assert world.path("/free").exists()
    assert not world.path("/explicit").exists()


def odd_world(world: World, how: str) -> None:
    world.modules["odd"] = ODD
    world.declare("odd", "s", {"name": "s", "how": how}, timeout=0.5)
    world.file("/after", "x")
    world.file("/needs", "x", requires=("odd:s",))


def test_a_bug_in_a_module_fails_one_resource_and_names_the_place(world: World) -> None:
    odd_world(world, "bug")
    report = world.apply()
    assert statuses(report) == {
        "odd:s": "failed",
        "file:/needs": "blocked",
        "file:/after": "changed",
    }
    failed = next(result for result in report.results if result.status == "failed")
    assert "ZeroDivisionError: oops at odd.py:" in failed.reason
    assert "bug in the module" in failed.hint


def test_a_resource_that_does_not_converge_has_failed_whatever_it_said(world: World) -> None:
    odd_world(world, "nothing")
    report = world.apply()
    failed = next(result for result in report.results if result.status == "failed")
    assert failed.reason == "applied without an error, but still differs: done is false, not true"
    assert statuses(report)["file:/after"] == "changed"


def test_a_failure_does_not_hide_what_the_next_run_must_do(world: World) -> None:
    odd_world(world, "nothing")
    world.apply()
    plan = world.plan()
    assert statuses(plan) == {"odd:s": "pending", "file:/needs": "pending", "file:/after": "ok"}


def test_lost_content_fails_its_file_and_no_other(world: World) -> None:
    world.file("/a", "alpha")
    world.gate("/b")
    world.file("/c", "gamma")
    world.content = {
        digest: text[:-1] + b"?" if len(text) > 5 else text
        for digest, text in world.content.items()
    }
    report = world.apply()
    assert statuses(report) == {"file:/a": "changed", "file:/b": "failed", "file:/c": "changed"}
    assert not world.path("/b").exists()
    assert world.leftovers() == []


def test_a_hung_read_ends_with_its_limit(world: World) -> None:
    """A fifo stands for a file server that does not answer: opening it waits for a writer."""
    world.modules["hung"] = """
from __future__ import annotations
import os
from dataclasses import dataclass
from reconciler.resource import Resource

@dataclass(frozen=True)
class Hung(Resource):
    path: str
    def claims(self): return {f"hung:{self.path}"}
    def desired(self): return {"x": 1}
    def actual(self, host):
        with open(self.path) as fifo:
            return {"x": len(fifo.read())}
    def apply(self, host, diff): pass
"""
    fifo = world.root.parent / "fifo"
    os.mkfifo(fifo)
    world.declare("hung", str(fifo), {"path": str(fifo)}, timeout=0.1)
    world.file("/after", "x")
    begun = time.monotonic()
    plan = world.plan()
    assert time.monotonic() - begun < 15
    assert statuses(plan) == {f"hung:{fifo}": "failed", "file:/after": "pending"}
    failed = next(result for result in plan.results if result.status == "failed")
    assert failed.reason == "took longer than its limit of 0.1 s"
    assert failed.hint
