"""A state repo at one revision: compiles hosts, and keeps what all of them share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.catalog import Catalog, Declaration, dumps
from reconciler.compile.evaluate import Evaluator
from reconciler.compile.gather import Gathered
from reconciler.compile.link import Linker
from reconciler.compile.lookup import Lookup
from reconciler.compile.lower import Lowering
from reconciler.compile.magic import Magic
from reconciler.compile.provenance import Provenance
from reconciler.compile.schema import TypeSchema
from reconciler.compile.scope import Scope
from reconciler.compile.site import Play, Site, SiteReader
from reconciler.compile.sources import Contents, Sources
from reconciler.compile.types import Types
from reconciler.engine.loader import Loader
from reconciler.engine.order import check
from reconciler.errors import ConfigError, ConfigErrors, Mark
from reconciler.identity import FILE, read_identity
from reconciler.inventory import Inventory
from reconciler.resource import Resource
from reconciler.tree import Tree

if TYPE_CHECKING:
    from reconciler.compile.template import Renderer

LOCALHOST = "localhost"


@dataclass(frozen=True)
class Compiled:
    """What compiling one host gives.

    contents: sha256 -> bytes; `contents.pieces` for those of any size. secrets: handle -> value; they are nowhere else.
    """

    catalog: Catalog
    contents: Contents
    secrets: Mapping[str, str]
    provenance: Provenance


class Project:
    """A state repo at one revision, with an inventory; without one, every host stands alone in
    the group `all`. Parsed files and templates are kept for all hosts. For one thread.

    every_module: catalogs carry all modules of the state repo's own, not only those that they use:
    of what is used no more, prune needs its module.
    """

    def __init__(
        self, tree: Tree, inventory: Inventory | None = None, *, every_module: bool = False
    ) -> None:
        self._tree = tree
        self._every_module = every_module
        self._inventory = inventory
        self._sources = Sources(tree)
        self._types = Types(tree)
        self._loader = Loader()
        self._alone: dict[str, Inventory] = {}
        self._magic: dict[int, Magic] = {}
        self._chosen: dict[tuple[int, str], frozenset[str]] = {}

    # -- what there is -------------------------------------------------------------------

    def hosts(self) -> list[str]:
        """The hosts that site.yml selects, in the order of the inventory. Raises ConfigErrors."""
        inventory = self._inventory or self._localhost(LOCALHOST)
        gathered = Gathered()
        self._take_site(gathered)
        selected = {
            host for play in self._site.plays for host in self._select(play, inventory, gathered)
        }
        gathered.finish()
        return [host for host in inventory.hosts() if host in selected]

    def types(self) -> dict[str, TypeSchema]:
        """All resource types, built in and the state repo's own. Raises ConfigErrors."""
        gathered = Gathered()
        for error in self._types.errors:
            gathered.add(error)
        found: dict[str, TypeSchema] = {}
        for name in self._types.names():
            try:
                schema = self._types.get(name)
            except ConfigError as error:
                gathered.add(error)
                continue
            if schema is not None:
                found[name] = schema
        gathered.finish()
        return found

    # -- compiling -----------------------------------------------------------------------

    def variables(self, host: str) -> Mapping[str, object]:
        """The inventory's variables of a host, each rendered when it is asked for; no facts.

        Asking raises TemplateError.
        """
        return self._magic_of(self._inventory or self._localhost(host)).view(host)

    def compile(self, host: str, facts: Mapping[str, object]) -> Compiled:
        """One host. Raises ConfigErrors: everything that is wrong."""
        gathered = Gathered()
        self._take_site(gathered)
        compiled = self._compile(host, facts, gathered)
        gathered.finish()
        if compiled is None:
            raise RuntimeError(f"{host} has neither a catalog nor errors")
        return compiled

    def compile_many(
        self, hosts: Sequence[str], facts_of: Callable[[str], Mapping[str, object]]
    ) -> Iterator[Compiled]:
        """Hosts one after the other; those with errors are left out.

        Raises ConfigErrors at the end, with the errors of all of them, each once.
        """
        gathered = Gathered()
        self._take_site(gathered)
        for host in hosts:
            compiled = self._compile(host, facts_of(host), gathered)
            if compiled is not None and not self._wrong:
                yield compiled
        gathered.finish()

    def _compile(
        self, host: str, facts: Mapping[str, object], gathered: Gathered
    ) -> Compiled | None:
        errors: list[ConfigError] = []
        contents = Contents(self._tree)
        linker: Linker | None = None
        declarations: list[Declaration] = []
        try:
            evaluator = self._evaluate(host, facts, contents, gathered)
            linker = Linker(
                evaluator.drafts,
                evaluator.skipped,
                [self._site.lost, evaluator.lost],
            )
            declarations = linker.link()
            errors = [*evaluator.errors, *linker.errors, *self._check(declarations)]
        except ConfigErrors as error:
            errors = list(error.errors)
        except ConfigError as error:
            errors = [error]
        for error in errors:
            gathered.add(error, host)
        if errors or linker is None:
            return None
        used = {one.type for one in declarations}
        catalog = Catalog(
            host=host,
            resources=tuple(declarations),
            commit=self._tree.commit,
            dirty=self._tree.dirty,
            facts=hashlib.sha256(dumps(dict(facts))).hexdigest(),
            modules=self._types.sources(None if self._every_module else used),
        )
        return Compiled(catalog, contents, linker.secrets, linker.provenance)

    def _evaluate(
        self, host: str, facts: Mapping[str, object], contents: Contents, gathered: Gathered
    ) -> Evaluator:
        inventory = self._inventory or self._localhost(host)
        plays = [
            play for play in self._site.plays if host in self._select(play, inventory, gathered)
        ]
        if not plays and not self._site.errors:
            raise ConfigError(
                f"no play of site.yml is for {host}",
                hint=f"its groups are {', '.join(inventory.groups_of(host))}; `hosts:` of a play names groups, hosts or patterns",
            )
        lowering = Lowering(self._types, self._sources, contents, self._render_file)
        layers = inventory.layers(host)
        names = self._magic_of(inventory).of(host, facts)
        evaluator = Evaluator(lambda: self._renderer, lowering, layers, names)
        for play in plays:
            evaluator.play(play)
        return evaluator

    def _check(self, declarations: Sequence[Declaration]) -> list[ConfigError]:
        """What only the types themselves know: their own checks, claims, order."""
        errors: list[ConfigError] = []
        try:
            return check(declarations, self._class)
        except ConfigError as error:
            errors.append(error)
        # A type has refused its parameters: ask each alone, so that all errors are found.
        for declaration in declarations:
            try:
                check([declaration], self._class)
            except ConfigError as error:
                error.mark = error.mark or declaration.mark
                if all(str(error) != str(other) for other in errors):
                    errors.append(error)
        return [error for error in errors if error.mark is not None] or errors

    def _class(self, name: str) -> type[Resource] | None:
        """A built-in class. The state repo's own code does not run here."""
        schema = self._types.get(name)
        return self._loader.type(name) if schema is not None and schema.builtin else None

    # -- shared by all hosts -------------------------------------------------------------

    @functools.cached_property
    def _site(self) -> Site:
        return SiteReader(self._tree, self._types).read()

    @functools.cached_property
    def _renderer(self) -> Renderer:
        from reconciler.compile.template import Renderer

        lookup = Lookup(self._sources)
        renderer = Renderer(self._sources.template, lookup, self._sources.shown)
        lookup.renderer = renderer
        return renderer

    def _render_file(
        self, path: str, source: str, scope: Scope, options: Mapping[str, object]
    ) -> str:
        return self._renderer.file(path, source, scope, options)

    def _take_site(self, gathered: Gathered) -> None:
        for error in self._wrong:
            gathered.add(error)

    @functools.cached_property
    def _wrong(self) -> list[ConfigError]:
        """What is wrong with the state repo for every host."""
        return [*self._site.errors, *self._check_identity()]

    def _check_identity(self) -> Iterator[ConfigError]:
        entry = self._tree.entry(FILE)
        if entry is None:
            return
        try:
            read_identity(entry.size, self._tree.chunks(FILE))
        except ConfigError as error:
            error.mark = error.mark or Mark(FILE)
            yield error

    def _magic_of(self, inventory: Inventory) -> Magic:
        if id(inventory) not in self._magic:
            self._magic[id(inventory)] = Magic(inventory, lambda: self._renderer)
        return self._magic[id(inventory)]

    def _localhost(self, host: str) -> Inventory:
        if host not in self._alone:
            self._alone[host] = Inventory.localhost(host, self._tree)
        return self._alone[host]

    def _select(self, play: Play, inventory: Inventory, gathered: Gathered) -> frozenset[str]:
        key = (id(inventory), play.pattern)
        if key not in self._chosen:
            try:
                self._chosen[key] = frozenset(inventory.select(play.pattern))
            except ConfigError as error:
                error.mark = error.mark or play.mark
                gathered.add(error)
                self._chosen[key] = frozenset()
        return self._chosen[key]
