"""From what `-i` names to a graph: which format a file has, what a directory holds.

A source is a literal list (`web1,web2,`), a file, or a directory of sources. A new format is
one function and one line in `FORMATS`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping

from reconciler.errors import ConfigError, InventoryError, Mark
from reconciler.inventory.graph import Graph, Values
from reconciler.inventory.ini import parse_ini
from reconciler.inventory.mapping import parse_toml, parse_yaml
from reconciler.inventory.names import expand
from reconciler.inventory.reader import Reader
from reconciler.tree import Entry

Parse = Callable[[bytes, str, Graph], None]
FORMATS: Mapping[str, Parse] = {
    ".yml": parse_yaml,
    ".yaml": parse_yaml,
    ".json": parse_yaml,
    ".toml": parse_toml,
    ".ini": parse_ini,
}

#: In a directory of sources these are no sources.
IGNORED_NAMES = ("group_vars", "host_vars", "vars_plugins")
IGNORED_ENDINGS = (
    *(".pyc", ".pyo", ".swp", ".bak", "~", ".rpm"),
    *(".md", ".txt", ".rst", ".orig", ".cfg", ".retry"),
)
MAX_DEPTH = 16
#: The first line that says something, if the file is YAML: a document start, a brace, a key.
_YAML_START = re.compile(
    rb"""(?:[ \t]*(?:#.*)?\r?\n)*(?:---|\{|(?:"[^"\n]*"|'[^'\n]*'|[^\s\[\]=#:]+):(?:\s|$))"""
)


def read_source(source: str, reader: Reader, graph: Graph) -> str | None:
    """Read one source into the graph; its errors go to `graph.errors`.

    Returns the directory whose group_vars/ and host_vars/ belong to it; None for a list.
    """
    path = source.rstrip("/") or "/"
    entry = reader.entry(path)
    if entry is None and "," in source:
        _literal(source, graph)
        return None
    if entry is None:
        raise InventoryError(
            f"inventory {source} is not there",
            hint="a list of hosts needs a comma: web1, or web1,web2",
        )
    if entry.kind != "directory":
        _file(entry, path, reader, graph)
        return posixpath.dirname(path)
    if not _directory(path, reader, graph, MAX_DEPTH):
        raise InventoryError(f"no inventory in the directory {source}", hint="add hosts.yml")
    return path


def _literal(source: str, graph: Graph) -> None:
    mark = Mark("-i")
    for name in filter(None, (part.strip() for part in source.split(","))):
        found = expand(name, mark)
        values = Values(mark)
        if found.port:
            values.put("ansible_port", found.port, mark)
        graph.add_hosts(found.hosts, "ungrouped", values, mark)


def _directory(path: str, reader: Reader, graph: Graph, depth: int) -> int:
    """How many sources were read."""
    if not depth:
        raise InventoryError(f"{path}: more than {MAX_DEPTH} directories below each other")
    count = 0
    for entry in reader.listdir(path):
        name = posixpath.basename(entry.path)
        if name.startswith(".") or name in IGNORED_NAMES or name.endswith(IGNORED_ENDINGS):
            continue
        if entry.kind == "directory":
            count += _directory(entry.path, reader, graph, depth - 1)
            continue
        count += 1
        try:
            _file(entry, entry.path, reader, graph)
        except ConfigError as error:
            graph.errors.append(error)
    return count


def _file(entry: Entry, path: str, reader: Reader, graph: Graph) -> None:
    data = reader.read(path)
    if data.startswith(b"#!") and entry.executable:
        raise InventoryError(
            f"{path} is a program, and inventory programs are not run",
            mark=Mark(path, 1, 1),
            hint="write what it prints to a file: ansible-inventory -i PROGRAM --list --yaml",
        )
    parse = FORMATS.get(posixpath.splitext(path)[1])
    if parse is None:
        parse = parse_yaml if _YAML_START.match(data) else parse_ini
    parse(data, path, graph)
