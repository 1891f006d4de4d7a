"""Writing, as root, where other users may write, too: whole or not at all, by descriptors.

Everything is done relative to the directory that `safepath` has walked to, on the very inode that
was checked. What is written is complete beside its place before it takes it, and durable when the
caller is told so.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Callable, NamedTuple

from reconciler.errors import Moved, UnsafePath, Unsupported
from reconciler.refusals import explain, explain_xattr
from reconciler.safepath import DIRECTORY, REGULAR, Looking, Place, bearer, inode, split, stat_at

#: Levels of a tree that are removed with one descriptor each.
MAX_DEPTH = 100
TEMP_MARK = ".rec-"
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

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


class Attributes(NamedTuple):
    """Owner, group and mode to set; None leaves one as it is."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None


class Tree(Looking):
    """A file system below `root`, and the durability of what is written to it.

    durability: `full` syncs each file and its directory at once, `batch` syncs each file at
    once and the directories at the next `flush`, `none` leaves it to the kernel.
    """

    def __init__(self, root: str = "/", durability: str = "batch") -> None:
        super().__init__(root)
        self.durability = durability
        self._dirty: dict[tuple[int, int], int] = {}
        self._lost: OSError | None = None

    def close(self) -> None:
        """Flush, and give all descriptors back."""
        self.flush()
        super().close()

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
        found = stat_at(place)
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
            if not _same(found, stat_at(place)):
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
            with self.parent(path) as place, bearer(path, place) as handle:
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
                found = stat_at(place)
                if found is None:
                    return
                real = self._real(place)
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
        stem = os.fsdecode(os.fsencode(path.rsplit("/", 1)[-1])[:200])
        ours = re.compile(rf"\.(?:{re.escape(stem)})?{re.escape(TEMP_MARK)}[0-9a-f]{{24}}")
        try:
            with self.parent(path) as place:
                for name in filter(ours.fullmatch, os.listdir(place.fd)):
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


def change_in_place(path: str, place: Place, attributes: Attributes) -> None:
    """Change the attributes of what is at an open place. Raises OSError, UnsafePath."""
    with inode(path, place) as fd:
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
    found = stat_at(Place(fd, name, trusted=False))
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
