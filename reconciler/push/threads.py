"""An executor that gives each task a thread of its own, and never waits for one at the end.

A pool would do that: it joins its threads when the program ends, so one host that hangs in the
middle of a handshake would keep the program from ending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """Runs what is submitted at once. How many run at a time is up to who submits."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start it."""
        future: Future[T] = Future()

        def run() -> None:
            future.set_running_or_notify_cancel()
            fulfil(future, lambda: fn(*args, **kwargs))

        threading.Thread(target=run, name="host", daemon=True).start()
        return future


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Do the work; the future has what comes of it, be it an error."""
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001  the future carries it
        future.set_exception(error)
