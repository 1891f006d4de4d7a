"""What workers of tests do with hosts: by the host's name, and with files as their only trace."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

from reconciler.errors import ConfigErrors, Interrupted, LockBusy, Mark, SchemaError, SourceError
from reconciler.inventory.sources import NoSource
from reconciler.push.order import Order, Settings, Tell
from reconciler.push.outcome import Outcome, of_error
from reconciler.push.task import Call

#: Where hosts are.
PLACE = "RECONCILER_TEST_HOSTS"


class Files:
    """Hosts are files: a line when their run begins, one when it ends, and a lock in between."""

    def __init__(self, order: Order, settings: Settings, tell: Tell, call: Call) -> None:
        self._place = Path(os.environ[PLACE])
        self._tell = tell
        self._wakes: dict[str, threading.Event] = {}

    def run(self, host: str, wait: float = 0.0) -> Outcome:
        wake = self._wakes.setdefault(host, threading.Event())
        if host.startswith("wrong"):
            errors = [SchemaError(f"{n} is wrong", mark=Mark("site.yml", n, 1)) for n in (1, 2)]
            return of_error(host, ConfigErrors(errors))
        with (self._place / host).open("a") as file:
            if not _locked(file.fileno(), wait):
                return of_error(host, LockBusy("another run holds the lock"))
            file.write(f"begin {os.getpid()} {wait > 0}\n")
            file.flush()
            self._tell(host, {"event": "start", "id": f"file:/{host}", "index": 1, "total": 1})
            self._tell(host, {"event": "start", "id": "file:/too-soon", "index": 1, "total": 1})
            stopped = wake.wait(_seconds(host))
            file.write("stopped\n" if stopped else "end\n")
        if stopped:
            return of_error(host, Interrupted("stopped at a boundary"))
        return Outcome(host, "ok")

    def stop(self, host: str) -> None:
        self._wakes.setdefault(host, threading.Event()).set()

    def abandon(self, host: str) -> None:
        (self._place / f"{host}.abandoned").touch()
        self.stop(host)

    def close(self) -> None:
        (self._place / f"closed-{os.getpid()}").touch()


class Broken(Files):
    """Cannot be opened; leaves a file for each time that it was tried."""

    def __init__(self, order: Order, settings: Settings, tell: Tell, call: Call) -> None:
        (Path(os.environ[PLACE]) / f"tried-{os.getpid()}-{time.monotonic_ns()}").touch()
        raise SourceError("the state repo is out of reach", hint="try again")


class Missing(Files):
    """Cannot be opened, for a reason that only its own room has a kind of error for."""

    def __init__(self, order: Order, settings: Settings, tell: Tell, call: Call) -> None:
        raise NoSource("there is no hosts.yml", hint="name another one")


def _locked(fd: int, wait: float) -> bool:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _seconds(host: str) -> float:
    """`slow2-x` takes two seconds."""
    head = host.partition("-")[0]
    return float(head.removeprefix("slow") or 0) if head.startswith("slow") else 0.0
