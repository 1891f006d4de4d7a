"""Holds: packages that dpkg and apt are told to leave at their version.

A hold that is declared is part of the wish: it gives way while its own package changes, and is
put back behind it. One that nobody declared is somebody's decision, and refuses a change.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from reconciler.errors import ResourceError, Unsupported
from reconciler.host import Host
from reconciler.modules import _aptget
from reconciler.modules._dpkg import Entry

if TYPE_CHECKING:
    from reconciler.modules.package import Package


def require_one(package: Package) -> None:
    """Raise Unsupported if a hold is declared for what can have none."""
    gone = package.state == "absent" and package.hold
    if package.hold is not None and (gone or package.name == "*" or package.state == "build-dep"):
        raise Unsupported(
            f"hold: {str(package.hold).lower()} is not for {'what is absent' if gone else 'many packages at once'}",
            hint="declare it with the package that is to stay at its version",
        )


def refuse(package: Package, entry: Entry, version: str) -> None:
    """Raise ResourceError if somebody else holds what would have to change to `version`."""
    if entry.held and package.hold is None and not package.allow_change_held_packages:
        raise ResourceError(
            f"{entry.name} is on hold at {entry.version}, and the wish is {version}",
            hint="declare hold: true to change it and keep it on hold, hold: false to free it, or allow_change_held_packages: true",
        )


def refuse_virtual(package: Package, name: str, providers: Iterable[str]) -> None:
    """Raise Unsupported for a hold of what is there only in the shape of another package."""
    if package.hold is not None:
        raise Unsupported(
            f"{name} is a virtual package and cannot be on hold",
            hint=f"declare hold with what provides it: {', '.join(providers)}",
        )


def select(host: Host, entries: Iterable[tuple[Entry, bool]], patience: float) -> None:
    """Put packages on hold (True) or free them, in one call of dpkg; none if all are so.

    What is not configured yet is not held: dpkg would never finish it. Raises ResourceError.
    """
    lines = [
        f"{_qualified(entry)} {'hold' if hold else 'install'}\n"
        for entry, hold in entries
        if entry.held != hold and (entry.working or not hold)
    ]
    if not lines:
        return
    end = time.monotonic() + min(patience, host.remaining())
    _aptget.wait_for_locks(host, end, _aptget.LOCKS[:2])
    try:
        host.run(["dpkg", "--set-selections"], input="".join(lines).encode())
    finally:
        _aptget.changed(host)


def _qualified(entry: Entry) -> str:
    return entry.name if entry.architecture == "all" else f"{entry.name}:{entry.architecture}"
