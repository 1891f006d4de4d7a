"""Which files tell that a resource may have drifted. A hint, never more: the sweep is the truth."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Where a change to any user or group shows.
ACCOUNTS = ("etc/passwd", "etc/shadow", "etc/group", "etc/gshadow")
#: The package databases that there may be.
PACKAGES = ("var/lib/dpkg/status", "var/lib/rpm/rpmdb.sqlite", "var/lib/pacman/local")
#: systemd keeps a link here for each unit that runs, and takes it away when it stops.
RUNNING = "run/systemd/units/invocation:"
UNITS = "etc/systemd/system"

Signature = list[int] | None


def hints(claims: Mapping[str, Iterable[str]], root: str = "/") -> dict[str, list[str]]:
    """Path -> the ids of the resources that a change of it may be about."""
    found: dict[str, list[str]] = {}
    for id_, claimed in claims.items():
        for claim in claimed:
            for path in _paths(claim, root):
                ids = found.setdefault(path, [])
                if id_ not in ids:
                    ids.append(id_)
    return found


def signature(path: str) -> Signature:
    """What changes with any change of a path; None where there is nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return [found.st_ino, found.st_ctime_ns]


def watch_list(claims: Mapping[str, Iterable[str]], root: str = "/") -> dict[str, Any]:
    """What the supervisor watches: path -> [signature, ids], as the machine is now."""
    return {path: [signature(path), ids] for path, ids in hints(claims, root).items()}


def _paths(claim: str, root: str) -> Iterator[str]:
    kind, _, what = claim.partition(":")
    if kind in ("path", "content", "line", "crontab"):
        path = what.split("#", 1)[0]
        if path.startswith("/"):
            yield os.path.join(root, path.lstrip("/"))
    elif kind == "unit":
        yield os.path.join(root, RUNNING + what)
        yield os.path.join(root, UNITS, what)
        for pattern in ("*.wants", "*.requires"):
            yield from glob.glob(os.path.join(root, UNITS, pattern, glob.escape(what)))
    elif kind == "package":
        for path in PACKAGES:
            if os.path.exists(os.path.join(root, path)):
                yield os.path.join(root, path)
    elif kind in ("user", "group"):
        yield from (os.path.join(root, path) for path in ACCOUNTS)
