"""Events of files: one inotify instance without a thread, on the directories that matter.

watchdog's Observer has a thread for each directory; below it is what we need, with its word on
lost events: then a sweep is due, since nobody knows what was missed. Without threads the agent
can fork.

The kernel has only so many instances and watches for all programs of a user. Who gets none, or
not all, goes on with what there is, says so, and tries again with each new set of paths.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD, Mask

from reconciler.agent.hints import Watch, stamp

MASK = Mask(
    InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
Identity = tuple[int, int] | None
Mode = Literal["inotify", "partial", "none"]
#: Which setting of the kernel's bounds what could not be had.
LIMITS = {errno.EMFILE: "max_user_instances", errno.ENOSPC: "max_user_watches"}


class Watcher:
    """Says which resources may have drifted. `read` when the descriptor is ready, then `take`."""

    def __init__(self) -> None:
        self._paths: dict[str, Watch] = {}
        self._touched: set[str] = set()
        self._lost = False
        self.overflows = 0
        self._watches: dict[bytes, int] = {}
        # What was under that name when it was watched: the kernel goes on watching that.
        self._identities: dict[bytes, Identity] = {}
        # One directory may be known by several names; the kernel knows it once.
        self._names: dict[int, set[str]] = {}
        # A thread that is never started: we read where we wait for everything else.
        self._inotify: InotifyFD | None = None
        self._refused: OSError | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._inotify = InotifyFD()
        except OSError as error:
            self._refused = error

    def fileno(self) -> int:
        """The descriptor that is readable when there are events; -1 if there will be none."""
        return -1 if self._inotify is None else self._inotify._inotify_fd  # noqa: SLF001  # it has no other name

    @property
    def mode(self) -> Mode:
        """How changes are seen: all, some of them because a limit is reached, or none."""
        if self._inotify is None:
            return "none"
        return "inotify" if self._refused is None else "partial"

    @property
    def trouble(self) -> str:
        """Why not everything is watched, and what bounds it; "" if everything is."""
        if self._refused is None:
            return ""
        limit = LIMITS.get(self._refused.errno or 0)
        return f"{self._refused.strerror}" + (f": sysctl fs.inotify.{limit}" if limit else "")

    @property
    def count(self) -> int:
        """How many paths are watched."""
        return sum(_above(path) in self._watches for path in self._paths)

    @property
    def paths(self) -> Mapping[str, Watch]:
        """What is watched, with the stamp that it should have and its resources."""
        return self._paths

    @property
    def news(self) -> bool:
        """Whether `take` has something to say."""
        return bool(self._touched) or self._lost

    def set(self, paths: Mapping[str, Watch]) -> None:
        """Watch these paths and no others."""
        self._paths = dict(paths)
        self._refused = None
        if self._inotify is None:
            self._open()
        # A directory that is watched itself tells of what happens to it, too.
        directories = {_above(path) for path in paths}
        for old in list(self._watches):
            if old not in directories or _identity(old) != self._identities[old]:
                self._remove(old)
        self._add(directories)
        self._look(paths)

    def update(self, paths: Mapping[str, Watch]) -> None:
        """Watch these, too, or with another stamp than before."""
        self._paths.update(paths)
        self._add({_above(path) for path in paths})
        self._look(paths)

    def _add(self, directories: Iterable[bytes]) -> None:
        if self._inotify is None:
            return
        for fresh in set(directories) - self._watches.keys():
            name: Any = fresh
            identity = _identity(fresh)
            try:
                wd = int(self._inotify.add_callback(fresh, MASK, self, name))
            except (FileNotFoundError, NotADirectoryError):
                continue  # whatever makes it is not seen, but swept
            except OSError as error:
                self._refused = error
                continue
            self._watches[fresh], self._identities[fresh] = wd, identity
            self._names.setdefault(wd, set()).add(os.fsdecode(fresh))
            if wd < 0:
                # So watchdog says that we may not look into it.
                self._remove(fresh)
                self._refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _remove(self, directory: bytes) -> None:
        wd: Any = self._watches.pop(directory)
        del self._identities[directory]
        name: Any = directory
        self._names[wd].discard(os.fsdecode(directory))
        if not self._names[wd]:
            del self._names[wd]
        if self._inotify is not None:
            self._inotify.remove_callbacks([(wd, name)])

    def _look(self, paths: Iterable[str]) -> None:
        """What happened before the watch was set, nobody tells."""
        self._touched.update(path for path in paths if self._differs(path))

    def _differs(self, path: str) -> bool:
        watch = self._paths.get(path)
        return watch is not None and stamp(path) != watch.stamp

    def read(self) -> None:
        """Take in what the kernel has to tell; only when the descriptor is ready."""
        if self._inotify is not None:
            for event in self._inotify.read_events():
                self._inotify.handle_event(event)

    def take(self) -> tuple[set[str], bool]:
        """The resources that may have drifted, and whether events were lost, since the last call.

        What is again as the last run left it is nothing: our own writes are that, too.
        """
        touched, self._touched = self._touched, set()
        lost, self._lost = self._lost, False
        ids: set[str] = set()
        for path in filter(self._differs, touched):
            ids.update(self._paths[path].ids)
        return ids, lost

    # -- called by watchdog, within `read` ------------------------------------------------

    def on_event(self, event: InotifyEvent) -> None:
        """An event in a directory, or of it."""
        for directory in tuple(self._names.get(int(event.wd), ())):
            path = os.path.join(directory, os.fsdecode(event.name)) if event.name else directory
            if path in self._paths:
                self._touched.add(path)
            if event.is_delete_self or event.is_move_self:
                self._lost = True
            if event.is_move_self:
                # It tells from elsewhere now; whatever takes its place is watched by the next set.
                self._remove(os.fsencode(directory))

    def on_watch_deleted(self, wd: int) -> None:
        """A directory is gone, and with it all that it held."""
        for name in self._names.pop(int(wd), ()):
            self._watches.pop(os.fsencode(name), None)
            self._identities.pop(os.fsencode(name), None)
            self._lost = True

    def on_queue_overflow(self) -> None:
        """Events were lost."""
        self.overflows += 1
        self._lost = True

    def close(self) -> None:
        """Let go of all watches."""
        if self._inotify is not None:
            self._inotify.close()


def _above(path: str) -> bytes:
    """The directory whose events tell of a path."""
    return os.fsencode(os.path.dirname(path))


def _identity(directory: bytes) -> Identity:
    """What no other directory that there is shares; None where there is nothing."""
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino
