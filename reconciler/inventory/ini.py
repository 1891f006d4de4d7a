"""INI inventories: `[group]`, `[group:children]`, `[group:vars]`, host lines, comments.

A line that is wrong is one error, and the next line is read all the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.errors import ConfigError, InventoryError, Mark
from reconciler.inventory.connection import check_variables
from reconciler.inventory.graph import Graph, Values
from reconciler.inventory.literals import ini_value
from reconciler.inventory.names import check_group, expand, shown
from reconciler.words import did_you_mean

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
#: Characters that make a host line more than words between blanks.
_QUOTING = re.compile(r"[\"'\\#]")
#: What ends a line here; the other characters that Python takes for line ends are refused.
_LINE = re.compile(r"\r\n|\n|\r")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")


def parse_ini(data: bytes, file: str, graph: Graph) -> None:
    """Read one file into the graph; what is wrong goes to its `errors`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InventoryError("this is not UTF-8 text", mark=Mark(file, line)) from error
    _Reading(file, graph).run(text)


@dataclass(frozen=True)
class _Reference:
    """A group that a `[x:vars]` or a line of `[x:children]` speaks of."""

    group: str
    section: str
    mark: Mark


class _Reading:
    def __init__(self, file: str, graph: Graph) -> None:
        self._file = file
        self._graph = graph
        self._group = "ungrouped"
        self._take: Callable[[str, str, Mark], None] = self._host
        self._values = Values(Mark(file))
        self._declared: set[str] = set()
        self._references: list[_Reference] = []
        # child -> its parents so far, and where they say so: it joins them when it is declared.
        self._waiting: dict[str, list[tuple[str, Mark]]] = {}

    def run(self, text: str) -> None:
        for number, raw in enumerate(_LINE.split(text), 1):
            line = raw.strip()
            if not line or line[0] in "#;":
                continue
            mark = Mark(self._file, number, raw.index(line[0]) + 1)
            try:
                odd = _CONTROL.search(line)
                if odd is not None:
                    raise InventoryError(f"control character U+{ord(odd[0]):04X}", mark=mark)
                if line[0] == "[" and self._section(line, mark):
                    continue
                self._take(line, raw, mark)
            except ConfigError as error:
                self._graph.errors.append(error)
        self._close()
        self._check_references()

    def _section(self, line: str, mark: Mark) -> bool:
        found = _SECTION.fullmatch(line)
        if found is None:
            if "]" in line and not line.endswith("]"):
                return False  # `[2001:db8::1]:22` is a host
            raise InventoryError(
                f"bad section {shown(line)}", mark=mark, hint="write [group], without blanks"
            )
        group, kind = found[1], found[2] or "hosts"
        takers = {"hosts": self._host, "vars": self._variable, "children": self._child}
        if kind not in takers:
            raise InventoryError(
                f"section [{group}:{kind}] is of unknown kind {shown(kind)}",
                mark=mark,
                hint=did_you_mean(kind, takers)
                or "there are [group], [group:vars], [group:children]",
            )
        self._close()
        self._group, self._take = group, takers[kind]
        self._values = Values(mark)
        if kind == "vars" and group not in self._graph.groups:
            self._references.append(_Reference(group, f"[{group}:vars]", mark))
        elif kind != "vars":
            self._declared.add(group)
        self._graph.add_group(group, mark)
        if kind != "vars":
            for parent, place in self._waiting.pop(group, ()):
                self._graph.add_child(parent, group, place)
        return True

    def _close(self) -> None:
        """Hand the variables of a `[group:vars]` over, all together."""
        if self._values:
            self._graph.add_group_values(self._group, self._values, self._values.mark)
            check_variables(self._values, self._graph)
            self._values = Values(Mark(self._file))

    def _host(self, line: str, raw: str, mark: Mark) -> None:
        words = _words(line, mark)
        if not words:
            return
        found = expand(words[0], mark)
        values = self._host_values(words[1:], raw, mark)
        check_variables(values, self._graph)
        self._graph.add_hosts(found.hosts, self._group, values, mark, found.port)

    def _host_values(self, words: list[str], raw: str, mark: Mark) -> Values:
        values = Values(mark)
        column = 0
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise InventoryError(
                    f"expected key=value, found {shown(word)}",
                    mark=mark,
                    hint="one host a line; a value with blanks needs quotes",
                )
            column = max(raw.find(key, column), 0)
            values.put(key, ini_value(value), Mark(mark.file, mark.line, column + 1))
        return values

    def _variable(self, line: str, raw: str, mark: Mark) -> None:
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise InventoryError(f"expected key=value, found {shown(line)}", mark=mark)
        self._values.put(key, ini_value(value), mark)

    def _child(self, line: str, raw: str, mark: Mark) -> None:
        found = _CHILD.fullmatch(line)
        if found is None:
            raise InventoryError(
                f"expected the name of a group, found {shown(line)}",
                mark=mark,
                hint="hosts go into the section without :children",
            )
        name = check_group(found[1], mark)
        if name in self._graph.groups:
            self._graph.add_child(self._group, name, mark)
        else:
            self._references.append(_Reference(name, f"[{self._group}:children]", mark))
            self._waiting.setdefault(name, []).append((self._group, mark))

    def _check_references(self) -> None:
        for reference in self._references:
            if reference.group not in self._declared:
                known = self._graph.groups.keys() - {other.group for other in self._references}
                self._graph.errors.append(
                    InventoryError(
                        f"{reference.section} speaks of group {shown(reference.group)}, "
                        "which is not there",
                        mark=reference.mark,
                        hint=did_you_mean(reference.group, known) or f"add [{reference.group}]",
                    )
                )


def _words(line: str, mark: Mark) -> list[str]:
    if not _QUOTING.search(line):
        return line.split()
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise InventoryError(
            f"this line cannot be split into words: {str(error).lower()}",
            mark=mark,
            hint="close the quote, or put a backslash before it",
        ) from error
