"""Measure a no-op run of `reconciler` on a booted host, beside the floor.

    python benchmarks/run.py [--times 9] [--json]

Needs what the host tests need: root, systemd-nspawn, and our Python being Debian's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from workloads import PACKAGES, SERVICES, WORKLOADS, put  # noqa: E402

from hosts.booted import BootedHost  # noqa: E402  tests/ is not installed
from hosts.lab import Lab  # noqa: E402

#: What the issue of the foundation asks for, in seconds of wall time.
BARS = {"w1000": 0.35, "w12": 0.40}


def main() -> int:
    """Boot, measure, print a table; 1 if a bar is missed or a run was no no-op."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=9, help="samples of each command")
    parser.add_argument("--json", action="store_true", help="print all samples")
    options = parser.parse_args()
    with Lab() as lab:
        host = lab.boot("bench")
        results = {name: _measure(host, name, options.times) for name in WORKLOADS}
    if options.json:
        print(json.dumps(results, indent=1))
        return 0
    return _table(results)


def _measure(host: BootedHost, name: str, times: int) -> dict[str, Any]:
    repo = f"/root/{name}"
    put(host, name, repo)
    first = host.reconciler("apply", "-C", repo, "--local", "--json")
    host.run(["tee", "/root/wanted.json"], input=json.dumps(_wanted(host, name)))
    host.copy(HERE / "floor.py", "/root/floor.py")
    host.copy(HERE / "timed.py", "/root/timed.py")
    reconciler = f"{sys.prefix}/bin/reconciler"
    commands = {
        "floor": ["/usr/bin/python3", "/root/floor.py", "/root/wanted.json"],
        "plan": [reconciler, "plan", "-C", repo, "--local"],
        "apply": [reconciler, "apply", "-C", repo, "--local"],
        "plan --ref HEAD": [reconciler, "plan", "-C", repo, "--ref", "HEAD", "--local"],
    }
    done = host.run(["python3", "/root/timed.py", json.dumps(commands), str(times)], timeout=600)
    samples: dict[str, Any] = json.loads(done.stdout)
    report = json.loads(first.stdout)
    samples["first apply"] = [
        {"wall": report["seconds"], "cpu": 0, "rss": 0, "code": 0, "last": [""]}
    ]
    return samples


def _wanted(host: BootedHost, name: str) -> dict[str, Any]:
    found = host.run(["find", "/srv/bench", "-type", "f"]).stdout.split()
    return {
        "files": [
            [path, hashlib.sha256((host.root / path[1:]).read_bytes()).hexdigest()]
            for path in found
        ],
        "packages": PACKAGES if name == "w12" else [],
        "services": SERVICES if name == "w12" else [],
        "users": [f"user{number}" for number in range(5)] if name == "w12" else [],
        "groups": [f"bench{number}" for number in range(5)] if name == "w12" else [],
    }


def _table(results: dict[str, Any]) -> int:
    missed = 0
    print("| workload | command | wall s: median [min-max] | CPU s | RSS MiB | bar |")
    print("|---|---|---|---|---|---|")
    for name, commands in results.items():
        for command, samples in commands.items():
            walls = [sample["wall"] for sample in samples]
            median = statistics.median(walls)
            cpu = statistics.median(sample["cpu"] for sample in samples)
            rss = max(sample["rss"] for sample in samples)
            bar = BARS[name] if command in ("plan", "apply") else None
            verdict = "" if bar is None else f"{bar:.2f} {'kept' if median <= bar else 'MISSED'}"
            missed += bar is not None and median > bar
            codes = {sample["code"] for sample in samples}
            if codes != {0}:
                missed += 1
                verdict += f" exit codes {sorted(codes)}: {samples[0]['last'][0]}"
            print(
                f"| {name} | {command} | {median:.3f} [{min(walls):.3f}-{max(walls):.3f}]"
                f" | {cpu:.2f} | {rss} | {verdict} |"
            )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
