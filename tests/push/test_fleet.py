"""The coordinator of a fleet run, with hosts that live in this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.wire import Message
from reconciler.errors import HostUnreachable, Interrupted, ResourceError
from reconciler.push.fleet import Course, Fleet, Terms
from reconciler.push.outcome import Outcome, State, of_error
from reconciler.push.rollout import Batch, Limits, Rollout, Size, cut
from reconciler.push.threads import Threads


class Quiet:
    """A `Listener` that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def batch(self, number: int, batch: Batch) -> None:
        self.told.append(("batch", number, batch.hosts))

    def began(self, host: str) -> None:
        self.told.append(("began", host))

    def event(self, host: str, event: Message) -> None:
        self.told.append(("event", host, event))

    def ended(self, outcome: Outcome) -> None:
        self.told.append(("ended", outcome.host, outcome.state))

    def settled(self) -> None:
        """Nothing to flush."""

    def checking(self, number: int) -> None:
        self.told.append(("checking", number))

    def pausing(self, seconds: float) -> None:
        self.told.append(("pausing", seconds))

    def stopping(self, reason: str) -> None:
        self.told.append(("stopping", reason))

    def of(self, kind: str) -> list[Any]:
        """What was told of one kind."""
        return [told[1] for told in self.told if told[0] == kind]


class Hosts:
    """A `Work`: hosts that do what the test says, and remember."""

    def __init__(self, **acts: Callable[[], Outcome]) -> None:
        self.acts = acts
        self.stopped: list[str] = []
        self.abandoned: list[str] = []
        self.at_work = 0
        self.most = 0
        self._lock = threading.Lock()

    def run(self, host: str, wait: float = 0.0) -> Outcome:
        with self._lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        try:
            return self.acts[host]() if host in self.acts else Outcome(host, "ok")
        finally:
            with self._lock:
                self.at_work -= 1

    def stop(self, host: str) -> None:
        self.stopped.append(host)

    def abandon(self, host: str) -> None:
        self.abandoned.append(host)


def ends(host: str, state: State) -> Callable[[], Outcome]:
    errors = {"failed": ResourceError("no"), "unreachable": HostUnreachable("no")}
    return lambda: of_error(host, errors[state]) if state in errors else Outcome(host, state)


def run(
    work: Hosts,
    batches: Sequence[Sequence[str]],
    *,
    listener: Quiet | None = None,
    executor: Executor | None = None,
    check: Callable[[Sequence[str]], str] | None = None,
    canary: bool = False,
    **terms: Any,
) -> Course:
    cut_ = [Batch(tuple(hosts), canary and not n) for n, hosts in enumerate(batches)]
    total = sum(map(len, batches))
    how = replace(Terms(total, Limits(), host_timeout=30.0), **terms)
    return Fleet(work, how, listener or Quiet(), executor or Threads(), check).run(cut_)


def states(course: Course) -> dict[str, State]:
    return {outcome.host: outcome.state for outcome in course.outcomes}


# -- going on ----------------------------------------------------------------------------------


def test_outcomes_come_in_the_order_of_the_batches_whoever_is_done_first() -> None:
    slow = lambda: (time.sleep(0.05), Outcome("a", "ok"))[1]  # noqa: E731
    course = run(Hosts(a=slow, c=ends("c", "failed")), [["a", "b"], ["c"]])
    assert [outcome.host for outcome in course.outcomes] == ["a", "b", "c"]
    assert states(course) == {"a": "ok", "b": "ok", "c": "failed"}
    assert course.stopped == ""


def test_what_a_host_has_done_by_the_coordinator_is_done_in_its_thread_and_comes_back() -> None:
    work = Hosts()
    fleet = Fleet(work, Terms(2, Limits(), host_timeout=30.0), Quiet(), Threads())
    seen: list[object] = []

    def fail() -> None:
        raise ValueError("no")

    def act() -> Outcome:
        seen.append(fleet.call(threading.current_thread))
        with pytest.raises(ValueError, match="no"):
            fleet.call(fail)
        return Outcome("a", "ok")

    work.acts["a"] = act
    assert states(fleet.run([Batch(("a", "b"))])) == {"a": "ok", "b": "ok"}
    assert seen == [threading.current_thread()]


def test_a_batch_begins_when_the_one_before_has_ended() -> None:
    listener = Quiet()
    run(Hosts(), [["a", "b"], ["c"]], listener=listener)
    order = [told[:2] for told in listener.told]
    assert order.index(("batch", 2)) > max(order.index(("ended", "a")), order.index(("ended", "b")))


