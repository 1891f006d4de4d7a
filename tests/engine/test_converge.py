"""Carrying a plan out: in order, once, checked, and never as a whole in vain."""

from __future__ import annotations

import os
import signal
import sqlite3
import time

import pytest

from engine.toys import DONE, MACHINE, TROUBLE, Bench, Box, Toy, fail, handler, statuses, toy
from reconciler.engine import image
from reconciler.engine.ledger import Ledger
from reconciler.engine.ledgerfile import place
from reconciler.engine.plan import TEXT_TIMEOUT
from reconciler.errors import Moved, ResourceError, TimedOut
from reconciler.host import Host
from reconciler.resource import Diff, Secret, State


def test_each_is_changed_in_order_and_checked(bench: Bench) -> None:
    MACHINE["b"] = "v"
    report = bench.apply(toy("a", requires=["c"]), toy("b"), toy("c"))
    assert DONE == ["c", "a"]
    assert statuses(report) == {"b": "ok", "c": "changed", "a": "changed"}


def test_success_that_changed_nothing_is_a_failure(bench: Bench) -> None:
    class Liar(Toy):
        def apply(self, host: Host, diff: Diff) -> None: ...

    MACHINE["a"] = "old"
    (result,) = bench.apply(toy("a", kind=Liar)).results
    assert result.reason == "applied without an error, but still differs: value is old, not v"


def test_not_converged_tells_no_secret(bench: Bench) -> None:
    class Liar(Toy):
        def apply(self, host: Host, diff: Diff) -> None: ...

    MACHINE["a"] = "hunter1"
    report = bench.apply(toy("a", kind=Liar, password=Secret("hunter2")))
    assert "hunter" not in str(report.to_json()) + str(bench.events)
    with bench.ledger() as ledger:
        assert "hunter" not in str(ledger.changes()) + str(ledger.known())


def test_secrets_are_in_no_event_and_no_row_of_the_ledger(bench: Bench) -> None:
    TROUBLE["a"] = fail("usermod said: 'hunter2' is too short\x1b[0m")
    bench.apply(toy("a", password=Secret("hunter2")), toy("b", password=Secret("hunter2")))
    with bench.ledger() as ledger:
        ledger._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    everything = (bench.root / "var/lib/reconciler/ledger.db").read_bytes()
    assert b"hunter2" not in everything
    assert b"too short" in everything
    assert "hunter2" not in str(bench.events)
    assert "\x1b" not in str(list(bench.events))


@pytest.mark.parametrize("diff", [True, False])
def test_the_ledger_remembers_what_a_text_was_and_no_secret_of_it(bench: Bench, diff: bool) -> None:
    """Whatever the report has: an agent's has none, since its journal and status are for others."""

    class Text(Toy):
        def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes]:
            return f"{MACHINE.get(self.name, '')}\n".encode(), f"{self.value}\n".encode()

    MACHINE.update(a="by hand", b="by hand", c="by hand, hunter2", d="by hand")
    password = Secret("hunter2")
    nodes = [toy("a", kind=Text), toy("b", kind=Text, no_log=True), toy("c", kind=Text)]
    more = [toy("d", kind=Text, password=password), toy("e", password=password)]
    report = bench.apply(*nodes, *more, toy("f", kind=Text), diff=diff)
    assert any(one.diff for one in report.results) == diff
    assert ("(actual)" in str(bench.events)) == diff
    with bench.ledger() as ledger:
        found = {str(one["resource"]): str(one["diff"]) for one in ledger.changes()}
    assert found.pop("toy:a").endswith("\n-by hand\n+v\n")
    assert found.pop("toy:c").endswith("\n-by hand, <secret>\n+v\n")
    # What is secret, and what was made from nothing.
    assert set(found.values()) == {""}


def test_healing_does_not_wait_long_for_the_text_of_a_difference(bench: Bench) -> None:
    left: list[float] = []

    class Slow(Toy):
        def preview(self, host: Host, diff: Diff) -> None:
            left.append(signal.getitimer(signal.ITIMER_REAL)[0])
            raise TimedOut("too long")

    MACHINE["a"] = "by hand"
    assert statuses(bench.apply(toy("a", kind=Slow))) == {"a": "changed"}
    assert 0 < left[0] <= TEXT_TIMEOUT
    assert len(left) == 1


def test_a_failure_blocks_its_dependants_and_the_rest_goes_on(bench: Bench) -> None:
    TROUBLE["a"] = fail("no luck")
    report = bench.apply(toy("a"), toy("b", requires=["a"]), toy("c", requires=["b"]), toy("d"))
    assert statuses(report) == {"a": "failed", "b": "blocked", "c": "blocked", "d": "changed"}
    assert report.results[2].reason == "waits for toy:b <- toy:a, which failed"


def test_batched_resources_go_together_and_overtake_only_the_indifferent(bench: Bench) -> None:
    report = bench.apply(
        toy("p1", kind=Box),
        toy("x"),
        toy("p2", kind=Box),
        toy("p3", kind=Box, requires=["x"]),
        toy("p4", kind=Box),
    )
    assert DONE == ["[3]", "p1", "p2", "p4", "x", "p3"]
    assert set(statuses(report).values()) == {"changed"}


