"""What docs/reference/inventory-compat.md says is taken here otherwise than in Ansible.

What is refused here and taken there is in test_refusals.py and test_unreadable.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import ConfigError
from reconciler.inventory import Disk, Inventory

HOSTS = "[web]\nw[1:2]\n[db]\nd1\n"


def load(directory: Path, text: str = HOSTS, name: str = "hosts") -> Inventory:
    (directory / name).write_text(text)
    return Inventory.load([str(directory / name)], Disk())


def test_a_list_of_hosts_may_have_ranges_and_ports() -> None:
    inventory = Inventory.load(["web[1:3],db1:2222,"], Disk())
    assert inventory.hosts() == ["web1", "web2", "web3", "db1"]
    assert inventory.variables("db1") == {"ansible_port": 2222}


def test_yaml_is_recognised_whatever_the_file_is_called(tmp_path: Path) -> None:
    assert load(tmp_path, "all:\n  hosts:\n    h1:\n", "hosts.inventory").hosts() == ["h1"]


@pytest.mark.parametrize(
    "lines, hosts",
    [("web:&w2", ["w2"]), ("w1,d1", ["w1", "d1"]), ("# a comment\nd1", ["d1"])],
)
def test_a_line_in_a_file_of_patterns_is_a_pattern_like_any_other(
    tmp_path: Path, lines: str, hosts: list[str]
) -> None:
    (tmp_path / "some").write_text(lines)
    assert load(tmp_path).select(f"@{tmp_path}/some", Disk()) == hosts


def test_hosts_come_in_the_order_of_the_pattern(tmp_path: Path) -> None:
    assert load(tmp_path).chosen("db,web") == ["d1", "w1", "w2"]
    assert load(tmp_path).chosen(None) == ["w1", "w2", "d1"]


def test_configuration_of_ansible_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ansible.cfg").write_text("[defaults]\nhash_behaviour = merge\n")
    monkeypatch.setenv("ANSIBLE_HASH_BEHAVIOUR", "merge")
    monkeypatch.setenv("ANSIBLE_INVENTORY", "h9,")
    monkeypatch.setenv("ANSIBLE_INVENTORY_ENABLED", "ini")
    text = "all:\n  vars: {x: {a: 1}}\n  hosts:\n    h1: {x: {b: 2}}\n"
    assert load(tmp_path, text, "hosts.yml").variables("h1") == {"x": {"b": 2}}


def test_of_this_machine_nothing_but_the_connection_is_known(tmp_path: Path) -> None:
    assert load(tmp_path).variables("localhost") == {"ansible_connection": "local"}


@pytest.mark.parametrize(
    "text, name, said",
    [
        ("all:\n  hosts:\n    h1:\n    h1: {a: 1}\n", "hosts.yml", "already at line 3"),
        ("all:\n\thosts:\n", "hosts.yml", "there is a tab"),
        ("h[3:1]\n", "hosts", "it ends before it starts"),
        ("h1 ansible_port=99999\n", "hosts", "is not a port"),
        (f"h1 ansible_port='{'0' * 8}70000'\n", "hosts", "is not a port"),
        (f"h1:{'0' * 8}22\n", "hosts", "is not a port"),
        pytest.param(f"h1:{'9' * 5000}\n", "hosts", "is not a port", id="too long for int"),
        ("plugin: aws_ec2\n", "made.yml", "is not supported"),
    ],
)
def test_what_ansible_lets_pass_is_an_error_with_its_place(
    tmp_path: Path, text: str, name: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, name)
    error = caught.value
    assert said in f"{error.message} {error.hint}"
    assert error.mark is not None
    assert error.mark.line
