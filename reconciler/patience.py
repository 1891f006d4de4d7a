"""A limit for what a regular expression may cost: of some, nobody can tell before they are tried.

`re` looks for signals while it works, so an alarm of the clock that counts our own work ends it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Callable

#: What to tell whoever wrote the expression.
HINT = "nested repeats such as (a+)+ take exponential time; write it without them"


@contextmanager
def bounded(seconds: float, late: Callable[[], Exception]) -> Iterator[None]:
    """Within this, the process may work for `seconds`; then what `late` makes is raised.

    Only the main thread can be interrupted; in others there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise late()

    before = signal.signal(signal.SIGVTALRM, ring)
    outer, _ = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, outer)
        signal.signal(signal.SIGVTALRM, before)
