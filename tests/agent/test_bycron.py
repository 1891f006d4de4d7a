"""The line that starts an agent by cron: as often as it was asked for, and each host at its time."""

from __future__ import annotations

import re

import pytest

from reconciler.agent.bycron import line

HOSTS = [f"host{number}" for number in range(200)]


def parts(interval: float, identity: str) -> tuple[str, int]:
    """The five fields of time, and the seconds that are slept."""
    found = re.fullmatch(
        r"((?:\S+ ){5})root sleep (\d+); /\S+/bin/reconciler agent once --log",
        line(interval, identity),
    )
    assert found
    return found[1].strip(), int(found[2])


def test_hosts_that_run_each_minute_do_so_in_different_seconds() -> None:
    found = [parts(60, host) for host in HOSTS]
    assert {when for when, _ in found} == {"* * * * *"}
    seconds = [second for _, second in found]
    assert all(0 <= second < 60 for second in seconds)
    assert max(map(seconds.count, seconds)) < 15
    assert parts(60, HOSTS[0]) == found[0]


@pytest.mark.parametrize(
    "interval, pattern, most",
    [
        (5, r"\* \* \* \* \*", 1),
        (89, r"\* \* \* \* \*", 1),
        (300, r"(\d+)-59/5 \* \* \* \*", 5),
        (1800, r"(\d+)-59/30 \* \* \* \*", 30),
        (3600, r"(\d+) \* \* \* \*", 60),
        (4 * 3600, r"\d+ (\d+)-23/4 \* \* \*", 4),
        (9 * 86400, r"\d+ (\d+)-23/24 \* \* \*", 24),
    ],
)
def test_longer_intervals_are_fields_of_cron(interval: float, pattern: str, most: int) -> None:
    first = set[int]()
    for host in HOSTS:
        when, second = parts(interval, host)
        found = re.fullmatch(pattern, when)
        assert found, when
        first |= {int(group) for group in found.groups()}
        assert second < 60
    assert first <= set(range(most))
    assert len(first) >= min(most, 2) or most == 1
