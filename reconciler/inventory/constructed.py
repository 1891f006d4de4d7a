"""`plugin: constructed`: groups and variables made from what other sources and facts say.

The expressions are Jinja2, which this room does not know: whoever loads the inventory passes in
what evaluates them. They see what the sources before this one have said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from reconciler.errors import ConfigError, InventoryError, Mark
from reconciler.inventory.connection import check_variables
from reconciler.inventory.graph import Graph, Layer, Values
from reconciler.inventory.names import shown
from reconciler.inventory.varsfiles import VarsFiles
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Unsafe

NAMES = ("constructed", "ansible.builtin.constructed")
OPTIONS = (
    *("plugin", "strict", "compose", "groups", "keyed_groups"),
    *("leading_separator", "use_vars_plugins", "use_extra_vars"),
)
KEYED = (
    *("key", "prefix", "separator", "parent_group"),
    *("default_value", "trailing_separator"),
)
#: What cannot be in a name of a variable becomes `_` in the name of a group.
_ODD = re.compile(r"^[\d\W]|[^\w]")
_EMPTY = (None, "")


class Names(Protocol):
    """The variables of one host, to evaluate expressions with."""

    def value(self, expression: str, mark: Mark) -> object:
        """The value of an expression without braces. Raises TemplateError."""
        ...

    def text(self, template: str, mark: Mark) -> object:
        """A text with `{{ }}` in it, rendered. Raises TemplateError."""
        ...


class Expressions(Protocol):
    """Evaluates expressions; knows the facts of hosts."""

    def of(self, host: str, layers: Sequence[Layer], groups: Sequence[str]) -> Names:
        """Names of a host. layers: its variables, low to high. groups: all but `all`, sorted."""
        ...


def construct(
    config: Map,
    graph: Graph,
    expressions: Expressions | None,
    beside: Sequence[VarsFiles],
) -> None:
    """Add what a `plugin:` source makes of the graph so far. beside: for `use_vars_plugins`.

    Raises InventoryError for a configuration that is none, and under `strict` for an expression
    that fails; without `strict` it makes nothing, for it may be about facts not known yet.
    """
    name = config["plugin"]
    if name not in NAMES:
        raise InventoryError(
            f"inventory plugin {shown(name)} is not supported",
            mark=config.place("plugin"),
            hint="write the hosts down: ansible-inventory --list --yaml shows them",
        )
    if expressions is None:
        raise InventoryError(
            "constructed groups cannot be evaluated here", mark=config.place("plugin")
        )
    _warn_of_unknown(config, OPTIONS, graph)
    plan = _Plan(config)
    for entry in plan.keyed:
        _warn_of_unknown(entry, KEYED, graph)
    for host in list(graph.hosts):
        maker = _Maker(host, plan, graph, expressions, beside)
        maker.compose()
        maker.groups()


class _Plan:
    """The options of a source, checked."""

    def __init__(self, config: Map) -> None:
        self.strict = _flag(config, "strict", default=False)
        self.leading_separator = _flag(config, "leading_separator", default=True)
        self.with_files = _flag(config, "use_vars_plugins", default=False)
        self.compose = _map(config, "compose")
        self.groups = _map(config, "groups")
        keyed = config.get("keyed_groups") or []
        if not isinstance(keyed, list) or not all(isinstance(one, Map) for one in keyed):
            raise InventoryError(
                "keyed_groups must be a list of mappings", mark=config.place("keyed_groups")
            )
        self.keyed: list[Map] = keyed
        for entry in self.keyed:
            if None not in (entry.get("default_value"), entry.get("trailing_separator")):
                raise InventoryError(
                    "default_value and trailing_separator exclude each other",
                    mark=entry.place("trailing_separator"),
                )


class _Maker:
    """Makes the groups and variables of one host."""

    def __init__(
        self,
        host: str,
        plan: _Plan,
        graph: Graph,
        expressions: Expressions,
        beside: Sequence[VarsFiles],
    ) -> None:
        self._host = host
        self._plan = plan
        self._graph = graph
        self._expressions = expressions
        self._beside = beside

    def compose(self) -> None:
        """Variables. None of them sees the others."""
        if not self._plan.compose:
            return
        names = self._names()
        values = Values(self._plan.compose.mark)
        for key, expression in self._plan.compose.items():
            mark = self._plan.compose.place(key)
            try:
                values.put(str(key), _plain(_value(names, expression, mark), mark), mark)
            except ConfigError as error:
                self._failed(error, f"variable {key}", mark)
        check_variables(values, self._graph)
        self._graph.add_host_values(self._host, "compose", values)

    def groups(self) -> None:
        """Groups by conditions, then groups by values."""
        if not self._plan.groups and not self._plan.keyed:
            return
        names = self._names()
        for name, condition in self._plan.groups.items():
            mark = self._plan.groups.place(name)
            try:
                holds = _holds(names, condition, mark)
            except ConfigError as error:
                self._failed(error, f"group {name}", mark)
                continue
            if holds:
                self._join(_safe(str(name)), mark)
        for entry in self._plan.keyed:
            self._keyed(entry, names)

    def _keyed(self, entry: Map, names: Names) -> None:
        mark = entry.place("key")
        try:
            key = _value(names, entry.get("key"), mark)
        except ConfigError as error:
            self._failed(error, f"the group of key {entry.get('key')!r}", mark)
            return
        if not key and not (key in _EMPTY and entry.get("default_value") is not None):
            if self._plan.strict and key not in ([], {}):
                raise InventoryError(
                    f"key {entry.get('key')!r} is empty for host {self._host}", mark=mark
                )
            return
        try:
            parent = self._parent(entry, names)
        except ConfigError as error:
            self._failed(error, "the parent group", entry.place("parent_group"))
            return
        prefix = str(entry.get("prefix") or "")
        separator = str(entry.get("separator", "_"))
        bare = list(_bare_names(key, entry, separator))
        if not prefix and not self._plan.leading_separator:
            separator = ""
        for one in bare:
            name = _safe(f"{prefix}{separator}{one}")
            self._join(name, mark)
            if parent:
                above = self._graph.add_group(_safe(_text(parent, entry)), mark)
                self._graph.add_child(above.name, name, mark)

    def _parent(self, entry: Map, names: Names) -> object:
        parent = entry.get("parent_group")
        return names.text(parent, entry.place("parent_group")) if isinstance(parent, str) else None

    def _join(self, group: str, mark: Mark) -> None:
        self._graph.add_group(group, mark).hosts[self._host] = None

    def _failed(self, error: ConfigError, what: str, mark: Mark) -> None:
        if self._plan.strict:
            raise InventoryError(
                f"{what} cannot be made for host {self._host}: {error.message}",
                mark=error.mark or mark,
                hint=error.hint or "without `strict: true` the host is left out",
            ) from error

    def _names(self) -> Names:
        """The variables as they are now: of the groups, of files of theirs, of the host."""
        groups = self._graph.groups_around(self._host)
        beside = self._beside if self._plan.with_files else ()
        layers = [layer for group in groups for layer in group.layers]
        for files in beside:
            layers += [one for group in groups for one in files.layers("group_vars", group.name)]
        layers += self._graph.hosts[self._host]
        for files in beside:
            layers += files.layers("host_vars", self._host)
        known = sorted(group.name for group in groups if group.name != "all")
        return self._expressions.of(self._host, layers, known)


def _bare_names(key: object, entry: Map, separator: str) -> Iterable[str]:
    """What the names of groups are made of, behind prefix and separator."""
    default = entry.get("default_value")
    if key in _EMPTY or isinstance(key, str):
        yield str(key or default)
    elif isinstance(key, list):
        for one in key:
            yield str(default if one in _EMPTY and default is not None else one)
    elif isinstance(key, Mapping):
        for name, value in key.items():
            if value in _EMPTY and default is None and entry.get("trailing_separator") is False:
                yield str(name)
            else:
                shown_value = default if value in _EMPTY and default is not None else value
                yield f"{name}{separator}{shown_value}"
    else:
        raise InventoryError(
            f"the key of a group is {key!r}: neither text nor a list nor a mapping",
            mark=entry.place("key"),
            hint="add `| string` to the expression",
        )


def _text(parent: object, entry: Map) -> str:
    if not isinstance(parent, str):
        raise InventoryError(
            f"the parent group is {parent!r}, which is no name", mark=entry.place("parent_group")
        )
    return parent


def _value(names: Names, expression: object, mark: Mark) -> object:
    if not isinstance(expression, str):
        raise InventoryError(f"{expression!r} is not an expression", mark=mark)
    return names.value(expression, mark)


def _holds(names: Names, condition: object, mark: Mark) -> bool:
    value = condition
    if isinstance(condition, str):
        value = (names.text if "{{" in condition else names.value)(condition, mark)
    if not isinstance(value, bool):
        raise InventoryError(f"the condition gives {value!r}, not true or false", mark=mark)
    return value


def _plain(value: object, mark: Mark) -> object:
    """A value that has been rendered is data: its text never becomes a template."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return Unsafe(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one, mark) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(one, mark) for key, one in value.items()}
    raise InventoryError(
        f"the expression gives {type(value).__name__}, which is no data", mark=mark
    )


def _safe(name: str) -> str:
    return _ODD.sub("_", name)


def _flag(config: Map, key: str, *, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise InventoryError(f"{key} must be true or false", mark=config.place(key))
    return value


def _map(config: Map, key: str) -> Map:
    value = config.get(key)
    if value is None:
        return Map(mark=config.place(key))
    if not isinstance(value, Map):
        raise InventoryError(f"{key} must be a mapping", mark=config.place(key))
    return value


def _warn_of_unknown(config: Map, known: Sequence[str], graph: Graph) -> None:
    for key in config:
        if key not in known:
            hint = did_you_mean(str(key), known) or f"there are {', '.join(known)}"
            graph.warn(f"{config.key_place(key)}: {shown(str(key))} is ignored: {hint}")
