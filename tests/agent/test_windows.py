"""Hours in which new commits may be applied."""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from reconciler.agent.config import duration, parse
from reconciler.agent.windows import WEEK, opens, window
from reconciler.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")


def allow(**said: Any) -> dict[str, Any]:
    return window({"allow": said}, duration)


def deny(**said: Any) -> dict[str, Any]:
    return window({"deny": said}, duration)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


OFFICE = allow(
    **{"days": ["mon", "tue", "wed", "thu"], "from": "09:00", "for": "8h", "zone": "Europe/Berlin"}
)
NOON = deny(**{"from": "12:00", "for": "1h", "zone": "Europe/Berlin"})


@pytest.mark.parametrize(
    "windows, now, then",
    [
        ([], "2026-11-23T03:00", ""),
        ([OFFICE], "2026-11-23T09:00", ""),  # a Monday
        ([OFFICE], "2026-11-23T16:59", ""),
        ([OFFICE], "2026-11-23T17:00", "2026-11-24T09:00"),
        ([OFFICE], "2026-11-26T17:00", "2026-11-30T09:00"),  # over the weekend
        ([OFFICE, NOON], "2026-11-23T12:30", "2026-11-23T13:00"),  # deny wins
        ([NOON], "2026-11-23T11:59", ""),
        ([NOON], "2026-11-22T12:00", "2026-11-22T13:00"),
        # The hour that the clocks skip in spring, and the one they repeat in autumn.
        ([deny(**{"from": "01:00", "for": "3h", "zone": "Europe/Berlin"})], "2026-03-29T03:30", "2026-03-29T05:00"),
        ([deny(**{"from": "22:00", "for": "4h", "zone": "Europe/Berlin"})], "2026-11-24T01:00", "2026-11-24T02:00"),
    ],
)  # fmt: skip
def test_a_gate_is_open_or_says_when_it_opens(
    windows: list[dict[str, Any]], now: str, then: str
) -> None:
    assert opens(windows, at(now)) == (at(then) if then else 0.0)


def test_what_never_opens_is_looked_at_again_in_a_week() -> None:
    never = [deny(**{"from": "00:00", "for": "7d"})]
    assert opens(never, 1e9) == 1e9 + WEEK


@pytest.mark.parametrize(
    "said",
    [
        "at night",
        {"allow": {"from": "9:00", "for": "1h"}},
        {"allow": {"from": "09:00", "for": "8d"}},
        {"allow": {"from": "09:00"}},
        {"allow": {"from": "09:00", "for": "1h", "days": ["monday"]}},
        {"allow": {"from": "09:00", "for": "1h", "zone": "Europe/Nowhere"}},
        {"allow": {"from": "09:00", "for": "1h", "until": "10:00"}},
        {"permit": {"from": "09:00", "for": "1h"}},
    ],
)
def test_a_window_that_is_not_understood_is_refused(said: Any) -> None:
    with pytest.raises(ConfigError, match="windows:"):
        parse({"repo": "/x", "windows": [said]}, "agent.yml")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a database of zones, neither Debian's nor Python's."""
    before = zoneinfo.TZPATH
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath(())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(before)
    ZoneInfo.clear_cache()


@pytest.mark.usefixtures("bare")
def test_utc_takes_no_database_of_zones_and_others_say_where_it_is() -> None:
    document = {"repo": "/x", "windows": [{"deny": {"from": "16:00", "for": "1h"}}]}
    windows = parse(document, "agent.yml").windows
    assert opens(windows, 57600.0) == 61200.0
    assert opens(windows, 61200.0) == 0.0
    document["windows"] = [{"deny": {"from": "16:00", "for": "1h", "zone": "Europe/Berlin"}}]
    with pytest.raises(ConfigError, match="this machine knows no zone 'Europe/Berlin'") as caught:
        parse(document, "agent.yml")
    assert "apt-get install tzdata" in caught.value.message


@pytest.mark.parametrize("make", [allow, deny])
def test_a_zone_that_has_gone_is_an_error_with_what_to_do_and_never_an_open_gate(
    make: Any, request: pytest.FixtureRequest
) -> None:
    windows = [
        deny(**{"from": "00:00", "for": "7d"}),
        make(**{"from": "09:00", "for": "8h", "zone": "Europe/Berlin"}),
    ]
    request.getfixturevalue("bare")
    for order in (windows, windows[::-1]):
        with pytest.raises(ConfigError, match="this machine knows no zone") as caught:
            opens(order, 1e9)
        assert "tzdata-legacy" in caught.value.hint
