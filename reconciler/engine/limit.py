"""Time limits of resources, and the boundary at which a run stops when it is told to."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Callable

from reconciler.errors import Interrupted, TimedOut
from reconciler.host import Host

#: Seconds between the deadline and the alarm: ending a program politely takes its time.
GRACE = 8.0


@contextmanager
def limit(host: Host, seconds: float, grace: float | None = None) -> Iterator[None]:
    """Within this, the resource at work has `seconds`; then TimedOut is raised.

    Programs that it started are ended by `Host.run`; the alarm ends our own waiting, such as a
    read from a file server that does not answer. Only for the main thread.
    grace: seconds between the two, where no program is started.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise TimedOut(
            f"took longer than its limit of {seconds:g} s", hint="give it a larger `timeout`"
        )

    started, outer = time.monotonic(), host.deadline
    host.deadline = started + seconds
    before = signal.signal(signal.SIGALRM, late)
    late_at = seconds + (GRACE if grace is None else grace)
    left, _ = signal.setitimer(signal.ITIMER_REAL, late_at)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        host.deadline = outer
        if left:
            # Somebody else's alarm was set: it goes on, and rings at once if it is overdue.
            left -= time.monotonic() - started
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))


class Boundary:
    """Remembers that the run was told to stop; it stops between two resources, never within one.

    It is told by a signal or by the controller, who may be on another machine: `unasked` says
    whether words of his are waiting that nobody asked for, or that he has hung up.
    """

    def __init__(self, unasked: Callable[[], bool] = lambda: False) -> None:
        self._unasked = unasked
        self._told = False
        self._at_rest = False

    @property
    def reached(self) -> bool:
        """Whether to stop here. Only while a request is carried out and nothing was asked."""
        self._told = self._told or self._unasked()
        return self._told

    def reach(self) -> None:
        """From now on it is reached."""
        self._told = True

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Within this nothing is under way: being told to stop raises Interrupted at once."""
        self._at_rest = True
        try:
            if self._told:
                raise Interrupted("told to stop")
            yield
        finally:
            self._at_rest = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A signal handler."""
        self._told = True
        if self._at_rest:
            raise Interrupted("told to stop")

    def listen(self) -> None:
        """From now on SIGTERM, SIGINT and SIGHUP mean: stop at the next boundary."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.stop)
