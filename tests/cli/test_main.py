"""The exit codes, as the table of docs/reference/exit-codes.md promises; help; bugs; closed output."""

import json
import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from reconciler import errors
from reconciler.catalog import Plan, Report, Result
from reconciler.cli import main as program
from reconciler.cli.main import VERBS, main
from reconciler.errors import Mark

DOCS = Path(__file__).parents[2] / "docs"


def verb_that(monkeypatch: pytest.MonkeyPatch, act: object) -> None:
    """`reconciler doctor` does `act`: raises it, or ends with it."""

    def run(args: Namespace, out: object) -> int:
        if isinstance(act, BaseException):
            raise act
        return act  # type: ignore[return-value]

    verb = SimpleNamespace(configure=lambda parser: None, run=run)
    # Only what `main` sees: who else is imported meanwhile would keep the other one for ever.
    monkeypatch.setattr(program, "importlib", SimpleNamespace(import_module=lambda name: verb))


TABLE = [
    (errors.ReconcilerError("x"), 1),
    (errors.ProtocolError("x"), 1),
    (errors.ConfigError("x"), 3),
    (errors.UsageError("x"), 3),
    (errors.YamlError("x"), 3),
    (errors.SchemaError("x"), 3),
    (errors.TemplateError("x"), 3),
    (errors.InventoryError("x"), 3),
    (errors.CycleError("x"), 3),
    (errors.ClaimConflict("x"), 3),
    (errors.ConfigErrors([errors.SchemaError("x"), errors.SchemaError("y")]), 3),
    (errors.ResourceError("x"), 4),
    (errors.SourceError("x"), 5),
    (errors.TransportError("x"), 5),
    (errors.LockBusy("x"), 9),
    (errors.TrustError("x"), 10),
    (errors.Interrupted("x"), 130),
    (KeyboardInterrupt(), 130),
    (ValueError("x"), 1),
    (RecursionError("x"), 1),
    (MemoryError(), 1),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize(
    "error, code",
    TABLE,
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_error_has_its_exit_code_and_one_message(
    error: BaseException,
    code: int,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb_that(monkeypatch, error)
    assert main(["doctor", *(["--json"] if as_json else [])]) == code
    stdout, stderr = capsys.readouterr()
    assert "Traceback" not in stdout + stderr
    if as_json:
        assert json.loads(stdout)["exit"] == code
        assert stderr == ""
    else:
        assert stdout == ""
        assert stderr.startswith("error: ")


def test_the_documented_table_names_every_code_that_an_error_class_has() -> None:
    text = (DOCS / "reference" / "exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [
        found
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, errors.ReconcilerError)
    ]
    assert {found.exit_code for found in classes} <= documented
    assert documented == {*range(12), 130}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frobnicate"],
        ["--frobnicate"],
        ["plan", "--frobnicate"],
        ["plan", "--lim", "x"],
        ["plan", "surplus"],
        ["plan", "--tags"],
        ["plan", "--tags", ","],
        ["apply", "--durability", "maybe"],
        ["apply", "--lock-timeout", "soon"],
        ["apply", "--lock-timeout", "-1"],
        ["apply", "--lock-timeout", "inf"],
        ["history", "-n", "0"],
        ["history", "-n", "\u0663"],
        ["history", "--cause", "frobnicate"],
        ["inventory"],
        ["inventory", "frobnicate"],
        ["modules"],
        ["why"],
        ["init"],
        ["-C", "repo", "plan"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_wrong_usage_is_3_and_not_2(
    words: list[str], as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"] if as_json else words) == 3
    stdout, stderr = capsys.readouterr()
    if as_json:
        assert json.loads(stdout)["errors"][0]["kind"] == "UsageError"
    else:
        assert stdout == ""
        assert stderr.startswith("error: ")
        assert "hint: " in stderr


def test_a_mistyped_verb_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aply"]) == 3
    assert capsys.readouterr().err == "error: unknown verb 'aply'\n  hint: did you mean 'apply'?\n"


def test_a_hostile_argument_is_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\x1b[2J\udcff"]) == 3
    assert "\x1b" not in capsys.readouterr().err


SITE = Mark("site.yml", 1)


def result(status: str) -> Result:
    return Result("file:/x", status, SITE)


@pytest.mark.parametrize(
    "statuses, options, code",
    [
        ([], [], 0),
        (["ok"], [], 0),
        (["ok"], ["--detailed-exitcode"], 0),
        (["pending"], [], 0),
        (["pending"], ["--detailed-exitcode"], 2),
        (["unknown"], ["--detailed-exitcode"], 2),
        (["owed"], ["--detailed-exitcode"], 2),
        (["failed"], [], 4),
        (["failed", "pending"], ["--detailed-exitcode"], 4),
        (["blocked"], [], 4),
    ],
)
def test_the_exit_code_of_plan(
    statuses: list[str], options: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = Plan("web1", tuple(result(status) for status in statuses))
    with_engine(monkeypatch, "plan", document)
    assert main(["plan", "--local", *options]) == code
    assert main(["plan", "--local", "--json", *options]) == code


@pytest.mark.parametrize(
    "statuses, interrupted, options, code",
    [
        (["ok"], False, ["--detailed-exitcode"], 0),
        (["changed"], False, [], 0),
        (["changed"], False, ["--detailed-exitcode"], 2),
        (["notified"], False, ["--detailed-exitcode"], 2),
        (["changed", "failed"], False, ["--detailed-exitcode"], 4),
        (["blocked"], False, [], 4),
        (["changed"], True, [], 130),
        (["failed"], True, ["--detailed-exitcode"], 130),
    ],
)
def test_the_exit_code_of_apply(
    statuses: list[str],
    interrupted: bool,
    options: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    document = Report("web1", tuple(result(status) for status in statuses), interrupted=interrupted)
    with_engine(monkeypatch, "apply", document)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert main(["apply", "--local", *options]) == code
    assert main(["apply", "--local", "--json", *options]) == code


def test_apply_without_root_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["apply", "--local"]) == 3
    assert capsys.readouterr().err.startswith("error: apply needs root\n")


def with_engine(monkeypatch: pytest.MonkeyPatch, verb: str, document: Plan | Report) -> None:
    """The engine answers with this document."""
    module = __import__(f"reconciler.cli.{verb}", fromlist=["run"])
    engine = SimpleNamespace(**{verb: lambda catalog, **options: document})

    @contextmanager
    def here(args: Namespace, out: object, **options: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(engine=engine, catalog=b"{}", content=None, secrets=None)

    monkeypatch.setattr(module, "on_this_machine", here)


# -- bugs --------------------------------------------------------------------------------


def test_a_bug_is_called_one_and_its_traceback_goes_into_a_private_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    verb_that(monkeypatch, ZeroDivisionError("division by zero"))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().err
    assert text.startswith(
        "error: this is a bug in reconciler: ZeroDivisionError: division by zero\n"
    )
    (kept,) = (cache / "crashes").iterdir()
    assert str(kept) in text
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in kept.read_text()


def test_debug_shows_the_traceback_of_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    verb_that(monkeypatch, ZeroDivisionError("division by zero"))
    assert main(["doctor", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert not (cache / "crashes").exists()


# -- the whole process -------------------------------------------------------------------


PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from reconciler.cli.main import main; sys.exit(main())",
]


def call(
    *words: str, stdout: int | IO[str] = subprocess.PIPE, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words], check=False, stdout=stdout, stderr=subprocess.PIPE, text=True, env=env
    )


HEAVY = {"yaml", "jinja2", "rich", "git", "paramiko", "fabric", "watchdog", "sqlite3", "asyncio"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        *([verb, "--help"] for verb in ("plan", "apply", "history", "init", "doctor")),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"import sys; from reconciler.cli.main import main; assert main({words!r}) == 0; print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = set(re.findall(r"'(\w+)'", done.stderr)) - (
        {"sqlite3"} if words[0] == "history" else set()
    )
    assert heavy == set()
    assert done.stdout


def test_help_names_every_verb_and_no_other() -> None:
    shown = call("--help").stdout
    assert re.findall(r"^  ([a-z]+)  ", shown, re.MULTILINE) == list(VERBS)


def test_help_into_a_closed_pipe_is_no_error() -> None:
    with subprocess.Popen(
        [*PROGRAM, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_cannot_be_written_is_no_success() -> None:
    with open("/dev/full", "w") as full:
        done = call("--help", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    code = """
import sys, time
from types import SimpleNamespace
from reconciler.cli import main as program
def run(args, out):
    print("ready", flush=True)
    time.sleep(60)
program.importlib.import_module = lambda name: SimpleNamespace(configure=lambda parser: None, run=run)
sys.exit(program.main(["doctor"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr == "error: interrupted\n"


def test_an_encoding_without_the_character_escapes_it() -> None:
    done = call("Grüße", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3
    assert "Gr\\xfc\\xdfe" in done.stderr


def test_a_bug_in_showing_an_error_is_a_bug_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(out: object, error: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(program, "show_errors", broken)
    assert main(["frobnicate"]) == 1
    assert "this is a bug in reconciler: IndexError" in capsys.readouterr().err
