"""The files of one commit, read from Git objects: nothing is ever checked out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from reconciler.errors import SourceError, UsageError
from reconciler.source.git import Git, Object, Objects, check_ref
from reconciler.source.listing import MAX_FILE, Listing
from reconciler.tree import Entry
from reconciler.words import did_you_mean

_DAMAGED = "git fsck tells what else is; a fresh clone repairs it"
Kind = Literal["file", "directory", "link", "submodule"]
_KINDS: dict[str, Kind] = {
    "040000": "directory",
    "120000": "link",
    "160000": "submodule",
    "100644": "file",
    "100664": "file",
    "100755": "file",
}


class GitTree:
    """A `Tree` of the commit that `ref` names when this is made.

    Raises UsageError for an unknown ref, ConfigError where there is no repository, SourceError.
    """

    dirty = False

    def __init__(self, directory: str, ref: str) -> None:
        self._git = Git(directory)
        self._objects = Objects(self._git)
        self.commit = self._resolve(ref).id
        within = "^{tree}" if self._git.top else ":./"
        tree = self._objects.find(self.commit + within)
        if tree is None or tree.kind != "tree":
            raise UsageError(f"{directory} is not a directory in {ref}")
        self._tree = tree.id
        listing = self._git.run("ls-tree", "-r", "-t", "-z", "-l", "--full-tree", self._tree)
        self._listing = Listing(_entries(listing))

    @property
    def key(self) -> str:
        """The id of the tree object."""
        return f"git:{self._tree}"

    def entry(self, path: str) -> Entry | None:
        """See Tree."""
        return self._listing.entry(path)

    def listdir(self, path: str) -> list[Entry]:
        """See Tree."""
        return self._listing.listdir(path)

    def read(self, path: str) -> bytes:
        """See Tree. Raises ConfigError for more than MAX_FILE bytes as well."""
        entry = self._listing.small_file(path)
        found = self._objects.read(entry.blob, MAX_FILE)
        if found is None:
            raise _missing(entry)
        return found[1]

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file of any size, in pieces; to be used up before the next read."""
        entry = self._listing.file(path)
        if self._objects.find(entry.blob) is None:
            raise _missing(entry)
        yield from self._objects.content()

    def close(self) -> None:
        """End the git process; the tree itself ends it too when it is forgotten."""
        self._objects.close()

    def _resolve(self, ref: str) -> Object:
        found = self._objects.find(f"{check_ref(ref)}^{{commit}}")
        if found is None:
            known = self._git.ref_names()
            raise UsageError(
                f"there is no commit {ref!r} in {self._git.directory}", hint=_suggestion(ref, known)
            )
        return found


def _entries(listing: bytes) -> Iterator[Entry]:
    """From the lines of ls-tree: `MODE TYPE ID SIZE<tab>PATH<nul>`."""
    for line in listing.split(b"\0")[:-1]:
        head, _, name = line.partition(b"\t")
        mode, _, blob, size = head.decode("ascii").split()
        kind = _KINDS.get(mode)
        path = name.decode("utf-8", "surrogateescape")
        if kind is None:
            raise SourceError(f"{path} has the unknown mode {mode}", hint=_DAMAGED)
        if kind == "file":
            if not size.isdigit():
                raise SourceError(f"the content of {path} is damaged", hint=_DAMAGED)
            yield Entry(path, kind, blob, int(size), mode == "100755")
        else:
            yield Entry(path, kind)


def _missing(entry: Entry) -> SourceError:
    return SourceError(
        f"the content of {entry.path} is not in the repository",
        hint="a partial clone has no content: git fetch --refetch --no-filter",
    )


def _suggestion(ref: str, known: list[str]) -> str:
    others = f"there are {', '.join(known[:8])}" if known else "it has no branch or tag yet"
    return did_you_mean(ref, known) or others
