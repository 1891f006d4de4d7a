"""The files of one commit, read from Git objects: nothing is ever checked out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from reconciler.errors import Damaged, SourceError, UsageError
from reconciler.source.git import Git, check_ref
from reconciler.source.listing import MAX_FILE, Listing
from reconciler.source.objects import Objects
from reconciler.source.refs import is_id
from reconciler.source.signed import lineage, tagged
from reconciler.source.treeobjects import DIRECTORY, LINK, SUBMODULE, Named, below
from reconciler.tree import Entry
from reconciler.words import did_you_mean

_DAMAGED = "git fsck tells what else is; a fresh clone repairs it"
Kind = Literal["file", "directory", "link", "submodule"]
_KINDS: dict[str, Kind] = {
    DIRECTORY: "directory",
    LINK: "link",
    SUBMODULE: "submodule",
    "100644": "file",
    "100664": "file",
    "100755": "file",
}
#: Tags of tags that are followed to a commit.
_MAX_TAGS = 8


class GitTree:
    """A `Tree` of the commit that `ref` names when this is made.

    What is read is what the id of the commit says, whoever could write into the repository. Raises
    UsageError for an unknown ref, ConfigError where there is no repository, SourceError.
    """

    dirty = False

    def __init__(self, directory: str, ref: str) -> None:
        self._git = Git(directory)
        self._objects = Objects(self._git)
        self.commit, raw = self._resolve(ref)
        self._tree = lineage(self.commit, raw).tree
        if not self._git.top:
            tree = self._objects.find(f"{self.commit}:./")
            if tree is None or tree.kind != "tree":
                raise UsageError(f"{directory} is not a directory in {ref}")
            self._tree = tree.id
        self._listing = Listing(self._entries(list(below(self._objects, self._tree))))

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

    def _resolve(self, ref: str) -> tuple[str, bytes]:
        """The id and content of a commit. A full id stands for that object and no other."""
        name = check_ref(ref)
        if not is_id(name):
            name = f"{name}^{{commit}}"
        for _ in range(_MAX_TAGS):
            found = self._objects.read(name, MAX_FILE)
            if found is None or found[0].kind not in ("commit", "tag"):
                break
            if found[0].kind == "commit":
                return found[0].id, found[1]
            name = tagged(found[1])
        known = self._git.ref_names()
        raise UsageError(
            f"there is no commit {ref!r} in {self._git.directory}", hint=_suggestion(ref, known)
        )

    def _entries(self, names: list[Named]) -> Iterator[Entry]:
        kinds: list[Kind] = [_kind(name) for name in names]
        blobs = [name.id for name, kind in zip(names, kinds, strict=True) if kind == "file"]
        sizes = iter(self._sizes(blobs))
        for name, kind in zip(names, kinds, strict=True):
            if kind != "file":
                yield Entry(name.path, kind)
                continue
            size = next(sizes)
            if not size.isdigit():
                raise Damaged(f"the content of {name.path} is damaged or missing", hint=_DAMAGED)
            yield Entry(name.path, kind, name.id, int(size), name.mode == "100755")

    def _sizes(self, blobs: list[str]) -> list[str]:
        """In bytes, as git says; a content that has another size is not what its id says."""
        if not blobs:
            return []
        asked = "".join(f"{id_}\n" for id_ in blobs).encode()
        check = ("cat-file", "--batch-check=%(objectsize)", "--buffer")
        return self._git.run(*check, feed=asked).decode("ascii", "replace").splitlines()


def _kind(name: Named) -> Kind:
    kind = _KINDS.get(name.mode)
    if kind is None:
        raise SourceError(f"{name.path} has the unknown mode {name.mode}", hint=_DAMAGED)
    return kind


def _missing(entry: Entry) -> Damaged:
    return Damaged(
        f"the content of {entry.path} is not in the repository",
        hint="a partial clone has no content: git fetch --refetch --no-filter",
    )


def _suggestion(ref: str, known: list[str]) -> str:
    others = f"there are {', '.join(known[:8])}" if known else "it has no branch or tag yet"
    return did_you_mean(ref, known) or others
