"""Owner, group and mode: as declared, as found, and as the numbers to set."""

from __future__ import annotations

import os
import stat
from typing import Callable, NamedTuple

from reconciler.errors import NotYet
from reconciler.host import Host
from reconciler.modules._mode import mode_bits, mode_text
from reconciler.safewrite import Attributes


class Owned(NamedTuple):
    """What is declared; None is not managed."""

    owner: str | None = None
    group: str | None = None
    mode: str | None = None

    def wish(self, *, link: bool = False) -> dict[str, str]:
        """The attributes of a desired state; a link has no mode."""
        words = {"owner": self.owner, "group": self.group}
        if self.mode is not None and not link:
            words["mode"] = mode_text(self.mode)
        return {name: value for name, value in words.items() if value is not None}

    def needs(self) -> set[str]:
        """The user and the group that must exist first."""
        needs = {f"user:{self.owner}"} if self.owner is not None else set[str]()
        return needs | {f"group:{self.group}"} if self.group is not None else needs

    def seen(self, host: Host, found: os.stat_result) -> dict[str, str]:
        """What is there, in the words of the wish where the wish holds."""
        seen: dict[str, str] = {}
        if self.owner is not None:
            holds = _number(host.uid, self.owner) == found.st_uid
            seen["owner"] = self.owner if holds else host.owner_name(found.st_uid)
        if self.group is not None:
            holds = _number(host.gid, self.group) == found.st_gid
            seen["group"] = self.group if holds else host.group_name(found.st_gid)
        if self.mode is not None and not stat.S_ISLNK(found.st_mode):
            now = stat.S_IMODE(found.st_mode)
            holds = mode_bits(self.mode, now, stat.S_ISDIR(found.st_mode)) == now
            seen["mode"] = mode_text(self.mode) if holds else f"{now:04o}"
        return seen

    def holds(self, host: Host, found: os.stat_result) -> bool:
        """Whether what is there is as declared."""
        return self.seen(host, found) == self.wish(link=stat.S_ISLNK(found.st_mode))

    def fresh(self, host: Host, default: int | None, *, directory: bool = False) -> Attributes:
        """The numbers for something new. default: its bits where no mode is declared; None
        leaves them to what makes it. Raises NotYet for an unknown name."""
        if self.mode is not None:
            default = mode_bits(self.mode, default or (0o755 if directory else 0o644), directory)
        return Attributes(*self._ids(host), default)

    def onto(self, host: Host, found: os.stat_result) -> Attributes:
        """The numbers for what is there. Raises NotYet for an unknown name."""
        uid, gid = self._ids(host)
        if self.mode is None:
            return Attributes(uid, gid)
        now = stat.S_IMODE(found.st_mode)
        if (uid, gid) != (None, None) and not stat.S_ISDIR(found.st_mode):
            moves = uid not in (None, found.st_uid) or gid not in (None, found.st_gid)
            # A mode like g+w does not ask for the setuid bit that the old owner had set.
            now = now & 0o1777 if moves else now
        return Attributes(uid, gid, mode_bits(self.mode, now, stat.S_ISDIR(found.st_mode)))

    def _ids(self, host: Host) -> tuple[int | None, int | None]:
        uid = None if self.owner is None else host.uid(self.owner)
        return uid, None if self.group is None else host.gid(self.group)


def kept(found: os.stat_result) -> Attributes:
    """The numbers that something has now."""
    return Attributes(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def _number(look: Callable[[str], int], name: str) -> int | None:
    """The number of a name; None while it does not exist: an earlier resource may create it."""
    try:
        return look(name)
    except NotYet:
        return None
