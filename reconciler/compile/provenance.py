"""Where values come from: for `why`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.catalog import HIDDEN, Declaration
from reconciler.compile.scope import Scope
from reconciler.errors import Mark


class Layered(NamedTuple):
    """What one layer says of a variable, as written."""

    layer: str
    value: object
    mark: Mark


@dataclass(frozen=True)
class Origin:
    """Where a parameter comes from.

    raw: as written, with `{{ }}`. mark: its place. names: the variables that it was made of,
    also those that only other variables use.
    """

    raw: object
    mark: Mark
    names: frozenset[str] = frozenset()
    scope: Scope | None = field(default=None, repr=False, compare=False)
    hidden: bool = False

    @property
    def variables(self) -> Mapping[str, tuple[Layered, ...]]:
        """For each variable everybody who defines it, low to high: the last one won."""
        if self.scope is None:
            return {}
        found: dict[str, tuple[Layered, ...]] = {}
        for name in sorted(self.names):
            layers = tuple(
                Layered(layer, HIDDEN if self.hidden else value, mark)
                for layer, value, mark in self.scope.layers_of(name)
            )
            if layers:
                found[name] = layers
        return found


@dataclass
class Provenance:
    """For each declaration where it is written, and where each of its parameters comes from."""

    origins: dict[str, Mapping[str, Origin]] = field(default_factory=dict)
    declarations: dict[str, Declaration] = field(default_factory=dict)

    def params(self, id: str) -> Mapping[str, Origin]:
        """The parameters of a declaration; none for one that is not there."""
        return self.origins.get(id, {})
