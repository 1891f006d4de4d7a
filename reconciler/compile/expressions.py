"""Jinja2 for `constructed` sources of an inventory: groups and variables out of variables and facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from reconciler.compile.scope import Scope, Tracker
from reconciler.errors import Mark, TemplateError
from reconciler.inventory import Layer, short_name

if TYPE_CHECKING:
    from reconciler.compile.template import Renderer

#: The facts of a host at its last contact; None before the first.
FactsOf = Callable[[str], Mapping[str, object] | None]
NO_FACTS: Mapping[str, object] = {}


class InventoryExpressions:
    """What `Inventory.load` takes as `expressions`. Jinja2 is loaded by the first use."""

    def __init__(self, facts_of: FactsOf) -> None:
        self._facts_of = facts_of

    def of(self, host: str, layers: Sequence[Layer], groups: Sequence[str]) -> HostNames:
        """The names of one host. What Git says wins over what the host says of itself."""
        facts = dict(self._facts_of(host) or NO_FACTS)
        tracker = Tracker(self._renderer.value)
        said = {_with_prefix(name): value for name, value in facts.items()}
        magic = {
            "inventory_hostname": host,
            "inventory_hostname_short": short_name(host),
            "group_names": list(groups),
            "facts": facts,
            "ansible_facts": facts,
        }
        scope = Scope(tracker, final=said).over(layers=layers, final=magic)
        return HostNames(self._renderer, scope)

    @cached_property
    def _renderer(self) -> Renderer:
        from reconciler.compile.template import Renderer

        return Renderer(_no_template, _no_lookup, lambda file: None)


class HostNames:
    """The variables of one host, to evaluate expressions with."""

    def __init__(self, renderer: Renderer, scope: Scope) -> None:
        self._renderer = renderer
        self._scope = scope

    def value(self, expression: str, mark: Mark) -> object:
        """The value of an expression without braces. Raises TemplateError."""
        value = self._renderer.expression(expression, mark, self._scope)
        _check_defined(value, mark)
        return value

    def text(self, template: str, mark: Mark) -> object:
        """A text with `{{ }}` in it, rendered. Raises TemplateError."""
        return self._renderer.value(template, mark, self._scope)


def _check_defined(value: object, mark: Mark) -> None:
    """Raises TemplateError for what is undefined inside of a list or a mapping."""
    from reconciler.compile.sandbox import Missing

    if isinstance(value, Missing):
        raise TemplateError(f"'{value.name}' is undefined", mark=mark)
    if isinstance(value, Mapping):
        for one in value.values():
            _check_defined(one, mark)
    elif isinstance(value, (list, tuple)):
        for one in value:
            _check_defined(one, mark)


def _with_prefix(name: str) -> str:
    return name if name.startswith("ansible_") else f"ansible_{name}"


def _no_template(name: str, role: str) -> NoReturn:
    raise TemplateError("an inventory includes no templates")


def _no_lookup(*_: object) -> NoReturn:
    raise TemplateError("an inventory has no lookups", hint="use variables and facts")
