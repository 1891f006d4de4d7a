"""Inventories in the shape of five well-known public ones load as they are, without an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.inventory import Disk, Inventory
from reconciler.source.program import run_program

SHAPES = Path(__file__).parent / "shapes"
#: Each shape, as its users name it with `-i`.
SOURCES = (
    ("kubespray/inventory.ini",),
    ("debops/hosts",),
    ("debops",),
    ("openstack/dynamic_inventory.sh",),
    ("streisand/inventory",),
    ("streisand/inventory-existing",),
    ("ansible-for-devops/hosts.ini",),
    ("ansible-for-devops/lamp/inventory",),
    ("ansible-for-devops/dynamic/inventory.sh",),
    ("ansible-for-devops/hosts.ini", "ansible-for-devops/lamp", "debops"),
)


def load(*sources: str) -> Inventory:
    return Inventory.load([str(SHAPES / source) for source in sources], Disk(run_program))


@pytest.mark.parametrize("sources", SOURCES, ids=" ".join)
def test_it_loads_with_hosts_and_their_variables(sources: tuple[str, ...]) -> None:
    inventory = load(*sources)
    assert inventory.hosts()
    assert any(inventory.variables(host) for host in inventory.hosts())


def test_kubespray() -> None:
    inventory = load("kubespray/inventory.ini")
    assert inventory.select("k8s_cluster:!etcd") == ["node4", "node5"]
    assert inventory.groups_of("node2") == [
        "all",
        "etcd",
        "k8s_cluster",
        "kube_control_plane",
        "kube_node",
    ]
    found = inventory.variables("node4")
    assert (found["ip"], found["kube_network_plugin"], found["ingress_nginx_enabled"]) == (
        "10.3.0.4",
        "calico",
        False,
    )
    assert inventory.warnings == []


def test_debops() -> None:
    inventory = load("debops")
    assert inventory.variables("app1.dc1.example.org")["nginx_worker_processes"] == 8
    assert inventory.variables("app2.dc1.example.org")["nginx_worker_processes"] == 2
    assert inventory.variables("bastion.example.org")["ansible_port"] == 2222
    assert inventory.select("dc1:&debops_service_sshd:!~app[12]") == [
        "app3.dc1.example.org",
        "sql1.dc1.example.org",
    ]


def test_openstack() -> None:
    inventory = load("openstack/dynamic_inventory.sh")
    galera = "aio1-galera-container-0f3c1d2e"
    assert inventory.select("galera_all:&all_containers") == [galera]
    found = inventory.variables(galera)
    assert (found["component"], found["galera_root_user"], found["container_cidr"]) == (
        "galera",
        "admin",
        "172.29.236.0/22",
    )
    assert inventory.variables("aio1")["nova_reserved_host_memory_mb"] == 2048


def test_streisand() -> None:
    inventory = load("streisand/inventory-existing")
    assert inventory.select("streisand-host") == ["203.0.113.7"]
    assert inventory.variables("203.0.113.7")["vpn_clients"] == 10
    assert inventory.variables("localhost")["ansible_connection"] == "local"
    assert inventory.warnings == ["localhost is both a host and a group; patterns mean the host"]


def test_ansible_for_devops() -> None:
    inventory = load("ansible-for-devops/hosts.ini", "ansible-for-devops/lamp")
    assert inventory.select("multi:&lamp") == ["192.168.56.4", "192.168.56.5", "192.168.56.6"]
    assert inventory.variables("192.168.56.5")["mysql_replication_role"] == "master"
    assert inventory.variables("192.168.56.7")["ansible_port"] == 2222
    asked = load("ansible-for-devops/dynamic/inventory.sh")
    assert asked.variables("192.168.56.72")["host_specific_var"] == "192.168.56.72"
