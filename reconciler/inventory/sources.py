"""From what `-i` names to a graph: which format a file has, what a directory holds.

A source is a literal list (`web1,web2,`), a file, a program, or a directory of sources. A new
format is one function and one line in `FORMATS`.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Callable, Mapping
from functools import partial

from reconciler.errors import ConfigError, InventoryError, Mark
from reconciler.inventory.constructed import Expressions, construct
from reconciler.inventory.graph import Graph
from reconciler.inventory.ini import parse_ini
from reconciler.inventory.mapping import parse_toml, parse_yaml
from reconciler.inventory.names import expand
from reconciler.inventory.program import read_program
from reconciler.inventory.reader import Disk, Places, Reader, Runner, Unreadable
from reconciler.inventory.varsfiles import VarsFiles, refuse_vault
from reconciler.tree import Entry
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map

#: Reads (content, name of the file, graph); what it returns is the configuration of a plugin.
Parse = Callable[[bytes, str, Graph], Map | None]
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
#: Where a state repo has its inventories.
USUAL = "inventories"
#: The first line that says something, if the file is YAML: a document start, a brace, a key.
_YAML_START = re.compile(
    rb"""(?:[ \t]*(?:#.*)?\r?\n)*(?:---|\{|(?:"[^"\n]*"|'[^'\n]*'|[^\s\[\]=#:]+):(?:\s|$))"""
)


#: How programs begin: a line that names what runs them, or machine code.
_PROGRAMS = (b"#!", b"\x7fELF")


class NoSource(InventoryError):
    """A source that is not there, that is empty, or that may not be read."""


def _no_source(error: Unreadable) -> NoSource:
    return NoSource(error.message, hint="make it readable; with --allow-empty it is left out")


class Sources:
    """Reads sources into a graph, one after the other; what is wrong goes to `graph.errors`.

    beside: directory -> the files of variables in it, in the order in which they apply.
    allow_missing: a source that is not there or may not be read is a warning. That is not so for
    the files of variables beside it: hosts would quietly be configured in another way.
    """

    def __init__(
        self,
        reader: Reader,
        graph: Graph,
        expressions: Expressions | None,
        *,
        allow_missing: bool = False,
    ) -> None:
        self.beside: dict[str, VarsFiles] = {}
        self._reader = reader
        self._graph = graph
        self._expressions = expressions
        self._allow_missing = allow_missing
        # What a `constructed` source can see of files: those beside the sources before it.
        self._so_far: dict[str, VarsFiles] = {}

    def read(self, source: str) -> None:
        """One source."""
        try:
            self._read(source)
        except ConfigError as error:
            self._refuse(error)

    def _read(self, source: str) -> None:
        path = source.rstrip("/")
        if not path:
            # An empty variable of the calling shell; as `/` it would run every program there is.
            raise InventoryError(f"{source!r} is no inventory", hint="name a file or a directory")
        try:
            entry = self._reader.entry(path)
        except Unreadable as error:
            raise _no_source(error) from error
        if entry is None and "," in source:
            self._literal(source)
            return
        if entry is None:
            raise NoSource(f"inventory {source} is not there", hint=self._instead(path))
        inside = entry.kind == "directory"
        sources = self._below(path, MAX_DEPTH) if inside else [entry]
        if not sources:
            raise NoSource(f"no inventory in the directory {source}", hint="add hosts.yml")
        directory = path if inside else posixpath.dirname(path)
        self.beside.pop(directory, None)
        self.beside[directory] = self._files(directory, path)
        for one in sources:
            try:
                self._file(one)
            except ConfigError as error:
                self._refuse(error)

    def _instead(self, path: str) -> str:
        """What was probably meant by a path where nothing is."""
        known: list[str] = []
        with contextlib.suppress(ConfigError):
            known = [one.path for one in self._reader.listdir(USUAL)]
        inside = f"{USUAL}/{path}"
        meant = (
            f"did you mean {inside!r}?"
            if inside in known
            else did_you_mean(path, known, likeness=0.85)
        )
        there = f"there is {', '.join(known[:8])}" if known else ""
        commas = "" if "/" in path else "a list of hosts needs a comma: web1, or web1,web2"
        return "\n".join(filter(None, [meant or there, commas]))

    def _refuse(self, error: ConfigError) -> None:
        if self._allow_missing and isinstance(error, NoSource):
            self._graph.warn(error.message)
        else:
            self._graph.errors.append(error)

    def _literal(self, source: str) -> None:
        mark = Mark("-i")
        for name in filter(None, (part.strip() for part in source.split(","))):
            found = expand(name, mark)
            new = [host for host in found.hosts if host not in self._graph.hosts]
            self._graph.add_hosts(new, "ungrouped", Map(mark=mark), mark, found.port)

    def _below(self, path: str, depth: int) -> list[Entry]:
        """The sources in a directory and in those below it."""
        if not depth:
            raise InventoryError(f"{path}: more than {MAX_DEPTH} directories below each other")
        try:
            listed = self._reader.listdir(path)
        except Unreadable as error:
            raise _no_source(error) from error
        found: list[Entry] = []
        for entry in listed:
            name = posixpath.basename(entry.path)
            if name.startswith(".") or name in IGNORED_NAMES or name.endswith(IGNORED_ENDINGS):
                continue
            if entry.kind != "directory":
                found.append(entry)
                continue
            try:
                found += self._below(entry.path, depth - 1)
            except NoSource as error:
                self._refuse(error)
        return found

    def _files(self, directory: str, source: str) -> VarsFiles:
        """The files of variables in a directory, from where the source is read as well."""
        place = self._reader.reader(source) if isinstance(self._reader, Places) else self._reader
        return VarsFiles(place, directory, self._graph)

    def _file(self, entry: Entry) -> None:
        self._take(entry)
        directory = posixpath.dirname(entry.path)
        self._so_far.pop(directory, None)
        self._so_far[directory] = self._files(directory, entry.path)

    def _take(self, entry: Entry) -> None:
        path = entry.path
        try:
            data = self._reader.read(path)
        except Unreadable as error:
            raise _no_source(error) from error
        if entry.executable and data.startswith(_PROGRAMS):
            runner = self._reader if isinstance(self._reader, Runner) else Disk()
            read_program(partial(runner.run, path), path, self._graph)
            return
        refuse_vault(data, path)
        parse = FORMATS.get(posixpath.splitext(path)[1])
        if parse is None:
            parse = parse_yaml if _YAML_START.match(data) else parse_ini
        plugin = parse(data, path, self._graph)
        if plugin is not None:
            construct(plugin, self._graph, self._expressions, list(self._so_far.values()))
