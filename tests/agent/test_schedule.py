"""When agents fetch: alone, all at once, and after failures."""

from __future__ import annotations

import heapq
import random
from collections import Counter

from reconciler.agent.fights import CALM, PATIENT, Fights
from reconciler.agent.schedule import FETCH_CAP, Schedule, share


def schedule(name: str, interval: float = 60.0) -> Schedule:
    return Schedule(name, interval, 1800.0, random.Random(name))  # noqa: S311  # a test repeats itself


def test_the_share_of_a_host_is_its_own_and_stays() -> None:
    assert share("a") == share("a")
    assert share("a") != share("b")
    assert all(0 <= share(str(n)) < 1 for n in range(1000))


def test_a_thousand_hosts_that_boot_at_once_fetch_at_no_more_than_three_times_the_mean() -> None:
    hosts = [schedule(f"host{n}") for n in range(1000)]
    queue = [(host.first_fetch(0.0), n) for n, host in enumerate(hosts)]
    heapq.heapify(queue)
    seconds: Counter[int] = Counter()
    while queue[0][0] < 1800:
        at, n = heapq.heappop(queue)
        seconds[int(at)] += 1
        heapq.heappush(queue, (hosts[n].next_fetch(at), n))
    mean = sum(seconds.values()) / 1800
    windows = [sum(seconds[s + k] for k in range(5)) / 5 for s in range(1795)]
    assert max(windows) <= 3 * mean


def test_failures_are_waited_out_ever_longer_and_at_most_a_quarter_of_an_hour() -> None:
    ones = [schedule(f"host{n}") for n in range(200)]
    for n in range(14):
        waits = [one.after_failure(0.0) for one in ones]
        longest = min(FETCH_CAP, 2.0**n)
        assert 0.5 <= min(waits) <= max(waits) <= longest
        # Wholly by chance, so that nobody comes back together with the others.
        assert max(waits) > 0.9 * longest
        assert n < 3 or min(waits) < 0.2 * longest


def test_a_fetch_that_works_ends_the_waiting() -> None:
    one = schedule("a")
    for _ in range(12):
        one.after_failure(0.0)
    assert 57 <= one.next_fetch(0.0) <= 75.6
    assert one.after_failure(0.0) <= 1.0


def test_a_thousand_hosts_that_lost_their_server_do_not_come_back_to_it_together() -> None:
    hosts = [schedule(f"host{n}") for n in range(1000)]
    queue = [(host.after_failure(0.0), n) for n, host in enumerate(hosts)]
    heapq.heapify(queue)
    seconds: Counter[int] = Counter()
    while queue[0][0] < 3600:
        at, n = heapq.heappop(queue)
        seconds[int(at)] += 1
        heapq.heappush(queue, (hosts[n].after_failure(at), n))
    # After half an hour each asks about every quarter of an hour, and the server can boot.
    late = [seconds[s] for s in range(1800, 3600)]
    assert sum(late) / 1800 < 1000 / 300
    windows = [sum(late[s : s + 5]) / 5 for s in range(1795)]
    assert max(windows) <= 3 * sum(late) / 1800


def test_a_day_of_idling_has_as_many_fetches_as_the_interval_says() -> None:
    one = schedule("a")
    at, count = one.first_fetch(0.0), 0
    while at < 86400:
        at, count = one.next_fetch(at), count + 1
    assert 86400 / 60 / 1.27 <= count <= 86400 / 60 / 0.95


def test_a_retry_comes_soon_and_then_less_and_less_often() -> None:
    one = schedule("a")
    waits = [one.retry(0.0) for _ in range(12)]
    assert waits[:3] == [5.0, 10.0, 20.0]
    assert waits[-1] == 900.0
    one.succeeded()
    assert one.retry(0.0) == 5.0


def test_five_corrections_within_ten_minutes_are_a_fight() -> None:
    fights = Fights()
    for n in range(4):
        assert fights.corrected(["file:/a"], n * 10.0) == []
    assert fights.contended(40.0) == []
    assert fights.corrected(["file:/a"], 40.0) == ["file:/a"]
    assert fights.corrected(["file:/a"], 41.0) == []
    assert fights.contended(50.0) == ["file:/a"]
    assert fights.contended(700.0) == []


def test_what_is_corrected_again_and_again_is_corrected_ever_later() -> None:
    fights = Fights()
    waits: list[float] = []
    now = 0.0
    for _ in range(10):
        waits.append(fights.due("file:/a", now) - now)
        now = fights.due("file:/a", now)
        fights.corrected(["file:/a"], now)
    assert waits == [0, 2, 6, 18, 54, 162, 300, 300, 300, 300]
    assert fights.contended(now) == ["file:/a"]
    assert fights.due("file:/b", now) == now


def test_after_ten_quiet_minutes_a_correction_is_as_quick_as_the_first() -> None:
    fights = Fights()
    for n in range(6):
        fights.corrected(["file:/a"], n * 10.0)
    assert fights.due("file:/a", 51.0) > 51.0
    assert fights.due("file:/a", 651.0) == 651.0


def test_another_desired_state_ends_a_fight() -> None:
    fights = Fights()
    for n in range(5):
        fights.corrected(["file:/a"], n * 10.0)
    fights.forget()
    assert fights.contended(50.0) == []
    assert fights.due("file:/a", 50.0) == 50.0


def test_looks_in_vain_are_forgotten_once_it_is_calm_or_there_was_something_to_do() -> None:
    fights = Fights()
    now = 0.0
    for wait in (*[0.0] * (PATIENT + 1), 2, 6, 18, 54, 162, 300, 300):
        assert fights.due("file:/a", now) == now + wait
        now = fights.due("file:/a", now)
        fights.looked(["file:/a"], now)
    now = fights.due("file:/a", now)
    assert fights.due("file:/a", now + CALM) == now + CALM
    assert fights.vain == {}
    for _ in range(PATIENT + 3):
        fights.looked(["file:/a"], now)
    assert fights.due("file:/a", now) == now + 18
    fights.corrected(["file:/a"], now)
    assert fights.due("file:/a", now) == now + 2
    fights.looked(["file:/a"], now)
    fights.forget()
    assert fights.due("file:/a", now) == now
