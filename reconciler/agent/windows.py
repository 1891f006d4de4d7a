"""When a new commit may be applied: hours of the week, in a zone of their own.

They hold back what is new, and nothing else: fetching, judging and healing go on. A run that has
begun may finish.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from reconciler.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
KINDS = ("allow", "deny")
WEEK = 7 * 86400.0

#: `kind`, `days`, `from` as HH:MM, `seconds`, `zone`.
Window = Mapping[str, Any]


def window(value: object, duration: Any) -> dict[str, Any]:
    """One of the settings, such as `{deny: {days: [sat, sun], from: "00:00", for: 24h}}`.

    duration: reads a length. Raises ValueError with what was expected.
    """
    kind = next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else None
    said = value[kind] if isinstance(value, Mapping) and kind in KINDS else None
    if not isinstance(said, Mapping) or not {"from", "for"} <= set(said) <= {
        "days",
        "from",
        "for",
        "zone",
    }:
        raise ValueError("expected allow or deny with `from`, `for`, and perhaps `days` and `zone`")
    days = said.get("days", list(DAYS))
    if not isinstance(days, (list, tuple)) or not days or set(days) - set(DAYS):
        raise ValueError(f"`days` is a list of {', '.join(DAYS)}")
    if not isinstance(said["from"], str) or not re.fullmatch(
        r"([01]\d|2[0-3]):[0-5]\d", said["from"]
    ):
        raise ValueError('`from` is a time such as "16:00", in quotes')
    seconds = float(duration(said["for"], 60))
    if seconds > WEEK:
        raise ValueError("`for` is a week at most")
    zone = str(said.get("zone", "UTC"))
    try:
        _zone(zone)
    except ConfigError as error:
        raise ValueError(f"{error.message}: {error.hint}") from None
    return {
        "kind": str(kind),
        "days": [str(day) for day in days],
        "from": said["from"],
        "seconds": seconds,
        "zone": zone,
    }


def opens(windows: Sequence[Window], now: float) -> float:
    """0 if a new commit may be applied now, else when, in seconds since the epoch.

    `deny` wins; where anything is allowed, all else is not. Never: a week from now, to look again.
    Raises ConfigError where a zone is not known (any more): whether it is open nobody can tell, so
    it is not.
    """
    if _open(windows, now):
        return 0.0
    edges = sorted({edge for one in windows for span in _spans(one, now) for edge in span})
    later = (edge for edge in edges if edge > now and _open(windows, edge))
    return next(later, now + WEEK)


def _open(windows: Sequence[Window], now: float) -> bool:
    inside = {
        one["kind"] for one in windows for start, end in _spans(one, now) if start <= now < end
    }
    anything = any(one["kind"] == "allow" for one in windows)
    return "deny" not in inside and ("allow" in inside or not anything)


def _spans(one: Window, now: float) -> Iterator[tuple[float, float]]:
    """When it begins and ends, from the week before until the week after."""
    zone = _zone(one["zone"])
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    for offset in range(-8, 9):
        day = today + timedelta(days=offset)
        if DAYS[day.weekday()] in one["days"]:
            start = datetime.combine(day, time.fromisoformat(one["from"]), zone).timestamp()
            yield start, start + one["seconds"]


def _zone(name: str) -> tzinfo:
    """UTC needs no database, which a minimal machine lacks. Raises ConfigError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(
            f"this machine knows no zone {name!r}",
            hint="Europe/Berlin and such take: apt-get install tzdata; names of old, such as "
            "US/Eastern: tzdata-legacy; UTC takes nothing",
        ) from None
