"""Rendering: text, expressions and template files, with errors that point at the very word.

Everything is rendered once. A text that is exactly one `{{ expression }}` gives the value
itself, so lists stay lists; everything else gives text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from types import GeneratorType
from typing import Any, NoReturn

from jinja2 import BaseLoader, Environment, TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError, TemplateRuntimeError, UndefinedError
from jinja2.runtime import missing

from reconciler.compile import advice, filters
from reconciler.compile.check import nearest
from reconciler.compile.sandbox import (
    MAX_BYTES,
    MAX_STEPS,
    Missing,
    Sandbox,
    ScopedTemplate,
    TooMuch,
    UnknownName,
    counted,
    too_large,
)
from reconciler.compile.scope import Scope, UndefinedName
from reconciler.errors import ConfigError, Mark, TemplateError
from reconciler.yamldoc import Map, Unsafe

#: Finds a template file: (name, role) -> (path, text). Raises ConfigError.
Find = Callable[[str, str], "tuple[str, str]"]
VALUE = "__value"
#: What makes a template of a bare expression; in brackets, so that `}}` cannot end it early.
OPENING, CLOSING = "{{ (", ") }}"
HEADER = "#jinja2:"
#: Options of a template file that its author may set.
OPTIONS = (
    "trim_blocks", "lstrip_blocks", "newline_sequence", "variable_start_string", "variable_end_string",
    "block_start_string", "block_end_string", "comment_start_string", "comment_end_string",
)  # fmt: skip
QUOTED = re.compile(r"'([^']+)'")


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

    def __init__(self, find: Find, lookup: Callable[..., object], text_of: Callable[[str], str | None]) -> None:
        self._text_of = text_of
        self._texts: dict[str, Piece] = {}
        self._expressions: dict[str, Piece] = {}
        self._files: dict[tuple[str, tuple[tuple[str, object], ...]], Piece] = {}
        self._environment = _environment(_Loader(find), lookup)
        self._overlays: dict[tuple[tuple[str, object], ...], Sandbox] = {(): self._environment}

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
                key: self.value(one, places(key) if places else mark, scope) for key, one in raw.items()
            }
        if isinstance(raw, list):
            places = getattr(raw, "place", None)
            return [
                self.value(one, places(index) if places else mark, scope) for index, one in enumerate(raw)
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
        source, own = _header(path, source)
        settings = tuple(sorted({**own, **options}.items()))
        piece = self._files.get((path, settings))
        if piece is None:
            piece = self._compile(self._overlay(settings), source, Mark(path), path)
            self._files[(path, settings)] = piece
        return str(self._run(piece, scope, Mark(path)))

    # -- compiling and running -----------------------------------------------------------

    def _overlay(self, settings: tuple[tuple[str, object], ...]) -> Sandbox:
        if settings not in self._overlays:
            overlay: Any = self._environment.overlay(**dict(settings))  # type: ignore[arg-type]
            self._overlays[settings] = overlay
        return self._overlays[settings]

    def _compile(self, environment: Sandbox, source: str, mark: Mark, path: str | None = None) -> Piece:
        try:
            tree = environment.parse(source, path, path)
            native = path is None and _single_expression(tree)
            code = environment.compile(tree, path, path)
            template: Any = ScopedTemplate.from_code(environment, code, environment.globals)
            return Piece(template, native, source)
        except TemplateSyntaxError as error:
            raise self._syntax(error, source, mark, path) from error
        except RecursionError as error:
            raise TemplateError("the template is nested too deeply", mark=mark) from error

    def _run(self, piece: Piece, scope: Scope, mark: Mark) -> object:
        environment: Any = piece.template.environment
        saved, environment.steps = environment.steps, MAX_STEPS
        try:
            context = piece.template.new_context(scope)
            if piece.native:
                for _ in piece.template.root_render_func(context):
                    pass
                return _settled(context.vars[VALUE])
            return _collect(piece.template.root_render_func(context))
        except ConfigError as error:
            if error.mark is None:
                path, line = _line_of(error, piece)
                text = piece.source if path == piece.template.name else self._text_of(path or "") or ""
                error.mark = self._place(mark, path, text, line, "")
            raise
        except (UndefinedError, TemplateRuntimeError, TemplateNotFound, TemplateSyntaxError, ArithmeticError,
                LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError, re.error) as error:  # fmt: skip
            self._explain(error, piece, scope, mark)
        finally:
            environment.steps = saved

    # -- errors --------------------------------------------------------------------------

    def _explain(self, error: Exception, piece: Piece, scope: Scope, mark: Mark) -> NoReturn:
        if isinstance(error, TemplateSyntaxError):
            # An included file: it was compiled on the way.
            text = self._text_of(error.name or "") or ""
            raise self._syntax(error, text, Mark(error.name or mark.file), error.name) from error
        path, line = _line_of(error, piece)
        source = piece.source if path == piece.template.name else self._text_of(path or "") or ""
        shown = _expression_at(source, line)
        if isinstance(error, UnknownName):
            if error.value.cause is not None:
                raise error.value.cause from error
            message, hint = _undefined(error.value, scope)
            place = self._place(mark, path, source, line, error.value.name)
            raise UndefinedName(message + _within(shown, error.value.name), mark=place, hint=hint) from error
        place = self._place(mark, path, source, line, "")
        if isinstance(error, SecurityError):
            raise TemplateError(f"refused: {error}{_within(shown)}", mark=place) from error
        if isinstance(error, TooMuch):
            raise TemplateError(f"{error}{_within(shown)}", mark=place, hint="the work of a template is limited; make it simpler, or the data smaller") from error
        if isinstance(error, RecursionError):
            raise TemplateError("the template includes or calls itself without end", mark=place) from error
        if isinstance(error, TemplateNotFound):
            raise TemplateError(f"there is no template '{error}'", mark=place) from error
        raise TemplateError(f"{_reason(error)}{_within(shown)}", mark=place) from error

    def _syntax(self, error: TemplateSyntaxError, source: str, mark: Mark, path: str | None) -> TemplateError:
        message = _one_line(error.message or "syntax error")
        hint = ""
        word = ""
        if isinstance(error, TemplateAssertionError):
            names = QUOTED.search(message)
            word = names[1] if names else ""
            kind = "filter" if "filter" in message else "test"
            known = self._environment.filters if kind == "filter" else self._environment.tests
            message = f"there is no {kind} '{word}'"
            hint = advice.FILTERS.get(word.rpartition(".")[2]) or nearest(word, known)
        place = self._place(mark, path, source, error.lineno, word)
        shown = _expression_at(source, error.lineno)
        return TemplateError(message + _within(shown, word), mark=place, hint=hint)

    def _place(self, mark: Mark, path: str | None, source: str, line: int, word: str) -> Mark:
        """The mark of a word on a line of a template: of a file, or of a text in a YAML file."""
        if path is not None:
            lines = source.splitlines()
            text = lines[line - 1] if 0 < line <= len(lines) else ""
            return Mark(path, line, _column(text, word) or 1)
        if not word or not mark.line:
            return mark
        lines = (self._text_of(mark.file) or "").splitlines()[mark.line - 1 :]
        # A folded text may be anywhere on the lines below; the word itself tells.
        for number, text in zip(count(), lines[: line + 20]):
            start = mark.column - 1 if number == 0 else 0
            column = _column(text, word, start)
            if column:
                return Mark(mark.file, mark.line + number, column)
        return mark


# -- the environment ---------------------------------------------------------------------


class _Loader(BaseLoader):
    """Templates that others include, import or extend."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:
        role, _, name = template.rpartition("\0")
        path, text = self._find(name, role)
        return _header(path, text)[0], path, None

    def load(self, environment: Environment, name: str, globals: Any = None) -> Any:  # noqa: A002
        source, path, _ = self.get_source(environment, name)
        code = environment.compile(source, path, path)
        return ScopedTemplate.from_code(environment, code, environment.globals)


