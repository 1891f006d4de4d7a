"""What the system refuses, in the words of an operator, with what to do where that is known."""

from __future__ import annotations

import errno
import os

from reconciler.errors import ResourceError, Unsupported

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
