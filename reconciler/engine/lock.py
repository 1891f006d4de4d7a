"""One run at a time on a host: a flock, which the kernel frees whatever becomes of its holder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Callable

from reconciler.engine.limit import Boundary
from reconciler.errors import Interrupted, LockBusy, ReconcilerError

PLACE = "run/reconciler/lock"
#: Characters of what a holder says of itself.
LONGEST = 200


@contextmanager
def lock(
    root: str,
    run: str,
    mode: str,
    timeout: float = 0.0,
    boundary: Boundary | None = None,
    *,
    command: str = "",
    waiting: Callable[[str], None] = lambda holder: None,
) -> Iterator[None]:
    """Hold the host's lock. timeout: seconds to wait for another run; boundary: ends the waiting.

    command: what a person would have to know to find this run. waiting: told who holds the lock,
    once, if it is waited for. Raises LockBusy, Interrupted.
    """
    path = os.path.join(root, PLACE)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ReconcilerError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        _take(fd, path, timeout, boundary, waiting)
        who = {"pid": os.getpid(), "run": run, "mode": mode, "user": user(), "command": command}
        _say_who(fd, {**who, "since": int(time.time())})
        yield
    finally:
        os.close(fd)


def user() -> str:
    """The person behind this process: whoever called sudo, else its user."""
    import pwd

    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _say_who(fd: int, holder: Mapping[str, object]) -> None:
    """Only for people: the lock is the flock, not what the file says."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(holder).encode(), 0)
    except OSError:
        return  # a full disk must not keep a run from healing it


def _take(
    fd: int,
    path: str,
    timeout: float,
    boundary: Boundary | None,
    waiting: Callable[[str], None],
) -> None:
    end = time.monotonic() + timeout
    told = False
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
        if not told:
            waiting(_holder(fd))
            told = True
        if boundary is not None and boundary.reached:
            raise Interrupted(f"told to stop while waiting for the lock: {_holder(fd)}")
        time.sleep(0.1)


def _holder(fd: int) -> str:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        age = max(0.0, time.time() - float(holder["since"]))
        by = f", by {holder['user'][:LONGEST]}" if holder.get("user") else ""
        what = f" ({holder['command'][:LONGEST]})" if holder.get("command") else ""
        return (
            f"{holder['mode']} run {holder['run']}, pid {holder['pid']}{by}{what}, for {age:.0f} s"
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it has not said who it is"
