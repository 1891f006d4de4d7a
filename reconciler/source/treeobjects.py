"""Tree objects: the names that a commit has, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from reconciler.errors import ConfigError, Damaged
from reconciler.source.listing import MAX_DEPTH, MAX_PATH, check_count, check_paths
from reconciler.source.objects import Object, Objects

#: The largest tree object that is looked at, in bytes: a directory of some 200,000 files.
MAX_TREE = 16 << 20
DIRECTORY, LINK, SUBMODULE = "040000", "120000", "160000"
#: By the length of ids: what a tree is made of, again and again.
_ENTRIES = {
    2 * width: re.compile(rb"([0-7]{5,6}) ([^/\0]+)\0(.{%d})" % width, re.DOTALL)
    for width in (20, 32)
}


class Named(NamedTuple):
    """One name in a tree. path: from the top. mode: six digits. id: of the object behind it."""

    path: str
    mode: str
    id: str


def below(objects: Objects, tree: str) -> Iterator[Named]:
    """Every name below a tree, directories before what is in them.

    Raises SourceError, ConfigError for more or longer names or deeper directories than are allowed.
    """
    level, count, characters = [Named("", DIRECTORY, tree)], 0, 0
    for _ in range(MAX_DEPTH + 1):
        found: list[Named] = []
        contents = objects.read_all([one.id for one in level], MAX_TREE)
        for above, (head, content) in zip(level, contents, strict=True):
            inner = entries(head, content, f"{above.path}/" if above.path else "")
            characters += sum(len(one.path) for one in inner)
            check_paths(characters)
            found += inner
            check_count(count + len(found))
        yield from found
        count += len(found)
        level = [name for name in found if name.mode == DIRECTORY]
        if not level:
            return
    raise ConfigError(f"{level[0].path}: more than {MAX_DEPTH} directories below each other")


def directory(objects: Objects, tree: str, prefix: str = "") -> list[Named]:
    """The names in one directory. Raises SourceError, ConfigError for a giant."""
    ((head, content),) = objects.read_all([tree], MAX_TREE)
    return entries(head, content, prefix)


def entries(head: Object, content: bytes, prefix: str = "") -> list[Named]:
    """The names in a tree object. Raises Damaged, ConfigError for paths that are too long."""
    found: list[Named] = []
    end = characters = 0
    for one in _ENTRIES[len(head.id)].finditer(content):
        mode, name, id_ = one.groups()
        if one.start() != end or name in (b".", b".."):
            break
        end = one.end()
        if len(name) > MAX_PATH - len(prefix):
            shown = (prefix + name[:100].decode("utf-8", "replace"))[:100]
            raise ConfigError(f"{shown}...: a path of more than {MAX_PATH} bytes")
        path = prefix + name.decode("utf-8", "surrogateescape")
        characters += len(path)
        check_paths(characters)
        found.append(Named(path, mode.decode("ascii").zfill(6), id_.hex()))
    if end != len(content) or head.kind != "tree":
        raise Damaged(
            f"the directory {prefix or '/'} is malformed: {head.kind} {head.id[:12]}",
            hint=f"it was not made by git as we know it; look at it: git ls-tree {head.id[:12]}",
        )
    return found
