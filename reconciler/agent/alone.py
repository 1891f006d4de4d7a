<<<<<<< Updated upstream
"""One agent on a host: two would each believe that what they remember is the truth."""
=======
"""One agent for one host: two would follow the same state repo into the same files."""
>>>>>>> Stashed changes

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from reconciler.agent.places import Places
from reconciler.errors import LockBusy, ReconcilerError


@contextlib.contextmanager
def alone(places: Places) -> Iterator[None]:
<<<<<<< Updated upstream
    """Be the host's only agent for a while; the kernel says so, whatever becomes of us.

    Raises LockBusy, ReconcilerError.
    """
    path = places.lock
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ReconcilerError(f"cannot open the lock {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockBusy(
                "an agent is at work on this host already",
                hint="reconciler agent status tells about it; reconciler agent sync makes it run",
            ) from error
=======
    """Be the only agent; the kernel lets go of that, whatever becomes of us.

    Raises LockBusy, and ReconcilerError where it cannot be known.
    """
    try:
        os.makedirs(os.path.dirname(places.lock), mode=0o755, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(places.lock, flags, 0o600)
    except OSError as error:
        raise ReconcilerError(f"cannot open the lock {places.lock}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise LockBusy(
                f"an agent runs here already, pid {who}",
                hint="systemctl status reconciler-agent; to converge now: reconciler agent sync",
            ) from None
        # For people only: what keeps others out is the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
>>>>>>> Stashed changes
        yield
    finally:
        os.close(fd)
