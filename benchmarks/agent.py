"""Measure an agent on a booted host: what it costs while nothing happens, and how quick it heals.

    python benchmarks/agent.py [--minutes 5] [--awake] [--json]

Needs what the host tests need: root, systemd-nspawn, and our Python being Debian's. CPU time is
that of every process of the host, systemd's own work for the agent included, less what the host
takes without an agent.

A virtual machine that sleeps most of the time does the same work more slowly: caches are cold, and
whoever has the processor meanwhile is not us. So a yardstick goes along: a piece of work that is done
after sleeps as long as those between polls, beside the same piece done at once. `--awake` measures
without that effect: programs that run only when nobody else wants to keep the processors from sleep.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from workloads import put  # noqa: E402

from hosts.agents import (  # noqa: E402  tests/ is not installed
    footprint,
    heal_times,
    spoken,
    status,
    verdicts,
    wait_for,
)
from hosts.booted import BootedHost  # noqa: E402
from hosts.lab import Lab  # noqa: E402

#: What the issue of the agent asks for.
BARS = {
    "PSS, MiB": 20.0,
    "threads": 8.0,
    "CPU s per minute of idling": 0.02,
    "CPU s of a poll": 0.03,
    "sweep, s": 0.40,
    "event to healed, s: p95": 0.25,
}
SWEEPS = 7

Numbers = dict[str, float]


def main() -> int:
    """Boot, measure, print a table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of idling, with and without")
    parser.add_argument("--awake", action="store_true", help="keep the processors from sleep")
    parser.add_argument("--json", action="store_true", help="print the numbers only")
    options = parser.parse_args()
    results: dict[str, Numbers] = {}
    with Lab() as lab, awake() if options.awake else contextlib.nullcontext():
        for name in ("w1000", "w12"):
            host = lab.boot(name)
            with meter(host) as used:
                results[name] = measure(host, name, used, options.minutes * 60)
            lab.discard(host)
    if options.json:
        print(json.dumps(results, indent=1))
        return 0
    return table(results)


def measure(host: BootedHost, name: str, used: Callable[[], float], seconds: float) -> Numbers:
    """The numbers of one workload."""
    idle = name == "w1000"
    without = _minute(used, seconds) if idle else 0.0
    install(host, name)
    wait_for(lambda: is_calm(host), "converging", host, 120)
    found = {"first run, s": float(status(host)["last_run"]["duration_s"])}
    if idle:
        found |= idling(host, used, seconds, without)
    found |= heals(host)
    found |= sweeps(host, used)
    pss, threads = footprint(host)
    return {**found, "PSS, MiB": pss / 1024, "threads": threads}


def install(host: BootedHost, name: str) -> None:
    """An agent that follows a repository on the host itself: what a poll costs without a network."""
    put(host, name, f"/srv/{name}")
    host.reconciler("agent", "install", "--repo", f"/srv/{name}", "--interval", "60s")


def idling(host: BootedHost, used: Callable[[], float], seconds: float, without: float) -> Numbers:
    """CPU time while nothing happens. without: of a minute before there was an agent.

    What a poll costs is seen by polling more often.
    """
    rarely, few, slower = _polling(host, used, seconds, 60)
    host.reconciler("agent", "install", "--interval", "5s")
    wait_for(lambda: is_calm(host), "starting anew", host)
    often, many, less_so = _polling(host, used, seconds, 5)
    return {
        "CPU s per minute of idling": rarely - without,
        "polls per minute": few,
        "the same work after 60 s of sleep, times": slower,
        "CPU s of a poll": (often - rarely) / (many - few),
        "of so many polls more per minute": many - few,
        "the same work after 5 s of sleep, times": less_so,
    }


def _polling(
    host: BootedHost, used: Callable[[], float], seconds: float, interval: float
) -> tuple[float, float, float]:
    """CPU seconds and polls of a minute, and how much longer the yardstick took after sleeps.

    The first poll after a start is a thorough one.
    """
    seen = _fetched(host)
    wait_for(lambda: _fetched(host) > seen, "polling", host, 90)
    before, start, end = _fetched(host), used(), time.monotonic() + seconds
    at_once = min(_yardstick() for _ in range(20))
    slept: list[float] = []
    while time.monotonic() + interval <= end:
        time.sleep(interval)
        slept.append(_yardstick())
    time.sleep(max(0.0, end - time.monotonic()))
    took = (used() - start) / seconds * 60
    slower = statistics.median(slept) / at_once if slept else 1.0
    return took, (_fetched(host) - before) / seconds * 60, slower


