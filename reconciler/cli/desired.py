"""The desired state of hosts: a tree and an inventory, compiled when nothing newer is kept.

A run that brings nothing new finds its catalog in the cache, and then neither YAML nor Jinja2 is
imported. The bytes of contents are not kept: if the engine asks for some, the host is compiled
after all; compiling is pure, so that gives the same catalog.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from reconciler.catalog import dumps
from reconciler.cli.console import Output
from reconciler.cli.followed import give_up_rights, in_mirrors
from reconciler.cli.places import is_state_repo
from reconciler.compile.cache import CatalogCache, catalog_key
from reconciler.errors import ConfigError, ConfigErrors, ReconcilerError, UsageError
from reconciler.source import open_tree
from reconciler.tree import Entry, Tree

if TYPE_CHECKING:
    from reconciler.compile import Compiled, Project
    from reconciler.inventory import Inventory

Facts = Mapping[str, object]
#: What belongs to an inventory beside its own files.
BESIDE = ("group_vars", "host_vars")
#: An inventory source that makes groups out of variables and facts.
CONSTRUCTED = re.compile(rb"""^[{\s]*["']?plugin["']?\s*:""", re.MULTILINE)


class Choice(NamedTuple):
    """Which resources of a host are meant, by their tags."""

    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()


EVERYTHING = Choice()


def open_repo(repo: str, ref: str | None) -> Tree:
    """The state repo. Raises UsageError for a directory that is none, such as somebody's home.

    A mirror of the agent holds what it has refused: whoever opens one is no more than its owner
    from here on.
    """
    if in_mirrors(repo):
        give_up_rights(repo)
    if ref is None and os.path.isdir(repo) and not is_state_repo(repo):
        raise UsageError(
            f"{repo} is no state repo: it has no site.yml",
            hint="name the state repo with -C, or make one: reconciler init DIRECTORY",
        )
    return open_tree(repo, ref)


class Desired:
    """What a state repo wants of the hosts of an inventory.

    repo, ref: where the state repo is; a commit of it, or None for the files as they are.
    inventories: files and directories; none: one host alone, in group `all`.
    allow_empty: an inventory that is not there is no error.
    """

    def __init__(
        self,
        repo: str,
        ref: str | None,
        inventories: Sequence[str],
        cache: CatalogCache,
        out: Output,
        *,
        allow_empty: bool = False,
    ) -> None:
        self.tree = open_repo(repo, ref)
        self._inventories = list(inventories)
        self._allow_empty = allow_empty
        self.has_inventory = bool(inventories)
        self._cache = cache
        self._projects: dict[str, Project] = {}
        self._plays: dict[Project, frozenset[str]] = {}
        self._compiled: dict[str, Compiled] = {}
        out.read_source = self._source_text

    @classmethod
    def asked(cls, args: argparse.Namespace, cache: CatalogCache, out: Output) -> Desired:
        """What the options of a verb name, those of `repo_options` and `inventory_options`."""
        return cls(args.repo, args.ref, args.inventories, cache, out, allow_empty=args.allow_empty)

    # -- hosts ---------------------------------------------------------------------------

    @cached_property
    def inventory(self) -> Inventory:
        """The inventory that was named. Raises UsageError if none was, InventoryError."""
        if not self._inventories:
            raise UsageError("which inventory?", hint="name it with -i INVENTORY")
        from reconciler.compile.expressions import InventoryExpressions
        from reconciler.inventory import Inventory, Places
        from reconciler.source.program import run_program

        places = Places(self.tree, run_program)
        expressions = InventoryExpressions(self._cache.facts)
        return Inventory.load(
            self._inventories,
            places,
            self.tree,
            expressions,
            allow_missing=self._allow_empty,
        )

    @property
    def warnings(self) -> list[str]:
        """What the inventory says that was probably not meant; none if it was not needed."""
        loaded: Inventory | None = self.__dict__.get("inventory")
        return [] if loaded is None else loaded.warnings

    def chosen(self, limit: str | None) -> list[str]:
        """The hosts that --limit means; without it all. Raises InventoryError if there are none."""
        from reconciler.inventory import Disk

        return self.inventory.chosen(limit, Disk(), allow_empty=self._allow_empty)

    def select(self, pattern: str) -> list[str]:
        """The hosts of the inventory that a pattern means, if any. Raises InventoryError."""
        from reconciler.inventory import Disk

        return self.inventory.select(pattern, Disk())

    # -- catalogs ------------------------------------------------------------------------

    def catalog(self, host: str, facts: Facts, choice: Choice = EVERYTHING) -> bytes:
        """The canonical JSON of a host's catalog. Raises ConfigErrors."""
        key = self._key(host, facts, choice)
        found = self._cache.catalog(key) if key else None
        if found is not None:
            return found
        from reconciler.compile import select

        compiled = self.compiled(host, facts)
        catalog = dumps(select(compiled.catalog, choice.tags, choice.skip_tags).to_json())
        if key and not compiled.secrets:
            self._cache.keep_catalog(key, catalog)
        return catalog

    def is_kept(self, host: str, facts: Facts, choice: Choice = EVERYTHING) -> bool:
        """Whether the catalog is at hand, so that the host is known to be in the inventory."""
        key = self._key(host, facts, choice)
        return bool(key) and self._cache.catalog(key) is not None

    def compiled(self, host: str, facts: Facts) -> Compiled:
        """The catalog with what it refers to: contents, secrets, and where values come from."""
        if host not in self._compiled:
            self._compiled[host] = self.project(host).compile(host, facts)
        return self._compiled[host]

    def forget(self, host: str) -> None:
        """Let go of what was compiled for a host: a fleet has many."""
        self._compiled.pop(host, None)

    def has_play(self, host: str) -> bool:
        """Whether site.yml is about this host at all; of one with errors, compile says them all."""
        project = self.project(host)
        if project not in self._plays:
            try:
                self._plays[project] = frozenset(project.hosts())
            except ConfigErrors:
                return True
        return host in self._plays[project]

    def project(self, host: str) -> Project:
        """What compiles `host`. Raises ConfigErrors."""
        alone = "" if self.has_inventory else host
        if alone not in self._projects:
            from reconciler.compile import Project
            from reconciler.inventory import Inventory

            inventory = Inventory.localhost(host, self.tree) if alone else self.inventory
            self._projects[alone] = Project(self.tree, inventory)
        return self._projects[alone]

    def content(self, host: str, facts: Facts, sha256: str) -> Iterable[bytes]:
        """The bytes that a catalog names by digest. Raises ConfigError for one that it does not."""
        contents = self.compiled(host, facts).contents
        if sha256 not in contents:
            raise ConfigError(
                f"no content has the digest {sha256[:12]}",
                hint="the state repo changed during the run: run again",
            )
        return contents.pieces(sha256)

    def _source_text(self, file: str) -> str | None:
        """A file that an error points into."""
        from reconciler.inventory import Places

        try:
            return Places(self.tree).read(file).decode("utf-8", "backslashreplace")
        except ReconcilerError:
            return None

    # -- keys ----------------------------------------------------------------------------

    def _key(self, host: str, facts: Facts, choice: Choice) -> str:
        """The catalog's key in the cache; empty where it must not be kept."""
        inventory = self.inventory_key
        if inventory is None:
            return ""
        tree = self.tree
        return catalog_key(
            tree=tree.key,
            commit=tree.commit,
            dirty=tree.dirty,
            inventory=inventory,
            host=host,
            facts=facts,
            choice=choice,
        )

    @cached_property
    def inventory_key(self) -> str | None:
        """Equal for equal inventories; None for one that a program or facts make anew each time."""
        digest = hashlib.sha256()
        for source in self._inventories:
            digest.update(dumps(source))
            inside = (
                None
                if source.startswith(("/", "~")) or ".." in source.split("/")
                else self.tree.entry(source)
            )
            if inside is not None:
                if _is_constructed(self.tree, inside):
                    return None
                continue  # part of the tree, whose own key says it all
            places = [
                source,
                *(os.path.join(os.path.dirname(source) or ".", name) for name in BESIDE),
            ]
            for path in (file for place in places for file in _files(place)):
                content = _content(path)
                if content is None or CONSTRUCTED.search(content):
                    return None
                digest.update(dumps([path, hashlib.sha256(content).hexdigest()]))
        return digest.hexdigest()


def _is_constructed(tree: Tree, entry: Entry) -> bool:
    if entry.kind == "directory":
        return any(
            _is_constructed(tree, one)
            for one in tree.listdir(entry.path)
            if posixpath.basename(one.path) not in BESIDE
        )
    return entry.kind == "file" and CONSTRUCTED.search(tree.read(entry.path)) is not None


def _content(path: str) -> bytes | None:
    """What a file holds; None for a program, and for what cannot be read."""
    try:
        found = os.stat(path)
        if found.st_mode & stat.S_IXUSR or not stat.S_ISREG(found.st_mode):
            return None
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _files(place: str) -> Iterable[str]:
    """The files at or below a place, in a fixed order."""
    if not os.path.isdir(place):
        if os.path.lexists(place):
            yield place
        return
    for directory, names, files in os.walk(place, followlinks=True):
        names.sort()
        yield from (os.path.join(directory, name) for name in sorted(files))
