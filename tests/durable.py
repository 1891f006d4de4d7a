"""Whether what was written survives a power cut: each sync, and what it comes before and after.

A file must be synced with all that is in it before it gets its name, and the directory after that:
then the name leads to the old content or to all of the new one, at every instant.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

#: What changes a directory, and which of its arguments is the name that it is about.
NAMING = {
    "rename": 1, "replace": 1, "mkdir": 0, "symlink": 1, "link": 1, "unlink": 0, "rmdir": 0,
}  # fmt: skip


class Event(NamedTuple):
    """A sync or a change of a name. content: the digest of the file, or "" for anything else."""

    call: str
    path: str
    content: str = ""


@dataclass
class Record:
    """What this process did, in order."""

    events: list[Event] = field(default_factory=list)

    def check(self, path: Path | str, *, content: bool = True) -> int:
        """That the last change of this name is durable, and its content before that; its index."""
        path = str(path)
        changed = max(n for n, one in enumerate(self.events) if (one.call, one.path) in _ways(path))
        synced = [n for n, one in enumerate(self.events) if one.call == "fsync"]
        directory = os.path.dirname(path)
        assert any(self.events[n].path == directory for n in synced if n > changed), (
            f"{directory} was not synced after {path} was changed"
        )
        wanted = self.events[changed].content
        if content and wanted:
            assert any(self.events[n].content == wanted for n in synced if n < changed), (
                f"what is in {path} was not synced before it got that name"
            )
        return changed


@contextmanager
def recorded() -> Iterator[Record]:
    """Within this, syncs and changes of names are recorded."""
    record = Record()
    with mock.patch.multiple(os, **{name: _spy(name, record) for name in ("fsync", *NAMING)}):
        yield record


def _spy(name: str, record: Record) -> Any:
    real = getattr(os, name)

    def fsync(fd: int) -> None:
        real(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        record.events.append(Event("fsync", path, _content(f"/proc/self/fd/{fd}")))

    def act(*names: Any, **more: Any) -> None:
        path = _absolute(names[NAMING[name]], more.get("dst_dir_fd", more.get("dir_fd")))
        real(*names, **more)
        record.events.append(Event(name, path, _content(path)))

    return fsync if name == "fsync" else act


def _ways(path: str) -> set[tuple[str, str]]:
    return {(call, path) for call in NAMING}


def _absolute(name: str, fd: int | None) -> str:
    return os.path.join(os.getcwd() if fd is None else os.readlink(f"/proc/self/fd/{fd}"), name)


def _content(path: str) -> str:
    """The digest of a regular file that is not empty; "" for anything else."""
    if path.startswith("/proc/") or not os.path.islink(path):
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                content = Path(path).read_bytes()
                return hashlib.sha256(content).hexdigest() if content else ""
        except OSError:
            return ""
    return ""
