"""Variables: what a name means for one host, at one place of the state repo.

Values from Git and the inventory are templates, rendered when they are used, as in Ansible:
a default may use a variable that a play sets. Facts, loop items and everything that has been
rendered once are final: they are data and never become templates, however they travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.errors import Mark, TemplateError
from reconciler.inventory import Layer
from reconciler.yamldoc import Map, Unsafe

#: The value of a name that nobody defines.
ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "<absent>"})()
NO_NAMES: frozenset[str] = frozenset()
EMPTY: Mapping[str, object] = {}

#: Renders a raw value: (value, mark, scope) -> value.
Render = Callable[[object, Mark, "Scope"], object]


class UndefinedName(TemplateError):
    """A template needs a variable that is not there; `default(...)` catches it."""


class Tracker:
    """What one host's compile keeps while variables use each other."""

    def __init__(self, render: Render) -> None:
        self.render = render
        #: Names that the rendering at hand has looked at so far.
        self.used: set[str] = set()
        self.resolving: list[tuple[int, str]] = []


class Scope:
    """Names and their meaning. Inner scopes (a resource's `vars`, a loop) lie over outer ones.

    raw: values as written. final: values that are data. layers: where raw values come from,
    low to high. memo: values that are rendered, with the names that they were made of. role: whose files and templates come first; "" for none.
    """

    __slots__ = ("final", "layers", "memo", "names", "parent", "raw", "role", "tracker")

    def __init__(
        self,
        tracker: Tracker,
        *,
        layers: Sequence[Layer] = (),
        final: Mapping[str, object] = EMPTY,
        role: str = "",
        parent: Scope | None = None,
    ) -> None:
        self.tracker = tracker
        self.layers = tuple(layers)
        self.final = final
        self.role = role
        self.parent = parent
        self.raw: dict[str, object] = {}
        for layer in layers:
            self.raw.update(layer.values)
        self.names = self.raw.keys() | final.keys()
        self.memo: dict[str, tuple[object, frozenset[str]]] = {}

    def over(self, *, layers: Sequence[Layer] = (), final: Mapping[str, object] = EMPTY) -> Scope:
        """A scope that lies over this one."""
        return Scope(self.tracker, layers=layers, final=final, role=self.role, parent=self)

    def get(self, name: str) -> object:
        """The value of a name, rendered; ABSENT if nobody defines it. Raises TemplateError."""
        value, used = self.resolve(name)
        tracked = self.tracker.used
        tracked.add(name)
        tracked |= used
        return value

    def resolve(self, name: str) -> tuple[object, frozenset[str]]:
        """The value, and the names that it was made of."""
        above: list[Scope] = []
        scope: Scope | None = self
        while scope is not None:
            known = scope.memo.get(name)
            if known is not None and all(known[1].isdisjoint(inner.names) for inner in above):
                return known
            if name in scope.final:
                return scope.final[name], NO_NAMES
            if name in scope.raw:
                break
            above.append(scope)
            scope = scope.parent
        if scope is None:
            return ABSENT, NO_NAMES
        found = self._render(name, scope.raw[name])
        # What does not depend on inner names is good for every loop item: keep it further out.
        free = all(found[1].isdisjoint(inner.names) for inner in above)
        (scope if free else self).memo[name] = found
        return found

    def _render(self, name: str, raw: object) -> tuple[object, frozenset[str]]:
        if not is_template(raw):
            return raw, NO_NAMES
        tracker = self.tracker
        key = (id(self.outermost()), name)
        mark = self.mark_of(name)
        if key in tracker.resolving:
            start = tracker.resolving.index(key)
            chain = [*(one for _, one in tracker.resolving[start:]), name]
            raise TemplateError(
                f"variable '{name}' needs itself: {' -> '.join(chain)}",
                mark=mark,
                hint="a variable that overrides another one must have a name of its own to refer to it",
            )
        outer, tracker.used = tracker.used, set()
        tracker.resolving.append(key)
        try:
            value = tracker.render(raw, mark, self)
            return value, frozenset(tracker.used)
        finally:
            tracker.resolving.pop()
            tracker.used = outer

    def outermost(self) -> Scope:
        """The scope without a parent."""
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def chain(self) -> Iterator[Scope]:
        """From this scope outwards."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def all_names(self) -> set[str]:
        """Every name that means something here."""
        return {name for scope in self.chain() for name in scope.names}

    def mark_of(self, name: str) -> Mark:
        """Where the value that counts is written."""
        for scope in self.chain():
            for layer in reversed(scope.layers):
                if name in layer.values:
                    return layer.values.place(name)
        return Mark("")

    def layers_of(self, name: str) -> list[tuple[str, object, Mark]]:
        """Everybody who defines the name, low to high: (layer, value as written, mark)."""
        found: list[tuple[str, object, Mark]] = []
        for scope in reversed(list(self.chain())):
            own = [
                (layer.name, layer.values[name], layer.values.place(name))
                for layer in scope.layers
                if name in layer.values
            ]
            found += own
            if name in scope.final and not own:
                found.append(
                    (
                        "facts" if name in ("facts", "ansible_facts") else "built in",
                        scope.final[name],
                        Mark(""),
                    )
                )
        return found


def is_template(value: object) -> bool:
    """Whether there is anything to render in a value as written."""
    if isinstance(value, str):
        return (
            "{" in value
            and ("{{" in value or "{%" in value or "{#" in value)
            and not isinstance(value, Unsafe)
        )
    if isinstance(value, Mapping):
        return any(is_template(one) for one in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_template(one) for one in value)
    return False


def layer(name: str, values: Map) -> Layer:
    """A layer of variables that is written in one place."""
    return Layer(name, values, values.mark)
