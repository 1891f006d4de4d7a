"""A plan looks, compares and predicts."""

from __future__ import annotations

import pytest

from engine.toys import DONE, MACHINE, Bench, Box, Toy, fail, handler, statuses, toy
from reconciler.catalog import HIDDEN
from reconciler.errors import ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.resource import Diff, Secret


def test_a_plan_names_every_attribute_and_does_nothing(bench: Bench) -> None:
    MACHINE["b"] = "old"
    plan = bench.plan(toy("a"), toy("b"), toy("c", absent=True))
    assert statuses(plan) == {"a": "pending", "b": "pending", "c": "ok"}
    create, change, _ = plan.results
    assert (create.action, change.action) == ("create", "change")
    assert [tuple(one) for one in change.changes] == [("value", "old", "v")]
    assert DONE == []
    assert plan.differs


def test_a_removal_says_what_goes(bench: Bench) -> None:
    MACHINE["a"] = "x"
    (result,) = bench.plan(toy("a", absent=True)).results
    assert result.action == "remove"
    assert [tuple(one) for one in result.changes] == [("value", "x", None)]


def test_what_an_earlier_resource_will_bring_is_planned_as_absent(bench: Bench) -> None:
    plan = bench.plan(toy("dir"), toy("dir/a", inside=("dir",)))
    assert statuses(plan) == {"dir": "pending", "dir/a": "pending"}
    assert plan.results[1].reason == "after toy:dir"
    assert plan.results[1].because == ("toy:dir",)


def test_what_nothing_will_bring_fails_in_the_plan(bench: Bench) -> None:
    (result,) = bench.plan(toy("dir/a", inside=("dir",))).results
    assert (result.status, result.reason) == ("failed", "dir is not there")


def test_what_a_package_may_bring_is_not_a_failure(bench: Bench) -> None:
    plan = bench.plan(toy("package", kind=Box), toy("conf", inside=("unit",)))
    assert statuses(plan) == {"package": "pending", "conf": "pending"}


def test_what_must_be_absent_is_looked_at_again_after_a_package(bench: Bench) -> None:
    plan = bench.plan(toy("package", kind=Box), toy("default", absent=True))
    assert statuses(plan) == {"package": "pending", "default": "unknown"}
    assert "looked at again after toy:package" in plan.results[1].reason


def test_what_cannot_be_looked_at_before_its_requirement_is_unknown(bench: Bench) -> None:
    class Odd(Toy):
        def actual(self, host: Host) -> None:
            raise ResourceError("not like this")

    plan = bench.plan(toy("a"), toy("b", kind=Odd, requires=["a"]), toy("c", kind=Odd))
    assert statuses(plan) == {"a": "pending", "b": "unknown", "c": "failed"}


def test_an_unknown_resource_whose_requirement_fails_is_blocked_in_the_run(bench: Bench) -> None:
    from engine.toys import TROUBLE

    class Odd(Toy):
        def actual(self, host: Host) -> None:
            raise ResourceError("not like this")

    TROUBLE["a"] = fail()
    nodes = [toy("a"), toy("b", kind=Odd, requires=["a"])]
    assert statuses(bench.plan(*nodes)) == {"a": "pending", "b": "unknown"}
    assert statuses(bench.apply(*nodes)) == {"a": "failed", "b": "blocked"}


def test_handlers_are_foreseen_with_their_reasons(bench: Bench) -> None:
    plan = bench.plan(
        toy("a", notify=["handler:s 2"]), toy("b", notify=["handler:s 2"]), handler("s")
    )
    assert plan.results[-1].status == "owed"
    assert plan.results[-1].because == ("toy:a", "toy:b")


def test_a_secret_is_in_no_part_of_a_plan(bench: Bench) -> None:
    class Leaky(Toy):
        def actual(self, host: Host) -> None:
            host.warnings.append(f"beware of {self.password}")
            raise ResourceError(f"cannot log in with {self.password}", hint=f"not {self.password}")

    secret = Secret("hunter2")
    MACHINE["b"] = "hunter1"
    plan = bench.plan(toy("a", kind=Leaky, password=secret), toy("b", password=secret))
    assert "hunter2" not in str(plan.to_json())
    assert plan.results[0].reason == f"cannot log in with {HIDDEN}"
    assert [tuple(one) for one in plan.results[1].changes] == [("value", HIDDEN, HIDDEN)]


def test_no_log_hides_values_texts_and_what_programs_said(bench: Bench) -> None:
    class Chatty(Toy):
        def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes]:
            return b"before\n", b"after\n"

    class Broken(Toy):
        def actual(self, host: Host) -> None:
            raise ResourceError("x ended with code 1:\nthe key is 12345")

    MACHINE["a"] = "old"
    open_, closed, broken = bench.plan(
        toy("a", kind=Chatty),
        toy("b", kind=Chatty, no_log=True),
        toy("c", kind=Broken, no_log=True),
    ).results
    assert "+after" in open_.diff
    assert closed.diff == ""
    assert closed.changes[0].after == HIDDEN
    assert broken.reason == "x ended with code 1:"


def test_a_preview_that_fails_in_any_way_fails_no_plan(bench: Bench) -> None:
    class Broken(Toy):
        def preview(self, host: Host, diff: Diff) -> None:
            raise self.value  # type: ignore[misc]

    for error in (KeyError("x"), ReconcilerError("x"), OSError(5, "x")):
        (result,) = bench.plan(toy("a", kind=Broken, value=error)).results
        assert (result.status, result.diff) == ("pending", "")


def test_reading_ahead_that_fails_in_any_way_fails_no_plan(bench: Bench) -> None:
    class Broken(Toy):
        @classmethod
        def actual_many(cls, resources: object, host: object) -> None:
            raise ZeroDivisionError

    assert statuses(bench.plan(toy("a", kind=Broken), toy("b"))) == {"a": "pending", "b": "pending"}


def test_all_texts_together_have_a_bound(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.engine.plan.DIFFS", 500)

    class Chatty(Toy):
        def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes]:
            return b"", b"x" * 400

    plan = bench.plan(*(toy(str(n), kind=Chatty) for n in range(5)))
    assert [bool(result.diff) for result in plan.results] == [True, True, False, False, False]
    assert not any(result.diff for result in bench.plan(toy("a", kind=Chatty), diff=False).results)


def test_drift_and_intent_are_told_apart(bench: Bench) -> None:
    node = toy("a")
    assert bench.plan(node).results[0].cause == "intentional"
    bench.apply(node)
    MACHINE["a"] = "edited"
    assert bench.plan(node).results[0].cause == "corrective"
    declared = toy("a", value="other")
    declared.declaration.params["value"] = "other"  # type: ignore[index]
    assert bench.plan(declared).results[0].cause == "intentional"
