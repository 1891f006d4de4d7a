"""Where output goes: lines for a person, one JSON document for a program, progress for a wait.

Every word of every line passes through `visible`, so no caller can forget it. Colour comes from
rich, which is imported only where colour is wanted; a pipe gets plain text.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TextIO

from reconciler.cli.visible import visible

if TYPE_CHECKING:
    from reconciler.cli.progress import Bar

#: A wait shorter than this many seconds shows no progress: it would only flicker.
PATIENCE = 0.5


class Unwritable(Exception):
    """The output cannot be written, for one because it goes to a full disk."""


class Span(NamedTuple):
    """A piece of a line and how it looks: a style of rich, such as `bold red`."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def line(*parts: str | Span) -> Line:
    """A line out of plain and styled pieces."""
    return tuple(part if isinstance(part, Span) else Span(part) for part in parts)


def waiting_line(event: Mapping[str, object]) -> Line:
    """What an engine says that waits for another run: `holder` and `seconds`."""
    seconds = event.get("seconds")
    limit = f"at most {seconds:.0f} s" if isinstance(seconds, (int, float)) else "a while"
    return line(Span("waiting", "bold yellow"), f" for another run, {limit}: {event.get('holder')}")


def plain(shown: Line) -> str:
    """A line as a pipe gets it."""
    return "".join(visible(span.text) for span in shown)


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """NO_COLOR and FORCE_COLOR decide where they are set and not empty; else only a terminal."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


class Output:
    """What one call of the program says.

    as_json: stdout carries one JSON document and nothing else; lines are dropped.
    verbose: also show what is in sync.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self._stdout = stdout or sys.stdout or _nowhere()
        self._stderr = stderr or sys.stderr or _nowhere()
        self._environment = os.environ if environment is None else environment
        self._writers: dict[int, Callable[[Line], None]] = {}
        #: Nobody reads any more: `reconciler plan | head` is no error.
        self.closed = False
        #: Text of a file that an error may point into, by the name that its mark has.
        self.read_source: Callable[[str], str | None] = lambda file: None

    def line(self, *parts: str | Span) -> None:
        """One line on stdout; nothing with `--json`."""
        self.lines([line(*parts)])

    def lines(self, shown: list[Line]) -> None:
        """Several lines on stdout; nothing with `--json`."""
        if not self.as_json:
            self._write(self._stdout, shown)

    def document(self, document: object) -> None:
        """The one JSON document of this call. ASCII, so a terminal cannot be fooled by it."""
        self._write_text(self._stdout, json.dumps(document, indent=2, ensure_ascii=True) + "\n")

    def note(self, *parts: str | Span) -> None:
        """One line on stderr: what a person should know beside the result."""
        self._write(self._stderr, [line(*parts)])

    def notes(self, shown: list[Line]) -> None:
        """Several lines on stderr."""
        self._write(self._stderr, shown)

    def text(self, text: str) -> None:
        """Text of our own, as it is, on stdout: help and generated documents."""
        self._write_text(self._stdout, text)

    @property
    def terminal(self) -> TextIO:
        """Where what moves is drawn; only if `on_terminal`."""
        return self._stderr

    @property
    def on_terminal(self) -> bool:
        """Whether a person watches, on a terminal that can draw."""
        return self._stderr.isatty() and self._environment.get("TERM") != "dumb"

    @contextlib.contextmanager
    def progress(self, verb: str) -> Iterator[Callable[[Mapping[str, object]], None]]:
        """Show the engine's events while they come, on a terminal, once it takes a while; that it
        waits for another run, at once and everywhere."""
        waiting = _Waiting(verb, self._stderr) if self.on_terminal else None

        def on_event(event: Mapping[str, object]) -> None:
            if event.get("event") == "waiting":
                self.note(*waiting_line(event))
            elif waiting is not None:
                waiting.on_event(event)

        try:
            yield on_event
        finally:
            if waiting is not None:
                waiting.close()

    def flush(self) -> None:
        """Raises Unwritable."""
        with self._writing(self._stdout):
            self._stdout.flush()

    def _write(self, stream: TextIO, shown: list[Line]) -> None:
        if id(stream) not in self._writers:
            self._writers[id(stream)] = self._writer(stream)
        write = self._writers[id(stream)]
        with self._writing(stream):
            for one in shown:
                write(one)

    def _write_text(self, stream: TextIO, text: str) -> None:
        with self._writing(stream):
            stream.write(text)

    @contextlib.contextmanager
    def _writing(self, stream: TextIO) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.closed = True
            _drop_the_rest(stream)
        except OSError as error:
            _drop_the_rest(stream)
            raise Unwritable(error.strerror or str(error)) from error

    def _writer(self, stream: TextIO) -> Callable[[Line], None]:
        if wants_colour(stream, self._environment):
            return _coloured(stream)
        return lambda shown: void(stream.write(plain(shown) + "\n"))


def _nowhere() -> TextIO:
    """For a process that was started with stdout or stderr closed."""
    return open(os.devnull, "w", encoding="utf-8")


def _drop_the_rest(stream: TextIO) -> None:
    """Send what is still to come to nowhere, also what the interpreter flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def void(_: object) -> None:
    """Drop a result."""


def _coloured(stream: TextIO) -> Callable[[Line], None]:
    from rich.console import Console
    from rich.text import Text

    console = Console(
        file=stream,
        force_terminal=True,
        color_system="standard",
        no_color=False,
        markup=False,
        emoji=False,
        highlight=False,
    )

    def write(shown: Line) -> None:
        text = Text.assemble(*((visible(span.text), span.style) for span in shown))
        console.print(text, soft_wrap=True)

    return write


class _Waiting:
    """Becomes a progress bar when the wait has become long; until then rich is not imported."""

    def __init__(self, verb: str, stream: TextIO) -> None:
        self._verb = verb
        self._stream = stream
        self._begun = time.monotonic()
        self._bar: Bar | None = None

    def on_event(self, event: Mapping[str, object]) -> None:
        if self._bar is None:
            if time.monotonic() - self._begun < PATIENCE:
                return
            from reconciler.cli.progress import Bar

            self._bar = Bar(self._verb, self._stream)
        self._bar.show(event)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
