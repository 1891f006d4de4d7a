"""The file system, through directory descriptors: nothing here follows a planted link.

A program that runs as root writes into directories that other users own. Between a check by
name and an act by name they can put a link there. So every path is walked from the root, one
directory descriptor after the other, each opened with O_NOFOLLOW, and every act is relative
to the last descriptor.

Links on the way are followed only if root (or we) own both the link and the directory it is
in: `/var/run` and a usr-merged `/bin` work, a link in somebody's home does not. Once the walk
is in a directory that somebody else owns, what comes next must have that same owner; else it
was moved there (CVE-2017-18078, CVE-2018-6954: the same checks in systemd are `CHASE_SAFE`).

Paths are absolute text, undecodable bytes as surrogates. A `Tree` with another root resolves
absolute links below that root, like chroot.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Callable, NamedTuple

from reconciler.errors import Moved, ResourceError, UnsafePath, Unsupported

MAX_LINKS = 40
#: Levels of a tree that are removed with one descriptor each.
MAX_DEPTH = 100
CHUNK = 1 << 20
TEMP_MARK = ".rec-"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
O_PATH = 0o10000000  # not in `os` before 3.10

#: Never removed with what is below them.
PROTECTED = frozenset(
    [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib32",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",  # noqa: S108  not used, protected
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/lib",
        "/var/log",
    ]
)

#: Capabilities and measurements belong to the old content, not to the name.
CONTENT_XATTRS = ("security.capability", "security.ima", "security.evm")
#: What a full disk is called where it has room, but for no further file.
NO_INODES = "No free inodes left on device"
_NO_ROOM = (
    "there is no room for it",
    "the file system is full, or keeps less for one file: all that ext4 has is one block",
)
#: Errors that mean something else for an extended attribute: what happened, and what to do.
XATTR_ERRORS = {
    errno.ENOTSUP: (
        "its file system does not keep such attributes",
        "ext4, xfs and btrfs do; tmpfs keeps user.* from Linux 6.6 on",
    ),
    errno.ENOSPC: _NO_ROOM,
    errno.E2BIG: _NO_ROOM,
    errno.ERANGE: _NO_ROOM,
    errno.EPERM: (
        "it is not permitted",
        "an immutable file (lsattr) takes chattr -i first; trusted.* takes root outside of containers",
    ),
}


class Attributes(NamedTuple):
    """Owner, group and mode to set; None leaves one as it is."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


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


def has_no_inodes(place: int | str) -> bool:
    """Whether there is room for content, but for no further file. place: a directory, open or by
    its path."""
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    # btrfs has none to count.
    return bool(found.f_files and not found.f_ffree and found.f_bfree)


def reason(error: OSError, place: int | str | None = None) -> str:
    """Why something failed, in a few words. place: the directory that it happened in."""
    if error.errno == errno.ENOSPC and place is not None and has_no_inodes(place):
        return NO_INODES
    return error.strerror or str(error)


def explain(error: OSError, path: str, act: str, fd: int | None = None) -> ResourceError:
    """The same error in the words of an operator, with what to do where that is known.

    fd: the directory that it happened in.
    """
    said = reason(error, fd)
    hint = {
        errno.ENOSPC: "remove files that nobody needs (df -i); the next run goes on from here"
        if said == NO_INODES
        else "free some space; the next run goes on from here",
        errno.EDQUOT: "the quota is used up; the next run goes on from here",
        errno.EROFS: "the file system is mounted read-only",
        errno.EPERM: "if it is immutable (lsattr), remove the flag with chattr -i",
        errno.EBUSY: "it is a mount point or a bind-mounted file, and cannot be replaced",
        errno.ENOENT: "declare its directory, or create it first",
    }.get(error.errno or 0, "")
    return ResourceError(f"cannot {act} {path}: {said}", hint=hint)


def explain_xattr(error: OSError, path: str, name: str, act: str) -> ResourceError:
    """The same as `explain`, about an extended attribute; Unsupported where none are kept."""
    known = XATTR_ERRORS.get(error.errno or 0)
    if known is None:
        return explain(error, path, f"{act} {name} of")
    kind = Unsupported if error.errno == errno.ENOTSUP else ResourceError
    return kind(f"cannot {act} {name} of {path}: {known[0]}", hint=known[1])


