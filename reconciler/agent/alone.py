"""One agent on a host: two would each believe that what they remember is the truth."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from reconciler.agent.places import Places, make_directory
from reconciler.errors import LockBusy, ReconcilerError


@contextlib.contextmanager
def alone(places: Places) -> Iterator[None]:
    """Be the host's only agent for a while; the kernel says so, whatever becomes of us.

    Raises LockBusy, ReconcilerError.
    """
    path = places.lock
    try:
        make_directory(os.path.dirname(path), 0o755)
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
        yield
    finally:
        os.close(fd)
