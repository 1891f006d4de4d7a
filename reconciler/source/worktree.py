"""A directory as a tree, for development: what `git add --all` would take, as it is on disk.

Every file is read once, when the tree is first asked about its content, through directory
descriptors that follow no link. Two git processes run meanwhile: one lists the names, one
reads the trees of HEAD. Contents are compared byte for byte with HEAD, by the ids that git
gives them, so no filter that a repository configures ever runs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reconciler.errors import ConfigError, Mark
from reconciler.source.git import CHUNK, Git, collect, end
from reconciler.source.listing import MAX_DEPTH, Listing
from reconciler.source.objects import Objects
from reconciler.source.treeobjects import DIRECTORY, LINK, SUBMODULE, below
from reconciler.tree import Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Head(NamedTuple):
    """commit: "" before the first one. files: path -> (executable or link mode, id)."""

    commit: str
    files: dict[str, tuple[str, str]]


class _Scan(NamedTuple):
    listing: Listing
    key: str
    dirty: bool
    commit: str


class WorkTree:
    """A `Tree` of a directory. Raises UsageError where there is none, SourceError, TrustError."""

    def __init__(self, directory: str) -> None:
        self._git = Git(directory)
        self._top = self._git.directory

    @property
    def commit(self) -> str:
        """HEAD; "" outside of a repository and before the first commit."""
        return self._scan.commit

    @property
    def dirty(self) -> bool:
        """Whether any file differs from HEAD."""
        return self._scan.dirty

    @property
    def key(self) -> str:
        """A digest over path, mode and content of every file."""
        return self._scan.key

    def entry(self, path: str) -> Entry | None:
        """See Tree."""
        return self._scan.listing.entry(path)

    def listdir(self, path: str) -> list[Entry]:
        """See Tree."""
        return self._scan.listing.listdir(path)

    def read(self, path: str) -> bytes:
        """See Tree. Raises ConfigError as well if the file has changed since the tree was made."""
        entry = self._scan.listing.small_file(path)
        return b"".join(self._chunks(entry))

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a file of any size, in pieces. Raises ConfigError as `read`, at the end."""
        return self._chunks(self._scan.listing.file(path))

    def close(self) -> None:
        """Nothing stays open."""

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        digest = hashlib.sha256()
        fd = _open_beneath(self._top, entry.path)
        try:
            while piece := os.read(fd, CHUNK):
                digest.update(piece)
                yield piece
        except OSError as error:
            raise _unreadable(entry.path, error) from error
        finally:
            os.close(fd)
        if digest.hexdigest() != entry.blob:
            raise _changed(entry.path)

    @functools.cached_property
    def _scan(self) -> _Scan:
        names, head = self._ask_git() or (None, None)
        if names is None:
            names = sorted(_walk(self._top))
        found = list(_read_all(self._top, names, _algorithm(head)))
        key = hashlib.sha256()
        for entry, _ in found:
            record = f"{entry.path}\0{entry.kind}{entry.executable:d}\0{entry.blob}\0"
            key.update(record.encode("utf-8", "surrogateescape"))
        dirty = head is None or not head.commit or head.files != _as_head(found)
        listing = Listing(entry for entry, _ in found)
        return _Scan(listing, f"files:{key.hexdigest()}", dirty, head.commit if head else "")

    def _ask_git(self) -> tuple[list[str], _Head] | None:
        """The names that count, and HEAD; None for a directory that is no part of a repository."""
        if self._git.bare:
            raise ConfigError(
                f"{self._top} is a bare repository: it has no files of its own",
                hint="name a commit: --ref main",
            )
        if not self._git.top and not _in_repository(self._top):
            return None
        listing = self._git.start("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        objects = Objects(self._git)
        try:
            head = _head(objects, "^{tree}" if self._git.top else ":./")
            names = collect(listing, self._top).split(b"\0")[:-1]
        finally:
            end(listing)
            objects.close()
        if not names and not head.files and not self._git.top:
            return None  # a repository further up that ignores this directory
        return sorted({name.decode("utf-8", "surrogateescape") for name in names}), head


# -- HEAD ------------------------------------------------------------------------------------


def _head(objects: Objects, within: str) -> _Head:
    commit = objects.find("HEAD^{commit}")
    if commit is None:
        return _Head("", {})
    tree = objects.find(commit.id + within)
    if tree is None or tree.kind != "tree":
        return _Head(commit.id, {})  # the directory is not in HEAD
    files = {
        name.path: (name.mode if name.mode in (LINK, "100755") else "100644", name.id)
        for name in below(objects, tree.id)
        if name.mode not in (DIRECTORY, SUBMODULE)
    }
    return _Head(commit.id, files)


def _as_head(found: Iterable[tuple[Entry, str]]) -> dict[str, tuple[str, str]]:
    modes = {("file", True): "100755", ("file", False): "100644", ("link", False): LINK}
    return {
        entry.path: (modes[entry.kind, entry.executable], id_)
        for entry, id_ in found
        if entry.kind in ("file", "link")
    }


def _algorithm(head: _Head | None) -> str:
    """What git calls contents with; "" if there is nothing to compare."""
    if head is None or not head.commit:
        return ""
    return "sha1" if len(head.commit) == 40 else "sha256"


def _in_repository(directory: str) -> bool:
    parent = directory
    while (above := os.path.dirname(parent)) != parent:
        parent = above
        if os.path.lexists(os.path.join(parent, ".git")):
            return True
    return False


# -- the disk --------------------------------------------------------------------------------


def _walk(top: str, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Every name below a directory that is no directory, without `.git`."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{prefix}: more than {MAX_DEPTH} directories below each other")
    try:
        with os.scandir(os.path.join(top, prefix)) as entries:
            for entry in entries:
                if entry.name == ".git":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(top, f"{prefix}{entry.name}/", depth + 1)
                else:
                    yield prefix + entry.name
    except OSError as error:
        raise _unreadable(prefix or top, error) from error


class _Descent:
    """The open directories on the way to one path after another; none of them is a link."""

    def __init__(self, top: str) -> None:
        self._path = ""
        self._names: list[str] = []
        self._fds = [os.open(top, _DIRECTORY & ~os.O_NOFOLLOW)]

    def parent(self, path: str) -> int:
        """The open directory that `path` is in. Raises OSError."""
        wanted = path[: path.rfind("/") + 1]
        if wanted == self._path:
            return self._fds[-1]
        names = wanted.split("/")[:-1]
        while self._names != names[: len(self._names)]:
            self._names.pop()
            os.close(self._fds.pop())
        self._path = ""
        for name in names[len(self._names) :]:
            self._fds.append(os.open(name, _DIRECTORY, dir_fd=self._fds[-1]))
            self._names.append(name)
        self._path = wanted
        return self._fds[-1]

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


def _read_all(top: str, names: list[str], algorithm: str) -> Iterator[tuple[Entry, str]]:
    """Each name as it is on disk, with git's id of its content; names that are gone are left out."""
    with contextlib.closing(_Descent(top)) as descent:
        for name in names:
            path = name.rstrip("/")
            try:
                above = descent.parent(path)
                if name.endswith("/"):  # git lists a repository in the repository like this
                    yield Entry(path, "submodule"), ""
                else:
                    yield _read_one(path, path[path.rfind("/") + 1 :], above, algorithm)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unreadable(path, error) from error


def _read_one(path: str, name: str, above: int, algorithm: str) -> tuple[Entry, str]:
    try:
        fd = os.open(name, _FILE, dir_fd=above)
    except OSError:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return _link(path, os.readlink(name, dir_fd=above), algorithm)
        raise
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            return Entry(path, "submodule"), ""
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} is neither a file nor a directory", mark=Mark(path))
        return _file(path, fd, found, algorithm)
    finally:
        os.close(fd)


