"""Lines, documents, colour and closed pipes."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from reconciler.cli.console import Output, Span, wants_colour


class Stream(io.StringIO):
    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def output(
    *, terminal: bool = False, as_json: bool = False, **environment: str
) -> tuple[Output, Stream, Stream]:
    stdout, stderr = Stream(terminal), Stream(terminal)
    return (
        Output(as_json=as_json, stdout=stdout, stderr=stderr, environment=environment),
        stdout,
        stderr,
    )


@pytest.mark.parametrize(
    "terminal, environment, colour",
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "0"}, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_is_for_terminals_unless_the_environment_decides(
    terminal: bool, environment: Mapping[str, str], colour: bool
) -> None:
    assert wants_colour(Stream(terminal), environment) is colour


def test_a_pipe_gets_plain_text() -> None:
    out, stdout, _ = output()
    out.line("a ", Span("b", "bold red"))
    assert stdout.getvalue() == "a b\n"


def test_a_terminal_gets_colour_and_data_cannot_add_any() -> None:
    out, stdout, _ = output(terminal=True, TERM="xterm")
    out.line(Span("file:[bold]x[/bold]\x1b[31m", "green"), " :smile: 127.0.0.1")
    assert stdout.getvalue() == "\x1b[32mfile:[bold]x[/bold]\\x1b[31m\x1b[0m :smile: 127.0.0.1\n"


def test_data_cannot_start_a_line_of_its_own() -> None:
    out, stdout, _ = output()
    out.line("name\nerror: forged")
    assert stdout.getvalue() == "name\\nerror: forged\n"


def test_trailing_blanks_are_kept_because_a_diff_may_be_about_them() -> None:
    out, stdout, _ = output()
    out.line("+value  ")
    assert stdout.getvalue() == "+value  \n"


def test_with_json_there_is_one_document_and_no_line() -> None:
    out, stdout, _ = output(as_json=True)
    out.line("dropped")
    out.document({"name": "\u202e\x1b"})
    assert json.loads(stdout.getvalue()) == {"name": "\u202e\x1b"}
    assert stdout.getvalue().isascii()
    assert "\x1b" not in stdout.getvalue()


def test_progress_says_nothing_where_nobody_watches() -> None:
    out, stdout, stderr = output()
    with out.progress("apply") as on_event:
        on_event({"event": "start", "id": "file:/x", "index": 1, "total": 2})
    assert stdout.getvalue() == stderr.getvalue() == ""


def test_progress_on_a_terminal_shows_what_is_at_work_and_goes_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reconciler.cli.console.PATIENCE", 0.0)
    out, stdout, stderr = output(terminal=True, TERM="xterm")
    with out.progress("apply") as on_event:
        on_event({"event": "start", "id": "file:/\x1b[2J", "index": 1, "total": 2})
    assert stdout.getvalue() == ""
    assert "apply file:/\\x1b[2J" in stderr.getvalue()
    assert stderr.getvalue().endswith("\x1b[2K")


def test_a_reader_that_went_away_is_no_error() -> None:
    program = "from reconciler.cli.console import Output\nout = Output()\nfor n in range(100000): out.line(str(n))\nout.flush()\nassert out.closed"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
