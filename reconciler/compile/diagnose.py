"""What went wrong in a template: at which word of which line, and what may have been meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import NoReturn

from jinja2 import TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.utils import missing

from reconciler.compile import advice
from reconciler.compile.sandbox import Missing, TooMuch, UnknownName
from reconciler.compile.scope import Scope, UndefinedName
from reconciler.errors import Mark, TemplateError
from reconciler.words import did_you_mean

#: What makes a template of a bare expression; in brackets, so that `}}` cannot end it early.
OPENING, CLOSING = "{{ (", ") }}"
EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")
QUOTED = re.compile(r"'([^']+)'")
#: Keys of a mapping that fit on a line.
LISTED = 12
#: A text in YAML may be folded: how many lines more than it has breaks are searched.
FOLDED = 20


class Diagnosis:
    """Explains failures. text_of: the text of a file that a mark points into, or None.

    filters, tests: the names that there are.
    """

    def __init__(
        self, text_of: Callable[[str], str | None], filters: Iterable[str], tests: Iterable[str]
    ) -> None:
        self._text_of = text_of
        self._filters = filters
        self._tests = tests

    def explain(
        self, error: Exception, path: str | None, source: str, mark: Mark, scope: Scope
    ) -> NoReturn:
        """Raise what happened while rendering as a TemplateError.

        path, source: of the template; path is None for a text in a YAML file, at `mark`.
        """
        if isinstance(error, TemplateSyntaxError):
            # A template that this one includes: it was compiled on the way.
            text = self._text_of(error.name or "") or ""
            raise self.syntax(error, text, Mark(error.name or mark.file), error.name) from error
        inner, line = _line_of(error, path)
        text = source if inner == path else self._text_of(inner or "") or ""
        shown = _expressions_at(text, line)
        if isinstance(error, UnknownName):
            if error.value.cause is not None:
                raise error.value.cause from error
            message, hint = _undefined(error.value, scope)
            name = error.value.name
            place = self._place(mark, inner, text, line, name)
            raise UndefinedName(message + _within(shown, name), mark=place, hint=hint) from error
        message, hint = _reason(error)
        if not isinstance(error, (RecursionError, TemplateNotFound)):
            message += _within(shown)
        place = self._place(mark, inner, text, line, "")
        raise TemplateError(message, mark=place, hint=hint) from error

    def syntax(
        self, error: TemplateSyntaxError, source: str, mark: Mark, path: str | None
    ) -> TemplateError:
        """A template that Jinja2 does not take: broken, or with a filter that is not there."""
        message = _one_line(error.message or "syntax error")
        hint = ""
        word = ""
        if isinstance(error, TemplateAssertionError):
            names = QUOTED.search(message)
            word = names[1] if names else ""
            kind = "filter" if "filter" in message else "test"
            known = self._filters if kind == "filter" else self._tests
            message = f"there is no {kind} '{word}'"
            hint = advice.FILTERS.get(word.rpartition(".")[2]) or did_you_mean(word, known)
        place = self._place(mark, path, source, error.lineno, word)
        shown = _expressions_at(source, error.lineno)
        return TemplateError(message + _within(shown, word), mark=place, hint=hint)

    def mark(self, error: Exception, path: str | None, source: str, mark: Mark) -> Mark:
        """Where a template was when it failed."""
        inner, line = _line_of(error, path)
        text = source if inner == path else self._text_of(inner or "") or ""
        return self._place(mark, inner, text, line, "")

    def _place(self, mark: Mark, path: str | None, source: str, line: int, word: str) -> Mark:
        """The mark of a word on a line of a template: of a file, or of a text in a YAML file."""
        if path is not None:
            lines = source.splitlines()
            text = lines[line - 1] if 0 < line <= len(lines) else ""
            return Mark(path, line, _column(text, word) or 1)
        if not word or not mark.line:
            return mark
        lines = (self._text_of(mark.file) or "").splitlines()[mark.line - 1 :]
        # Where breaks fall in the YAML file is not known any more; the word itself tells.
        for number, text in zip(count(), lines[: line + FOLDED], strict=False):
            start = mark.column - 1 if number == 0 else 0
            column = _column(text, word, start)
            if column:
                return Mark(mark.file, mark.line + number, column)
        return mark


def _line_of(error: BaseException, name: str | None) -> tuple[str | None, int]:
    """The template and line that were being rendered: the innermost of them."""
    line = 1
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            name, line = template.name, template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return name, line


def _column(text: str, word: str, start: int = 0) -> int:
    """Where a word is in a line, from 1; without a word, the first expression. 0: nowhere."""
    if not word:
        found = re.compile(r"\{[{%]").search(text, start)
    else:
        whole = rf"(?<!\w){re.escape(word)}(?!\w)"
        # As an attribute of something (`x.name`) it is most likely another one.
        found = re.compile(rf"(?<!\.){whole}").search(text, start)
        found = found or re.compile(whole).search(text, start)
    return found.start() + 1 if found else 0


def _expressions_at(source: str, line: int) -> list[str]:
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
    facts = scope.outermost().final.get("facts")
    if owner is missing:
        hint = advice.NAMES.get(name, "")
        short = name.removeprefix("ansible_")
        if not hint and isinstance(facts, Mapping) and short in facts:
            hint = f"facts have a name of their own: write facts.{short}"
        return f"'{name}' is not defined", hint or did_you_mean(name, scope.all_names())
    if isinstance(owner, Mapping):
        hint = did_you_mean(name, owner)
        if owner is facts:
            hint = (
                hint
                or "`reconciler facts` shows what there is; default(...) gives a value where there is none"
            )
            return f"facts have no '{name}'", hint
        if not hint and 0 < len(owner) <= LISTED:
            hint = "it has " + ", ".join(str(key) for key in owner)
        return f"the mapping has no '{name}'", hint
    if isinstance(owner, (list, tuple)):
        return f"the list has no item {name}: it has {len(owner)}", ""
    return f"{_kind(owner)} has no attribute '{name}'", ""


def _kind(value: object) -> str:
    if value is None:
        return "an empty value"
    return {"str": "a text", "int": "a number", "float": "a number", "bool": "a truth value"}.get(
        type(value).__name__, f"a {type(value).__name__}"
    )


def _reason(error: Exception) -> tuple[str, str]:
    """A failure in a line, and what to do."""
    if isinstance(error, SecurityError):
        return f"refused: {_one_line(str(error)).rstrip('.')}", ""
    if isinstance(error, TooMuch):
        return str(error), "the work of a template is limited; make it simpler, or the data smaller"
    if isinstance(error, RecursionError):
        return "the template includes or calls itself without end", ""
    if isinstance(error, TemplateNotFound):
        return f"there is no template '{_one_line(str(error))}'", ""
    if isinstance(error, KeyError):
        return f"there is no {_one_line(str(error))}", ""
    return _one_line(str(error)) or type(error).__name__, ""


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))[:300]
