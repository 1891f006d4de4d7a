"""The inventories that docs and the demo use load without a warning, and fast."""

from __future__ import annotations

import time
from pathlib import Path

from reconciler.inventory import Disk, Inventory

EXAMPLES = Path(__file__).parents[2] / "inventories"


def test_the_lab_is_what_its_readme_says() -> None:
    inventory = Inventory.load([str(EXAMPLES / "lab")], Disk())
    assert inventory.hosts() == ["web1", "web2", "db1"]
    assert inventory.variables("web2")["workers"] == 4
    assert inventory.variables("web1")["workers"] == 2
    assert inventory.variables("db1")["shared_buffers"] == "512MB"
    assert inventory.warnings == []


def test_the_fleet_has_a_thousand_hosts_and_a_canary_that_wins() -> None:
    inventory = Inventory.load([str(EXAMPLES / "fleet")], Disk())
    assert len(inventory.hosts()) == 1000
    assert len(inventory.select("edge:&eu:!canary")) == 399
    assert inventory.variables("core-eu-01.example.net")["cache_size"] == "1GB"
    assert inventory.variables("core-eu-02.example.net")["cache_size"] == "32GB"
    assert inventory.warnings == []


def test_a_thousand_hosts_written_out_in_yaml_load_fast(tmp_path: Path) -> None:
    lines = ["all:", "  hosts:"]
    for number in range(1000):
        lines += [
            f"    web{number}:",
            f"      ansible_host: 192.0.2.{number % 250 + 1}",
            f"      rack: r{number}",
        ]
    (tmp_path / "hosts.yml").write_text("\n".join(lines))
    start = time.process_time()
    inventory = Inventory.load([str(tmp_path / "hosts.yml")], Disk())
    merged = [inventory.variables(host) for host in inventory.select("all")]
    assert time.process_time() - start < 1.0  # 0.05 s on an idle machine
    assert merged[999] == {"ansible_host": "192.0.2.250", "rack": "r999"}
