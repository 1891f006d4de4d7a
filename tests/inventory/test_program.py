"""Inventory programs: what they print, how they are run, and what they must not do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, InventoryError
from reconciler.inventory import Disk, Inventory, Places
from reconciler.source import WorkTree, program
from reconciler.source.program import run_program

META = {
    "_meta": {"hostvars": {"w1": {"a": 1, "ansible_host": "192.0.2.1"}, "db1": {}}},
    "web": {"hosts": ["w1", "w2"], "vars": {"port": 80}},
    "db": ["db1"],
    "prod": {"children": ["web", "db"]},
}


def script(path: Path, body: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def printing(path: Path, document: object) -> str:
    return script(path, f"cat <<'EOF'\n{json.dumps(document)}\nEOF")


def load(*sources: str) -> Inventory:
    return Inventory.load(sources, Disk(run_program))


def test_what_a_program_lists_is_the_inventory(tmp_path: Path) -> None:
    inventory = load(printing(tmp_path / "cloud", META))
    assert inventory.groups() == {
        "all": ["w1", "w2", "db1"],
        "ungrouped": [],
        "web": ["w1", "w2"],
        "db": ["db1"],
        "prod": ["w1", "w2", "db1"],
    }
    assert inventory.variables("w1") == {"port": 80, "a": 1, "ansible_host": "192.0.2.1"}
    assert inventory.variables("w2") == {"port": 80}
    assert inventory.warnings == []


def test_without_meta_each_host_is_asked_for_by_name(tmp_path: Path) -> None:
    path = script(
        tmp_path / "old",
        """
case "$1" in
  --list) echo '{"web": {"hosts": ["w1", "w2"]}}' ;;
  --host) [ "$2" = w1 ] && echo "{\\"me\\": \\"$2\\"}" || true ;;
esac""",
    )
    inventory = load(path)
    assert inventory.variables("w1") == {"me": "w1"}
    assert inventory.variables("w2") == {}
    assert "once for each host" in inventory.warnings[0]


def test_a_group_without_any_known_key_is_its_only_host(tmp_path: Path) -> None:
    inventory = load(printing(tmp_path / "old", {"_meta": {"hostvars": {}}, "lone": {"a": 1}}))
    assert inventory.groups()["lone"] == ["lone"]
    assert inventory.variables("lone") == {"a": 1}


def test_text_that_is_marked_unsafe_is_no_template(tmp_path: Path) -> None:
    from reconciler.yamldoc import Unsafe

    values = {"raw": {"__ansible_unsafe": "{{ x }}"}, "made": "{{ x }}"}
    document = {"_meta": {"hostvars": {"h": values}}, "g": {"hosts": ["h"]}}
    found = load(printing(tmp_path / "p", document)).variables("h")
    assert isinstance(found["raw"], Unsafe)
    assert not isinstance(found["made"], Unsafe)


def test_programs_stand_in_a_directory_beside_files_and_a_later_one_wins(tmp_path: Path) -> None:
    printing(tmp_path / "inv/20-cloud", META)
    (tmp_path / "inv/30-more.ini").write_text("[web:vars]\nport=8080\n[web]\nw3\n")
    (tmp_path / "inv/group_vars").mkdir()
    (tmp_path / "inv/group_vars/web.yml").write_text("from: file\n")
    inventory = load(str(tmp_path / "inv"))
    assert inventory.variables("w3") == {"port": 8080, "from": "file"}


def test_a_file_that_only_happens_to_be_executable_is_read(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("[web]\nh1\n")
    (tmp_path / "hosts").chmod(0o755)
    assert load(str(tmp_path / "hosts")).hosts() == ["h1"]


def test_the_program_gets_a_clean_environment_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    path = script(
        tmp_path / "a b;touch c",
        """echo "{\\"g\\": {\\"hosts\\": [\\"h\\"]}, \\"_meta\\": {\\"hostvars\\": {\\"h\\": {
\\"token\\": \\"$SECRET_TOKEN\\", \\"home\\": \\"$HOME\\", \\"stdin\\": \\"$(cat)\\"}}}}" """,
    )
    values = load(path).variables("h")
    assert values == {"token": "", "home": os.path.expanduser("~"), "stdin": ""}
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "body, said",
    [
        ("echo oops >&2; exit 3", "ended with code 3"),
        ("echo '{'", "not JSON"),
        ("echo '[1]'", "must print a JSON object"),
        ('echo \'{"g": {"hosts": "h"}}\'', "must be a list of names"),
        ('echo \'{"g": {"hosts": ["-oProxyCommand=x"]}}\'', "is not a host name"),
        ('echo \'{"../g": ["h"]}\'', "is not a group name"),
        ('echo \'{"_meta": {}, "g": ["h"]}\'', "_meta.hostvars must be an object"),
        ('echo \'{"g": {"hosts": ["h"], "vars": {"x": NaN}}}\'', "NaN is not a number"),
        ('echo \'{"g": {"hosts": ["\\\\ud800"]}}\'', "not JSON"),
        ('echo \'{"a": {"children": ["b"]}, "b": {"children": ["a"]}}\'', "contains it"),
        (
            'echo \'{"_meta": {"hostvars": {"h": {"ansible_host": "-x"}}}, "g": ["h"]}\'',
            "is not a host name",
        ),
        ("yes x | head -c 100000", "printed more than"),
        ("sleep 30", "took more than"),
        ("sleep 30 & sleep 30", "took more than"),
    ],
)
def test_a_program_that_misbehaves_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.setattr(program, "SECONDS", 0.5 if "sleep" in body else 10.0)
    monkeypatch.setattr(program, "CAP", 50_000)
    with pytest.raises(ConfigError) as caught:
        load(script(tmp_path / "bad", body))
    assert said in str(caught.value)
    assert "bad --list" in str(caught.value)


def test_deep_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text('{"g":' * 200_000)
    with pytest.raises(InventoryError, match="not JSON"):
        load(script(tmp_path / "deep", f"cat {tmp_path}/deep.json"))


def test_what_the_program_complains_of_is_in_the_hint(tmp_path: Path) -> None:
    with pytest.raises(InventoryError) as caught:
        load(script(tmp_path / "p", "echo no credentials >&2; exit 1"))
    assert caught.value.hint == "it said: no credentials"


def test_a_program_that_anybody_may_change_is_not_run(tmp_path: Path) -> None:
    path = script(tmp_path / "p", f"touch {tmp_path}/ran")
    os.chmod(path, 0o757)
    with pytest.raises(InventoryError, match="everybody may change"):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_without_the_right_to_run_programs_none_is_run(tmp_path: Path) -> None:
    path = script(tmp_path / "p", f"touch {tmp_path}/ran")
    with pytest.raises(InventoryError, match="are not run here"):
        Inventory.load([path], Disk())
    assert not (tmp_path / "ran").exists()


def test_a_program_of_the_state_repo_runs_only_by_its_place_on_disk(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("[]")
    printing(tmp_path / "inventories/cloud/hosts", META)
    tree = WorkTree(str(tmp_path))
    with pytest.raises(InventoryError, match="runs none of its code"):
        Inventory.load(["inventories/cloud"], Places(tree, run_program), tree)
    with pytest.raises(InventoryError, match="are not run here"):
        Inventory.load(["inventories/cloud"], tree, tree)
    whole = str(tmp_path / "inventories/cloud")
    assert Inventory.load([whole], Places(tree, run_program), tree).hosts() == ["w1", "w2", "db1"]
