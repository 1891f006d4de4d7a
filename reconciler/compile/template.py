"""Rendering: text, expressions and template files, with errors that point at the very word.

Everything is rendered once. A text that is exactly one `{{ expression }}` gives the value
itself, so lists stay lists; everything else gives text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from jinja2 import BaseLoader, Environment, TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.exceptions import TemplateRuntimeError, UndefinedError

from reconciler.compile import filters
from reconciler.compile.diagnose import CLOSING, OPENING, Diagnosis
from reconciler.compile.sandbox import (
    MAX_BYTES,
    Missing,
    Sandbox,
    ScopedTemplate,
    too_large,
)
from reconciler.compile.scope import Scope
from reconciler.errors import ConfigError, Mark, TemplateError
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Unsafe

#: Finds a template file: (name, role) -> (path, text). Raises ConfigError.
Find = Callable[[str, str], "tuple[str, str]"]
VALUE = "__value"
HEADER = "#jinja2:"
#: Options of a template file that its author may set.
OPTIONS = (
    "trim_blocks", "lstrip_blocks", "newline_sequence", "variable_start_string", "variable_end_string",
    "block_start_string", "block_end_string", "comment_start_string", "comment_end_string",
)  # fmt: skip
#: What goes wrong in a template because of what is written there.
FAILURES = (
    UndefinedError, TemplateRuntimeError, TemplateNotFound, TemplateSyntaxError, ArithmeticError,
    LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError, re.error,
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A compiled template. native: it gives a value, not text. source: for errors."""

    template: ScopedTemplate
    native: bool
    source: str


class Renderer:
    """Compiles and renders; what is compiled is kept for all hosts.

    find: where template files are. lookup: the `lookup` function, (scope, kind, args, options).
    text_of: the text of a file that a mark points into, None if it cannot be had.
    """

    def __init__(
        self, find: Find, lookup: Callable[..., list[object]], text_of: Callable[[str], str | None]
    ) -> None:
        self._texts: dict[str, Piece] = {}
        self._expressions: dict[str, Piece] = {}
        self._files: dict[tuple[str, tuple[tuple[str, object], ...]], Piece] = {}
        self._environment = _environment(_Loader(find), lookup)
        self._overlays: dict[tuple[tuple[str, object], ...], Sandbox] = {(): self._environment}
        self._diagnosis = Diagnosis(text_of, self._environment.filters, self._environment.tests)

    # -- what callers want ---------------------------------------------------------------

    def value(self, raw: object, mark: Mark, scope: Scope) -> object:
        """A value as written, rendered through and through. Raises TemplateError."""
        if isinstance(raw, str):
            if isinstance(raw, Unsafe) or "{" not in raw:
                return str(raw) if isinstance(raw, Unsafe) else raw
            return self.text(raw, mark, scope)
        if isinstance(raw, Mapping):
            places = raw.place if isinstance(raw, Map) else None
            return {
                key: self.value(one, places(key) if places else mark, scope)
                for key, one in raw.items()
            }
        if isinstance(raw, list):
            places = getattr(raw, "place", None)
            return [
                self.value(one, places(index) if places else mark, scope)
                for index, one in enumerate(raw)
            ]
        return raw

    def text(self, source: str, mark: Mark, scope: Scope) -> object:
        """A text with `{{ }}` in it. Raises TemplateError."""
        piece = self._texts.get(source)
        if piece is None:
            piece = self._texts[source] = self._compile(self._environment, source, mark)
        return self._run(piece, scope, mark)

    def expression(self, source: str, mark: Mark, scope: Scope) -> object:
        """An expression without braces, as in `when`. Raises TemplateError."""
        piece = self._expressions.get(source)
        if piece is None:
            wrapped = OPENING + source + CLOSING
            piece = self._expressions[source] = self._compile(self._environment, wrapped, mark)
        return self._run(piece, scope, mark)

    def file(self, path: str, source: str, scope: Scope, options: Mapping[str, object]) -> str:
        """A template file. options: of OPTIONS. Raises TemplateError."""
        own = _header(path, source)
        settings = tuple(sorted({**own, **options}.items()))
        piece = self._files.get((path, settings))
        if piece is None:
            environment = self._overlay(settings)
            text = _without_header(source, environment)
            piece = self._compile(environment, text, Mark(path), path)
            self._files[(path, settings)] = piece
        return str(self._run(piece, scope, Mark(path)))

    # -- compiling and running -----------------------------------------------------------

    def _overlay(self, settings: tuple[tuple[str, object], ...]) -> Sandbox:
        if settings not in self._overlays:
            overlay: Any = self._environment.overlay(**dict(settings))  # type: ignore[arg-type]
            self._overlays[settings] = overlay
        return self._overlays[settings]

    def _compile(
        self, environment: Sandbox, source: str, mark: Mark, path: str | None = None
    ) -> Piece:
        try:
            tree = environment.parse(source, path, path)
            native = path is None and _single_expression(tree)
            code = environment.compile(tree, path, path)
            template: Any = ScopedTemplate.from_code(environment, code, environment.globals)
            return Piece(template, native, source)
        except TemplateSyntaxError as error:
            raise self._diagnosis.syntax(error, source, mark, path) from error
        except RecursionError as error:
            raise TemplateError("the template is nested too deeply", mark=mark) from error

    def _run(self, piece: Piece, scope: Scope, mark: Mark) -> object:
        budget = self._environment.budget
        budget.enter()
        try:
            context = piece.template.new_context(scope)
            if piece.native:
                for _ in piece.template.root_render_func(context):
                    pass
                return _settled(context.vars[VALUE])
            return _collect(piece.template.root_render_func(context))
        except ConfigError as error:
            if error.mark is None:
                error.mark = self._diagnosis.mark(error, piece.template.name, piece.source, mark)
            raise
        except FAILURES as error:
            self._diagnosis.explain(error, piece.template.name, piece.source, mark, scope)
        finally:
            budget.leave()


