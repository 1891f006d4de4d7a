"""A read-only view of a state repo: the files of one commit, or of a work tree.

Compile reads through a `Tree` and nothing else, so it cannot see the machine that it runs on.
`reconciler.source` has the two kinds: Git objects, and a directory for development.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from reconciler.errors import ConfigError


class Entry(NamedTuple):
    """One name in a tree.

    path: relative to the top, with `/`. blob: an id of the content, equal only for equal
    content ("" for anything but a file). size: in bytes.
    """

    path: str
    kind: Literal["file", "directory", "link", "submodule"]
    blob: str = ""
    size: int = 0
    executable: bool = False


class Tree(Protocol):
    """What compile may ask. Paths are relative; `clean` says which are accepted."""

    @property
    def commit(self) -> str:
        """The full id, "" where there is none."""
        ...

    @property
    def dirty(self) -> bool:
        """Whether it may differ from that commit."""
        ...

    @property
    def key(self) -> str:
        """Equal only for trees whose every file is equal; the cache of catalogs stands on it."""
        ...

    def entry(self, path: str) -> Entry | None:
        """What is at `path`; None if nothing is."""
        ...

    def listdir(self, path: str) -> list[Entry]:
        """The entries of a directory by name; none if it is not there."""
        ...

    def read(self, path: str) -> bytes:
        """The content of a file. Raises ConfigError for a link, a directory, a missing file, and
        one that is too large to be held."""
        ...

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file of any size, a piece at a time. Raises like `read`."""
        ...


def clean(path: str) -> str:
    """`path` without empty and `.` parts. Raises ConfigError for a path that leaves the tree.

    The message is the same whether or not such a path exists on this machine.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith(("/", "~")) or ".." in parts or "\0" in path:
        raise ConfigError(
            f"{path!r} is outside of the state repo",
            hint="name a file of the state repo, relative to it",
        )
    return "/".join(parts)
