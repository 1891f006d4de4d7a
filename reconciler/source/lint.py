"""What a tree must not hold, because other machines or other tools would see something else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from reconciler.errors import ConfigError, Mark
from reconciler.tree import Entry, Tree

_ODD = re.compile("[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def lint(tree: Tree) -> list[ConfigError]:
    """Every name that is a trap: links, submodules, names that differ only by case or by the way
    an accent is written, invisible characters."""
    errors: list[ConfigError] = []
    seen: dict[str, str] = {}
    for entry in _below(tree, ""):
        errors += _about(entry)
        folded = unicodedata.normalize("NFC", entry.path).casefold()
        first = seen.setdefault(folded, entry.path)
        if first != entry.path:
            errors.append(
                ConfigError(
                    f"{entry.path!r} and {first!r} are one name on some file systems",
                    mark=Mark(entry.path),
                    hint="rename one of them",
                )
            )
    return errors


def _below(tree: Tree, path: str) -> Iterator[Entry]:
    for entry in tree.listdir(path):
        yield entry
        if entry.kind == "directory":
            yield from _below(tree, entry.path)


def _about(entry: Entry) -> Iterator[ConfigError]:
    mark = Mark(entry.path)
    if entry.kind == "link":
        hint = "links are not followed: put the file itself there"
        yield ConfigError(f"{entry.path} is a link", mark=mark, hint=hint)
    if entry.kind == "submodule":
        hint = "submodules are not read: copy the files into the state repo"
        yield ConfigError(f"{entry.path} is another Git repository", mark=mark, hint=hint)
    odd = _ODD.search(entry.path)
    if odd is not None:
        yield ConfigError(
            f"the name {entry.path!r} holds the invisible character U+{ord(odd[0]):04X}",
            mark=mark,
            hint="rename it",
        )
    if any("\udc80" <= character <= "\udcff" for character in entry.path):
        yield ConfigError(f"the name {entry.path!r} is not UTF-8", mark=mark, hint="rename it")