def _environment(loader: BaseLoader, lookup: Callable[..., object]) -> Sandbox:
    environment = Sandbox(
        loader=loader,
        undefined=Missing,
        finalize=lambda value: "" if value is None else value,
        keep_trailing_newline=True,
        trim_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
    )
    environment.join_path = _join_path  # type: ignore[method-assign]
    for name in filters.REMOVED:
        environment.filters.pop(name, None)
        environment.globals.pop(name, None)
    environment.filters.update(filters.FILTERS)
    environment.filters["_counted"] = counted
    environment.tests.update(filters.TESTS)
    environment.globals.update(filters.functions(lookup))
    return environment


def _join_path(template: str, parent: str) -> str:
    """Included names are looked for as `template` does it: in the role of the parent first."""
    parts = (parent or "").split("/")
    role = parts[1] if parts[0] == "roles" and len(parts) > 2 else ""  # noqa: PLR2004
    return f"{role}\0{template}"


def _single_expression(tree: nodes.Template) -> bool:
    """Whether the template is one expression; if so, it is made to keep its value."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return False
    parts = tree.body[0].nodes
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return False
    tree.body = [nodes.Assign(nodes.Name(VALUE, "store", lineno=1), parts[0], lineno=parts[0].lineno)]
    tree.set_environment(tree.environment)  # type: ignore[arg-type]
    return True


def _header(path: str, source: str) -> tuple[str, dict[str, object]]:
    """Ansible's `#jinja2: lstrip_blocks: True` on the first line of a template file."""
    if not source.startswith(HEADER):
        return source, {}
    line, _, rest = source.partition("\n")
    options: dict[str, object] = {}
    for pair in line[len(HEADER) :].split(","):
        name, colon, value = (part.strip() for part in pair.partition(":"))
        if not colon or name not in OPTIONS:
            raise TemplateError(
                f"'{name}' is not an option of templates", mark=Mark(path, 1), hint=nearest(name, OPTIONS)
            )
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise TemplateError(f"{value!r} is no value of {name}", mark=Mark(path, 1)) from error
    return rest, options


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