def _file(path: str, fd: int, found: os.stat_result, algorithm: str) -> tuple[Entry, str]:
    content = hashlib.sha256()
    name = hashlib.new(algorithm, usedforsecurity=False) if algorithm else None
    if name is not None:
        name.update(b"blob %d\0" % found.st_size)
    size = 0
    while True:
        wanted = min(CHUNK, max(found.st_size - size, 0) + 1)
        piece = os.read(fd, wanted)
        size += len(piece)
        content.update(piece)
        if name is not None:
            name.update(piece)
        if not piece or (len(piece) < wanted and size >= found.st_size):
            break  # of a regular file a short piece is the last one
    if size != found.st_size:
        raise _changed(path)
    executable = bool(found.st_mode & 0o100)
    return Entry(
        path, "file", content.hexdigest(), size, executable
    ), name.hexdigest() if name else ""


def _link(path: str, target: str, algorithm: str) -> tuple[Entry, str]:
    data = os.fsencode(target)
    head = b"blob %d\0" % len(data)
    id_ = (
        hashlib.new(algorithm, head + data, usedforsecurity=False).hexdigest() if algorithm else ""
    )
    return Entry(path, "link", hashlib.sha256(data).hexdigest()), id_


def _open_beneath(top: str, path: str) -> int:
    try:
        with contextlib.closing(_Descent(top)) as descent:
            return os.open(posixpath.basename(path), _FILE, dir_fd=descent.parent(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}", mark=Mark(path))


def _changed(path: str) -> ConfigError:
    return ConfigError(
        f"{path} was changed while it was read", mark=Mark(path), hint="run the command again"
    )