# -- the environment ---------------------------------------------------------------------


class _Loader(BaseLoader):
    """Templates that others include, import or extend."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:
        role, _, name = template.rpartition("\0")
        path, text = self._find(name, role)
        return _without_header(text, environment), path, None

    def load(self, environment: Environment, name: str, globals: Any = None) -> Any:  # noqa: A002
        source, path, _ = self.get_source(environment, name)
        code = environment.compile(source, path, path)
        return ScopedTemplate.from_code(environment, code, environment.globals)


def _environment(loader: BaseLoader, lookup: Callable[..., list[object]]) -> Sandbox:
    environment = Sandbox(
        loader=loader,
        undefined=Missing,
        finalize=lambda value: "" if value is None else value,
        keep_trailing_newline=True,
        trim_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
    )
    # Jinja2 declares its tables to hold nothing but its own entries.
    tables: list[tuple[Any, Mapping[str, Any]]] = [
        (environment.filters, filters.FILTERS),
        (environment.tests, filters.TESTS),
        (environment.globals, filters.functions(lookup)),
    ]
    for table, own in tables:
        for name in filters.REMOVED:
            table.pop(name, None)
        table.update(own)
    return environment


def _single_expression(tree: nodes.Template) -> bool:
    """Whether the template is one expression; if so, it is made to keep its value."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return False
    parts = tree.body[0].nodes
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return False
    tree.body = [
        nodes.Assign(nodes.Name(VALUE, "store", lineno=1), parts[0], lineno=parts[0].lineno)
    ]
    tree.set_environment(tree.environment)  # type: ignore[arg-type]
    return True


def _header(path: str, source: str) -> dict[str, object]:
    """Options from Ansible's `#jinja2: lstrip_blocks: True` on the first line of a file."""
    if not source.startswith(HEADER):
        return {}
    options: dict[str, object] = {}
    for pair in source.partition("\n")[0][len(HEADER) :].split(","):
        name, colon, value = (part.strip() for part in pair.partition(":"))
        if not colon or name not in OPTIONS:
            raise TemplateError(
                f"'{name}' is not an option of templates",
                mark=Mark(path, 1),
                hint=did_you_mean(name, OPTIONS),
            )
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise TemplateError(f"{value!r} is no value of {name}", mark=Mark(path, 1)) from error
    return options


def _without_header(source: str, environment: Environment) -> str:
    """The template behind its options. An empty comment in their place keeps the numbers of
    the lines, where the line break behind it vanishes."""
    if not source.startswith(HEADER):
        return source
    rest = source.partition("\n")[2]
    if not environment.trim_blocks:
        return rest
    return f"{environment.comment_start_string}{environment.comment_end_string}\n{rest}"


# -- values ------------------------------------------------------------------------------


def _settled(value: Any) -> object:
    """A value that stays what it is: iterators become lists, undefined ones are errors."""
    if isinstance(value, Missing):
        str(value)
    if isinstance(value, (str, int, float, bool, dict)) or value is None:
        return value
    if isinstance(value, (GeneratorType, tuple, map, filter, zip, range)):
        return [_settled(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, list):
        for one in value:
            if isinstance(one, Missing):
                str(one)
        return value
    return value


def _collect(pieces: Any) -> str:
    texts: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_BYTES:
            raise too_large()
        texts.append(piece)
    return "".join(texts)
