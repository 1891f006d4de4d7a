"""Room for many hosts at a time: each takes some twelve inotify instances, and 128 is all there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
EACH = 16


@contextlib.contextmanager
def room_for(hosts: int) -> Iterator[None]:
    """As many inotify instances as these hosts need beside those that others use."""
    before = int(INSTANCES.read_text())
    needed = 256 + hosts * EACH
    if before >= needed:
        yield
        return
    INSTANCES.write_text(str(needed))
    try:
        yield
    finally:
        INSTANCES.write_text(str(before))
