"""Which files tell that a resource may have drifted. A hint, never more: the sweep is the truth."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

#: Where a change to any user or group shows.
ACCOUNTS = ("etc/passwd", "etc/shadow", "etc/group", "etc/gshadow")
#: The package databases that there may be.
PACKAGES = ("var/lib/dpkg/status", "var/lib/rpm/rpmdb.sqlite", "var/lib/pacman/local")
#: A table of jobs is a user's, or a file for all.
CRONTABS = ("var/spool/cron/crontabs", "var/spool/cron", "etc/cron.d")
#: systemd keeps a link here for each unit that runs, and takes it away when it stops.
RUNNING = "run/systemd/units/invocation:"
UNITS = "etc/systemd/system"

Stamp = tuple[int, int] | None


class Watch(NamedTuple):
    """A path that is watched: the stamp that it should have, and whom a change is about."""

    stamp: Stamp
    ids: tuple[str, ...]


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


def stamp(path: str) -> Stamp:
    """What changes with any change of a path; None where there is nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def watch_list(claims: Mapping[str, Iterable[str]], root: str = "/") -> dict[str, Watch]:
    """What the supervisor watches, as the machine is now."""
    return {path: Watch(stamp(path), tuple(ids)) for path, ids in hints(claims, root).items()}


def _paths(claim: str, root: str) -> Iterator[str]:
    kind, _, what = claim.partition(":")
    find = PLACES.get(kind)
    return (os.path.join(root, path.lstrip("/")) for path in find(what, root)) if find else iter(())


def _file(what: str, root: str) -> Iterator[str]:
    path = what.split("#", 1)[0]
    if path.startswith("/"):
        yield path


def _cron(what: str, root: str) -> Iterator[str]:
    table = what.partition(":")[0]
    if table.startswith("/"):
        yield table
    elif "/" not in table:
        yield from (os.path.join(place, table) for place in CRONTABS)


def _unit(what: str, root: str) -> Iterator[str]:
    if "/" in what:
        return  # a user's own: no file of the system tells of it
    yield RUNNING + what
    yield os.path.join(UNITS, what)
    for pattern in ("*.wants", "*.requires"):
        yield from glob.glob(os.path.join(UNITS, pattern, glob.escape(what)), root_dir=root)


def _package(what: str, root: str) -> Iterator[str]:
    yield from (path for path in PACKAGES if os.path.exists(os.path.join(root, path)))


def _account(what: str, root: str) -> Iterator[str]:
    yield from ACCOUNTS


#: Kind of claim -> the files that tell of it, below the root.
PLACES: dict[str, Callable[[str, str], Iterator[str]]] = {
    "path": _file,
    "content": _file,
    "line": _file,
    "xattr": _file,
    "cron": _cron,
    "unit": _unit,
    "package": _package,
    "user": _account,
    "group": _account,
}
