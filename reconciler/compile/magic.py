"""The variables that are always there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from reconciler.compile.scope import ABSENT, Scope, Tracker
from reconciler.inventory import Inventory

if TYPE_CHECKING:
    from reconciler.compile.template import Renderer

MANAGED = "Managed by reconciler: changes made by hand are undone"


def magic(
    host: str, facts: Mapping[str, object], inventory: Inventory, renderer: Callable[[], Renderer]
) -> dict[str, object]:
    """Final values by name. They cannot be overridden, and facts are nowhere but in `facts`."""
    data = dict(facts)
    return {
        "facts": data,
        "ansible_facts": data,
        "inventory_hostname": host,
        "inventory_hostname_short": host.split(".", maxsplit=1)[0],
        "group_names": sorted(name for name in inventory.groups_of(host) if name != "all"),
        "groups": inventory.groups(),
        "hostvars": HostVars(inventory, renderer, host, data),
        "ansible_managed": MANAGED,
    }


class HostVars(Mapping[str, Mapping[str, object]]):
    """The inventory variables of every host. Other hosts' facts are not known."""

    def __init__(
        self,
        inventory: Inventory,
        renderer: Callable[[], Renderer],
        host: str,
        facts: Mapping[str, object],
    ) -> None:
        self._inventory = inventory
        self._renderer = renderer
        self._facts = {host: facts}
        self._views: dict[str, HostView] = {}

    def __getitem__(self, host: str) -> Mapping[str, object]:
        if host not in self._views:
            if host not in set(self._inventory.hosts()):
                raise KeyError(host)
            own = self._facts.get(host)
            final: dict[str, object] = {"inventory_hostname": host}
            if own is not None:
                final.update(facts=own, ansible_facts=own)
            self._views[host] = HostView(self._scope(host, final))
        return self._views[host]

    def _scope(self, host: str, final: Mapping[str, object]) -> Scope:
        tracker = Tracker(lambda raw, mark, scope: self._renderer().value(raw, mark, scope))
        return Scope(tracker, layers=self._inventory.layers(host), final=final)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inventory.hosts())

    def __len__(self) -> int:
        return len(self._inventory.hosts())


class HostView(Mapping[str, object]):
    """The variables of one host, rendered when they are looked at."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __getitem__(self, name: str) -> object:
        value = self._scope.get(name)
        if value is ABSENT:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._scope.all_names()))

    def __len__(self) -> int:
        return len(self._scope.all_names())
