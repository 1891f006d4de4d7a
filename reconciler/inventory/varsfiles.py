"""`group_vars/` and `host_vars/`: beside an inventory, and beside site.yml.

For NAME one of these is read, the first that is there: `NAME`, `NAME.yml`, `NAME.yaml`,
`NAME.json`. Each may be a directory; then every file in it counts, by name, also in
directories below it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from reconciler.errors import InventoryError, Mark
from reconciler.inventory.connection import check_variables
from reconciler.inventory.graph import Graph, Layer
from reconciler.inventory.reader import Reader
from reconciler.tree import Entry, Tree
from reconciler.yamldoc import Map, load

EXTENSIONS = ("", ".yml", ".yaml", ".json")
#: Directories below directories that are searched.
MAX_DEPTH = 16


def refuse_vault(data: bytes, path: str) -> None:
    """Raises InventoryError for a file that ansible-vault has encrypted as a whole."""
    if data.startswith(b"$ANSIBLE_VAULT;"):
        raise InventoryError(
            "this file is encrypted by ansible-vault, which is not read",
            mark=Mark(path, 1, 1),
            hint="take the secrets out of it and keep the rest as plain YAML",
        )


class VarsFiles:
    """The variable files below one directory. base: "" is the top of the state repo."""

    def __init__(self, reader: Reader, base: str, graph: Graph) -> None:
        self.base = base
        self._reader = reader
        self._graph = graph
        self._names: dict[str, dict[str, Entry]] = {}

    def is_top_of(self, tree: Tree | None) -> bool:
        """Whether these are the files beside site.yml themselves."""
        return self._reader is tree and posixpath.normpath(self.base) == "."

    def layers(self, kind: str, name: str) -> list[Layer]:
        """The variables of one group or host, low to high.

        kind: `group_vars` or `host_vars`. Raises ConfigError for a file that cannot be used.
        """
        if kind not in self._names:
            listed = self._reader.listdir(posixpath.join(self.base, kind))
            self._names[kind] = {posixpath.basename(entry.path): entry for entry in listed}
        names = self._names[kind]
        for extension in EXTENSIONS:
            entry = names.get(name + extension)
            if entry is not None:
                return [
                    self._load(path, f"{kind}/{name}") for path in self._files(entry, MAX_DEPTH)
                ]
        return []

    def _files(self, entry: Entry, depth: int) -> Iterator[str]:
        if entry.kind != "directory":
            yield entry.path
            return
        if not depth:
            raise InventoryError(
                f"{entry.path}: more than {MAX_DEPTH} directories below each other"
            )
        for child in self._reader.listdir(entry.path):
            name = posixpath.basename(child.path)
            extension = posixpath.splitext(name)[1]
            if name.startswith(".") or name.endswith("~") or extension not in EXTENSIONS:
                continue
            if child.kind != "directory" or not extension:
                yield from self._files(child, depth - 1)

    def _load(self, path: str, name: str) -> Layer:
        data = self._reader.read(path)
        refuse_vault(data, path)
        values = load(data, path)
        if values is None:
            values = Map(mark=Mark(path))
        if not isinstance(values, Map):
            raise InventoryError("a file of variables is a mapping of names", mark=Mark(path, 1, 1))
        check_variables(values, self._graph)
        return Layer(name, values, Mark(path))
