"""The names of a tree, and what both kinds of trees say about them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from reconciler.errors import ConfigError, Mark
from reconciler.tree import Entry, clean

#: Longest file of a state repo that is read as a whole, in bytes; longer ones are streamed.
MAX_FILE = 64 << 20
#: Names that one state repo may hold.
MAX_NAMES = 500_000
#: Directories below each other.
MAX_DEPTH = 64
#: Longest path in a state repo, in bytes: no Linux opens a longer one.
MAX_PATH = 4096
#: Characters of all its paths together.
MAX_PATHS = 64 << 20

_WHAT = {
    "link": ("is a link", "links are not followed: put the file itself there"),
    "submodule": (
        "is another Git repository",
        "submodules are not read: copy the files into the state repo",
    ),
    "directory": ("is a directory", "name a file in it"),
}


class Listing:
    """Entries by path. Directories need not be given: every parent of an entry is one."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries: dict[str, Entry] = {"": Entry("", "directory")}
        self._children: dict[str, dict[str, Entry]] = {"": {}}
        for entry in entries:
            self._add(entry)
            check_count(len(self._entries))

    def _add(self, entry: Entry) -> None:
        while entry.path not in self._entries:
            self._entries[entry.path] = entry
            if entry.kind == "directory":
                self._children.setdefault(entry.path, {})
            parent = posixpath.dirname(entry.path)
            self._children.setdefault(parent, {})[entry.path] = entry
            entry = Entry(parent, "directory")

    def entry(self, path: str) -> Entry | None:
        """What is at `path`. Raises ConfigError for a path that leaves the tree."""
        return self._entries.get(clean(path))

    def listdir(self, path: str) -> list[Entry]:
        """The entries of a directory by name. Raises ConfigError as `entry`."""
        children = self._children.get(clean(path), {})
        return [children[name] for name in sorted(children)]

    def file(self, path: str) -> Entry:
        """The file at `path`. Raises ConfigError for anything else."""
        wanted = clean(path)
        found = self._entries.get(wanted)
        if found is None:
            for parent in _parents(wanted):
                above = self._entries.get(parent)
                if above is not None and above.kind in ("link", "submodule"):
                    raise _refused(above)
            raise ConfigError(f"{wanted} is not in the state repo", mark=Mark(wanted))
        if found.kind != "file":
            raise _refused(found)
        return found

    def small_file(self, path: str) -> Entry:
        """The same, if it can be read as a whole. Raises ConfigError."""
        found = self.file(path)
        if found.size > MAX_FILE:
            raise ConfigError(
                f"{found.path} has {found.size} bytes, more than the limit of {MAX_FILE}",
                mark=Mark(found.path),
                hint="such a file can be copied, but not be read as YAML or as a template",
            )
        return found

    def all(self) -> list[Entry]:
        """Everything below the top, by path."""
        return [self._entries[path] for path in sorted(self._entries) if path]


def check_count(names: int) -> None:
    """Raises ConfigError for more names than a state repo may hold."""
    if names > MAX_NAMES:
        raise ConfigError(f"the state repo has more than {MAX_NAMES} files")


def check_paths(characters: int) -> None:
    """Raises ConfigError for longer paths, all together, than a state repo may have.

    A few small objects can stand for very many of them, so it is asked while they are made.
    """
    if characters > MAX_PATHS:
        raise ConfigError(
            f"the paths of the state repo have more than {MAX_PATHS} characters together",
            hint="shorten the names of the directories that most files are in",
        )


def _parents(path: str) -> Iterable[str]:
    while path := posixpath.dirname(path):
        yield path


def _refused(entry: Entry) -> ConfigError:
    what, hint = _WHAT[entry.kind]
    return ConfigError(f"{entry.path} {what}", mark=Mark(entry.path), hint=hint)
