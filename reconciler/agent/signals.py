"""Signals, heard by who waits for other things as well."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from types import FrameType

HEARD = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


class Signals:
    """`take` what came, in its order, when the descriptor is readable."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._out, self._in = os.pipe()
        for end in (self._out, self._in):
            os.set_blocking(end, False)

    def listen(self) -> None:
        """From now on they do nothing else; SIGQUIT says where the process is, and no more."""
        for number in HEARD:
            signal.signal(number, self._hear)
        signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        faulthandler.register(signal.SIGQUIT, all_threads=True)

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._came.append(number)

    def fileno(self) -> int:
        """Readable when there are some."""
        return self._out

    def take(self) -> list[int]:
        """Those since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._out, 4096)
        came, self._came = self._came, []
        return came
