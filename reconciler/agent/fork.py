"""A function in a process of its own, without starting an interpreter anew.

What the parent has imported is there already: a heal takes milliseconds where a new interpreter
would import for a tenth of a second. Only for a parent that has no threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import traceback
from collections.abc import Callable, Collection
from typing import NoReturn


class Forked:
    """A child in its own session: of `subprocess.Popen`, what those who wait for one need."""

    def __init__(self, work: Callable[[], object], keep: Collection[int] = ()) -> None:
        """keep: descriptors that the child has besides 0, 1 and 2. Raises OSError."""
        self.returncode: int | None = None
        # No signal may find the parent's handlers in the child, where nobody would heed it.
        handled = [one for one in signal.valid_signals() if callable(signal.getsignal(one))]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _become(work, keep, handled)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        if self.returncode is None:
            # A signal handler of ours may ask as well, in the middle of this.
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            end = os.pidfd_open(self.pid)
            try:
                ready, _, _ = select.select([end], [], [], timeout)
            finally:
                os.close(end)
            if not ready:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        code = self.poll()
        return 0 if code is None else code

    def send_signal(self, number: int) -> None:
        """Nothing, if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _become(
    work: Callable[[], object], keep: Collection[int], handled: Collection[int]
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(keep)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        work()
        code = 0
    except BaseException:  # noqa: BLE001  # nobody above would say it, and the parent's frames are not ours
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def _close_all_but(keep: Collection[int]) -> None:
    """A pipe of the parent's that stayed open in here would never end for its reader."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
