"""Where inventory files come from: the state repo, or the disk of whoever runs the command."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from reconciler.errors import InventoryError
from reconciler.tree import Entry, Tree

#: Longest inventory file that is read, in bytes.
MAX_BYTES = 64 << 20
#: Runs a program: (path, arguments) -> what it prints. Raises ConfigError.
Run = Callable[[str, Sequence[str]], bytes]


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


class Unreadable(InventoryError):
    """Something is there, or is said to be, and cannot be read."""


@runtime_checkable
class Runner(Protocol):
    """A Reader whose programs may be run. A `Tree` is none: reading a commit never runs its code."""

    def run(self, path: str, arguments: Sequence[str]) -> bytes:
        """What the program at `path` prints. Raises ConfigError."""
        ...


class Disk:
    """The file system, as the operator sees it: relative to the current directory, with links.

    The path comes from the command line, so nothing is gained by refusing what it leads to.
    program: runs the programs among what is found; without it they are refused.
    """

    def __init__(self, program: Run | None = None) -> None:
        self._program = program

    def run(self, path: str, arguments: Sequence[str]) -> bytes:
        """See Runner."""
        if self._program is None:
            raise InventoryError(
                f"{path} is a program, and inventory programs are not run here",
                hint="write what it prints to a file: ansible-inventory -i PROGRAM --list --yaml",
            )
        return self._program(path, arguments)

    def entry(self, path: str) -> Entry | None:
        """See Reader."""
        try:
            found = os.stat(path)
        except PermissionError as error:
            raise _unreadable(path, error) from error
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
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(path, error) from error
        paths = [os.path.join(path, name) for name in names]
        # A link that leads nowhere is not left out: whoever reads it says so.
        return [self.entry(one) or Entry(one, "link") for one in paths]

    def read(self, path: str) -> bytes:
        """See Reader."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InventoryError(f"{path} is not a file")
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(data) > MAX_BYTES:
            raise InventoryError(f"{path} has more than {MAX_BYTES} bytes")
        return data


def _unreadable(path: str, error: OSError) -> Unreadable:
    return Unreadable(f"cannot read {path}: {(error.strerror or str(error)).lower()}")


class Places:
    """The state repo first, then the disk: `-i inventories/production` means the repo's own.

    A program is run only where its path leads to the disk: the operator has named it, while what
    is in the repo may be somebody's pull request.
    """

    def __init__(self, tree: Tree, program: Run | None = None) -> None:
        self._tree = tree
        self._disk = Disk(program)

    def in_tree(self, path: str) -> bool:
        """Whether `path` is a part of the state repo."""
        inside = not path.startswith(("/", "~")) and ".." not in path.split("/")
        return inside and self._tree.entry(path) is not None

    def reader(self, path: str) -> Reader:
        """Where `path` is read from, and what lies beside it."""
        return self._tree if self.in_tree(path) else self._disk

    def run(self, path: str, arguments: Sequence[str]) -> bytes:
        """See Runner."""
        if self.in_tree(path):
            raise InventoryError(
                f"{path} is a program of the state repo, and reading a state repo runs none of its code",
                hint="where it is to be trusted, name its directory from the root: -i /path/to/inventory",
            )
        return self._disk.run(path, arguments)

    def entry(self, path: str) -> Entry | None:
        """See Reader."""
        return self.reader(path).entry(path)

    def listdir(self, path: str) -> list[Entry]:
        """See Reader."""
        return self.reader(path).listdir(path)

    def read(self, path: str) -> bytes:
        """See Reader."""
        return self.reader(path).read(path)
