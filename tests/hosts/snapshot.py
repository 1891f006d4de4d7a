"""A host's whole file tree as data: two snapshots are equal when nothing was changed.

Taken from our side of the overlay, so that looking leaves no trace on the host.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, fields
from pathlib import Path

from hosts.image import Image

#: Places that change on a host where nobody does anything, or belong to the kernel.
VOLATILE = re.compile(
    r"""
    /(proc|sys|dev|run)(/.*)?
    | /(var/)?tmp/(systemd-private-|\.).*
    | /(var/)?tmp                             # its mtime: private directories come and go
    | /var/log/(journal/.*|wtmp|btmp|lastlog|faillog)
    | /var/lib/systemd/(random-seed|timers/.*|linger/.*|network(/.*)?|timesync/.*)
    | /var/lib/(wtmpdb/.*|lastlog/.*)         # trixie's wtmp and lastlog
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Entry:
    """What one path is. For a link `content` is its target, for a file the SHA-256."""

    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    mtime_ns: int
    content: str
    xattrs: tuple[tuple[str, str], ...]


Snapshot = dict[str, Entry]


def take(root: Path, upper: Path, image: Image) -> Snapshot:
    """Look at every path below the merged `root`, except the volatile ones.

    A file that is not in the overlay's upper directory is the image's own, whose digest is
    computed once.
    """
    found: Snapshot = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        try:
            names = os.listdir(f"{root}{directory}/")
        except (FileNotFoundError, NotADirectoryError):
            continue
        for path in (f"{directory}/{name}" for name in names):
            if VOLATILE.fullmatch(path):
                continue
            known = None if os.path.lexists(f"{upper}{path}") else image.digests
            try:
                entry = _entry(f"{root}{path}", path, known)
            except FileNotFoundError:  # gone while we looked
                continue
            found[path] = entry
            if entry.kind == "directory":
                pending.append(path)
    return dict(sorted(found.items()))


def differences(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    """What changed, by path: the attributes that differ, or `created`, or `removed`."""
    changed: dict[str, list[str]] = {}
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            changed[path] = ["created" if old is None else "removed"]
        elif old != new:
            names = (field.name for field in fields(Entry))
            changed[path] = [name for name in names if getattr(old, name) != getattr(new, name)]
    return changed


def _entry(real: str, path: str, known: dict[str, str] | None) -> Entry:
    found = os.lstat(real)
    kind = _kind(found.st_mode)
    names = os.listxattr(real, follow_symlinks=False)
    values = ((name, os.getxattr(real, name, follow_symlinks=False)) for name in sorted(names))
    return Entry(
        kind=kind,
        mode=f"{stat.S_IMODE(found.st_mode):04o}",
        uid=found.st_uid,
        gid=found.st_gid,
        size=0 if kind == "directory" else found.st_size,  # a directory's is the file system's own
        mtime_ns=found.st_mtime_ns,
        content=_content(real, path, kind, known),
        xattrs=tuple((name, value.hex()) for name, value in values),
    )


def _content(real: str, path: str, kind: str, known: dict[str, str] | None) -> str:
    if kind == "link":
        return os.readlink(real)
    if kind != "file":
        return ""
    if known is not None and path in known:
        return known[path]
    with open(real, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if known is not None:
        known[path] = digest
    return digest


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")
