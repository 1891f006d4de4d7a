"""Idle agents side by side, each on a booted host of its own, one after the other in one run.

    python benchmarks/peers.py [--minutes 3] [--json]

Needs what `agent.py` needs, and the package mirrors: the peers are Debian's packages. Ours follows a
repository on its host and holds 1,000 files. The peers hold nothing: CFEngine's scheduler is as
Debian has it, Puppet's agent has no server and waits for one. So what they cost here is the least
that they can cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from agent import install, is_calm, meter  # noqa: E402
from hosts.agents import wait_for  # noqa: E402  tests/ is not installed
from hosts.booted import BootedHost  # noqa: E402
from hosts.lab import Lab  # noqa: E402

APT = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends"
#: Seconds after a start that belong to it.
SETTLE = 90.0


class Peer(NamedTuple):
    """start: sets it up on a host. process: what its command lines contain."""

    start: Callable[[BootedHost], None]
    process: str


def _ours(host: BootedHost) -> None:
    install(host, "w1000")
    wait_for(lambda: is_calm(host), "converging", host, 120)


def _cfengine(host: BootedHost) -> None:
    _shell(host, f"{APT} cfengine3")
    _shell(host, "systemd-run --unit=cf --property=Type=exec cf-execd --no-fork")


def _puppet(host: BootedHost) -> None:
    _shell(host, f"{APT} puppet-agent")
    _shell(host, "printf '[agent]\\nserver = localhost\\n' >> /etc/puppet/puppet.conf")
    _shell(host, "systemctl start puppet")


def _shell(host: BootedHost, text: str) -> None:
    host.run(["sh", "-c", text])


PEERS: Mapping[str, Peer] = {
    "reconciler, 1,000 files": Peer(_ours, "reconciler.agent"),
    "CFEngine: cf-execd": Peer(_cfengine, "cf-execd"),
    "Puppet: agent without a server": Peer(_puppet, "puppet agent"),
}


def main() -> int:
    """Measure each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3, help="of idling, of each")
    parser.add_argument("--json", action="store_true", help="print the numbers only")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with Lab() as lab:
        for number, (name, peer) in enumerate(PEERS.items()):
            host = lab.boot(f"peer{number}")
            with meter(host) as used:
                found[name] = measure(host, peer, used, options.minutes * 60)
            lab.discard(host)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    print("| agent | processes | PSS, MiB | CPU s a minute |\n|---|---|---|---|")
    for name, one in found.items():
        print(f"| {name} | {one['processes']:.0f} | {one['PSS']:.1f} | {one['CPU']:.3f} |")
    return 0


def measure(
    host: BootedHost, peer: Peer, used: Callable[[], float], seconds: float
) -> dict[str, float]:
    """Of one agent: CPU time is that of its host, less what the host takes without it."""
    before = used()
    time.sleep(seconds)
    without = used() - before
    peer.start(host)
    time.sleep(SETTLE)
    before = used()
    time.sleep(seconds)
    cpu = (used() - before - without) / seconds * 60
    processes, pss = _memory(host, peer.process)
    return {"processes": processes, "PSS": pss, "CPU": cpu}


def _memory(host: BootedHost, process: str) -> tuple[int, float]:
    """How many processes there are, and MiB of memory that are their share."""
    look = (
        f"for one in $(pgrep -f '{process}'); do "
        "test $one = $$ || grep -s ^Pss: /proc/$one/smaps_rollup; done"
    )
    lines = host.run(["sh", "-c", look]).stdout.splitlines()
    return len(lines), sum(int(line.split()[1]) for line in lines) / 1024


if __name__ == "__main__":
    sys.exit(main())
