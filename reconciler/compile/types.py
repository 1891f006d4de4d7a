"""The resource types that a state repo can use: the built-in ones and its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib.util import find_spec

from reconciler.compile.schema import TypeSchema, read_type
from reconciler.errors import ConfigError, Mark, SchemaError
from reconciler.tree import Tree

PACKAGE = "reconciler.modules"
#: Where the state repo has its own types, and where we have ours.
DIRECTORY = "modules"
ENDING = ".py"


class Types:
    """errors: what is wrong with the state repo's own modules as files."""

    def __init__(self, tree: Tree) -> None:
        self.errors: list[ConfigError] = []
        self._own = self._read_own(tree)
        self._found: dict[str, TypeSchema | None] = {}
        #: Modules whose classes are being read: those that inherit in a circle are nobody's base.
        self._reading: set[str] = set()

    def _read_own(self, tree: Tree) -> dict[str, str]:
        sources: dict[str, str] = {}
        for entry in tree.listdir(DIRECTORY):
            name, ending = os.path.splitext(os.path.basename(entry.path))
            if entry.kind != "file" or ending != ENDING or name == "__init__":
                continue
            mark = Mark(entry.path, 1)
            if not name.isidentifier():
                self.errors.append(
                    SchemaError(
                        f"{name!r} cannot be the name of a resource type",
                        mark=mark,
                        hint="a name of letters, digits and _",
                    )
                )
            elif builtin_path(name) is not None:
                self.errors.append(
                    SchemaError(
                        f"there is a built-in module of the name '{name}'",
                        mark=mark,
                        hint="give yours another name",
                    )
                )
            else:
                try:
                    sources[name] = tree.read(entry.path).decode("utf-8")
                except UnicodeDecodeError:
                    self.errors.append(SchemaError("this module is not UTF-8 text", mark=mark))
        return sources

    def get(self, name: str) -> TypeSchema | None:
        """The schema of a type; None if there is none. Raises SchemaError for a module of the
        state repo that cannot be read."""
        if name.startswith("_"):
            return None
        if name not in self._found:
            self._found[name] = self._read(name)
        return self._found[name]

    def _read(self, name: str) -> TypeSchema | None:
        if name in self._own:
            file = f"{DIRECTORY}/{name}{ENDING}"
            return read_type(name, self._own[name], file, self._base, builtin=False)
        return builtin(name)

    def _base(self, name: str) -> TypeSchema | None:
        if name in self._reading:
            return None
        self._reading.add(name)
        try:
            return self._read(name)
        finally:
            self._reading.discard(name)

    def has(self, name: object) -> bool:
        """Whether there is such a type; its module is not read for that."""
        return (
            isinstance(name, str)
            and not name.startswith("_")
            and (name in self._own or name in builtin_names())
        )

    def names(self) -> list[str]:
        """All types, sorted."""
        own = {name for name in self._own if not name.startswith("_")}
        return sorted({*own, *builtin_names()})

    def sources(self, used: set[str] | None = None) -> Mapping[str, str]:
        """The state repo's own modules that the used types need: themselves and all private ones.

        None: all of them.
        """
        if used is None:
            return dict(sorted(self._own.items()))
        if not used & self._own.keys():
            return {}
        return {
            name: text
            for name, text in sorted(self._own.items())
            if name in used or name.startswith("_")
        }


@functools.cache
def _directory() -> str:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{PACKAGE} is not installed")
    return spec.submodule_search_locations[0]


@functools.cache
def builtin_names() -> frozenset[str]:
    """The names of the built-in types."""
    names = (os.path.splitext(name) for name in os.listdir(_directory()))
    return frozenset(
        name for name, ending in names if ending == ENDING and not name.startswith("_")
    )


def builtin_path(name: str) -> str | None:
    """The file of a built-in module, a private one too."""
    path = f"{_directory()}/{name}{ENDING}"
    return path if name.isidentifier() and os.path.exists(path) else None


@functools.cache
def builtin(name: str) -> TypeSchema | None:
    """The schema of a built-in type."""
    path = builtin_path(name)
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        source = file.read()
    return read_type(name, source, f"{PACKAGE}/{name}{ENDING}", builtin)