def test_no_more_hosts_than_allowed_are_at_work_at_a_time() -> None:
    names = [f"h{number}" for number in range(12)]
    work = Hosts(**{name: lambda n=name: (time.sleep(0.01), Outcome(n, "ok"))[1] for name in names})
    run(work, [names], parallel=3)
    assert work.most == 3


def test_any_executor_of_the_standard_library_will_do() -> None:
    with ThreadPoolExecutor(2) as pool:
        course = run(Hosts(b=ends("b", "failed")), [["a", "b", "c"]], executor=pool)
    assert states(course) == {"a": "ok", "b": "failed", "c": "ok"}


def test_a_task_that_breaks_is_a_failure_of_its_host_only() -> None:
    def broken() -> Outcome:
        raise RuntimeError("a bug")

    course = run(Hosts(a=broken), [["a", "b"]])
    assert states(course) == {"a": "failed", "b": "ok"}
    assert course.outcomes[0].exit_code == 1


# -- limits ------------------------------------------------------------------------------------


def test_when_a_limit_is_passed_hosts_that_have_not_begun_are_held_back() -> None:
    course = run(
        Hosts(a=ends("a", "failed")), [["a", "b"], ["c"]], parallel=1, limits=Limits(failed=0)
    )
    assert states(course) == {"a": "failed", "b": "held", "c": "held"}
    assert course.stopped == "1 of 3 hosts failed, and 0 may be"


def test_a_limit_passed_by_the_last_host_has_held_nobody_back() -> None:
    course = run(Hosts(b=ends("b", "failed")), [["a"], ["b"]], limits=Limits(failed=0))
    assert course.stopped == ""


def test_unreachable_hosts_have_a_limit_of_their_own() -> None:
    hosts = {name: ends(name, "unreachable") for name in "ab"}
    course = run(Hosts(**hosts), [["a"], ["b"], ["c"]], limits=Limits(failed=0, unreachable=1))
    assert states(course) == {"a": "unreachable", "b": "unreachable", "c": "held"}


def test_a_canary_that_is_not_well_stops_the_run_whatever_the_limits() -> None:
    course = run(Hosts(a=ends("a", "unreachable")), [["a"], ["b"]], canary=True)
    assert states(course) == {"a": "unreachable", "b": "held"}
    assert course.stopped == "canary unreachable: a"


FATES: list[State] = ["ok", "failed", "unreachable"]


class Chance(Executor):
    """Tasks end in the order that hypothesis likes, one for each that is waited for."""

    def __init__(self, pick: Callable[[int], int]) -> None:
        self._pick = pick
        self._tasks: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self.in_flight: list[int] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.append((future, fn, args))
        return future

    def end_one(self) -> bool:
        if not self._tasks:
            return False
        future, fn, args = self._tasks.pop(self._pick(len(self._tasks)))
        future.set_result(fn(*args))
        return True


@settings(deadline=None)
@given(
    fates=st.lists(st.sampled_from(FATES), max_size=40),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    failed=st.integers(0, 6),
    unreachable=st.integers(0, 6),
    parallel=st.integers(1, 8),
    chance=st.randoms(use_true_random=False),
)
def test_never_more_failures_than_the_limits_allow_plus_what_was_in_flight(
    fates: list[State],
    sizes: list[int],
    failed: int,
    unreachable: int,
    parallel: int,
    chance: Any,
) -> None:
    fate: dict[str, State] = {f"h{number}": state for number, state in enumerate(fates)}
    batches = cut(list(fate), Rollout(tuple(map(Size, sizes))))
    executor = Chance(chance.randrange)
    work = Hosts(**{host: ends(host, state) for host, state in fate.items()})
    terms = Terms(len(fate), Limits(failed, unreachable), parallel, 30.0)
    fleet = Fleet(work, terms, Quiet(), executor)
    turn = fleet._turn

    def one_more(until: float) -> None:
        executor.end_one()
        turn(until)

    fleet._turn = one_more
    course = fleet.run(batches)
    found = [outcome.state for outcome in course.outcomes]
    assert len(found) == len(fates)
    assert found.count("failed") <= failed + parallel
    assert found.count("unreachable") <= unreachable + parallel
    begun = [outcome for outcome in course.outcomes if outcome.state != "held"]
    assert all(outcome.state == fate[outcome.host] for outcome in begun)
    if "held" in found:
        assert found.count("failed") > failed or found.count("unreachable") > unreachable
        assert course.stopped


# -- hosts that hang ---------------------------------------------------------------------------