class Tree:
    """A file system below `root`, and the durability of what is written to it.

    durability: `full` syncs each file and its directory at once, `batch` syncs each file at
    once and the directories at the next `flush`, `none` leaves it to the kernel.
    """

    def __init__(self, root: str = "/", durability: str = "batch") -> None:
        self.root = root
        self.durability = durability
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._safe = (0, os.geteuid())
        self._dirty: dict[tuple[int, int], int] = {}
        self._lost: OSError | None = None
        self._kept: dict[str, tuple[int, bool]] = {}
        self._keeping = False

    def close(self) -> None:
        """Flush, and give all descriptors back."""
        self.flush()
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
                    found = _stat_at(place)
                    if found is None or not stat.S_ISLNK(found.st_mode):
                        return path
                    owner = os.fstat(place.fd).st_uid
                    text = self._trusted_link(place.fd, owner, place.name, OSError())
                    # The text may begin with `..`, which counts from where the directory really is.
                    path = os.path.normpath(os.path.join(self._location(place.fd), text))
            except (FileNotFoundError, NotADirectoryError):
                return path
        raise UnsafePath(f"too many links at {path}")

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
        with self.parent(path) as place, _bearer(path, place) as handle:
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
                found = _stat_at(place)
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

    # -- acting --------------------------------------------------------------------------

    @contextmanager
    def _acting(self, path: str, act: str) -> Iterator[Place]:
        """The open directory that holds `path`, to act in. Raises ResourceError for an OSError."""
        try:
            with self.parent(path) as place:
                try:
                    yield place
                except OSError as error:
                    raise explain(error, path, act, place.fd) from error
        except OSError as error:
            raise explain(error, path, act) from error

    def write(
        self,
        path: str,
        content: Iterable[bytes],
        attributes: Attributes,
        *,
        expect: os.stat_result | None = None,
        validate: Callable[[str], None] | None = None,
    ) -> None:
        """Put a regular file in place: whole or not at all.

        The temporary file is 0600 before it has content and lies in the same directory;
        attributes that are None come from the file that it replaces (a new one gets 0600).
        expect: what the caller saw there; if that has changed, Moved is raised.
        validate: called with the temporary file's path; if it raises, nothing has changed.
        Raises ResourceError.
        """
        with self._acting(path, "write") as place:
            self._write(path, place, content, attributes, expect, validate)

    def _write(
        self,
        path: str,
        place: Place,
        content: Iterable[bytes],
        attributes: Attributes,
        expect: os.stat_result | None,
        validate: Callable[[str], None] | None,
    ) -> None:
        found = _stat_at(place)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise Unsupported(
                f"{path} exists and is not a regular file",
                hint="remove it first, or declare force: true",
            )
        if expect is not None and not _same(expect, found):
            raise Moved(f"{path} was changed by somebody else in the meantime")
        # 255 bytes is the longest name that Linux file systems take.
        stem = os.fsdecode(os.fsencode(place.name)[:200])
        temporary = f".{stem}{TEMP_MARK}{os.urandom(12).hex()}"
        fd = os.open(temporary, CREATE, 0o600, dir_fd=place.fd)
        try:
            try:
                for piece in content:
                    _write_all(fd, piece)
                if found is not None:
                    _copy_xattrs(place, fd)
                _set_attributes(fd, attributes, found)
                if self.durability != "none":
                    os.fsync(fd)
            finally:
                os.close(fd)
            if validate is not None:
                validate(f"{path.rstrip('/').rsplit('/', 1)[0]}/{temporary}")
            if not _same(found, _stat_at(place)):
                raise Moved(f"{path} was changed by somebody else in the meantime")
            os.rename(temporary, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
        except BaseException:
            _unlink_quietly(temporary, place.fd)
            raise
        self._sync_directory(place.fd)

    def mkdir(self, path: str, attributes: Attributes) -> None:
        """Make one directory: 0755 unless a mode is given, and setgid if its directory is.

        Raises ResourceError.
        """
        with self._acting(path, "make directory") as place:
            os.mkdir(place.name, 0o700, dir_fd=place.fd)
            fd = os.open(place.name, DIRECTORY, dir_fd=place.fd)
            try:
                made = os.fstat(fd)
                if made.st_uid != os.geteuid() or os.listdir(fd):
                    raise UnsafePath(f"{path} was swapped for another directory just now")
                if attributes.mode is None:
                    attributes = attributes._replace(mode=0o755 | made.st_mode & stat.S_ISGID)
                _set_attributes(fd, attributes, None)
            finally:
                os.close(fd)
            self._sync_directory(place.fd)

    def symlink(self, path: str, text: str) -> None:
        """Put a symbolic link in place, atomically replacing a file or link. Raises ResourceError."""
        self._replace(path, "link", lambda name, fd: os.symlink(text, name, dir_fd=fd))

    def hardlink(self, path: str, target: str) -> None:
        """Make `path` another name of the file `target`. Raises ResourceError."""
        with self._acting(target, "link to") as source:
            self._replace(
                path,
                "link",
                lambda name, fd: os.link(
                    source.name,
                    name,
                    src_dir_fd=source.fd,
                    dst_dir_fd=fd,
                    follow_symlinks=False,
                ),
            )

    def _replace(self, path: str, act: str, make: Callable[[str, int], None]) -> None:
        with self._acting(path, act) as place:
            temporary = f".{TEMP_MARK}{os.urandom(12).hex()}"
            make(temporary, place.fd)
            try:
                os.rename(temporary, place.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
            except BaseException:
                _unlink_quietly(temporary, place.fd)
                raise
            # Renaming a file onto another name of itself does nothing, and leaves both.
            _unlink_quietly(temporary, place.fd)
            self._sync_directory(place.fd)

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """Change owner, group and mode of what is there, in place. Raises ResourceError.

        A link's own owner is changed, never its target's; a link has no mode.
        """
        with self._acting(path, "change the attributes of") as place:
            change_in_place(path, place, attributes)

    def set_xattr(self, path: str, name: str, value: bytes | None) -> None:
        """Set an extended attribute of a file or directory, or with None remove it if it is there.

        Raises ResourceError.
        """
        try:
            with self.parent(path) as place, _bearer(path, place) as handle:
                if value is not None:
                    os.setxattr(handle, name, value)
                else:
                    os.removexattr(handle, name)
        except OSError as error:
            if error.errno == errno.ENODATA:
                return
            act = "set" if value is not None else "remove"
            raise explain_xattr(error, path, name, act) from error

    def set_times(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        """Set the times of what is there, links not followed. Raises ResourceError."""
        with self._acting(path, "set the times of") as place:
            os.utime(place.name, ns=(atime_ns, mtime_ns), dir_fd=place.fd, follow_symlinks=False)

    def remove(self, path: str, *, recurse: bool = False) -> None:
        """Remove a file, a link, an empty directory; with `recurse` all that is below it.

        What is not there is no error. Stays on one file system, refuses mount points and the directories of PROTECTED.
        Raises ResourceError.
        """
        clean = "/" + "/".join(split(path))
        if clean in PROTECTED:
            raise UnsafePath(f"{clean} is part of the system and is never removed")
        try:
            with self.parent(clean) as place:
                found = _stat_at(place)
                if found is None:
                    return
                real = f"{self._location(place.fd).rstrip('/')}/{place.name}"
                if real in PROTECTED:
                    raise UnsafePath(f"{real} is part of the system and is never removed")
                self._refuse_mounts(real)
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(place.name, dir_fd=place.fd)
                else:
                    if recurse:
                        _empty(place.name, place.fd, found.st_dev, clean)
                    os.rmdir(place.name, dir_fd=place.fd)
                self._sync_directory(place.fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise explain(error, clean, "remove") from error

    def sweep(self, path: str) -> None:
        """Remove the temporary files that a killed run left for `path`."""
        stem = path.rsplit("/", 1)[-1]
        start = f".{os.fsdecode(os.fsencode(stem)[:200])}{TEMP_MARK}"
        try:
            with self.parent(path) as place:
                for name in os.listdir(place.fd):
                    if name.startswith((start, f".{TEMP_MARK}")):
                        _unlink_quietly(name, place.fd)
        except (OSError, UnsafePath):
            return  # the directory itself is gone, and what was in it

    def flush(self) -> None:
        """Make the renames so far durable: sync the directories that they happened in.

        Raises the OSError of the first that could not be, once all were tried. It is raised once:
        what a failed sync has lost no later one brings back, though it succeeds.
        """
        self._sync_dirty()
        lost, self._lost = self._lost, None
        if lost is not None:
            raise lost

    def _sync_dirty(self) -> None:
        while self._dirty:
            _, fd = self._dirty.popitem()
            try:
                os.fsync(fd)
            except OSError as error:
                error.filename = self._location(fd)
                self._lost = self._lost or error
            finally:
                os.close(fd)

    def _sync_directory(self, fd: int) -> None:
        if self.durability == "full":
            os.fsync(fd)
        elif self.durability == "batch":
            found = os.fstat(fd)
            identity = (found.st_dev, found.st_ino)
            if identity not in self._dirty:
                if len(self._dirty) >= 64:
                    self._sync_dirty()
                self._dirty[identity] = os.dup(fd)

    def _refuse_mounts(self, path: str) -> None:
        """A bind mount has the same device number: only the mount table tells."""
        whole = os.path.realpath(self.root).rstrip("/") + path
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
                points = [line.split(" ", 5)[4] for line in table]
        except OSError:
            return
        for point in points:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)
            if point == whole or point.startswith(whole + "/"):
                raise UnsafePath(f"{point} is a mount point; unmount it first")


def _stat_at(place: Place) -> os.stat_result | None:
    try:
        return os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size) == (
        other.st_dev,
        other.st_ino,
        other.st_mtime_ns,
        other.st_size,
    )


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _copy_xattrs(place: Place, fd: int) -> None:
    """Keep ACLs, labels and user attributes of the file that is replaced, as far as the
    file system has them."""
    try:
        old = os.open(place.name, REGULAR, dir_fd=place.fd)
    except FileNotFoundError:
        return
    try:
        with _as_far_as_it_goes():
            for name in os.listxattr(old):
                with _as_far_as_it_goes():
                    if name not in CONTENT_XATTRS:
                        os.setxattr(fd, name, os.getxattr(old, name))
    finally:
        os.close(old)


@contextmanager
def _as_far_as_it_goes() -> Iterator[None]:
    """An attribute that cannot be kept costs none of the others."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENODATA):
            raise


def _set_attributes(fd: int, attributes: Attributes, found: os.stat_result | None) -> None:
    """On a descriptor of our own new file; chown first, because it clears setuid bits."""
    uid, gid, mode = attributes
    if found is not None:
        uid = found.st_uid if uid is None else uid
        gid = found.st_gid if gid is None else gid
        if mode is None:
            kept = 0o7777 if (uid, gid) == (found.st_uid, found.st_gid) else 0o1777
            mode = stat.S_IMODE(found.st_mode) & kept
    now = os.fstat(fd)
    wanted = (now.st_uid if uid is None else uid, now.st_gid if gid is None else gid)
    if wanted != (now.st_uid, now.st_gid):
        os.fchown(fd, *wanted)
    os.fchmod(fd, 0o600 if mode is None else mode)


@contextmanager
def _inode(path: str, place: Place) -> Iterator[int]:
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
def _bearer(path: str, place: Place) -> Iterator[str]:
    """A file or directory, as a name that follows its inode wherever the path may lead by now.

    Raises OSError, ResourceError.
    """
    with _inode(path, place) as fd:
        if stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise ResourceError(
                f"{path} is neither a file nor a directory; others bear no attributes"
            )
        yield f"/proc/self/fd/{fd}"


def change_in_place(path: str, place: Place, attributes: Attributes) -> None:
    """Change the attributes of what is at an open place. Raises OSError, UnsafePath."""
    with _inode(path, place) as fd:
        found = os.fstat(fd)
        uid = found.st_uid if attributes.uid is None else attributes.uid
        gid = found.st_gid if attributes.gid is None else attributes.gid
        if stat.S_ISLNK(found.st_mode):
            os.chown(place.name, uid, gid, dir_fd=place.fd, follow_symlinks=False)
            return
        handle = f"/proc/self/fd/{fd}"
        if (uid, gid) != (found.st_uid, found.st_gid):
            # The kernel clears setuid and setgid of a file here: they were the old owner's wish.
            os.chown(handle, uid, gid)
            found = os.fstat(fd)
        if attributes.mode not in (None, stat.S_IMODE(found.st_mode)):
            os.chmod(handle, attributes.mode or 0)


def _empty(name: str, parent_fd: int, device: int, path: str) -> None:
    """Remove all that is in a directory, entered by descriptor, never across a device.

    A tree may be deeper than we have descriptors: what is too deep is moved to the top first.
    """
    top = os.open(name, DIRECTORY, dir_fd=parent_fd)
    try:
        if os.fstat(top).st_dev != device:
            raise UnsafePath(f"{path} is another file system; it is not removed")
        while True:
            entries = os.listdir(top)
            if not entries:
                return
            for entry in entries:
                _remove_entry(entry, top, top, device, path, MAX_DEPTH)
    finally:
        os.close(top)


def _remove_entry(name: str, fd: int, top: int, device: int, path: str, depth: int) -> None:
    found = _stat_at(Place(fd, name, trusted=False))
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=fd)
        return
    if depth == 0:
        os.rename(name, f"{TEMP_MARK}{os.urandom(12).hex()}", src_dir_fd=fd, dst_dir_fd=top)
        return
    inner = os.open(name, DIRECTORY, dir_fd=fd)
    try:
        if os.fstat(inner).st_dev != device:
            raise UnsafePath(f"{path}/{name} is another file system; it is not removed")
        for entry in os.listdir(inner):
            _remove_entry(entry, inner, top, device, f"{path}/{name}", depth - 1)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=fd)


def _unlink_quietly(name: str, fd: int) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except OSError:
        return
