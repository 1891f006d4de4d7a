"""What inventory programs print: groups as JSON, from `--list` and `--host NAME`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from reconciler.errors import InventoryError, Mark
from reconciler.inventory.connection import check_variables
from reconciler.inventory.graph import Graph, Values
from reconciler.inventory.mapping import SECTIONS
from reconciler.inventory.names import check_group, check_host, shown
from reconciler.yamldoc import Map, Unsafe

#: Calls the program with arguments; what it prints. Raises ConfigError.
Call = Callable[[Sequence[str]], bytes]
#: How Ansible prints text that is no template.
UNSAFE = "__ansible_unsafe"


def read_program(call: Call, path: str, graph: Graph) -> None:
    """Read what `--list` prints into the graph, and `--host` of each host if it has no `_meta`.

    Raises ConfigError.
    """
    listed = Mark(f"{path} --list")
    document = _json(call(["--list"]), listed)
    meta = document.pop("_meta", None)
    hosts: dict[str, None] = {}
    for name, content in document.items():
        hosts |= _group(name, content, listed, graph)
    if meta is not None:
        inside = _mapping(meta, "_meta", listed).get("hostvars")
        known = _mapping(inside, "_meta.hostvars", listed)
    else:
        graph.warn(
            f"{path}: --list prints no _meta.hostvars, so the program is run once for each host"
        )
        asked = Mark(f"{path} --host")
        known = {name: _json(call(["--host", name]).strip() or b"{}", asked) for name in hosts}
    for name in hosts:
        values = _values(known.get(name, {}), name, listed)
        check_variables(values, graph)
        graph.add_host_values(name, "inventory program", values)
    for name in known.keys() - hosts:
        graph.warn(f"{path}: host {shown(name)} is in _meta.hostvars and in no group: left out")


def _group(name: str, content: object, mark: Mark, graph: Graph) -> dict[str, None]:
    """One group; its own hosts."""
    if not isinstance(content, dict):
        content = {"hosts": content}
    elif not content.keys() & set(SECTIONS):
        # An old form, in which a group is its only host; `{}` has always meant that as well.
        content = {"hosts": [name], "vars": content}
    graph.add_group(name, mark)
    hosts = dict.fromkeys(check_host(one, mark) for one in _names(content, "hosts", name, mark))
    graph.add_hosts(list(hosts), name, Map(), mark)
    values = _values(content.get("vars", {}), name, mark)
    check_variables(values, graph)
    graph.add_group_values(name, values, mark)
    for child in _names(content, "children", name, mark):
        graph.add_group(check_group(child, mark), mark)
        graph.add_child(name, child, mark)
    return hosts


def _names(content: Mapping[str, object], key: str, group: str, mark: Mark) -> list[str]:
    names = content.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InventoryError(f"{key} of group {shown(group)} must be a list of names", mark=mark)
    return names


def _values(content: object, name: str, mark: Mark) -> Values:
    if not isinstance(content, dict):
        raise InventoryError(f"the variables of {shown(name)} must be an object", mark=mark)
    values = Values(mark)
    for key, value in content.items():
        values.put(key, value, mark)
    return values


def _mapping(value: object, what: str, mark: Mark) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InventoryError(f"{what} must be an object", mark=mark)
    return value


def _json(data: bytes, mark: Mark) -> dict[str, object]:
    try:
        document = json.loads(data, object_hook=_unsafe, parse_constant=_no_number)
        if b"\\ud" in data.lower():
            json.dumps(document, ensure_ascii=False).encode()  # half a character is no text
    except (ValueError, RecursionError) as error:
        raise InventoryError(
            f"what the program prints is not JSON: {error}",
            mark=mark,
            hint="an inventory program prints one JSON object and nothing else",
        ) from error
    if not isinstance(document, dict):
        raise InventoryError("the program must print a JSON object", mark=mark)
    return document


def _unsafe(found: dict[str, object]) -> object:
    text = found.get(UNSAFE)
    return Unsafe(text) if len(found) == 1 and isinstance(text, str) else found


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")