def test_an_opaque_resource_is_not_overtaken(bench: Bench) -> None:
    class Command(Toy):
        opaque = True

    bench.apply(toy("p1", kind=Box), toy("command", kind=Command), toy("p2", kind=Box))
    assert DONE == ["p1", "command", "p2"]


def test_members_of_a_batch_that_require_each_other_go_one_after_the_other(bench: Bench) -> None:
    TROUBLE["p1"] = fail()
    nodes = [toy("p1", kind=Box), toy("p2", kind=Box, requires=["p1"]), toy("p3", kind=Box)]
    assert statuses(bench.apply(*nodes)) == {"p1": "failed", "p3": "changed", "p2": "blocked"}
    TROUBLE.clear()
    assert statuses(bench.apply(*nodes))["p2"] == "changed"


def test_a_batch_with_a_blocked_member_converges_the_others(bench: Bench) -> None:
    TROUBLE["x"] = fail()
    report = bench.apply(
        toy("x"), toy("p1", kind=Box), toy("p2", kind=Box, requires=["x"]), toy("p3", kind=Box)
    )
    assert statuses(report) == {"x": "failed", "p1": "changed", "p2": "blocked", "p3": "changed"}


def test_a_batch_that_loses_an_outcome_is_a_bug_and_no_silent_success(bench: Bench) -> None:
    class Short(Box):
        @classmethod
        def apply_many(cls, host: Host, work: object) -> list[ResourceError | None]:
            return [None]

    report = bench.apply(toy("a", kind=Short), toy("b", kind=Short))
    assert statuses(report) == {"a": "failed", "b": "failed"}
    assert "1 outcomes of 2 changes" in report.results[0].reason


def test_what_a_package_brought_along_is_named_and_notifies(bench: Bench) -> None:
    nodes = [
        toy("package", kind=Box, brings="conf"),
        toy("conf", requires=["package"], notify=["handler:s 2"]),
        handler("s"),
    ]
    report = bench.apply(*nodes)
    assert [r.reason for r in report.results][1] == "brought by toy:package"
    assert DONE == ["package", "2!s"]


def test_what_a_package_brought_and_must_be_absent_is_removed_in_the_same_run(bench: Bench) -> None:
    nodes = [toy("package", kind=Box, brings="default"), toy("default", absent=True)]
    assert statuses(bench.apply(*nodes)) == {"package": "changed", "default": "changed"}
    assert "default" not in MACHINE
    assert not bench.apply(*nodes).changed


def test_a_file_that_moved_under_us_is_looked_at_again(bench: Bench) -> None:
    tries: list[int] = []

    class Moving(Toy):
        def apply(self, host: Host, diff: Diff) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise Moved("somebody else was here")
            super().apply(host, diff)

    assert statuses(bench.apply(toy("a", kind=Moving))) == {"a": "changed"}
    assert len(tries) == 3


def test_what_somebody_else_did_meanwhile_needs_no_second_try(bench: Bench) -> None:
    class Done(Toy):
        def apply(self, host: Host, diff: Diff) -> None:
            assert diff
            MACHINE[self.name] = self.value
            raise Moved("somebody else did it")

    assert statuses(bench.apply(toy("a", kind=Done))) == {"a": "changed"}


def test_a_run_that_is_told_to_stop_does_so_between_two_resources(bench: Bench) -> None:
    class Last(Toy):
        def apply(self, host: Host, diff: Diff) -> None:
            bench.boundary.reach()
            super().apply(host, diff)

    nodes = [toy("a", kind=Last, notify=["handler:s 2"]), toy("b"), handler("s")]
    report = bench.apply(*nodes)
    assert report.interrupted
    assert DONE == ["a"]
    assert statuses(report) == {"a": "changed", "b": "pending"}
    with bench.ledger() as ledger:
        assert ledger.owed() == {"handler:s 2": ("toy:a",)}
        assert ledger.intents() == [], "what was never begun is no intent any more"
        assert ledger.runs()[0]["status"] == "interrupted"


def test_handlers_stop_at_the_boundary_too(bench: Bench) -> None:
    class Stopping(Toy):
        def on_notify(self, host: Host) -> None:
            bench.boundary.reach()
            super().on_notify(host)

    first = handler("s", kind=Stopping)
    report = bench.apply(toy("a", notify=["handler:s 2", "handler:t 2"]), first, handler("t"))
    assert DONE == ["a", "2!s"]
    assert report.interrupted
    with bench.ledger() as ledger:
        assert list(ledger.owed()) == ["handler:t 2"]


def test_a_handler_without_a_notification_is_converged(bench: Bench) -> None:
    nodes = [toy("a", notify=["handler:b None"]), handler("b", None)]
    assert statuses(bench.apply(*nodes)) == {"a": "changed", "handler:b None": "notified"}
    assert DONE == ["a", "b"]


