"""ansible-core in this process: what it makes of inventory sources, as plain data.

Nothing is patched but three things that say nothing about inventories: warnings are collected
instead of printed; caches that outlive an inventory are emptied; and the sets in which a group
collects the groups below it keep their order, which otherwise differs from process to process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, MutableSet, Sequence
from importlib import import_module
from typing import Any, NamedTuple

_MAGIC = """
    inventory_file inventory_dir inventory_hostname inventory_hostname_short group_names groups
    playbook_dir omit ansible_version ansible_playbook_python ansible_config_file ansible_facts
    ansible_check_mode ansible_diff_mode ansible_forks ansible_inventory_sources ansible_skip_tags
    ansible_limit ansible_run_tags ansible_verbosity role_names ansible_play_hosts
    ansible_play_hosts_all ansible_play_batch play_hosts ansible_role_names
    ansible_collections_path ansible_dependent_role_names ansible_parent_role_names
"""
#: Variables that Ansible puts beside those of the inventory.
MAGIC = frozenset(_MAGIC.split())


class Ordered(MutableSet[Any]):
    """A set that keeps the order of its insertions; as much of one as Ansible uses."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: Any) -> None:
        self._items[value] = None

    def discard(self, value: Any) -> None:
        self._items.pop(value, None)

    def update(self, items: Iterable[Any]) -> None:
        self._items |= dict.fromkeys(items)

    def difference_update(self, items: Iterable[Any]) -> None:
        for item in items:
            self.discard(item)

    def copy(self) -> Ordered:
        return Ordered(self)


class Seen(NamedTuple):
    """What Ansible makes of sources. refused: the sources that it could not parse.

    document, graph: of `ansible-inventory --list` and `--graph`.
    """

    refused: list[str]
    hosts: list[str]
    groups: dict[str, list[str]]
    document: dict[str, Any]
    graph: str
    variables: dict[str, dict[str, Any]]


class Ansible:
    """The oracle. version: of ansible-core."""

    def __init__(self) -> None:
        self.version: str = import_module("ansible").__version__
        self._loader = import_module("ansible.parsing.dataloader").DataLoader
        self._manager = import_module("ansible.inventory.manager").InventoryManager
        self._variables = import_module("ansible.vars.manager").VariableManager
        self._cli = import_module("ansible.cli.inventory").InventoryCLI
        self._encoder = import_module("ansible._internal._json._profiles._inventory_legacy").Encoder
        self._files: Any = import_module("ansible.plugins.vars.host_group_vars")
        import_module("ansible.plugins.loader").init_plugin_loader([])
        group: Any = import_module("ansible.inventory.group")
        group.set = Ordered
        context: Any = import_module("ansible.context")
        context.CLIARGS = {
            "export": False,
            "basedir": None,
            "pattern": "all",
            "show_vars": False,
        }
        self._said: list[str] = []
        display = import_module("ansible.utils.display").Display()
        display.warning = lambda msg, *_, **__: self._said.append(str(msg))
        display.error_as_warning = lambda msg=None, *_, **__: None
        display.deprecated = lambda *_, **__: None
        self._inventory: Any = None

    def load(self, sources: Sequence[str], directory: str) -> Seen:
        """Read sources; directory: where the playbook is."""
        for cache in (self._files.FOUND, self._files.NAK, self._files.CANONICAL_PATHS):
            cache.clear()
        self._said.clear()
        loader = self._loader()
        loader.set_basedir(directory)
        self._inventory = inventory = self._manager(loader=loader, sources=list(sources))
        refused = [said for said in self._said if said.startswith("Unable to parse")]
        variables = self._variables(loader=loader, inventory=inventory)
        cli = self._cli.__new__(self._cli)
        cli.inventory, cli.vm, cli.loader = inventory, variables, loader
        document = json.loads(
            json.dumps(cli.json_inventory(inventory.groups["all"]), cls=self._encoder)
        )
        return Seen(
            refused=refused,
            hosts=list(inventory.hosts),
            groups={name: list(hosts) for name, hosts in inventory.get_groups_dict().items()},
            document=_without_magic(document),
            graph=cli.inventory_graph(),
            variables={
                host: dict(self._plain(cli, host)) for host in [*inventory.hosts, "localhost"]
            },
        )

    def select(self, pattern: str) -> list[str] | None:
        """The hosts that a pattern means in what was loaded last; None if it is refused."""
        data = self._inventory._inventory
        if data.localhost is not None and data.localhost.implicit:
            data.localhost = None  # each pattern is the first one that speaks of this machine
        self._inventory.clear_caches()
        try:
            return [host.name for host in self._inventory.get_hosts(pattern)]
        except Exception:  # noqa: BLE001  # whatever Ansible raises, it is a refusal
            return None

    def limit(self, pattern: str) -> list[str]:
        """The hosts that `--limit PATTERN` leaves of all, in what was loaded last."""
        self._inventory.subset(pattern)
        try:
            return self.select("all") or []
        finally:
            self._inventory.subset(None)

    def _plain(self, cli: Any, host: str) -> Iterator[tuple[str, Any]]:
        entity = cli.inventory.get_host(host)
        # What Ansible says of the machine that it runs on itself.
        own = {"ansible_python_interpreter"} if entity.implicit else set[str]()
        found = cli._get_host_variables(entity)
        for name, value in json.loads(json.dumps(found, cls=self._encoder)).items():
            if name not in MAGIC | own:
                yield name, unwrapped(value)


def _without_magic(document: dict[str, Any]) -> dict[str, Any]:
    hostvars = document["_meta"]["hostvars"]
    document["_meta"]["hostvars"] = {
        host: found
        for host, values in hostvars.items()
        if (found := {k: unwrapped(v) for k, v in values.items() if k not in MAGIC})
    }
    return document


def unwrapped(value: Any) -> Any:
    """A value without `__ansible_unsafe` around its texts."""
    if isinstance(value, dict):
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: unwrapped(one) for key, one in value.items()}
    return [unwrapped(one) for one in value] if isinstance(value, list) else value
