"""The inventory as it is being read: hosts, groups, who contains whom, and their variables.

Readers of all formats fill one `Graph`; `finish` then makes it whole: every group is in `all`,
a host without a group is in `ungrouped`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.errors import ConfigError, InventoryError, Mark
from reconciler.inventory.names import MAX_HOSTS, check_group, shown
from reconciler.yamldoc import Map

PRIORITY = "ansible_group_priority"


class Values(Map):
    """Variables of a format that is not YAML; knows the place of each all the same."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(mark=mark)
        self._marks: dict[object, Mark] = {}

    def put(self, key: str, value: object, mark: Mark) -> None:
        """Set one, and remember where it is written."""
        self[key] = value
        self._marks[key] = mark

    def place(self, key: object) -> Mark:
        """Where `key` is written."""
        return self._marks.get(key, self.mark)

    key_place = place


class Layer(NamedTuple):
    """Variables from one place. Later layers win, key by key, whole values.

    name: for a person (`group_vars/web`, `inventory host line`). values: with the place of each.
    mark: where the whole is.
    """

    name: str
    values: Map
    mark: Mark


@dataclass
class Group:
    """A group: its own hosts and children in the order in which they were met."""

    name: str
    mark: Mark
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    priority: int = 1
    depth: int = 0

    def rank(self) -> tuple[int, int, str]:
        """Variables of a group win over those of groups with a lower rank."""
        return self.depth, self.priority, self.name


class Graph:
    """Everything that the sources say. errors: what could not be used, in the order met."""

    def __init__(self) -> None:
        nowhere = Mark("inventory")
        self.groups = {name: Group(name, nowhere) for name in ("all", "ungrouped")}
        self.hosts: dict[str, list[Layer]] = {}
        self.errors: list[ConfigError] = []
        self.warnings: list[str] = []
        self._ordered: list[Group] | None = None
        self.add_child("all", "ungrouped", nowhere)

    def warn(self, message: str) -> None:
        """Keep a warning, once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def add_group(self, name: str, mark: Mark) -> Group:
        """The group, made if it is new. Raises InventoryError."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[check_group(name, mark)] = Group(name, mark)
            self._ordered = None
        return group

    def add_child(self, parent: str, child: str, mark: Mark) -> None:
        """Put a known group into another. Raises InventoryError for a loop."""
        if child == "all" or child == parent or parent in self.below(child):
            raise InventoryError(
                f"group {shown(child)} cannot be in {shown(parent)}: it contains it",
                mark=mark,
                hint="take one of the two out of the other's children",
            )
        self.groups[parent].children[child] = None
        self.groups[child].parents[parent] = None
        self._ordered = None

    def add_hosts(
        self, names: Sequence[str], group: str, values: Map, mark: Mark, port: int = 0
    ) -> None:
        """Put hosts into a known group, all with the same variables. Raises InventoryError.

        port: as in `web1:2222`, 0 for none. It counts where a host is first named, and only there.
        """
        members = self.groups[group].hosts
        layer = Layer("inventory host line", values, mark) if values else None
        for name in names:
            members[name] = None
            layers = self.hosts.get(name)
            if layers is None:
                layers = self.hosts[name] = [_port(port, mark)] if port else []
            elif port:
                self.warn(f"{mark}: port {port} is ignored, as host {name} is named before")
            if layer is not None:
                layers.append(layer)
        if len(self.hosts) > MAX_HOSTS:
            raise InventoryError(f"the inventory has more than {MAX_HOSTS} hosts", mark=mark)

    def add_host_values(self, host: str, name: str, values: Map) -> None:
        """More variables of a known host, over those that it has. name: of the layer."""
        if values:
            self.hosts[host].append(Layer(name, values, values.mark))

    def add_group_values(self, name: str, values: Map, mark: Mark) -> None:
        """Variables of a known group. Raises InventoryError for a priority that is no number."""
        group = self.groups[name]
        if PRIORITY in values:
            group.priority = _priority(values[PRIORITY], values.place(PRIORITY))
            self._ordered = None
            values = _without(values, PRIORITY)
        if values:
            group.layers.append(Layer(f"group {name} (inventory)", values, mark))

    def below(self, name: str) -> list[str]:
        """The group and all groups in it, level by level."""
        ordered = {name: None}
        level = [name]
        while level:
            level = [
                child
                for group in level
                for child in self.groups[group].children
                if child not in ordered
            ]
            ordered.update(dict.fromkeys(level))
        return list(ordered)

    def groups_around(self, host: str) -> list[Group]:
        """The groups that a host is in so far, in the order in which their variables apply."""
        names = {name for name, group in self.groups.items() if host in group.hosts}
        todo = list(names)
        while todo:
            above = self.groups[todo.pop()].parents.keys() - names
            names |= above
            todo += above
        if self._ordered is None:
            self._measure()
            self._ordered = sorted(self.groups.values(), key=Group.rank)
        return [group for group in self._ordered if group.name in names]

    def finish(self) -> None:
        """Complete `all` and `ungrouped`, and give every group its depth."""
        for group in self.groups.values():
            if group.name != "all" and not group.parents:
                self.add_child("all", group.name, group.mark)
        grouped = {
            host
            for group in self.groups.values()
            if group.name not in ("all", "ungrouped")
            for host in group.hosts
        }
        ungrouped = self.groups["ungrouped"].hosts
        for host in [host for host in ungrouped if host in grouped]:
            del ungrouped[host]
        for host in self.hosts:
            if host not in grouped:
                ungrouped[host] = None
        self._measure()
        for name in self.hosts.keys() & self.groups.keys():
            self.warnings.append(f"{name} is both a host and a group; patterns mean the host")

    def _measure(self) -> None:
        """Depth is the longest way down from the top: parents are always less deep."""
        waiting = {group.name: len(group.parents) for group in self.groups.values()}
        ready = [name for name, parents in waiting.items() if not parents]
        while ready:
            group = self.groups[ready.pop()]
            for child in group.children:
                below = self.groups[child]
                below.depth = max(below.depth, group.depth + 1)
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)


def _port(port: int, mark: Mark) -> Layer:
    values = Values(mark)
    values.put("ansible_port", port, mark)
    return Layer("inventory host line", values, mark)


def _without(values: Map, key: str) -> Map:
    rest = Values(values.mark)
    for name, value in values.items():
        if name != key:
            rest.put(name, value, values.place(name))
    return rest


def _priority(value: object, mark: Mark) -> int:
    try:
        if isinstance(value, (int, str)):
            return int(value)
    except ValueError:
        pass
    raise InventoryError(f"{PRIORITY} must be a whole number, not {value!r}", mark=mark)
