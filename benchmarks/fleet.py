"""Measure fleet runs over SSH on booted hosts: the whole process of the controller.

    python benchmarks/fleet.py [--hosts 16] [--times 5] [--json]

Needs what the host tests need: root and systemd-nspawn. The hosts run on the same cores as the
controller; CPU and memory are the controller's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from workloads import SERVICES, UNIT, write  # noqa: E402

from hosts.booted import BootedHost  # noqa: E402  tests/ is not installed
from hosts.lab import Lab  # noqa: E402
from hosts.room import room_for  # noqa: E402

#: Wall time and CPU of the controller in seconds, and its memory in MiB, of 1 and of 16 hosts.
BARS = {1: (0.6, None, None), 16: (2.0, 0.7, 80)}


def main() -> int:
    """Boot, measure, print a table; 1 if a bar is missed or a run was no no-op."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=16, help="how many are booted")
    parser.add_argument("--times", type=int, default=5, help="samples of each command")
    parser.add_argument("--json", action="store_true", help="print all samples")
    options = parser.parse_args()
    with (
        room_for(options.hosts),
        Lab() as lab,
        tempfile.TemporaryDirectory() as directory,
    ):
        hosts = lab.boot_many([f"bench-{number:02}" for number in range(options.hosts)])
        samples = _measure(lab, hosts, Path(directory), options.times)
    if options.json:
        print(json.dumps(samples, indent=1))
        return 0
    return _table(samples)


def _measure(
    lab: Lab, hosts: Sequence[BootedHost], directory: Path, times: int
) -> list[dict[str, Any]]:
    repo = directory / "state"
    write("w12", repo)
    (repo / "hosts").write_text("".join(f"{host.name}\n" for host in hosts))
    git = ["git", "-C", str(repo), "-c", "user.name=bench", "-c", "user.email=b@example.test"]
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    for host in hosts:
        for service in SERVICES:
            (host.root / f"etc/systemd/system/{service}.service").write_text(UNIT)
        host.run(["systemctl", "daemon-reload"])
    call = ["-C", str(repo), "-i", "hosts", "--ssh-config", str(lab.access.config)]
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(directory / "cache"),
        "XDG_STATE_HOME": str(directory / "runs"),
        # What is installed is compiled.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(directory / "compiled"),
    }
    samples = [_timed("first apply", len(hosts), ["apply", *call], environment)]
    one = ["--limit", hosts[0].name]
    for _ in range(times):
        samples.append(_timed("no-op apply", len(hosts), ["apply", *call], environment))
        samples.append(_timed("plan", len(hosts), ["plan", *call], environment))
        samples.append(_timed("no-op apply", 1, ["apply", *call, *one], environment))
    return samples


def _timed(name: str, hosts: int, words: Sequence[str], env: dict[str, str]) -> dict[str, Any]:
    code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    last = said.strip().splitlines()[-1:] or [""]
    return {
        "command": name,
        "hosts": hosts,
        "wall": time.perf_counter() - started,
        "cpu": usage.ru_utime + usage.ru_stime,
        "rss": usage.ru_maxrss / 1024,
        "ok": process.returncode == 0 and (name == "first apply" or "0 changes" in last[0]),
        "last": last[0],
    }


def _table(samples: Sequence[dict[str, Any]]) -> int:
    missed = 0
    print("| command | hosts | wall s: median [min-max] | controller CPU s | RSS MiB | bars |")
    print("|---|---|---|---|---|---|")
    for key in dict.fromkeys((one["command"], one["hosts"]) for one in samples):
        mine = [one for one in samples if (one["command"], one["hosts"]) == key]
        found = [statistics.median(one[name] for one in mine) for name in ("wall", "cpu", "rss")]
        bars = BARS.get(key[1], (None,) * 3) if key[0] != "first apply" else (None,) * 3
        over = [bar for value, bar in zip(found, bars, strict=True) if bar and value > bar]
        bad = [one["last"] for one in mine if not one["ok"]]
        missed += bool(over or bad)
        walls = [one["wall"] for one in mine]
        verdict = f"MISSED {over}" if over else "kept" if any(bars) else ""
        print(
            f"| {key[0]} | {key[1]} | {found[0]:.2f} [{min(walls):.2f}-{max(walls):.2f}]"
            f" | {found[1]:.2f} | {found[2]:.0f} | {verdict} {' '.join(bad[:1])} |"
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
