"""The lab's own network: one bridge, one private subnet, masquerade to the package mirrors.

Hosts reach the machine, each other and, through it, what the machine reaches; nobody outside
reaches them.
"""

from __future__ import annotations

import ipaddress
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

POOLS = ["10.213.0.0/16", "172.29.0.0/16", "192.168.128.0/17"]
#: `man systemd-resolved`: the stub's list of the real servers.
RESOLVERS = [Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")]
FIREWALL = """
table ip {table} {{
  chain outbound {{
    type nat hook postrouting priority srcnat;
    iifname "{bridge}" oifname != "{bridge}" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter;
    oifname "{bridge}" iifname != "{bridge}" ct state != {{ established, related }} drop
  }}
}}
"""


def create(bridge: str, state: Path) -> None:
    """Make the bridge and let its hosts out."""
    subnet = _free_subnet()
    _run("ip", "link", "add", bridge, "type", "bridge")
    _run("ip", "address", "add", f"{subnet[1]}/{subnet.prefixlen}", "dev", bridge)
    _run("ip", "link", "set", bridge, "up")
    for device in [bridge, *_uplinks()]:
        _forward(device, state / "forwarding")
    rules = FIREWALL.format(table=_table(bridge), bridge=bridge)
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def remove(bridge: str) -> None:
    """Undo `create`, as far as it came."""
    if _run("nft", "list", "table", "ip", _table(bridge), check=False).returncode == 0:
        _run("nft", "delete", "table", "ip", _table(bridge))
    if exists(bridge):
        _run("ip", "link", "delete", bridge)


def exists(bridge: str) -> bool:
    return Path(f"/sys/class/net/{bridge}").exists()


def addresses(bridge: str) -> Iterator[ipaddress.IPv4Interface]:
    """The addresses for hosts, in order; the gateway, which is ours, is not among them."""
    [link] = json.loads(_run("ip", "-j", "-4", "address", "show", "dev", bridge).stdout)
    [own] = link["addr_info"]
    gateway = ipaddress.IPv4Interface(f"{own['local']}/{own['prefixlen']}")
    for address in gateway.network.hosts():
        if address != gateway.ip:
            yield ipaddress.IPv4Interface(f"{address}/{gateway.network.prefixlen}")


def resolver() -> str:
    """A resolv.conf that also works from another network namespace: no loopback server."""
    for path in RESOLVERS:
        lines = path.read_text().splitlines() if path.exists() else []
        servers = [line for line in lines if line.startswith("nameserver")]
        if servers and not any(" 127." in line for line in servers):
            return "\n".join(lines) + "\n"
    raise RuntimeError("no name server that a host could reach: /etc/resolv.conf names loopback")


def restore_forwarding(state: Path) -> None:
    """Put the machine's forwarding settings back when the last lab has gone."""
    record = state / "forwarding"
    for device in record.read_text().split() if record.exists() else []:
        if exists(device):
            _forwarding(device).write_text("0")
    record.unlink(missing_ok=True)


def _free_subnet() -> ipaddress.IPv4Network:
    """A /24 that no route of this machine overlaps."""
    routes = json.loads(_run("ip", "-j", "-4", "route", "show", "table", "all").stdout)
    taken = [ipaddress.ip_network(route["dst"]) for route in routes if route["dst"] != "default"]
    for pool in POOLS:
        subnets = list(ipaddress.IPv4Network(pool).subnets(new_prefix=24))
        for subnet in random.sample(subnets, len(subnets)):
            if not any(subnet.overlaps(other) for other in taken if other.version == 4):
                return subnet
    raise RuntimeError(f"every subnet of {', '.join(POOLS)} is in use")


def _uplinks() -> set[str]:
    """The devices that a packet to the world, and so its answer, goes through."""
    routes = json.loads(_run("ip", "-j", "-4", "route", "show", "default").stdout)
    return {route["dev"] for route in routes if "dev" in route}


def _forward(device: str, record: Path) -> None:
    """Let packets that arrive at a device pass on; keep a record of what was off before."""
    if _forwarding(device).read_text().strip() == "0":
        with record.open("a") as file:
            file.write(f"{device}\n")
        _forwarding(device).write_text("1")


def _forwarding(device: str) -> Path:
    return Path(f"/proc/sys/net/ipv4/conf/{device}/forwarding")


def _table(bridge: str) -> str:
    return f"reconciler_lab_{bridge.removeprefix('rl-')}"


def _run(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=check, capture_output=True, text=True)