def _yardstick() -> float:
    """CPU seconds of a piece of work, of about a millisecond."""
    before = time.process_time()
    for _ in range(25):
        json.loads(json.dumps({str(number): number for number in range(100)}))
    return time.process_time() - before


def _minute(used: Callable[[], float], seconds: float) -> float:
    """What a minute takes, by what so many seconds take."""
    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds * 60


def sweeps(host: BootedHost, used: Callable[[], float]) -> Numbers:
    """Sweeps that find nothing."""
    took: list[float] = []
    cpu: list[float] = []
    for _ in range(SWEEPS):
        since, before = status(host)["last_run"]["started"], used()
        host.run(["systemctl", "kill", "--kill-who=main", "-s", "USR2", "reconciler-agent"])
        wait_for(lambda at=since: status(host)["last_run"]["started"] > at, "sweeping", host)
        run = status(host)["last_run"]
        if run["outcome"] != "ok":
            raise RuntimeError(f"a sweep found something: {run}")
        took.append(float(run["duration_s"]))
        cpu.append(used() - before)
    return {"sweep, s": statistics.median(took), "sweep, CPU s of the host": statistics.median(cpu)}


def heals(host: BootedHost) -> Numbers:
    """From a change by hand until it is undone."""
    took, _ = heal_times(host, "/srv/bench/d*/*")
    wait_for(lambda: is_calm(host), "calming down", host)
    return {
        "event to healed, s: median": statistics.median(took),
        "event to healed, s: p95": took[int(len(took) * 0.95)],
    }


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Have every processor do something, which gives way to whatever else there is to do."""
    argv = ["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"]
    spinning = [subprocess.Popen(argv) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in spinning:
            one.kill()
            one.wait()


@contextlib.contextmanager
def meter(host: BootedHost) -> Iterator[Callable[[], float]]:
    """CPU seconds that all processes of a host have used."""
    group = host.session.machine(host.name)
    unified = (
        Path("/sys/fs/cgroup") / group / "cpu.stat",
        Path("/sys/fs/cgroup/unified") / group / "cpu.stat",
    )
    found = [stat for stat in unified if stat.exists() and "usage_usec" in stat.read_text()]
    if found:
        yield lambda: int(found[0].read_text().split("usage_usec")[1].split()[0]) / 1e6
        return
    accounts = Path("/sys/fs/cgroup/cpuacct") / group
    accounts.mkdir()
    try:
        for pid in _tree(host.leader):
            with contextlib.suppress(OSError):  # it has ended
                (accounts / "cgroup.procs").write_text(str(pid))
        yield lambda: int((accounts / "cpuacct.usage").read_text()) / 1e9
    finally:
        for pid in (accounts / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (accounts.parent / "cgroup.procs").write_text(pid)
        accounts.rmdir()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _tree(int(child))


def is_calm(host: BootedHost) -> bool:
    """Whether its agent has come to rest, and nothing failed."""
    found = spoken(host)
    if not found:
        return False
    in_sync = verdicts(found)["InSync"]
    return in_sync in ("True", "False") and found["state"] == "idle" and not found["failed"]


def _fetched(host: BootedHost) -> float:
    """How many polls there were."""
    text = host.run(["cat", "/run/reconciler/metrics.prom"]).stdout
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("reconciler_fetch_total")
    )


def table(results: dict[str, Numbers]) -> int:
    """Print it; 1 if a bar is missed."""
    missed = 0
    print(f"load of the machine at the end: {os.getloadavg()[0]:.2f}\n")
    print("| workload | what | measured | bar |\n|---|---|---|---|")
    for name, numbers in results.items():
        for what, value in numbers.items():
            bar = BARS.get(what) if (name, what) != ("w1000", "sweep, s") else None
            verdict = "" if bar is None else f"{bar:g} {'kept' if value <= bar else 'MISSED'}"
            missed += bar is not None and value > bar
            print(f"| {name} | {what} | {value:.3f} | {verdict} |")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
