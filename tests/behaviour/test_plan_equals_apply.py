"""Promise 1: what `plan` shows is what `apply` does."""

from __future__ import annotations

from behaviour.world import World, statuses
from reconciler.catalog import Plan, Report


def shown(outcome: Plan | Report) -> list[tuple[object, ...]]:
    """Everything that a person reads about each difference, in order."""
    return [
        (result.id, result.action, result.changes, result.diff)
        for result in outcome.results
        if result.action and result.action != "notify"
    ]


def handlers(outcome: Plan | Report) -> list[tuple[object, ...]]:
    return [(r.id, r.because) for r in outcome.results if r.action == "notify"]


def declare(world: World) -> None:
    world.file("/srv/app/config", "one\ntwo\n", mode="0640", notify=("handler:restarted app",))
    world.file("/srv/app", state="directory")  # declared late: order puts it first
    world.file("/srv", state="directory")
    world.file("/srv/link", state="link", src="app")
    world.file("/srv/gone", state="absent")
    world.file("/srv/text", "new\n")
    world.bell("app")
    world.bell("app", "reloaded")
    world.bell("app", "restarted")


def test_on_an_empty_host(world: World) -> None:
    declare(world)
    plan, report = world.plan(), world.apply()
    assert not plan.failed
    assert shown(plan) == shown(report) != []
    assert [r.id for r in plan.results] == [r.id for r in report.results][: len(plan.results)]


def test_on_a_host_that_drifted(world: World) -> None:
    declare(world)
    world.apply()
    world.path("/srv/text").write_text("old\n\x1b[31mred\n")
    world.path("/srv/app/config").unlink()
    world.path("/srv/gone").mkdir()
    plan, report = world.plan(), world.apply()
    assert shown(plan) == shown(report)
    assert {entry[0] for entry in shown(plan)} == {
        "file:/srv/text",
        "file:/srv/app/config",
        "file:/srv/gone",
    }
    assert (
        handlers(plan) == handlers(report) == [("handler:restarted app", ("file:/srv/app/config",))]
    )
    assert "\x1b" not in "".join(result.diff for result in plan.results)


def test_in_sync_means_nothing_to_plan_and_nothing_done(world: World) -> None:
    declare(world)
    world.apply()
    plan, report = world.plan(), world.apply()
    assert not plan.differs
    assert not report.changed
    assert statuses(plan) == statuses(report)


def test_a_plan_on_an_empty_host_does_not_fail_for_what_an_earlier_resource_brings(
    world: World,
) -> None:
    world.file("/deep", state="directory")
    world.file("/deep/er", state="directory")
    world.file("/deep/er/file", "x")
    world.file("/deep/er/hard", state="hard", src="/deep/er/file")
    plan = world.plan()
    assert set(statuses(plan).values()) == {"pending"}
    assert statuses(world.apply()) == dict.fromkeys(statuses(plan), "changed")
