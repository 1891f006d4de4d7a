"""Errors: where, the line with a caret, for whom, what to do; all of them; as JSON too."""

import io
import json

from reconciler.cli.console import Output
from reconciler.cli.failure import failures, show_errors
from reconciler.errors import ConfigErrors, LockBusy, Mark, ReconcilerError, SchemaError

SITE = "- hosts: all\n  resources:\n    - file: {path: /x, moed: '0644'}\n"


def shown(error: ReconcilerError, *, as_json: bool = False) -> tuple[str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    out = Output(as_json=as_json, stdout=stdout, stderr=stderr, environment={})
    out.read_source = lambda file: SITE if file == "site.yml" else None
    show_errors(out, error)
    return stdout.getvalue(), stderr.getvalue()


def unknown_key(host: str = "web1") -> SchemaError:
    return SchemaError(
        "unknown key 'moed'", mark=Mark("site.yml", 3, 23), host=host, hint="did you mean 'mode'?"
    )


def test_an_error_shows_its_line_and_a_caret_under_the_column() -> None:
    stdout, stderr = shown(unknown_key())
    assert stdout == ""
    assert stderr == (
        "error: site.yml:3:23: unknown key 'moed'\n"
        "     3 |     - file: {path: /x, moed: '0644'}\n"
        "       |                       ^\n"
        "  for web1\n"
        "  hint: did you mean 'mode'?\n"
    )


def test_an_error_of_many_hosts_is_shown_once_and_names_the_first_five() -> None:
    errors = ConfigErrors([unknown_key(f"web{n}") for n in range(1, 9)])
    _, text = shown(errors)
    assert text.count("error:") == 1
    assert "  for web1, web2, web3, web4, web5 and 3 more\n" in text
    assert len(failures([errors])) == 1


def test_all_errors_are_listed_and_then_counted() -> None:
    errors = ConfigErrors(
        [
            unknown_key(),
            ConfigErrors([SchemaError("missing 'path'", mark=Mark("roles/a/main.yml", 7))]),
        ]
    )
    _, text = shown(errors)
    assert "error: roles/a/main.yml:7: missing 'path'\n" in text
    assert text.endswith("2 errors\n")


def test_an_error_about_a_whole_file_shows_no_line() -> None:
    _, text = shown(SchemaError("odd", mark=Mark("site.yml")))
    assert text == "error: site.yml: odd\n"


def test_an_error_beyond_the_end_of_a_file_shows_no_line() -> None:
    _, text = shown(SchemaError("odd", mark=Mark("site.yml", 99, 1)))
    assert text == "error: site.yml:99:1: odd\n"


def test_a_long_source_line_is_cut_around_the_caret() -> None:
    stderr = io.StringIO()
    out = Output(stdout=io.StringIO(), stderr=stderr, environment={})
    out.read_source = lambda file: "x" * 500 + "HERE" + "y" * 500
    show_errors(out, SchemaError("odd", mark=Mark("f", 1, 501)))
    _, source, caret, _ = stderr.getvalue().split("\n")
    assert source[caret.index("^")] == "H"
    assert len(source) < 140


def test_hostile_text_in_messages_and_sources_does_not_reach_the_terminal() -> None:
    stderr = io.StringIO()
    out = Output(stdout=io.StringIO(), stderr=stderr, environment={})
    out.read_source = lambda file: "\x1b[2Jcolour\u202e"
    show_errors(out, SchemaError("bad \x1b[31m", mark=Mark("evil\x07.yml", 1, 9), hint="\x9b"))
    assert all(c.isprintable() for c in stderr.getvalue().replace("\n", ""))


def test_as_json_errors_are_one_document_with_the_exit_code() -> None:
    stdout, stderr = shown(unknown_key(), as_json=True)
    assert stderr == ""
    assert json.loads(stdout) == {
        "schema": ["reconciler/error", 1],
        "exit": 3,
        "errors": [
            {
                "kind": "SchemaError",
                "message": "unknown key 'moed'",
                "source": ["site.yml", 3, 23],
                "hosts": ["web1"],
                "hint": "did you mean 'mode'?",
            }
        ],
    }


def test_an_error_without_a_place_has_no_source() -> None:
    stdout, _ = shown(LockBusy("another run holds the lock"), as_json=True)
    document = json.loads(stdout)
    assert document["exit"] == 9
    assert document["errors"][0]["source"] is None
