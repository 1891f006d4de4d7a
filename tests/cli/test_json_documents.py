"""Every field that a document has is in docs/reference/json.md."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Call, Repo

DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text()
#: Below these keys names are data.
DATA = {"facts", "params", "written", "summary", "groups", "variables", "hostvars"}


def fields(document: object) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield name
            if name not in DATA:
                yield from fields(value)
    elif isinstance(document, list):
        for value in document:
            yield from fields(value)


def section_text(section: str) -> str:
    """A section, with those that it refers to."""
    found = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    others = re.findall(r"\(#(\w+)\)", found[1])
    return "\n".join([found[1], *(section_text(other) for other in others)])


def documented(section: str) -> set[str]:
    """The names in backticks of a section, and of those that it refers to."""
    quoted = re.findall(r"`([^`]+)`", section_text(section))
    return {word for text in quoted for word in re.split(r"[.\[\]]+", text)}


@pytest.mark.skipif(os.geteuid() != 0, reason="files of root's need root")
def test_every_field_of_every_document_is_documented(
    call: Call, repo: Repo, root: Path, tmp_path: Path
) -> None:
    repo.write(
        "site.yml",
        "- hosts: all\n  vars: {who: ada}\n  resources:\n"
        "    - {name: a, tags: [t], copy: {dest: /srv/a, content: '{{ who }}'}}\n"
        "    - {name: b, file: {path: /srv/b, state: directory, owner: nobody-here}}\n"
        "    - {name: c, copy: {dest: /srv/b/c, content: x}}\n",
    )
    repo.write("hosts", "web1 port=80\n[web]\nweb1\n")
    repo.commit("first")
    repo_options = ["-C", repo.path]
    where = [*repo_options, "--root", root]
    calls = {
        "plan": ["plan", *where],
        "report": ["apply", *where],
        "error": ["plan", *where, "--tags", "nothing"],
        "check": ["check", *repo_options],
        "facts": ["facts", "--root", root],
        "history": ["history", "--root", root],
        "why": ["why", "file:/srv/a", *repo_options],
        "doctor": ["doctor", *where],
        "init": ["init", tmp_path / "new"],
        "inventory": ["inventory", "explain", "web1", *repo_options, "-i", "hosts"],
        "modules": ["modules", "doc", "file", *repo_options],
    }
    for section, words in calls.items():
        document = call(*words, "--json").json()
        assert {"schema"} <= document.keys()
        assert set(fields(document)) <= documented(section) | {"schema"}, section
        assert f'`["{document["schema"][0]}", {document["schema"][1]}]`' in DOCS
    runs = call("history", "--runs", "--root", root, "--json").json()
    assert set(fields(runs)) <= documented("history") | {"schema"}