def test_a_host_that_hangs_costs_its_time_limit_and_nobody_else() -> None:
    release = threading.Event()
    work = Hosts(a=lambda: (release.wait(20), Outcome("a", "ok"))[1])
    listener = Quiet()
    begun = time.monotonic()
    course = run(work, [["a", "b", "c"], ["d"]], listener=listener, host_timeout=0.2)
    took = time.monotonic() - begun
    release.set()
    assert 1.0 < took < 4.0
    assert states(course) == {"a": "unreachable", "b": "ok", "c": "ok", "d": "ok"}
    assert work.abandoned == ["a"]
    assert "not done within 0.2 s" in str(course.outcomes[0].error)
    assert listener.of("ended")[:2] in (["b", "c"], ["c", "b"])


def test_what_a_host_says_after_it_was_given_up_is_not_heard() -> None:
    release = threading.Event()
    listener = Quiet()
    work = Hosts()
    fleet = Fleet(work, Terms(2, Limits(), 2, -0.9), listener, Threads())
    work.acts["a"] = lambda: (release.wait(20), Outcome("a", "ok"))[1]
    work.acts["b"] = lambda: (fleet.tell("a", {"event": "late"}), Outcome("b", "ok"))[1]
    course = fleet.run([Batch(("a",)), Batch(("b",))])
    release.set()
    assert states(course)["a"] == "unreachable"
    assert listener.of("event") == []


# -- between batches ---------------------------------------------------------------------------


def test_checks_look_at_the_good_hosts_of_each_batch() -> None:
    looked: list[list[str]] = []
    check = lambda hosts: looked.append(list(hosts)) or ""  # noqa: E731
    run(Hosts(b=ends("b", "failed")), [["a", "b"], ["c"]], check=check)
    assert looked == [["a"], ["c"]]


def test_a_check_that_does_not_hold_stops_the_run() -> None:
    course = run(Hosts(), [["a"], ["b"]], check=lambda hosts: f"{hosts[0]} is down")
    assert states(course) == {"a": "ok", "b": "held"}
    assert course.stopped == "a is down"


def test_a_check_that_does_not_hold_after_the_last_batch_is_no_success() -> None:
    course = run(Hosts(), [["a"]], check=lambda hosts: "down")
    assert (states(course), course.stopped) == ({"a": "ok"}, "down")


def test_a_pause_is_between_batches_and_not_after_the_last() -> None:
    listener = Quiet()
    begun = time.monotonic()
    run(Hosts(), [["a"], ["b"], ["c"]], listener=listener, pause=0.1)
    assert 0.2 <= time.monotonic() - begun < 2
    assert listener.of("pausing") == [0.1, 0.1]


# -- being told to stop ------------------------------------------------------------------------


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_stops_hosts_at_a_boundary_and_waits_for_them() -> None:
    reached = threading.Event()
    work = Hosts()
    work.stop = lambda host: (work.stopped.append(host), reached.set())[0]
    work.acts["a"] = lambda: (
        _interrupt(),
        reached.wait(20),
        of_error("a", Interrupted("stopped at a boundary")),
    )[2]
    course = run(work, [["a"], ["b"]])
    assert course.interrupted
    assert work.stopped == ["a"]
    assert work.abandoned == []
    assert states(course) == {"a": "interrupted", "b": "held"}


def test_the_second_signal_hangs_up() -> None:
    release = threading.Event()

    def twice() -> Outcome:
        _interrupt()
        time.sleep(0.1)
        _interrupt()
        release.wait(20)
        return Outcome("a", "ok")

    work = Hosts(a=twice)
    begun = time.monotonic()
    course = run(work, [["a"], ["b"]])
    release.set()
    assert time.monotonic() - begun < 5
    assert (work.stopped, work.abandoned) == (["a"], ["a"])
    assert states(course) == {"a": "interrupted", "b": "held"}


def test_a_signal_ends_a_pause_and_a_check() -> None:
    begun = time.monotonic()
    threading.Timer(0.2, _interrupt).start()
    course = run(Hosts(), [["a"], ["b"]], pause=60.0)
    assert course.interrupted
    threading.Timer(0.2, _interrupt).start()
    hang = threading.Event()
    assert run(Hosts(), [["a"]], check=lambda hosts: str(hang.wait(30))).interrupted
    hang.set()
    assert time.monotonic() - begun < 10


def test_the_handlers_of_signals_are_as_before_after_a_run() -> None:
    before = signal.getsignal(signal.SIGINT)
    run(Hosts(), [["a"]])
    assert signal.getsignal(signal.SIGINT) is before


def test_the_program_ends_though_a_host_hangs() -> None:
    import subprocess
    import sys

    code = (
        "import threading\n"
        "from reconciler.push.threads import Threads\n"
        "Threads().submit(threading.Event().wait)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=20, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [200])
def test_many_hosts_are_no_matter(number: int) -> None:
    names = [f"h{one}" for one in range(number)]
    course = run(Hosts(), [names])
    assert len(course.outcomes) == number
    assert set(states(course).values()) == {"ok"}
