"""Time limits of resources, and the boundary at which a run stops when it is told to."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from types import FrameType
from typing import Iterator, Optional

from reconciler.errors import TimedOut
from reconciler.host import Host


@contextmanager
def limit(host: Host, seconds: float) -> Iterator[None]:
    """Within this, the resource at work has `seconds`; then TimedOut is raised.

    Programs that it started are ended by `Host.run`; the alarm ends our own waiting, such as a
    read from a file server that does not answer. Only for the main thread.
    """

    def late(number: int, frame: Optional[FrameType]) -> None:
        raise TimedOut(
            f"took longer than its limit of {seconds:g} s", hint="give it a larger `timeout`"
        )

    host.deadline = time.monotonic() + seconds
    before = signal.signal(signal.SIGALRM, late)
    # A little more than the deadline: ending a program politely takes its time.
    signal.setitimer(signal.ITIMER_REAL, seconds + 8)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        host.deadline = None


class Boundary:
    """Remembers that the run was told to stop; it stops between two resources, never within one."""

    def __init__(self) -> None:
        self.reached = False

    def stop(self, number: int, frame: Optional[FrameType]) -> None:
        """A signal handler."""
        self.reached = True

    def listen(self) -> None:
        """From now on SIGTERM, SIGINT and SIGHUP mean: stop at the next boundary."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.stop)
