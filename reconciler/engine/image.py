"""First images: what a path was before we changed it for the first time, kept for good.

A row says what it was; the content of a file lies beside the ledger, named by its digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from reconciler.engine.ledgerfile import images
from reconciler.errors import ResourceError
from reconciler.host import Host

#: Larger files are not copied; their image says so.
CAP = 64 << 20
#: The end of the name of an image that is not yet whole.
NEW = ".new"


class Image(NamedTuple):
    """What a path was. kind: `absent`, `file`, `link`, `directory`, `special`, `unknown`, or
    `attributes`: a file of which nobody has changed more than these yet.

    stored: the name of its content; None where that is not kept. link: its text, as SQLite has it.
    """

    kind: str
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    sha256: str | None = None
    link: str | bytes | None = None
    stored: str | None = None


#: Of what a lost ledger knew: what is there now may be our own.
UNKNOWN = Image("unknown")


def completed(first: Image, now: Image) -> Image:
    """What a file was of which first the attributes were changed, and now its content is."""
    return (
        now._replace(mode=first.mode, uid=first.uid, gid=first.gid) if now.kind == "file" else now
    )


def take(root: str, host: Host, path: str, *, hidden: bool) -> Image:
    """The image of a path as it is now. hidden: its content may be secret, and is not kept.

    Raises OSError, ResourceError.
    """
    found = host.lstat(path)
    if found is None:
        return Image("absent")
    attributes = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_size)
    if stat.S_ISLNK(found.st_mode):
        return Image("link", *attributes, link=to_sql(host.readlink(path)))
    if not stat.S_ISREG(found.st_mode):
        return Image("directory" if stat.S_ISDIR(found.st_mode) else "special", *attributes)
    if hidden or found.st_size > CAP:
        return Image("file", *attributes)
    sha256 = _store(images(root), host.files.chunks(path))
    return Image("file", *attributes, sha256=sha256, stored=sha256)


def sync(root: str) -> None:
    """Make the names of images durable: a row of the ledger must not outlive what it is about."""
    fd = os.open(images(root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sweep(root: str) -> None:
    """Remove the images that a killed run had not yet copied whole."""
    for name in os.listdir(images(root)):
        if name.endswith(NEW):
            os.unlink(os.path.join(images(root), name))


def content(root: str, stored: str) -> Iterator[bytes]:
    """The content of an image. Raises ResourceError, in the end if it is damaged."""
    path, digest, why = os.path.join(images(root), stored), hashlib.sha256(), "it is damaged"
    try:
        with open(path, "rb") as image:
            while piece := image.read(1 << 20):
                digest.update(piece)
                yield piece
    except OSError as error:
        why = error.strerror
    if digest.hexdigest() != stored:
        raise ResourceError(
            f"what was there before us cannot be put back: {path}: {why}",
            hint="put it there again, or set prune: {file: keep} in agent.yml",
        )


def _store(directory: str, pieces: Iterable[bytes]) -> str | None:
    """Keep a copy; the digest of what was copied, for that may change. None: too large."""
    path = os.path.join(directory, f"{os.urandom(12).hex()}{NEW}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        digest, size = hashlib.sha256(), 0
        with os.fdopen(fd, "wb") as image:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                if size > CAP:
                    os.unlink(path)
                    return None
                image.write(piece)
            image.flush()
            os.fsync(fd)
        os.rename(path, os.path.join(directory, digest.hexdigest()))
    except BaseException:
        os.unlink(path)
        raise
    return digest.hexdigest()


def to_sql(text: str) -> str | bytes:
    """SQLite's text is UTF-8; names of files need not be."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    return text


def from_sql(value: Any) -> Any:
    """The inverse of `to_sql`."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
