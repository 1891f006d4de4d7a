"""A progress bar on a terminal; it leaves no trace when it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reconciler.cli.visible import visible


class Bar:
    """How far a verb has come, and what it is at."""

    def __init__(self, verb: str, stream: TextIO) -> None:
        self._verb = verb
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=stream, markup=False),
            transient=True,
        )
        self._task = self._progress.add_task(verb, total=None)
        self._progress.start()

    def show(self, event: Mapping[str, object]) -> None:
        """An event of the engine: `id` of a resource, `index` of `total`."""
        index, total = event.get("index"), event.get("total")
        self._progress.update(
            self._task,
            description=f"{self._verb} {visible(str(event.get('id', '')))}",
            completed=index if isinstance(index, int) else None,
            total=total if isinstance(total, int) else None,
        )

    def close(self) -> None:
        """Take it away."""
        self._progress.stop()
