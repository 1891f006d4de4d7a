"""YAML, JSON and TOML inventories: groups as keys, each with `hosts`, `vars` and `children`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from reconciler.errors import ConfigError, InventoryError, Mark
from reconciler.inventory.connection import check_variables
from reconciler.inventory.graph import Graph, Values
from reconciler.inventory.names import expand, shown
from reconciler.words import did_you_mean
from reconciler.yamldoc import Limits, Map, load

#: A fleet of 50,000 hosts fits; other files of a state repo stay under the default limits.
LIMITS = Limits(size=16 << 20, events=2_000_000, nodes=4_000_000)
SECTIONS = ("hosts", "vars", "children")


def parse_yaml(data: bytes, file: str, graph: Graph) -> Map | None:
    """Read one file into the graph. Raises ConfigError; smaller errors go to `graph.errors`.

    A file with a `plugin:` is no inventory but says how to make one: it is returned.
    """
    document = load(data, file, LIMITS)
    if not isinstance(document, Map) or not document:
        raise InventoryError(
            "an inventory is a mapping of groups",
            mark=Mark(file, 1, 1),
            hint="start with all: and put hosts: and children: below it",
        )
    if isinstance(document.get("plugin"), str):
        return document
    _groups(document, None, graph)
    return None


def parse_toml(data: bytes, file: str, graph: Graph) -> None:
    """The same for TOML, whose parser tells no lines."""
    try:
        document = _marked(tomllib.loads(data.decode("utf-8")), Mark(file))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InventoryError(f"this is not TOML: {error}", mark=Mark(file)) from error
    _groups(document, None, graph)


def _marked(table: Mapping[str, object], mark: Mark) -> Map:
    """The table as a Map. Ansible's TOML has children as a list of names."""
    values = Values(mark)
    for key, value in table.items():
        if key == "children" and isinstance(value, list):
            value = dict.fromkeys(map(str, value))
        values.put(key, _marked(value, mark) if isinstance(value, dict) else value, mark)
    return values


def _groups(groups: Map, parent: str | None, graph: Graph) -> None:
    """In the order of the file, the groups in a group right after it: that is Ansible's order."""
    for key, content in groups.items():
        mark = groups.key_place(key)
        try:
            group = graph.add_group(str(key), mark)
            if parent is not None:
                graph.add_child(parent, group.name, mark)
            _group(group.name, content, groups.place(key), graph)
        except ConfigError as error:
            graph.errors.append(error)


def _group(name: str, content: object, mark: Mark, graph: Graph) -> None:
    if content is None:
        return
    if not isinstance(content, Map):
        raise InventoryError(
            f"group {name} must be a mapping, not {_kind(content)}",
            mark=mark,
            hint="below a group there are hosts:, vars: and children:",
        )
    for key in content:
        if key == "vars":
            variables = _section(content, key, name)
            check_variables(variables, graph)
            graph.add_group_values(name, variables, content.place(key))
        elif key == "children":
            _groups(_section(content, key, name), name, graph)
        elif key == "hosts":
            _hosts(_section(content, key, name), name, graph)
        else:
            hint = did_you_mean(str(key), SECTIONS) or "a group has hosts, vars and children"
            place = content.key_place(key)
            graph.warn(f"{place}: key {shown(str(key))} of group {name} is ignored: {hint}")


def _hosts(hosts: Map, group: str, graph: Graph) -> None:
    for key, values in hosts.items():
        mark = hosts.key_place(key)
        try:
            found = expand(str(key), mark)
            if values is not None and not isinstance(values, Map):
                raise InventoryError(
                    f"the variables of host {shown(str(key))} must be a mapping, not {_kind(values)}",
                    mark=hosts.place(key),
                )
            variables = Map(mark=mark) if values is None else values
            check_variables(variables, graph)
            graph.add_hosts(found.hosts, group, variables, mark, found.port)
        except ConfigError as error:
            graph.errors.append(error)


def _section(content: Map, key: str, group: str) -> Map:
    section = content.get(key)
    if section is None:
        return Map()
    if isinstance(section, str):
        one = Values(content.place(key))
        one.put(section, None, content.place(key))
        return one
    if isinstance(section, Map):
        return section
    raise InventoryError(
        f"{key} of group {group} must be a mapping, not {_kind(section)}",
        mark=content.place(key),
        hint="write each name as a key: `web1:` instead of `- web1`",
    )


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"the value {value!r}"
