"""The table of a fleet run on a terminal: hosts by state, who is at what, how fast, how long yet."""

from __future__ import annotations

import time
from collections import Counter
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from reconciler.cli.render import duration
from reconciler.cli.visible import visible
from reconciler.engine.wire import Message
from reconciler.push.outcome import STATES, Outcome

#: Hosts that are shown at work, those that are at it for the longest time.
AT_WORK = 12
STYLES = {
    "ok": "green", "changed": "yellow", "pending": "yellow", "failed": "bold red",
    "unreachable": "bold red", "interrupted": "magenta", "held": "magenta",
}  # fmt: skip


class LiveTable:
    """Drawn four times a second by a thread of rich; takes copies of what another thread changes."""

    def __init__(self, mode: str, total: int, stream: TextIO) -> None:
        self._mode = mode
        self._total = total
        self._begun = time.monotonic()
        self._running: dict[str, tuple[float, str]] = {}
        self._states: Counter[str] = Counter()
        self._last = ""
        self._live = Live(
            console=Console(file=stream, markup=False, highlight=False),
            get_renderable=self._drawn,
            transient=True,
            refresh_per_second=4,
        )
        self._live.start()

    def began(self, host: str) -> None:
        """A host begins."""
        self._running[host] = (time.monotonic(), "connecting")

    def at(self, host: str, event: Message) -> None:
        """A host is at a resource: `id`, `index` of `total`."""
        begun, _ = self._running.get(host, (time.monotonic(), ""))
        place = f"{event.get('index')}/{event.get('total')} " if event.get("total") else ""
        self._running[host] = (begun, place + visible(str(event.get("id"))))

    def ended(self, outcome: Outcome) -> None:
        """A host is done."""
        self._running.pop(outcome.host, None)
        self._states[outcome.state] += 1

    def say(self, text: str) -> None:
        """What the run as a whole is at."""
        self._last = visible(text)

    def close(self) -> None:
        """Take it away."""
        self._live.stop()

    def _drawn(self) -> Group:
        states, running = dict(self._states), list(self._running.items())
        done = sum(states.values())
        seconds = time.monotonic() - self._begun
        head = Text(f"{self._mode} {done}/{self._total}", "bold")
        for state in STATES:
            if states.get(state):
                head.append(f"  {states[state]} {state}", STYLES[state])
        head.append(f"  {len(running)} at work")
        if done:
            rate = done / max(seconds, 0.001)
            left = duration((self._total - done) / rate)
            head.append(f"  {rate:.1f} hosts/s, {left} left", "dim")
        table = Table.grid(padding=(0, 2))
        for host, (begun, what) in sorted(running, key=lambda one: one[1][0])[:AT_WORK]:
            table.add_row(
                Text(visible(host), "bold"), Text(what), Text(duration(time.monotonic() - begun))
            )
        shown = [head, ProgressBar(total=self._total, completed=done, width=60), table]
        return Group(*([Text(self._last, "cyan")] if self._last else []), *shown)
