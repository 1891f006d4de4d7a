"""The variables that are always there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from reconciler.compile.scope import ABSENT, Scope, Tracker
from reconciler.inventory import Inventory, short_name

if TYPE_CHECKING:
    from reconciler.compile.template import Renderer

MANAGED = "Managed by reconciler: changes made by hand are undone"


class Magic:
    """Makes these variables, with what is the same for all hosts of an inventory kept."""

    def __init__(self, inventory: Inventory, renderer: Callable[[], Renderer]) -> None:
        self._inventory = inventory
        self._renderer = renderer
        self._groups = inventory.groups()
        self._hosts = dict.fromkeys(inventory.hosts())
        self._others: dict[str, HostView] = {}

    def of(self, host: str, facts: Mapping[str, object]) -> dict[str, object]:
        """Final values by name. They cannot be overridden, and facts are nowhere but in `facts`."""
        data = dict(facts)
        own = {"facts": data, "ansible_facts": data}
        return {
            **own,
            "inventory_hostname": host,
            "inventory_hostname_short": short_name(host),
            "group_names": sorted(
                name for name in self._inventory.groups_of(host) if name != "all"
            ),
            "groups": self._groups,
            "hostvars": HostVars(self._hosts, self.view, {host: self._view(host, own)}),
            "ansible_managed": MANAGED,
        }

    def view(self, host: str) -> HostView:
        """The variables of another host."""
        if host not in self._others:
            self._others[host] = self._view(host, {})
        return self._others[host]

    def _view(self, host: str, own: Mapping[str, object]) -> HostView:
        def scope() -> Scope:
            tracker = Tracker(lambda raw, mark, scope: self._renderer().value(raw, mark, scope))
            final = {"inventory_hostname": host, **own}
            return Scope(tracker, layers=self._inventory.layers(host), final=final)

        return HostView(scope)


class HostView(Mapping[str, object]):
    """The inventory variables of one host, rendered when they are looked at."""

    def __init__(self, make: Callable[[], Scope]) -> None:
        self._make = make
        self._made: Scope | None = None

    @property
    def _scope(self) -> Scope:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> object:
        value = self._scope.get(name)
        if value is ABSENT:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._scope.all_names()))

    def __len__(self) -> int:
        return len(self._scope.all_names())


class HostVars(Mapping[str, HostView]):
    """The variables of every host; facts are known of the one that is compiled only."""

    def __init__(
        self,
        hosts: Mapping[str, None],
        view: Callable[[str], HostView],
        own: Mapping[str, HostView],
    ) -> None:
        self._hosts = hosts
        self._view = view
        self._own = own

    def __getitem__(self, host: str) -> HostView:
        if host in self._own:
            return self._own[host]
        if host not in self._hosts:
            raise KeyError(host)
        return self._view(host)

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)
