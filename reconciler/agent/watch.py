"""Events of files: one inotify instance and one thread, on the directories that matter.

watchdog's Observer has a thread for each directory; below it is what we need, with its word on
lost events: then a sweep is due, since nobody knows what was missed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD, Mask

from reconciler.agent.hints import signature

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
OURS: Any = 1


class Watcher:
    """Says which resources may have drifted. wake: called from the thread, after `take` has news."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._paths: Mapping[str, Any] = {}
        self._touched: set[str] = set()
        self._lost = False
        self.overflows = 0
        self._watches: dict[bytes, int] = {}
        self._names: dict[int, str] = {}
        self._inotify = InotifyFD()
        self._inotify.daemon = True
        self._inotify.start()

    @property
    def alive(self) -> bool:
        """Whether events still come."""
        return self._inotify.is_alive()

    @property
    def count(self) -> int:
        """How many paths are watched."""
        return len(self._paths)

    def set(self, paths: Mapping[str, Any]) -> None:
        """Watch these paths, each with the signature that it should have and its resources."""
        directories = {os.fsencode(os.path.dirname(path)) for path in paths}
        # A directory that is watched itself tells of what happens to it, too.
        for gone in self._watches.keys() - directories:
            wd = self._watches.pop(gone)
            self._names.pop(wd, None)
            self._inotify.remove_callbacks([(wd, OURS)])  # type: ignore[list-item]  # their own kinds of int
        with self._lock:
            self._paths = paths
        for fresh in directories - self._watches.keys():
            with contextlib.suppress(
                OSError
            ):  # not there: whatever makes it is not seen, but swept
                wd = int(self._inotify.add_callback(fresh, MASK, self, OURS))
                self._watches[fresh] = wd
                self._names[wd] = os.fsdecode(fresh)
        # What happened before the watch was set, nobody tells.
        self.look(paths)

    def look(self, paths: Iterable[str]) -> None:
        """Compare paths with what they should be, as if an event had told of them."""
        for path in paths:
            entry = self._paths.get(path)
            if entry is not None and signature(path) != entry[0]:
                with self._lock:
                    self._touched.add(path)
        if self._touched:
            self._wake()

    def take(self) -> tuple[set[str], bool]:
        """The resources that may have drifted, and whether events were lost, since the last call.

        What is again as the last run left it is nothing: our own writes are that, too.
        """
        with self._lock:
            touched, self._touched = self._touched, set()
            lost, self._lost = self._lost, False
        ids: set[str] = set()
        for path in touched:
            entry = self._paths.get(path)
            if entry is not None and signature(path) != entry[0]:
                ids.update(entry[1])
        return ids, lost

    # -- called by watchdog's thread -----------------------------------------------------

    def on_event(self, event: InotifyEvent) -> None:
        """An event in a directory, or of it."""
        directory = self._names.get(int(event.wd))
        if directory is None:
            return
        path = os.path.join(directory, os.fsdecode(event.name)) if event.name else directory
        if path in self._paths:
            with self._lock:
                self._touched.add(path)
            self._wake()
        elif event.is_delete_self or event.is_move_self:
            self._directory_moved()

    def on_watch_deleted(self, wd: int) -> None:
        """A directory is gone, and with it all that it held."""
        name = self._names.pop(int(wd), None)
        if name is not None:
            self._watches.pop(os.fsencode(name), None)
            self._directory_moved()

    def on_queue_overflow(self) -> None:
        """Events were lost."""
        self.overflows += 1
        self._directory_moved()

    def _directory_moved(self) -> None:
        with self._lock:
            self._lost = True
        self._wake()

    def close(self) -> None:
        """End the thread."""
        self._inotify.stop()
