"""Errors as a person and as a program read them: all of them, where, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from reconciler.cli.console import Line, Output, Span, line
from reconciler.errors import ConfigErrors, Mark, ReconcilerError

#: Hosts named with one error; it may be the same for a thousand.
HOSTS_SHOWN = 5
#: Columns of a source line that are shown around the place of an error.
WIDTH = 120


class Failure:
    """One error, with every host that it was met for."""

    def __init__(self, error: ReconcilerError) -> None:
        self.error = error
        self.hosts = [error.host] if error.host else []

    def to_json(self) -> dict[str, object]:
        """One object of `errors` in the error document."""
        mark = self.error.mark
        return {
            "kind": type(self.error).__name__,
            "message": self.error.message,
            "source": [mark.file, mark.line, mark.column] if mark else None,
            "hosts": self.hosts,
            "hint": self.error.hint,
        }


def failures(errors: Iterable[ReconcilerError]) -> list[Failure]:
    """Each error once, in the order in which they came, whichever hosts it is for."""
    found: dict[tuple[object, ...], Failure] = {}
    for error in _flat(errors):
        key = (type(error), error.mark, error.message, error.hint)
        if key not in found:
            found[key] = Failure(error)
        elif error.host and error.host not in found[key].hosts:
            found[key].hosts.append(error.host)
    return list(found.values())


def _flat(errors: Iterable[ReconcilerError]) -> Iterable[ReconcilerError]:
    for error in errors:
        if isinstance(error, ConfigErrors):
            yield from _flat(error.errors)
        else:
            yield error


def show_errors(out: Output, error: ReconcilerError) -> None:
    """Say all that went wrong: on stderr, or with `--json` as the one document on stdout."""
    found = failures([error])
    if out.as_json:
        out.document(
            {
                "schema": ["reconciler/error", 1],
                "exit": error.exit_code,
                "errors": [failure.to_json() for failure in found],
            }
        )
        return
    _say(out, found)


def show_all(out: Output, errors: Iterable[ReconcilerError]) -> None:
    """Say on stderr what went wrong with several hosts: each error once."""
    _say(out, failures(errors))


def _say(out: Output, found: Sequence[Failure]) -> None:
    shown = [one for failure in found for one in _lines(failure, out.read_source)]
    if len(found) > 1:
        shown.append(line(Span(f"{len(found)} errors", "bold red")))
    out.notes(shown)


def _lines(failure: Failure, read: Callable[[str], str | None]) -> list[Line]:
    error = failure.error
    place = f"{error.mark}: " if error.mark else ""
    first, *more = error.message.splitlines() or [""]
    shown = [line(Span("error", "bold red"), ": ", Span(place, "bold"), first)]
    shown += [line(f"  {text}") for text in more]
    if error.mark is not None:
        shown += _excerpt(error.mark, read)
    if failure.hosts:
        more_hosts = len(failure.hosts) - HOSTS_SHOWN
        names = ", ".join(failure.hosts[:HOSTS_SHOWN]) + (
            f" and {more_hosts} more" if more_hosts > 0 else ""
        )
        shown.append(line(Span(f"  for {names}", "dim")))
    shown += [line("  ", Span("hint", "cyan"), f": {text}") for text in error.hint.splitlines()]
    return shown


def _excerpt(mark: Mark, read: Callable[[str], str | None]) -> list[Line]:
    """The line that the error is about, and a caret under its column."""
    text = read(mark.file) if mark.line else None
    rows = text.split("\n") if text is not None else []
    if not 0 < mark.line <= len(rows):
        return []
    # One column for one character: tabs and what is written out would move the caret.
    source = "".join(c if c.isprintable() else " " for c in rows[mark.line - 1].rstrip("\r"))
    start = max(0, mark.column - WIDTH // 2) if len(source) > WIDTH else 0
    gutter = f"{mark.line:>6} | "
    shown = [line(Span(gutter, "dim"), source[start : start + WIDTH])]
    if mark.column:
        shown.append(
            line(
                " " * (len(gutter) - 2),
                Span("| ", "dim"),
                " " * (mark.column - 1 - start),
                Span("^", "bold red"),
            )
        )
    return shown
