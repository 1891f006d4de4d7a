"""How cron starts the agent on a machine without systemd: as often, and not all hosts at once."""

from __future__ import annotations

import sys

from reconciler.agent.schedule import share

HOUR = 3600


def line(interval: float, identity: str) -> str:
    """A line of /etc/cron.d. interval: seconds, of which cron knows whole minutes, up to a day.

    identity: what the time within the interval depends on. Cron starts everything in the first
    second of a minute, so the seconds are slept.
    """
    every = min(max(1, round(interval / 60)) * 60, 24 * HOUR)
    if every >= HOUR:
        every = round(every / HOUR) * HOUR
    late = int(share(identity, "cron") * every)
    hour, minute, second = late // HOUR, late % HOUR // 60, late % 60
    when = (
        f"{_steps(minute, every // 60, 59)} *"
        if every < HOUR
        else f"{minute} {_steps(hour, every // HOUR, 23)}"
    )
    return f"{when} * * * root sleep {second}; {sys.prefix}/bin/reconciler agent once --log"


def _steps(first: int, every: int, last: int) -> str:
    return "*" if every == 1 else f"{first}-{last}/{every}"
