"""Facts of a host that was never seen: a plain Debian 12 server, so that `check` can compile for it.

The names are those of `reconciler.engine.facts`; the addresses are from the ranges for documentation.
"""

from __future__ import annotations

SAMPLE: dict[str, object] = {
    "all_ipv4_addresses": ["192.0.2.10"],
    "all_ipv6_addresses": ["2001:db8::10"],
    "architecture": "x86_64",
    "default_ipv4": {
        "interface": "eth0",
        "address": "192.0.2.10",
        "gateway": "192.0.2.1",
        "macaddress": "00:00:5e:00:53:10",
    },
    "default_ipv6": {"interface": "eth0", "address": "2001:db8::10"},
    "distribution": "Debian",
    "distribution_major_version": "12",
    "distribution_release": "bookworm",
    "distribution_version": "12",
    "os_family": "Debian",
    "interfaces": ["eth0", "lo"],
    "kernel": "6.1.0-28-amd64",
    "kernel_version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)",
    "machine": "x86_64",
    "machine_id": "00000000000000000000000000000000",
    "memtotal_mb": 2048,
    "pkg_mgr": "apt",
    "processor_vcpus": 2,
    "python": [3, 11, 2],
    "python_version": "3.11.2",
    "selinux": {"status": "disabled"},
    "service_mgr": "systemd",
    "system": "Linux",
    "timezone": "UTC",
    "virtualization_type": "kvm",
}


def sample_facts(host: str) -> dict[str, object]:
    """The facts of a host of that name."""
    short, _, domain = host.partition(".")
    return {**SAMPLE, "nodename": host, "hostname": short, "fqdn": host, "domain": domain}
