"""The inventory: which hosts there are, in which groups, with which variables."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from reconciler.errors import ConfigError, ConfigErrors, InventoryError, Mark
from reconciler.inventory.constructed import Expressions
from reconciler.inventory.graph import Graph, Group, Layer, Values
from reconciler.inventory.names import check_host, shown
from reconciler.inventory.patterns import LOCALHOST, Patterns, split
from reconciler.inventory.program import UNSAFE
from reconciler.inventory.reader import Reader, Unreadable
from reconciler.inventory.sources import Sources
from reconciler.inventory.varsfiles import VarsFiles
from reconciler.tree import Tree
from reconciler.yamldoc import Unsafe


class Inventory:
    """Hosts, groups and variables, compatible with Ansible's.

    warnings: what was probably not meant, for a person, each once; grows as hosts are asked for.
    """

    def __init__(
        self, graph: Graph, vars_files: Sequence[VarsFiles], beside_site: VarsFiles | None
    ) -> None:
        graph.finish()
        self._graph = graph
        self._beside_sources = vars_files
        self._beside_site = beside_site
        self._collisions: set[tuple[str, str, str]] = set()
        self._group_layers = functools.cache(self._layers_of_groups)
        self._files = functools.cache(self._layers_of_files)

    @classmethod
    def load(
        cls,
        sources: Sequence[str],
        reader: Reader,
        tree: Tree | None = None,
        expressions: Expressions | None = None,
        *,
        allow_missing: bool = False,
    ) -> Inventory:
        """Read sources, later ones over earlier ones.

        sources: paths, or lists such as `web1,web2,`. reader: where paths lead, and what runs the
        programs among them. tree: the state repo, for group_vars/ and host_vars/ beside site.yml.
        expressions: what evaluates `constructed` sources. allow_missing: a source that is not there
        or may not be read is a warning.
        Raises InventoryError or ConfigErrors: everything that is wrong, at once.
        """
        graph = Graph()
        found = Sources(reader, graph, expressions, allow_missing=allow_missing)
        for source in sources:
            found.read(source)
        beside = [files for files in found.beside.values() if not files.is_top_of(tree)]
        inventory = cls(graph, beside, _beside_site(tree, graph))
        inventory._check_group_files()
        return inventory

    @classmethod
    def localhost(cls, name: str, tree: Tree | None = None) -> Inventory:
        """No inventory: this one host, in group `all`. Raises InventoryError."""
        graph = Graph()
        mark = Mark("this host")
        graph.add_hosts([check_host(name)], "ungrouped", _local(mark), mark)
        inventory = cls(graph, [], _beside_site(tree, graph))
        inventory._check_group_files()
        return inventory

    @property
    def warnings(self) -> list[str]:
        """What was probably not meant, so far."""
        return self._graph.warnings

    # -- who ---------------------------------------------------------------------------------

    def hosts(self) -> list[str]:
        """All hosts, in the order in which the sources name them."""
        return list(self._graph.hosts)

    def groups(self) -> dict[str, list[str]]:
        """Every group, `all` and `ungrouped` too, with its hosts of all depths."""
        return {name: list(hosts) for name, hosts in self._members.items()}

    def groups_of(self, host: str) -> list[str]:
        """The groups of a host, `all` first, in the order in which their variables apply."""
        if self.is_implicit(host):
            return ["all"]
        try:
            return [group.name for group in self._groups_by_host[host]]
        except KeyError:
            raise InventoryError(f"host {host!r} is not in the inventory") from None

    def is_implicit(self, host: str) -> bool:
        """Whether it is the machine that this runs on, which patterns may name without a source."""
        return host in LOCALHOST and host not in self._graph.hosts

    def chosen(
        self, limit: str | None, files: Reader | None = None, *, allow_empty: bool = False
    ) -> list[str]:
        """The hosts that an operator means; limit: None for all of them.

        Raises InventoryError if there are none, unless `allow_empty`; else as `select`.
        """
        said = len(self.warnings)
        hosts = self.select("all" if limit is None else limit, files)
        if not hosts and not allow_empty:
            what = (
                "there is no host in the inventory"
                if limit is None
                else f"no host matches {limit!r}"
            )
            why = [*self.warnings[said:], "give --allow-empty if that is meant"]
            raise InventoryError(what, hint="; ".join(why))
        return hosts

    def select(self, pattern: str, files: Reader | None = None) -> list[str]:
        """The hosts that a pattern means, in Ansible's order; possibly none.

        files: where `@FILE` (one pattern a line) is read from; without it `@` is refused.
        A name that is not there is a warning. Raises InventoryError for a bad pattern.
        """
        parts = [one for part in split(pattern) for one in self._lines_of(part, files)]
        if not parts:
            return []  # an empty file is not, as no pattern at all would be, every host
        return Patterns(self._members, self._graph.hosts, self._graph.warn).select(parts)

    # -- what --------------------------------------------------------------------------------

    def layers(self, host: str) -> list[Layer]:
        """All variables of a host by where they come from; later ones win.

        Raises InventoryError for an unknown host, ConfigErrors for its files of variables.
        """
        layers = list(self._group_layers(tuple(self.groups_of(host))))
        if self.is_implicit(host):
            mark = Mark("implicit localhost")
            layers.append(Layer(mark.file, _local(mark), mark))
        else:
            layers += self._graph.hosts[host]
        errors: list[ConfigError] = []
        for files in self._vars_files():
            try:
                layers += self._files(files, "host_vars", host)
            except ConfigError as error:
                errors.append(error)
        _raise(errors)
        return layers

    def variables(self, host: str) -> dict[str, object]:
        """The variables of a host: whole values, the last layer wins. Raises as `layers`."""
        merged: dict[str, object] = {}
        for layer in self.layers(host):
            merged.update(layer.values)
        return merged

    def check(self, hosts: Iterable[str]) -> None:
        """Read the variables of these hosts, so that `warnings` is whole.

        Raises InventoryError or ConfigErrors: everything that is wrong, each once.
        """
        errors: dict[str, ConfigError] = {}
        for host in hosts:
            try:
                self.layers(host)
            except ConfigErrors as found:
                errors.update((str(error), error) for error in found.errors)
            except ConfigError as error:
                errors[str(error)] = error
        _raise(list(errors.values()))

    def to_host_json(self, host: str) -> dict[str, object]:
        """The variables of a host in the shape of `ansible-inventory --host`. Raises as `layers`."""
        return {key: _sealed(value) for key, value in self.variables(host).items()}

    def to_list_json(self) -> dict[str, object]:
        """The inventory in the shape of `ansible-inventory --list`."""
        document: dict[str, object] = {
            "_meta": {
                "hostvars": {
                    host: values
                    for host in self._graph.hosts
                    if (values := self.to_host_json(host))
                },
                "profile": "inventory_legacy",
            }
        }
        for name in self._graph.below("all"):
            group = self._graph.groups[name]
            shape = {
                "hosts": [] if name == "all" else list(group.hosts),
                "children": list(group.children),
            }
            if any(shape.values()):
                document[name] = {key: names for key, names in shape.items() if names}
        return document

    # -- inside ------------------------------------------------------------------------------

    @functools.cached_property
    def _members(self) -> dict[str, dict[str, None]]:
        groups = self._graph.groups
        return {
            name: dict.fromkeys(
                host for below in self._graph.below(name) for host in groups[below].hosts
            )
            for name in groups
        }

    @functools.cached_property
    def _groups_by_host(self) -> dict[str, list[Group]]:
        ordered = sorted(self._graph.groups.values(), key=Group.rank)
        found: dict[str, list[Group]] = {host: [] for host in self._graph.hosts}
        for group in ordered:
            for host in self._members[group.name]:
                found[host].append(group)
        return found

    def _vars_files(self) -> list[VarsFiles]:
        return [*self._beside_sources, *([self._beside_site] if self._beside_site else [])]

    def _layers_of_files(self, files: VarsFiles, kind: str, name: str) -> list[Layer]:
        return files.layers(kind, name)

    def _layers_of_groups(self, names: tuple[str, ...]) -> list[Layer]:
        """For all hosts of exactly these groups. `all` comes first, with its files: group_vars/all
        wins over what the inventory file says of `all`, and of other groups too."""
        groups = [self._graph.groups[name] for name in names if name != "all"]
        layers = list(self._graph.groups["all"].layers)
        for group in groups:
            layers += group.layers
        for part in (["all"], [group.name for group in groups]):
            for files in self._vars_files():
                for name in part:
                    layers += self._files(files, "group_vars", name)
        self._warn_of_collisions(groups)
        return layers

    def _warn_of_collisions(self, groups: Sequence[Group]) -> None:
        """Two groups side by side say different things, and only their names decide."""
        seen: dict[tuple[int, int, str], tuple[str, object]] = {}
        for group in groups:
            for layer in self._layers_of_group(group):
                for key, value in layer.values.items():
                    slot = (group.depth, group.priority, key)
                    other, theirs = seen.get(slot, (group.name, value))
                    seen[slot] = (group.name, value)
                    if (
                        other != group.name
                        and theirs != value
                        and (other, group.name, key) not in self._collisions
                    ):
                        self._collisions.add((other, group.name, key))
                        self._graph.warn(
                            f"{layer.values.key_place(key)}: groups {other} and {group.name} both set {key}, and "
                            f"{group.name} wins by its name only: set ansible_group_priority in one of them"
                        )

    def _layers_of_group(self, group: Group) -> Iterable[Layer]:
        yield from group.layers
        for files in self._vars_files():
            yield from self._files(files, "group_vars", group.name)

    def _check_group_files(self) -> None:
        """Every file of group variables is read now, so that all errors show at once."""
        errors = self._graph.errors
        for group in self._graph.groups.values():
            try:
                list(self._layers_of_group(group))
            except ConfigError as error:
                errors.append(error)
        _raise(errors)

    def _lines_of(self, part: str, files: Reader | None) -> list[str]:
        if not part.startswith("@"):
            return [part]
        if files is None:
            raise InventoryError(f"{part!r}: a file of patterns can be given to --limit only")
        try:
            text = files.read(part[1:]).decode("utf-8", "replace")
        except Unreadable as error:
            raise InventoryError(
                f"pattern {shown(part)}: {error.message}",
                hint="@FILE stands for the patterns in a file, one a line",
            ) from error
        lines = (line.strip() for line in text.splitlines())
        return [one for line in lines if line and line[0] != "#" for one in split(line)]


def _sealed(value: object) -> object:
    """Text that looks like a template and is none is marked, so that no reader renders it."""
    if isinstance(value, Unsafe) and "{" in value:
        return {UNSAFE: str(value)}
    if isinstance(value, dict):
        return {key: _sealed(one) for key, one in value.items()}
    return [_sealed(one) for one in value] if isinstance(value, list) else value


def _local(mark: Mark) -> Values:
    values = Values(mark)
    values.put("ansible_connection", "local", mark)
    return values


def _beside_site(tree: Tree | None, graph: Graph) -> VarsFiles | None:
    return None if tree is None else VarsFiles(tree, "", graph)


def _raise(errors: Sequence[ConfigError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigErrors(errors)
