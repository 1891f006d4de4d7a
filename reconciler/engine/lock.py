"""One run at a time on a host: a flock, which the kernel frees whatever becomes of its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from reconciler.engine.limit import Boundary
from reconciler.errors import Interrupted, LockBusy, ReconcilerError

PLACE = "run/reconciler/lock"


@contextmanager
def lock(
    root: str, run: str, mode: str, timeout: float = 0.0, boundary: Boundary | None = None
) -> Iterator[None]:
    """Hold the host's lock. timeout: seconds to wait for another run; boundary: ends the waiting.

    Raises LockBusy, Interrupted.
    """
    path = os.path.join(root, PLACE)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ReconcilerError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        _take(fd, path, time.monotonic() + timeout, boundary)
        _say_who(fd, {"pid": os.getpid(), "run": run, "mode": mode, "since": int(time.time())})
        yield
    finally:
        os.close(fd)


def _say_who(fd: int, holder: Mapping[str, object]) -> None:
    """Only for people: the lock is the flock, not what the file says."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode(), 0)
    except OSError:
        return  # a full disk must not keep a run from healing it


def _take(fd: int, path: str, end: float, boundary: Boundary | None) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise ReconcilerError(f"cannot lock {path}: {error.strerror}") from error
        if time.monotonic() >= end:
            raise LockBusy(
                f"another run holds the lock: {_holder(fd)}",
                hint="wait for it, or give --lock-timeout SECONDS",
            )
        if boundary is not None and boundary.reached:
            raise Interrupted(f"told to stop while waiting for the lock: {_holder(fd)}")
        time.sleep(0.1)


def _holder(fd: int) -> str:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        age = time.time() - float(holder["since"])
        return f"{holder['mode']} run {holder['run']}, pid {holder['pid']}, for {age:.0f} s"
    except (ValueError, KeyError, TypeError):
        return "it has not said who it is"
