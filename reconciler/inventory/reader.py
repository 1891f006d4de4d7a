"""Where inventory files come from: the state repo, or the disk of whoever runs the command."""

from __future__ import annotations

import os
import stat
from typing import Protocol

from reconciler.errors import InventoryError
from reconciler.tree import Entry, Tree

#: Longest inventory file that is read, in bytes.
MAX_BYTES = 64 << 20


class Reader(Protocol):
    """What the inventory asks of files; a `Tree` is one, and so is `Disk`."""

    def entry(self, path: str) -> Entry | None:
        """What is at `path`; None if nothing is."""
        ...

    def listdir(self, path: str) -> list[Entry]:
        """The entries of a directory by name; none if it is not there."""
        ...

    def read(self, path: str) -> bytes:
        """The content of a file. Raises ConfigError."""
        ...


class Disk:
    """The file system, as the operator sees it: relative to the current directory, with links.

    The path comes from the command line, so nothing is gained by refusing what it leads to.
    """

    def entry(self, path: str) -> Entry | None:
        """See Reader."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        if stat.S_ISDIR(found.st_mode):
            return Entry(path, "directory")
        executable = bool(found.st_mode & 0o111)
        return Entry(path, "file", size=found.st_size, executable=executable)

    def listdir(self, path: str) -> list[Entry]:
        """See Reader."""
        try:
            names = sorted(os.listdir(path))
        except NotADirectoryError:
            return []
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InventoryError(f"cannot read {path}: {error.strerror}") from error
        found = (self.entry(os.path.join(path, name)) for name in names)
        return [entry for entry in found if entry is not None]

    def read(self, path: str) -> bytes:
        """See Reader."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InventoryError(f"{path} is not a file")
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InventoryError(f"cannot read {path}: {error.strerror}") from error
        if len(data) > MAX_BYTES:
            raise InventoryError(f"{path} has more than {MAX_BYTES} bytes")
        return data


class Places:
    """The state repo first, then the disk: `-i inventories/production` means the repo's own."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._disk = Disk()

    def _reader(self, path: str) -> Reader:
        inside = not path.startswith(("/", "~")) and ".." not in path.split("/")
        return self._tree if inside and self._tree.entry(path) is not None else self._disk

    def entry(self, path: str) -> Entry | None:
        """See Reader."""
        return self._reader(path).entry(path)

    def listdir(self, path: str) -> list[Entry]:
        """See Reader."""
        return self._reader(path).listdir(path)

    def read(self, path: str) -> bytes:
        """See Reader."""
        return self._reader(path).read(path)
