"""pytest-testinfra takes our inventories as `--ansible-inventory`, and finds the same hosts as we."""

from __future__ import annotations

import os
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
    import sys

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
    import json

    document = Inventory.load([str(INVENTORIES / "lab")], Disk()).to_list_json()
    program = tmp_path / "hosts"
    program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{json.dumps(document)}\nEOF\n")
    program.chmod(0o755)
    assert set(AnsibleRunner(str(program)).get_hosts("web")) == {"web1", "web2"}