def test_a_ledger_that_fails_in_the_middle_fails_no_resource_that_it_knew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Ledger, "settle", full)
    monkeypatch.setattr(Ledger, "delivered", full)
    nodes = [toy("a", notify=["handler:s 2"]), handler("s")]
    report = bench.apply(*nodes)
    assert statuses(report) == {"a": "changed", "handler:s 2": "notified"}
    where = place(str(bench.root))
    said = f"the run went through, but could not be recorded in {where}: database or disk is full"
    assert report.warnings == (said,)
    monkeypatch.undo()
    bench.apply(*nodes)
    assert DONE == ["a", "2!s", "2!s"], "at least once"
    assert not bench.apply(*nodes).changed


def test_a_change_that_the_ledger_cannot_foresee_is_not_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In sync when planned, different at its turn: its intent is written just before."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    MACHINE["b"] = "v"

    class Meddler(Toy):
        def apply(self, host: Host, diff: Diff) -> None:
            MACHINE["b"] = "meddled"
            super().apply(host, diff)

    monkeypatch.setattr(Ledger, "intend", full)
    report = bench.apply(toy("a", kind=Meddler), toy("b", requires=["a"]))
    assert statuses(report) == {"a": "changed", "b": "failed"}
    assert "so nothing is changed" in report.results[1].reason
    assert MACHINE["b"] == "meddled"


class Touch(Toy):
    """A resource that is a file."""

    def claims(self) -> set[str]:
        return {f"path:/{self.name}"}

    def apply(self, host: Host, diff: Diff) -> None:
        host.write(f"/{self.name}", [b"x"])
        super().apply(host, diff)


@pytest.mark.parametrize("settle", [0.0, 1.0], ids=["in the middle", "at the end"])
def test_a_directory_that_could_not_be_made_durable_is_said_though_a_later_sync_succeeds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, settle: float
) -> None:
    """The kernel tells of a failed write once; the sync after that knows nothing of it."""
    real = os.fsync
    lost: list[str] = []

    def broken(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path == str(bench.root / "srv") and not lost:
            lost.append(path)
            raise OSError(5, "Input/output error")
        real(fd)

    (bench.root / "srv").mkdir()
    monkeypatch.setattr("reconciler.engine.converge.SETTLE", settle)
    monkeypatch.setattr(os, "fsync", broken)
    nodes = [toy("srv/a", kind=Touch, notify=["handler:s 2"]), toy("b", kind=Touch), handler("s")]
    report = bench.apply(*nodes)
    assert lost
    assert report.warnings == (
        "what was written in /srv may not survive a power failure: Input/output error",
    )
    assert DONE == ["srv/a", "b", "2!s"]
    assert bench.apply(*nodes).warnings == ()
    with bench.ledger() as ledger:
        assert (ledger.intents(), ledger.owed()) == ([], {})
        assert ledger.runs()[1]["status"] == "done"


def test_an_image_that_cannot_be_kept_fails_its_file_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = image.take

    def take(root: str, host: Host, path: str, *, hidden: bool) -> image.Image:
        if path == "/a":
            raise OSError(28, "No space left on device")
        return real(root, host, path, hidden=hidden)

    monkeypatch.setattr(image, "take", take)
    report = bench.apply(toy("a", kind=Touch), toy("b", kind=Touch))
    assert statuses(report) == {"a": "failed", "b": "changed"}
    assert (
        report.results[0].reason
        == "cannot keep what /a was before its first change: No space left on device"
    )
    assert not (bench.root / "a").exists()


def test_events_tell_the_beginning_and_the_end_of_each_change(bench: Bench) -> None:
    MACHINE["b"] = "v"
    bench.apply(toy("a"), toy("b"))
    assert [event["event"] for event in bench.events] == ["start", "result"]
    assert bench.events[0] == {"event": "start", "id": "toy:a", "index": 0, "total": 1}


def test_an_error_in_a_look_at_its_turn_is_that_resources_own(bench: Bench) -> None:
    class Gone(Toy):
        def actual(self, host: Host) -> State:
            if DONE:
                raise ResourceError("gone")
            return {}

    report = bench.apply(toy("a"), toy("b", kind=Gone), toy("c"))
    assert statuses(report) == {"a": "changed", "b": "failed", "c": "changed"}


def test_the_machine_is_read_only_before_and_after_a_run(bench: Bench) -> None:
    seen: list[bool] = []

    class Watch(Toy):
        def actual(self, host: Host) -> State:
            seen.append(host.readonly)
            return super().actual(host)

    bench.apply(toy("a", kind=Watch))
    assert seen
    assert all(seen)


def test_ten_thousand_resources_take_no_quadratic_time(bench: Bench) -> None:
    count = 10_000
    nodes = [toy(str(n), kind=Box, requires=[str(n - 1)] if n % 2 else []) for n in range(count)]
    begun = time.process_time()
    report = bench.apply(*nodes)
    assert statuses(report) == dict.fromkeys(map(str, range(count)), "changed")
    assert not bench.apply(*nodes).changed
    assert time.process_time() - begun < 30
