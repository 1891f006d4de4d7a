"""pytest-testinfra takes our inventories as `--ansible-inventory`, and finds the same hosts as we."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testinfra.utils.ansible_runner import AnsibleRunner

from inventory.test_shapes import SHAPES
from reconciler.inventory import Disk, Inventory

INVENTORIES = Path(__file__).parents[2] / "inventories"


@pytest.fixture(autouse=True)
def ansible_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """testinfra runs `ansible-inventory`; with the one of this environment."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])


@pytest.mark.parametrize(
    "source",
    [
        INVENTORIES / "lab",
        INVENTORIES / "fleet",
        SHAPES / "kubespray/inventory.ini",
        SHAPES / "ansible-for-devops/hosts.ini",
    ],
    ids=lambda path: path.parent.name + "/" + path.name,
)
def test_testinfra_finds_the_hosts_and_how_to_reach_them(source: Path) -> None:
    runner = AnsibleRunner(str(source))
    inventory = Inventory.load([str(source)], Disk())
    assert set(runner.get_hosts("all")) == set(inventory.hosts())
    for group, hosts in inventory.groups().items():
        if hosts:
            assert set(runner.get_hosts(group)) == set(hosts)
    for host in inventory.hosts()[:20]:
        values = inventory.variables(host)
        reached: Any = runner.get_host(host)
        assert reached.backend.host.name == values.get("ansible_host", host)
        assert reached.backend.host.user == values.get("ansible_user")


def test_testinfra_takes_what_inventory_list_prints(tmp_path: Path) -> None:
    """So a source that Ansible cannot read is still of use to testinfra: by way of a program."""
    document = Inventory.load([str(INVENTORIES / "lab")], Disk()).to_list_json()
    program = tmp_path / "hosts"
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{json.dumps(document)}\nEOF\n")
    program.chmod(0o755)
    assert set(AnsibleRunner(str(program)).get_hosts("web")) == {"web1", "web2"}


def test_a_test_run_goes_to_each_host_of_our_inventory(tmp_path: Path) -> None:
    """The whole way of a user: pytest, its option, and a look at hosts; each is this machine."""
    (tmp_path / "hosts").write_text("[web]\nw[1:2] ansible_connection=local\n[db]\nd1\n")
    (tmp_path / "test_it.py").write_text(
        "def test_it(host):\n"
        "    assert host.file('/').is_directory\n"
        "    assert host.check_output('echo here') == 'here'\n"
    )
    words = ["-q", "-p", "no:cacheprovider", "--hosts=ansible://web", "--ansible-inventory=hosts"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert Inventory.load([str(tmp_path / "hosts")], Disk()).select("web") == ["w1", "w2"]


def test_how_a_host_is_reached_is_read_by_both(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(
        """\
all:
  vars: {ansible_user: deploy, ansible_become: true}
  hosts:
    w1: {ansible_host: 192.0.2.7, ansible_port: 2222, ansible_private_key_file: /keys/w1}
    w2: {ansible_host: "2001:db8::7", ansible_user: root, ansible_become: false}
"""
    )
    inventory = Inventory.load([str(tmp_path / "hosts.yml")], Disk())
    runner = AnsibleRunner(str(tmp_path / "hosts.yml"))
    for host in ("w1", "w2"):
        values, reached = inventory.variables(host), runner.get_host(host)
        assert reached is not None
        backend: Any = reached.backend
        assert backend.host.name == values["ansible_host"]
        assert backend.host.user == values["ansible_user"]
        assert backend.host.port == (str(values["ansible_port"]) if host == "w1" else None)
        assert backend.sudo is values["ansible_become"]
    first: Any = runner.get_host("w1")
    assert first.backend.ssh_identity_file == inventory.variables("w1")["ansible_private_key_file"]
