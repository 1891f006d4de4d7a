"""A bare repository as we make it, and what shows that it is not that any more.

It holds packs of objects and no loose ones, no hooks, no remote and no configuration but the constant
one, so that damage shows at once. Nothing here starts git.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence

CONFIG = {
    "sha1": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n",
    "sha256": "[core]\n\trepositoryformatversion = 1\n\tfilemode = true\n\tbare = true\n"
    "[extensions]\n\tobjectformat = sha256\n",
}
_HEAD = "ref: refs/heads/none\n"
_LOOSE_REF = re.compile(rb"(?!0+\n)(?:[0-9a-f]{40}|[0-9a-f]{64})\n")
#: Files that would change what history looks like, or bring objects from elsewhere.
_FOREIGN = (
    "shallow",
    "info/grafts",
    "objects/info/alternates",
    "objects/info/commit-graph",
    "objects/info/commit-graphs",
)


def make_repository(
    path: str, algorithm: str, alternate: str = "", refs: Sequence[str] = ()
) -> None:
    """An empty bare repository without a start of git.

    alternate: objects that it may use as its own. refs: the ids that it says it has of them.
    Raises OSError.
    """
    os.makedirs(path, mode=0o700)
    for name in ("objects/pack", "objects/info", "refs/heads"):
        os.makedirs(os.path.join(path, name), mode=0o700)
    files = {"HEAD": _HEAD, "config": CONFIG[algorithm]}
    if alternate:
        files["objects/info/alternates"] = f"{alternate}\n"
        lines = "".join(f"{id_} refs/have/{n}\n" for n, id_ in enumerate(sorted(set(refs))))
        files["packed-refs"] = f"# pack-refs with: sorted \n{lines}"
    for name, text in files.items():
        with open(os.path.join(path, name), "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def sync(directory: str) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def oddity(top: str) -> str:
    """What is wrong at a glance with the repository at `top`, "" for nothing. Raises OSError."""
    return _shape(top) or _empty_file(top)


def _shape(top: str) -> str:
    """Whether the small files are what we wrote, and nothing is there that we never write."""
    if read(os.path.join(top, "HEAD")) != _HEAD.encode():
        return "HEAD is not as it was written"
    if read(os.path.join(top, "config")) not in [text.encode() for text in CONFIG.values()]:
        return "config is not as it was written"
    for name in _FOREIGN:
        if os.path.lexists(os.path.join(top, name)):
            return f"{name} does not belong there"
    for path, _ in walk(os.path.join(top, "refs")):
        with open(path, "rb") as file:
            if not _LOOSE_REF.fullmatch(file.read(200)):
                return f"{os.path.relpath(path, top)} is not the name of an object"
    packed = read(os.path.join(top, "packed-refs"))
    if packed is not None and not re.fullmatch(rb"#[^\n]*\n(?:[\^0-9a-f]{40,65}[^\n]*\n)*", packed):
        return "packed-refs is garbage"
    return ""


def _empty_file(top: str) -> str:
    """Power loss leaves files of no length; a pack without its index is lost as well."""
    names: set[str] = set()
    for path, found in walk(os.path.join(top, "objects")):
        names.add(os.path.basename(path))
        if found.st_size == 0 and not path.endswith(".keep"):
            return f"{os.path.relpath(path, top)} is empty"
    for name in names:
        stem, ending = os.path.splitext(name)
        other = {".pack": ".idx", ".idx": ".pack"}.get(ending)
        if other is not None and stem + other not in names:
            return f"{name} is without its {other}"
    return ""


def read(path: str) -> bytes | None:
    """A small file; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Regular files and links below a directory; what vanishes meanwhile is left out."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(top) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path)
                continue
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                    yield entry.path, found
