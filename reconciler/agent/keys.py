"""Keys and passwords of root's, handed to the user that fetches: in memory, never in a file.

ssh takes no key that others than its owner could read, and no descriptor: it closes what it was
started with. So the copy belongs to the reader, who names it by the process that holds it open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

#: Bytes of a key or password that are read.
LARGEST = 1 << 20


def copy(path: str, owner: int = -1) -> int:
    """A descriptor of a copy that only `owner` may read; -1: this user. Raises OSError."""
    with open(path, "rb") as file:
        content = file.read(LARGEST)
    fd = os.memfd_create("key")
    os.fchmod(fd, 0o600)
    with open(fd, "wb", closefd=False) as memory:
        memory.write(content)
    if owner != -1:  # the provider's sandbox has no fchown
        os.fchown(fd, owner, -1)
    return fd


def place(fd: int) -> str:
    """Where a copy can be opened while this process lives, by it and its children."""
    return f"/proc/{os.getpid()}/fd/{fd}"


@contextlib.contextmanager
def copies(paths: Sequence[str], owner: int) -> Iterator[Mapping[str, int]]:
    """Copies of those files that there are, by path, for a child that is given them."""
    made: dict[str, int] = {}
    try:
        for path in paths:
            # Whoever needs one that cannot be read says so, with what to do.
            with contextlib.suppress(OSError):
                made[path] = copy(path, owner)
        yield made
    finally:
        for fd in made.values():
            os.close(fd)
