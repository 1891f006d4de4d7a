"""The Jinja2 environment: sandboxed, strict, bounded, and with our variables.

The sandbox keeps templates away from Python's inside. The caps keep a template from eating the
machine: steps (loop turns and calls) and bytes, both counted and not timed, so that the same
template fails on every machine or on none. It is defence in depth: what is in Git is signed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateRuntimeError, UndefinedError, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, pass_environment
from jinja2.visitor import NodeTransformer

from reconciler.compile.scope import ABSENT, Scope, UndefinedName

MAX_BYTES = 8 << 20
MAX_STEPS = 500_000
MAX_BITS = 1 << 16
#: Methods of text whose result may be much larger than what they are given.
GROWING = {"center", "expandtabs", "ljust", "rjust", "zfill"}
WIDTH = re.compile(r"\d{5,}")
#: A width that is itself a value: `{:{}}`.
NESTED = re.compile(r"\{[^{}]*:[^{}]*\{")


class TooMuch(TemplateRuntimeError):
    """A template went over one of the caps."""


class UnknownName(UndefinedError):
    """An undefined value was used. `value` knows its name, and of what."""

    def __init__(self, value: Missing, message: str | None) -> None:
        super().__init__(message)
        self.value = value


class Missing(StrictUndefined):
    """An undefined value. What is below it is undefined too, so `a.b.c | default(x)` works."""

    __slots__ = ("cause",)

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = missing,
        name: str | None = None,
        exc: Any = UndefinedError,
    ) -> None:
        super().__init__(hint, obj, name, exc)
        #: Why it could not be found, if it is defined but its own value needs something else.
        self.cause: UndefinedName | None = None
        if exc is UndefinedError:
            self._undefined_exception = functools.partial(UnknownName, self)

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> Any:
        return self

    @property
    def name(self) -> str:
        """The name that nobody defines."""
        return str(self._undefined_name)

    @property
    def owner(self) -> Any:
        """The value that was expected to have it; `missing` for a variable."""
        return self._undefined_obj


class Vars(Context):
    """Where compiled templates look names up: in a scope, then among our globals."""

    scope: Scope

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        try:
            value = self.scope.get(key)
        except UndefinedName as error:
            undefined = Missing(name=key)
            undefined.cause = error
            return undefined
        if value is not ABSENT:
            return value
        return self.parent.get(key, missing)

    def get_all(self) -> Any:
        """What an included template sees: a scope again, nothing rendered before it is used."""
        return self.scope.over(final=dict(self.vars)) if self.vars else self.scope


class ScopedTemplate(Template):
    """A template whose variables are a Scope."""

    def new_context(
        self,
        vars: Any = None,  # noqa: A002  # the name is Jinja2's
        shared: bool = False,
        locals: Mapping[str, Any] | None = None,  # noqa: A002
    ) -> Vars:
        scope = vars if isinstance(vars, Scope) else NOTHING
        given = {name: value for name, value in (locals or {}).items() if value is not missing}
        context = Vars(self.environment, self.environment.globals, self.name, self.blocks)
        context.scope = scope.over(final=given) if given else scope
        return context


class Budget:
    """Loop turns and calls that are left; what a template renders on its way counts as well."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self._depth = 0

    def enter(self) -> None:
        """A rendering starts, maybe within another one."""
        if self._depth == 0:
            self.steps = MAX_STEPS
        self._depth += 1

    def leave(self) -> None:
        """It has ended, well or not."""
        self._depth -= 1


class Sandbox(ImmutableSandboxedEnvironment):
    """Our environment. budget: shared by all renderings, with whatever options."""

    context_class = Vars
    template_class = ScopedTemplate
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.budget = Budget()

    def spend(self, steps: int = 1) -> None:
        """Count turns and calls. Raises TooMuch."""
        self.budget.steps -= steps
        if self.budget.steps < 0:
            raise TooMuch(f"the template takes more than {MAX_STEPS} loop turns and calls")

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.spend()
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str):
            _check_method(owner, function.__name__, args)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        """`"...".format`: checked by Jinja2 for what it reads, by us for what it makes."""
        text = getattr(value, "__self__", None)
        if (
            isinstance(text, str)
            and value.__name__ in ("format", "format_map")
            and (WIDTH.search(text) or NESTED.search(text))
        ):
            raise too_large()
        return super().wrap_str_format(value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def join_path(self, template: str, parent: str) -> str:
        """Included names are looked for as `template` does it: in the role of the parent first."""
        parts = parent.split("/")
        role = parts[1] if parts[0] == "roles" and len(parts) > 2 else ""
        return f"{role}\0{template}"

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Capped().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree


class _Capped(NodeTransformer):
    """Loops and `~` go through filters that count."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # the name is Jinja2's
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_concat", [], [], None, None, lineno=node.lineno)


@pass_environment
def counted(environment: Sandbox, values: Any) -> Iterable[Any]:
    """What a loop goes over, paid for by its turns."""
    if isinstance(values, Sized):
        environment.spend(len(values))
        return values  # type: ignore[return-value]  # what is not iterable fails in the loop
    return _each_counted(environment, values)


def _each_counted(environment: Sandbox, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        environment.spend()
        yield value


def join(parts: Iterable[Any], separator: str = "") -> str:
    """Text from parts, within the cap. Raises TooMuch."""
    texts: list[str] = []
    size = 0
    for part in parts:
        text = str(part)
        size += len(text) + len(separator)
        if size > MAX_BYTES:
            raise too_large()
        texts.append(text)
    return separator.join(texts)


def too_large() -> TooMuch:
    """The error of a result over the cap."""
    return TooMuch(f"the template makes more than {MAX_BYTES >> 20} MiB of data")


def _check_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    if name in GROWING and any(
        isinstance(one, int) and one * max(1, len(owner)) > MAX_BYTES for one in args
    ):
        raise too_large()
    if name == "replace" and len(args) > 1:
        check_replace(owner, str(args[0]), str(args[1]))
    if name == "join" and args and isinstance(args[0], Sized):
        join(args[0], owner)  # type: ignore[arg-type]


def check_replace(text: str, old: str, new: str) -> None:
    """Raises TooMuch if replacing makes too much text."""
    if (text.count(old) if old else len(text) + 1) * len(new) > MAX_BYTES:
        raise too_large()


def _check_operation(operator: str, left: Any, right: Any) -> None:
    if operator == "*":
        too_much = _product_too_large(left, right) or _product_too_large(right, left)
    elif operator == "**":
        integers = isinstance(left, int) and isinstance(right, int)
        too_much = integers and left.bit_length() * right > MAX_BITS
    elif operator == "+":
        sized = isinstance(left, Sized) and isinstance(right, Sized)
        too_much = sized and len(left) + len(right) > MAX_BYTES
    else:
        too_much = isinstance(left, str) and (WIDTH.search(left) is not None or "*" in left)
    if too_much:
        raise too_large()


def _product_too_large(number: Any, other: Any) -> bool:
    if not isinstance(number, int):
        return False
    if isinstance(other, int):
        return number.bit_length() + other.bit_length() > MAX_BITS
    return isinstance(other, (str, bytes, list, tuple)) and number * len(other) > MAX_BYTES


class _NoScope(Scope):
    """The scope of an import without context: nothing."""

    __slots__ = ()

    def get(self, name: str) -> object:
        return ABSENT


NOTHING: Scope = _NoScope(None)  # type: ignore[arg-type]  # it never tracks
