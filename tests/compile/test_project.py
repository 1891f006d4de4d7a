"""Whole state repos: golden catalogs, the same bytes every time, many hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compile.repo import FACTS, MemoryTree, compiled, only_error, project, site, tree
from reconciler.catalog import Catalog, dumps
from reconciler.compile import Project
from reconciler.compile.sources import Contents
from reconciler.inventory import Inventory
from reconciler.resource import Content

GOLDEN = Path(__file__).parent / "golden"


def from_disk(top: Path) -> MemoryTree:
    return MemoryTree(
        {
            f"{path.relative_to(top)}{'*' if os.access(path, os.X_OK) else ''}": path.read_bytes()
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }
    )


def golden_catalog(name: str) -> bytes:
    """The catalog of host web1, with the contents that it names, as readable JSON."""
    tree = from_disk(GOLDEN / name / "repo")
    inventory = Inventory.load(["inventory"], tree, tree)
    facts = json.loads((GOLDEN / name / "facts.json").read_text())
    whole = Project(tree, inventory).compile("web1", facts)
    document = whole.catalog.to_json()
    document["contents"] = {
        digest: data.decode() for digest, data in sorted(whole.contents.items())
    }
    document["secrets"] = dict(whole.secrets)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
def test_a_golden_state_repo_gives_its_catalog(name: str) -> None:
    assert golden_catalog(name).decode() == (GOLDEN / name / "catalog.json").read_text()


def test_the_same_input_gives_the_same_bytes_whatever_the_hash_seed() -> None:
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from compile.test_project import GOLDEN, golden_catalog\n"
        "for path in sorted(GOLDEN.iterdir()):\n"
        "    sys.stdout.buffer.write(golden_catalog(path.name))\n"
    )
    tests = str(Path(__file__).parent.parent)
    found = {
        subprocess.run(
            [sys.executable, "-c", script, tests],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(found) == 1
    assert found.pop()


def test_a_catalog_survives_its_own_json() -> None:
    whole = compiled(
        site("- copy: {dest: /x, content: a, mode: '0600'}\n  tags: [a]\n- group: ops\n")
    )
    data = dumps(whole.catalog.to_json())
    assert dumps(Catalog.from_json(json.loads(data)).to_json()) == data


def test_facts_change_the_digest_and_nothing_that_does_not_use_them() -> None:
    files = site("- group: ops\n")
    one, other = compiled(files), compiled(files, facts={**FACTS, "uptime": 1})
    assert one.catalog.facts != other.catalog.facts
    assert one.catalog.resources == other.catalog.resources


def test_a_host_is_compiled_with_its_own_variables_and_not_with_those_of_the_one_before() -> None:
    inventory = "all: {hosts: {h1: {x: 1}, h2: {x: 2}, h3: {}}, vars: {x: 0, y: 'y{{ x }}'}}"
    whole = project(site("- group: 'g{{ y }}'\n"), inventory)
    found = {
        one.catalog.host: one.catalog.resources[0].key
        for one in whole.compile_many(whole.hosts(), lambda _: FACTS)
    }
    assert found == {"h1": "gy1", "h2": "gy2", "h3": "gy0"}


def test_contents_are_read_from_the_tree_only_when_asked_for_again() -> None:
    files = site("- copy: {src: big, dest: /big}\n") | {"files/big": b"\0" * 1000}
    whole = compiled(files)
    (digest,) = whole.contents
    assert whole.contents[digest] == b"\0" * 1000
    assert whole.catalog.resources[0].params["content"] == {"$content": [digest, 1000]}
    with pytest.raises(KeyError):
        whole.contents["0" * 64]


@pytest.mark.parametrize(
    "text, said",
    [
        ("epoch: [\n", "reconciler.yml:2:1: "),
        ("name: shop\nepoch: two\n", "reconciler.yml:2:8: epoch is 'two', expected a number"),
        ("name: {a: 1}\n", "reconciler.yml:1:7: name is {'a': 1}, expected a text"),
        ("- name: shop\n", "reconciler.yml: reconciler.yml must be a mapping"),
        ("#" * (3 << 20), "reconciler.yml: the file has 3145728 bytes"),
        ("-> elsewhere", "reconciler.yml: "),
    ],
)
def test_what_a_state_repo_says_of_itself_is_an_error_like_any_other(text: str, said: str) -> None:
    found = only_error(site("- copy: {dest: /x, content: a}\n") | {"reconciler.yml": text})
    assert said in str(found)
    assert found.exit_code == 3


def test_what_it_says_of_fleet_runs_concerns_others() -> None:
    files = {"reconciler.yml": "name: shop\nepoch: 2\nrollout: {batches: nonsense}\n"}
    assert compiled(site("- copy: {dest: /x, content: a}\n") | files)


def test_whether_a_content_is_named_is_known_without_reading_it() -> None:
    """It may be of any size, and larger than what is ever read as a whole."""
    files = tree({"big": b"\0" * 1000})
    contents = Contents(files)
    contents.add_file(Content("a" * 64, 1000), "big")
    text = contents.add_text("made")
    assert "a" * 64 in contents
    assert text.sha256 in contents
    assert "b" * 64 not in contents
    assert files.reads == 0


def test_secrets_are_handles_in_the_catalog_and_nowhere_else() -> None:
    whole = compiled(site("- user: {name: ada, password: $6$hunter2}\n  no_log: true\n"))
    assert b"hunter2" not in dumps(whole.catalog.to_json())
    assert whole.catalog.resources[0].params["password"] == {"$secret": "user:ada#password"}
    assert whole.secrets == {"user:ada#password": "$6$hunter2"}
    assert whole.catalog.resources[0].no_log


def test_a_catalog_without_templates_does_not_load_jinja() -> None:
    script = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from compile.repo import compiled, site\n"
        "compiled(site('- copy: {dest: /x, content: a}'))\n"
        "assert 'jinja2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(Path(__file__).parent.parent)], check=True)


def test_a_thousand_files_written_in_place_compile_in_well_under_a_second() -> None:
    files = site(
        "".join(
            f"- name: file {n}\n  copy: {{dest: /etc/{n}, content: 'text {n}', mode: '0644'}}\n"
            for n in range(1000)
        )
    )
    started = time.process_time()
    assert len(compiled(files).catalog.resources) == 1000
    # A fifth of that on an idle machine; what must not happen is that it grows with the square.
    assert time.process_time() - started < 2


def test_a_hundred_hosts_share_what_is_parsed_and_compiled() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/main.yml": "".join(
            f"- template: {{src: t{n}.j2, dest: '/etc/{{{{ inventory_hostname }}}}/{n}'}}\n"
            for n in range(50)
        ),
        **{f"roles/r/templates/t{n}.j2": "{{ inventory_hostname }} {{ x }}\n" for n in range(50)},
        "group_vars/all.yml": "x: '{{ y }}'\ny: 1\n",
    }
    inventory = "all: {hosts: {" + ", ".join(f"h{n}: " for n in range(100)) + "}}"
    whole = project(files, inventory)
    started = time.process_time()
    assert (
        sum(
            len(one.catalog.resources) for one in whole.compile_many(whole.hosts(), lambda _: FACTS)
        )
        == 5000
    )
    assert time.process_time() - started < 15
