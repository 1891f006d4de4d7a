"""`reconciler inventory`: hosts, groups and the layers of variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Call, Repo

HOSTS = """\
[web]
web1
web2 port=81

[db]
db1

[production:children]
web
db

[web:vars]
port=80
"""


@pytest.fixture
def where(repo: Repo) -> list[str]:
    repo.write("site.yml", "[]")
    repo.write("hosts", HOSTS)
    repo.write("host_vars/web1.yml", 'port: 82\nwho: "\\x1b[31m"\n')
    return ["-C", str(repo.path), "-i", "hosts"]


def test_list_names_hosts_and_their_groups(call: Call, where: list[str]) -> None:
    assert (
        call("inventory", "list", *where).out
        == "web1  production, web\nweb2  production, web\ndb1   production, db\n"
    )
    assert (
        call("inventory", "list", *where, "--limit", "web:!web1").out == "web2  production, web\n"
    )


def test_list_as_json_has_the_shape_of_ansible_inventory(call: Call, where: list[str]) -> None:
    document = call("inventory", "list", *where, "--json").json()
    assert document["_meta"]["hostvars"]["web2"] == {"port": 81}
    assert document["web"] == {"hosts": ["web1", "web2"]}
    assert document["production"] == {"children": ["web", "db"]}
    limited = call("inventory", "list", *where, "--json", "--limit", "web2").json()
    assert list(limited["_meta"]["hostvars"]) == ["web2"]
    assert limited["web"] == {"hosts": ["web2"]}


def test_graph_draws_the_tree(call: Call, where: list[str]) -> None:
    assert (
        call("inventory", "graph", *where).out
        == """\
@all:
  |--@ungrouped:
  |--@production:
  |  |--@web:
  |  |  |--web1
  |  |  |--web2
  |  |--@db:
  |  |  |--db1
"""
    )
    groups = call("inventory", "graph", *where, "--json").json()["groups"]
    assert groups["production"] == {"children": ["web", "db"], "hosts": []}


def test_host_shows_its_variables_and_nothing_that_a_terminal_obeys(
    call: Call, where: list[str]
) -> None:
    assert call("inventory", "host", "web1", *where).out == "port: 82\nwho: \\x1b[31m\n"
    assert call("inventory", "host", "web1", *where, "--json").json() == {
        "port": 82,
        "who": "\x1b[31m",
    }


def test_explain_shows_who_wins_and_who_loses_and_where_each_is_written(
    call: Call, where: list[str]
) -> None:
    text = call("inventory", "explain", "web1", "port", *where).out
    first, winner, loser = text.splitlines()
    assert first == "port"
    assert winner.startswith("  wins  82  ")
    assert "host_vars/web1.yml:1" in winner
    assert loser.startswith("  loses 80  ")
    assert "hosts:13" in loser
    document = call("inventory", "explain", "web1", *where, "--json").json()
    assert [layer["value"] for layer in document["variables"]["port"]] == [80, 82]


@pytest.mark.parametrize(
    "words, said",
    [
        (["list"], "which inventory?"),
        (["host", "web1"], "which inventory?"),
        (["list", "-i", "nowhere"], "nowhere"),
        (["list", "-i", "hosts", "--limit", "nobody"], "no host matches 'nobody'"),
        (["list", "-i", "hosts", "--limit", "wbe1"], "did you mean 'web1'?"),
        (["list", "-i", "hosts", "--limit", ""], "'' is no pattern"),
        (["list", "-i", "hosts", "--limit", "@nosuch"], "cannot read nosuch"),
        (["list", "-i", ""], "expected a file, a directory or a list"),
        (["list", "-i", "/"], "expected a file, a directory or a list"),
        (["host", "wbe1", "-i", "hosts"], "did you mean 'web1'?"),
        (["explain", "web1", "prot", "-i", "hosts"], "did you mean 'port'?"),
        (["host", "-i", "hosts"], "HOST"),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused_with_3(
    call: Call, where: list[str], words: list[str], said: str
) -> None:
    done = call("inventory", *words, "-C", where[1])
    assert done.code == 3
    assert said in done.err


def test_this_machine_can_be_asked_for_though_no_source_names_it(
    call: Call, where: list[str]
) -> None:
    assert call("inventory", "list", *where, "--limit", "localhost").out == "localhost\n"
    for action in ("host", "explain"):
        assert "local" in call("inventory", action, "localhost", *where).out


def test_every_action_warns_of_groups_that_only_their_names_decide_between(
    call: Call, repo: Repo, where: list[str]
) -> None:
    repo.write("hosts", HOSTS + "[edge:vars]\nport=90\n[production:children]\nedge\n[edge]\nweb1\n")
    for words in (["list"], ["list", "--json"], ["graph"], ["host", "web1"], ["explain", "web1"]):
        assert "groups edge and web both set port" in call("inventory", *words, *where).err, words


def test_what_is_wrong_with_the_variables_of_any_host_is_told_at_once(
    call: Call, repo: Repo, where: list[str]
) -> None:
    repo.write("host_vars/web2.yml", "[")
    repo.write("host_vars/db1.yml", "- 1")
    done = call("inventory", "list", *where)
    assert done.code == 3
    assert "host_vars/web2.yml" in done.err
    assert "host_vars/db1.yml" in done.err
    assert call("inventory", "list", *where, "--limit", "web1").code == 0


def test_the_output_options_work_on_either_side_of_the_action(call: Call, where: list[str]) -> None:
    before = call("inventory", "--json", "list", *where)
    assert before.code == 0
    assert before.json() == call("inventory", "list", "--json", *where).json()


def test_an_inventory_can_be_looked_at_without_a_state_repo(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text(HOSTS)
    assert call("inventory", "list", "-i", "hosts", "--limit", "db").out == "db1  production, db\n"


def test_a_program_and_constructed_groups_work_from_the_command_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "inv/10-cloud"
    program.parent.mkdir()
    program.write_text("""#!/bin/sh
echo '{"_meta": {"hostvars": {"h1": {"zone": "eu"}}}, "web": {"hosts": ["h1", "h2"]}}'
""")
    program.chmod(0o755)
    (tmp_path / "inv/20-made.yml").write_text(
        "plugin: constructed\ncompose: {place: zone}\nkeyed_groups: [{key: zone, prefix: in}]\n"
    )
    assert call("inventory", "list", "-i", "inv", "--limit", "in_eu").out == "h1  in_eu, web\n"
    text = call("inventory", "explain", "h1", "place", "-i", "inv").out
    assert "wins  eu  compose  inv/20-made.yml:2:18" in text


def test_facts_of_the_last_contact_count_in_constructed_groups(
    call: Call, repo: Repo, cache: Path
) -> None:
    from reconciler.compile.cache import CatalogCache

    repo.write("site.yml", "[]")
    repo.write("inv/hosts", "h1\nh2\n")
    repo.write("inv/made.yml", "plugin: constructed\nkeyed_groups: [{key: facts.os_family}]\n")
    words = ["-C", str(repo.path), "-i", "inv"]
    assert "os" not in call("inventory", "list", *words, "--json").json()
    store = CatalogCache()
    store.keep_facts("h1", {"os_family": "Debian"})
    store.close()
    assert call("inventory", "list", *words, "--json").json()["_Debian"] == {"hosts": ["h1"]}


def test_an_inventory_that_is_not_there_can_be_allowed(call: Call, tmp_path: Path) -> None:
    done = call("inventory", "list", "-i", str(tmp_path / "nowhere"), "--allow-empty")
    assert done.code == 0
    assert "is not there" in done.err
