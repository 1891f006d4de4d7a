"""`reconciler modules`, and the reference that is generated with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Call, Repo

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "modules.md"
OWN = '''\
"""Keep a virtual host.

    - vhost: {name: example.test}

One for each site.
"""

from dataclasses import dataclass

from reconciler.resource import Resource


@dataclass(frozen=True)
class Vhost(Resource):
    name: str  #: Its name | as \\x1b[31m DNS has it.
    port: int = 80  #: Where it listens.
'''


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("nowhere")
def test_list_as_json_is_an_array_of_objects_with_a_name(call: Call) -> None:
    document = call("modules", "list", "--json").json()
    assert {"file", "package", "service", "command"} <= {one["name"] for one in document}
    assert all(one["title"] and one["own"] is False for one in document)


def test_types_of_the_state_repo_are_among_them(call: Call, repo: Repo) -> None:
    repo.write("site.yml", "[]")
    repo.write("modules/vhost.py", OWN)
    assert "vhost" in call("modules", "list", "-C", repo.path).out
    document = call("modules", "doc", "vhost", "-C", repo.path, "--json").json()
    assert document["own"] is True
    assert document["example"].strip() == "- vhost: {name: example.test}"
    assert [
        (one["name"], one["type"], one["required"], one["default"])
        for one in document["parameters"]
    ] == [
        ("name", "str", True, None),
        ("port", "int", False, 80),
    ]


def test_doc_shows_parameters_and_an_example(call: Call, repo: Repo) -> None:
    repo.write("site.yml", "[]")
    repo.write("modules/vhost.py", OWN)
    assert (
        call("modules", "doc", "vhost", "-C", repo.path).out
        == """\
vhost: Keep a virtual host.

    - vhost: {name: example.test}

One for each site.

  name: str  required
      Its name | as \\x1b[31m DNS has it.
  port: int  80
      Where it listens.
"""
    )


def test_a_cell_of_a_table_stays_one_cell(call: Call, repo: Repo) -> None:
    repo.write("site.yml", "[]")
    repo.write("modules/vhost.py", OWN)
    text = call("modules", "doc", "vhost", "--markdown", "-C", repo.path).out
    assert "| `name` | `str` | required | Its name \\| as" in text


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    "name, said",
    [("fil", "did you mean 'file'?"), ("_mode", "there is no"), ("../x", "there is no")],
)
def test_an_unknown_type_is_refused(call: Call, name: str, said: str) -> None:
    done = call("modules", "doc", name)
    assert done.code == 3
    assert said in done.err


@pytest.mark.usefixtures("nowhere")
def test_the_reference_is_what_the_modules_say_today(call: Call) -> None:
    fresh = call("modules", "doc", "--markdown").out
    assert REFERENCE.read_text() == fresh, (
        "run: reconciler modules doc --markdown > docs/reference/modules.md"
    )
