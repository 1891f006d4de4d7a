"""The file system, through directory descriptors: nothing here follows a planted link.

A program that runs as root looks into directories that other users own. Between a check by
name and an act by name they can put a link there. So every path is walked from the root, one
directory descriptor after the other, each opened with O_NOFOLLOW, and whatever is done is relative
to the last descriptor: looking here, acting in `safewrite`.

Links on the way are followed only if root (or we) own both the link and the directory it is
in: `/var/run` and a usr-merged `/bin` work, a link in somebody's home does not. Once the walk
is in a directory that somebody else owns, what comes next must have that same owner; else it
was moved there (CVE-2017-18078, CVE-2018-6954: the same checks in systemd are `CHASE_SAFE`).

Paths are absolute text, undecodable bytes as surrogates. A tree with another root resolves
absolute links below that root, like chroot.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from reconciler.errors import ResourceError, UnsafePath

MAX_LINKS = 40
CHUNK = 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
O_PATH = 0o10000000  # not in `os` before 3.10


class Place(NamedTuple):
    """A name in an open directory, and whether only root can put things there."""

    fd: int
    name: str
    trusted: bool


def split(path: str) -> list[str]:
    """The components of an absolute path. Raises UnsafePath for `..`, NUL and relative paths."""
    if not path.startswith("/") or "\0" in path:
        raise UnsafePath(f"{path!r} is not an absolute path")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafePath(f"{path!r} contains '..'")
    return parts


class Looking:
    """A file system below `root`, to look at."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._safe = (0, os.geteuid())
        self._kept: dict[str, tuple[int, bool]] = {}
        self._keeping = False

    def close(self) -> None:
        """Give all descriptors back."""
        self._forget_kept()
        os.close(self._root_fd)

    # -- walking -------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within this, parents stay open: one walk for all the files of a directory.

        Only for looking: whoever acts walks again, so that it meets the machine of now.
        """
        self._keeping = True
        try:
            yield
        finally:
            self._keeping = False
            self._forget_kept()

    def _forget_kept(self) -> None:
        for fd, _ in self._kept.values():
            os.close(fd)
        self._kept.clear()

    @contextmanager
    def parent(self, path: str) -> Iterator[Place]:
        """The open directory that holds `path`. Raises OSError, UnsafePath."""
        parts = split(path)
        if not parts:
            raise UnsafePath("the root directory itself cannot be managed")
        directory = "/" + "/".join(parts[:-1])
        kept = self._kept.get(directory) if self._keeping else None
        fd, trusted = kept or self._walk(parts[:-1])
        if self._keeping and kept is None and len(self._kept) < 256:
            self._kept[directory] = kept = (fd, trusted)
        try:
            yield Place(fd, parts[-1], trusted)
        finally:
            if kept is None:
                os.close(fd)

    def _walk(self, parts: list[str]) -> tuple[int, bool]:
        """Open the directory `parts`, link by link. The caller closes the descriptor."""
        todo = list(reversed(parts))
        chain = [os.dup(self._root_fd)]
        links = 0
        try:
            while todo:
                text = self._step(chain, todo.pop(), parts)
                if text is None:
                    continue
                links += 1
                if links > MAX_LINKS:
                    raise UnsafePath(f"too many links on the way to /{'/'.join(parts)}")
                if text.startswith("/"):
                    while len(chain) > 1:
                        os.close(chain.pop())
                todo.extend(p for p in reversed(text.split("/")) if p not in ("", "."))
            return os.dup(chain[-1]), self._only_ours(os.fstat(chain[-1]))
        finally:
            for fd in chain:
                os.close(fd)

    def _step(self, chain: list[int], part: str, parts: list[str]) -> str | None:
        """Enter `part` of the last directory of the chain; or the text of the link that it is."""
        if part == "..":  # only from the text of a link that root made
            if len(chain) > 1:
                os.close(chain.pop())
            return None
        owner = os.fstat(chain[-1]).st_uid
        try:
            fd = os.open(part, DIRECTORY, dir_fd=chain[-1])
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            return self._trusted_link(chain[-1], owner, part, error)
        chain.append(fd)
        entered = os.fstat(fd).st_uid
        if owner not in self._safe and entered != owner:
            raise UnsafePath(
                f"'{part}' on the way to /{'/'.join(parts)} belongs to uid {entered}, but lies "
                f"in a directory of uid {owner}, who could have put it there",
                hint=f"declare its owner: uid {owner}, as the directory that it is in",
            )
        return None

    def _only_ours(self, directory: os.stat_result) -> bool:
        """Whether nobody but root (or we) can put things into a directory."""
        by_group = directory.st_mode & 0o020 and directory.st_gid != 0
        return directory.st_uid in self._safe and not by_group and not directory.st_mode & 0o002

    def _trusted_link(self, fd: int, owner: int, name: str, error: OSError) -> str:
        """The text of the link `name`, if nobody but root can have made it."""
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            raise error
        # Anybody can make a hard link to a link of root, where the kernel does not forbid it.
        borrowed = found.st_nlink > 1 and not self._only_ours(os.fstat(fd))
        if found.st_uid not in self._safe or owner not in self._safe or borrowed:
            raise UnsafePath(
                f"'{name}' is a symbolic link that uid {found.st_uid if owner in self._safe else owner} "
                "may have put there; it is not followed",
                hint="remove the link, or declare the path that it points to",
            )
        return os.readlink(name, dir_fd=fd)

    def resolve(self, path: str) -> str:
        """Where `path` leads: its last component's links followed, by the rule for those on the way.

        Raises UnsafePath, OSError.
        """
        for _ in range(MAX_LINKS):
            try:
                with self.parent(path) as place:
                    found = stat_at(place)
                    if found is None or not stat.S_ISLNK(found.st_mode):
                        return path
                    owner = os.fstat(place.fd).st_uid
                    text = self._trusted_link(place.fd, owner, place.name, OSError())
                    # The text may begin with `..`, which counts from where the directory really is.
                    path = os.path.normpath(os.path.join(self._location(place.fd), text))
            except (FileNotFoundError, NotADirectoryError):
                return path
        raise UnsafePath(f"too many links at {path}")

    def real(self, path: str) -> str:
        """A path without links on the way, if there is one."""
        try:
            with self.parent(path) as place:
                return self._real(place)
        except (OSError, UnsafePath):
            return path

    def _real(self, place: Place) -> str:
        return f"{self._location(place.fd).rstrip('/')}/{place.name}"

    def _location(self, fd: int) -> str:
        """The path below our root of an open directory."""
        whole = os.readlink(f"/proc/self/fd/{fd}")
        return whole[len(os.path.realpath(self.root).rstrip("/")) :] or "/"

    # -- looking -------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result | None:
        """What is there, links not followed; None if nothing is."""
        if path == "/":
            return os.fstat(self._root_fd)
        try:
            with self.parent(path) as place:
                return os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def open(self, path: str) -> Iterator[int]:
        """A regular file, to read. Raises OSError; UnsafePath for anything but a regular file."""
        with self.parent(path) as place:
            fd = os.open(place.name, REGULAR, dir_fd=place.fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise UnsafePath(f"{path} is not a regular file")
            if found.st_nlink > 1 and not place.trusted:
                raise UnsafePath(f"{path} is a hard link that its owner may have made to any file")
            yield fd
        finally:
            os.close(fd)

    def chunks(self, path: str) -> Iterator[bytes]:
        """The content of a regular file, a piece at a time."""
        with self.open(path) as fd:
            while True:
                piece = os.read(fd, CHUNK)
                if not piece:
                    return
                yield piece

    def digest(self, path: str) -> str:
        """The SHA-256 of a regular file, in hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.chunks(path):
            digest.update(piece)
        return digest.hexdigest()

    def readlink(self, path: str) -> str:
        """The text of a symbolic link."""
        with self.parent(path) as place:
            return os.readlink(place.name, dir_fd=place.fd)

    def xattr(self, path: str, name: str) -> bytes | None:
        """The value of an extended attribute; None if there is none of that name.

        Raises OSError, ResourceError.
        """
        with self.parent(path) as place, bearer(path, place) as handle:
            try:
                return os.getxattr(handle, name)
            except OSError as error:
                if error.errno == errno.ENODATA:
                    return None
                raise

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        fd, _ = self._walk(split(path))
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def below(self, path: str) -> Iterator[tuple[str, os.stat_result, Place]]:
        """Everything below a directory on its file system, parents first: name, look, place.

        Goes by descriptors, so owners may differ from level to level: a link is seen and never
        entered, whenever it is put there.
        """
        fd, trusted = self._walk(split(path))
        yield from self._below(fd, trusted, os.fstat(fd).st_dev, "")

    def _below(
        self, fd: int, trusted: bool, device: int, prefix: str
    ) -> Iterator[tuple[str, os.stat_result, Place]]:
        try:
            for name in sorted(os.listdir(fd)):
                place = Place(fd, name, trusted)
                found = stat_at(place)
                if found is None or found.st_dev != device:
                    continue
                yield prefix + name, found, place
                if not stat.S_ISDIR(found.st_mode):
                    continue
                try:
                    inner = os.open(name, DIRECTORY, dir_fd=fd)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        continue  # it was swapped just now
                    raise
                ours = trusted and self._only_ours(os.fstat(inner))
                yield from self._below(inner, ours, device, f"{prefix}{name}/")
        finally:
            os.close(fd)


def stat_at(place: Place) -> os.stat_result | None:
    """What is at an open place, links not followed; None if nothing is. Raises OSError."""
    try:
        return os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def inode(path: str, place: Place) -> Iterator[int]:
    """What is at an open place, for acts on the very inode that was checked: its O_PATH
    descriptor, which opens without effect. Raises OSError, UnsafePath."""
    fd = os.open(place.name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
    try:
        found = os.fstat(fd)
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode) and not place.trusted:
            raise UnsafePath(f"{path} is a hard link that its owner may have made to any file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def bearer(path: str, place: Place) -> Iterator[str]:
    """A file or directory, as a name that follows its inode wherever the path may lead by now.

    Raises OSError, ResourceError.
    """
    with inode(path, place) as fd:
        if stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise ResourceError(
                f"{path} is neither a file nor a directory; others bear no attributes"
            )
        yield f"/proc/self/fd/{fd}"
