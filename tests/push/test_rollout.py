"""The algebra of a rollout: who goes when, and when no further host may begin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.push.rollout import (
    ORDERS,
    WHOLE,
    Limits,
    Rollout,
    Size,
    Tally,
    arrange,
    cut,
    limits,
    verdict,
)

names = st.lists(st.text("abc123", min_size=1, max_size=4), unique=True, max_size=60)
sizes = st.builds(Size, st.integers(1, 40)) | st.builds(
    lambda percent: Size(percent, percent=True), st.integers(1, 100)
)
rollouts = st.builds(
    Rollout,
    batches=st.lists(sizes, min_size=1, max_size=5).map(tuple),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 99),
)


def sizes_of(hosts: int, *batches: str) -> list[int]:
    rollout = Rollout(tuple(map(Size.parse, batches)))
    return [len(batch.hosts) for batch in cut([f"h{n}" for n in range(hosts)], rollout)]


# -- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hosts, batches, expected",
    [
        (100, ("1", "10%", "50%", "100%"), [1, 10, 50, 39]),
        (100, ("1", "10%"), [1, *[10] * 9, 9]),
        (5, ("1", "10%", "50%", "100%"), [1, 1, 2, 1]),
        (3, ("10%",), [1, 1, 1]),
        (4, ("10",), [4]),
        (1, ("1", "10%", "50%", "100%"), [1]),
        (0, ("1", "100%"), []),
        (7, ("100%",), [7]),
    ],
)
def test_sizes_are_of_the_whole_fleet_and_the_last_one_repeats(
    hosts: int, batches: tuple[str, ...], expected: list[int]
) -> None:
    assert sizes_of(hosts, *batches) == expected


@given(names, rollouts, st.data())
def test_every_host_is_in_exactly_one_batch_and_no_batch_is_empty(
    hosts: list[str], rollout: Rollout, data: st.DataObject
) -> None:
    canary = data.draw(st.sets(st.sampled_from([*hosts, "another"])))
    batches = cut(hosts, rollout, canary)
    going = [host for batch in batches for host in batch.hosts]
    assert sorted(going) == sorted(hosts)
    assert all(batch.hosts for batch in batches)
    assert [host for batch in batches if batch.canary for host in batch.hosts] == [
        host for host in going if host in canary
    ]


@given(names, rollouts)
def test_the_batches_in_a_row_are_the_hosts_in_order(hosts: list[str], rollout: Rollout) -> None:
    going = [host for batch in cut(hosts, rollout) for host in batch.hosts]
    assert going == arrange(hosts, rollout.order, rollout.seed)


def test_canary_hosts_are_the_first_batch_and_hosts_that_were_not_selected_are_none() -> None:
    batches = cut(["a", "b", "c", "d"], Rollout((Size(2),)), canary=["c", "elsewhere"])
    assert [(batch.hosts, batch.canary) for batch in batches] == [
        (("c",), True),
        (("a", "b"), False),
        (("d",), False),
    ]


@given(names, st.sampled_from(ORDERS), st.integers(0, 99))
def test_an_order_only_orders_and_is_the_same_each_time(
    hosts: list[str], order: str, seed: int
) -> None:
    arranged = arrange(hosts, order, seed)  # type: ignore[arg-type]  # one of ORDERS
    assert sorted(arranged) == sorted(hosts)
    assert arranged == arrange(hosts, order, seed)  # type: ignore[arg-type]


def test_the_orders_are_what_they_say() -> None:
    hosts = ["b", "c", "a"]
    assert arrange(hosts, "inventory") == ["b", "c", "a"]
    assert arrange(hosts, "reverse") == ["a", "c", "b"]
    assert arrange(hosts, "sorted") == ["a", "b", "c"]
    shuffles = {tuple(arrange(hosts, "shuffle", seed)) for seed in range(50)}
    assert len(shuffles) == 6


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "10 %", "1e3", None, True, "٣"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a number of hosts"):
        Size.parse(text)


def test_sizes_are_shown_as_they_are_written() -> None:
    assert [str(Size.parse(text)) for text in ("3", "10%", 7)] == ["3", "10%", "7"]


# -- limits ------------------------------------------------------------------------------------


def test_in_steps_one_failure_stops_and_in_one_batch_none_does() -> None:
    assert limits(Rollout(), total=10, batches=1) == Limits(None, None)
    assert limits(Rollout(), total=10, batches=2) == Limits(0, 0)


def test_percentages_are_of_the_whole_fleet_and_rounded_down() -> None:
    rollout = Rollout(max_failed=Size(5, percent=True), max_unreachable=Size(3))
    assert limits(rollout, total=99, batches=4) == Limits(4, 3)
    assert limits(Rollout(max_failed=WHOLE), total=99, batches=4) == Limits(99, 0)


@pytest.mark.parametrize(
    "tally, allowed, reason",
    [
        (Tally(0, 0), Limits(0, 0), ""),
        (Tally(1, 0), Limits(1, 0), ""),
        (Tally(2, 0), Limits(1, 0), "2 of 9 hosts failed, and 1 may be"),
        (Tally(0, 1), Limits(1, 0), "1 of 9 hosts unreachable, and 0 may be"),
        (Tally(9, 9), Limits(), ""),
    ],
)
def test_a_run_goes_on_until_a_limit_is_passed(tally: Tally, allowed: Limits, reason: str) -> None:
    assert verdict(tally, allowed, 9) == reason


def test_a_fleet_of_one_host_is_said_as_one() -> None:
    assert verdict(Tally(1, 0), Limits(0, 0), 1) == "1 of 1 host failed, and 0 may be"


@given(
    st.lists(st.sampled_from(["ok", "failed", "unreachable"]), max_size=80),
    st.integers(0, 10),
    st.integers(0, 10),
    st.integers(1, 12),
    st.randoms(use_true_random=False),
)
def test_never_more_failures_than_the_limit_allows_plus_what_was_in_flight(
    fates: Sequence[str], failed: int, unreachable: int, parallel: int, chance: object
) -> None:
    waiting, running, tally = list(fates), [], Tally()
    allowed = Limits(failed, unreachable)
    in_flight = 0
    while waiting or running:
        while waiting and len(running) < parallel and not verdict(tally, allowed, len(fates)):
            running.append(waiting.pop(0))
        if not running:
            break
        fate = running.pop(chance.randrange(len(running)))  # type: ignore[attr-defined]
        passed = verdict(tally, allowed, len(fates))
        tally += Tally(int(fate == "failed"), int(fate == "unreachable"))
        if not passed and verdict(tally, allowed, len(fates)):
            in_flight = len(running)
    assert tally.failed <= failed + 1 + in_flight
    assert tally.unreachable <= unreachable + 1 + in_flight
    assert in_flight < parallel