# -- where and what ----------------------------------------------------------------------


def _line_of(error: BaseException, piece: Piece) -> tuple[str | None, int]:
    """The template and line that were being rendered: the innermost of them."""
    name, line = piece.template.name, 1
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            name, line = template.name, template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return name, line


def _column(text: str, word: str, start: int = 0) -> int:
    found = re.compile(rf"(?<![\w.]){re.escape(word)}(?!\w)").search(text, start) if word else None
    found = found or (re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(text, start) if word else None)
    if found is None and not word:
        found = re.compile(r"\{[{%]").search(text, start)
    return found.start() + 1 if found else 0


EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")


def _expression_at(source: str, line: int) -> list[str]:
    lines = source.splitlines()
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    if source.startswith(OPENING) and source.endswith(CLOSING):
        return [source[len(OPENING) : -len(CLOSING)]]
    return EXPRESSION.findall(text)


def _within(expressions: list[str], word: str = "") -> str:
    """`, in {{ expression }}`: the one that holds the word, if it can be told."""
    fitting = [one for one in expressions if word in one]
    if len(fitting) != 1 and not word:
        return ""
    return f", in {_one_line(fitting[0])[:120]}" if fitting else ""


def _undefined(value: Missing, scope: Scope) -> tuple[str, str]:
    """What is undefined, and what may have been meant."""
    name, owner = value.name, value.owner
    if owner is missing:
        names = scope.all_names()
        facts = scope.outermost().final.get("facts")
        short = name.removeprefix("ansible_")
        if name in advice.NAMES:
            return f"'{name}' is not defined", advice.NAMES[name]
        if isinstance(facts, Mapping) and short in facts:
            return f"'{name}' is not defined", f"facts have a name of their own: write facts.{short}"
        return f"'{name}' is not defined", nearest(name, names)
    if isinstance(owner, Mapping):
        facts = scope.outermost().final.get("facts")
        what = "facts have" if owner is facts else "the mapping has"
        hint = nearest(name, owner)
        if not hint and owner is facts:
            hint = "`reconciler facts` shows what there is; default(...) gives a value where there is none"
        if not hint and owner and len(owner) <= 12:  # noqa: PLR2004  # as many as fit on a line
            hint = "it has " + ", ".join(str(key) for key in owner)
        return f"{what} no '{name}'", hint
    if isinstance(owner, (list, tuple)):
        return f"the list has no item {name}: it has {len(owner)}", ""
    return f"{_kind(owner)} has no attribute '{name}'", ""


def _kind(value: object) -> str:
    if value is None:
        return "an empty value"
    return {"str": "a text", "int": "a number", "float": "a number", "bool": "a truth value"}.get(
        type(value).__name__, f"a {type(value).__name__}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {_one_line(str(error))}"
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))[:300]


