"""Runs on a host: kills the processes of its agent at random instants, and checks what comes of it.

    python3 killing.py SEED KILLS

One line of JSON per batch: a new commit, some drift, ten kills, then peace until the agent says
that it is in sync; then everything is looked at. Ends with code 1 at the first thing wrong.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

REPO = "/srv/state.git"
APP = Path("/srv/app")
FILES = 20
BATCH = 10
#: Seconds that an agent has to converge once it is left alone. Each run that fails doubles the wait
#: before the next try, from 5 s on: seven that were killed in a row make it wait for 320 s.
PEACE = 360.0
#: Seconds for which it must look converged: what has just moved is not seen yet.
CALM = 1.0
#: Role -> seconds after its appearance in which one is killed.
LIVES = {"engine": 0.7, "worker": 1.0, "provider": 0.5, "supervisor": 0.8}


def content(version: int, number: int) -> str:
    """What file `number` holds at a version; some are large, so that writing them takes a while."""
    return f"version {version}, file {number}\n" * (40_000 if number % 7 == 3 else 1)


def processes() -> dict[str, list[int]]:
    """Role -> pids, of what runs in the units of the agent; `program`: what an engine started.

    A worker is a fork of the supervisor, and so is the engine of most runs a fork of a worker;
    that of the others has a unit of its own.
    """
    seen: dict[int, tuple[int, str, list[str]]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                unit = Path(entry.path, "cgroup").read_text().partition("/reconciler-")[2]
                words = Path(entry.path, "cmdline").read_text().split("\0")
                parent = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if unit and words != [""]:
                seen[int(entry.name)] = parent, unit, words
    found: dict[str, list[int]] = {}
    for pid in seen:
        found.setdefault(role(pid, seen), []).append(pid)
    return found


def role(pid: int, seen: Mapping[int, tuple[int, str, list[str]]]) -> str:
    """What a process of our units does there."""
    parent, _, words = seen[pid]
    if words[-2:-1] == ["reconciler.agent"]:
        above = role(parent, seen) if parent in seen else ""
        return {"": "supervisor", "supervisor": "worker"}.get(above, "engine")
    if any(word.endswith("engine/__main__.py") for word in words) and "systemd-run" not in words[0]:
        return "engine"
    return "provider" if "reconciler.agent.provider" in words else "program"


class Killer:
    """One series of kills. killed: how many of each role."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # repeatable is what it has to be
        self.commits = as_keeper("rev-list", "--reverse", "all").split()
        self.version = self.commits.index(as_keeper("rev-parse", "main").strip())
        self.killed: dict[str, int] = {}

    def batch(self, kills: int) -> dict[str, object]:
        """What it came to. Raises AssertionError."""
        begun = time.time()
        self.advance()
        done = sum(self.killed.values())
        while sum(self.killed.values()) < done + kills:
            self.provoke()
            self.kill()
            self.check_files()
        waited = self.peace()
        self.check()
        return {
            "version": self.version,
            "killed": self.killed,
            "seconds": round(time.time() - begun, 1),
            "peace": round(waited, 1),
        }

    # -- what keeps the agent at work ----------------------------------------------------

    def advance(self) -> None:
        """A new commit arrives."""
        self.version += 1
        as_keeper("update-ref", "refs/heads/main", self.commits[self.version])
        self.tell(signal.SIGUSR1)

    def provoke(self) -> None:
        """Something moves, or the agent is asked for a run."""
        act = self.chance.randrange(5)
        path = APP / f"f{self.chance.randrange(FILES)}"
        if act == 0:
            path.unlink(missing_ok=True)
        elif act == 1:
            path.write_text("drift\n")
        elif act == 2:
            subprocess.run(
                ["usermod", "-s", "/bin/false", "walker"], check=False, capture_output=True
            )
        elif act == 3:
            self.tell(signal.SIGUSR2)
        else:
            self.tell(signal.SIGUSR1)

    def tell(self, number: signal.Signals) -> None:
        """A signal to the supervisor, if one is there and listens already."""
        state = run("systemctl", "show", "-P", "ActiveState", "reconciler-agent").strip()
        pid = int(run("systemctl", "show", "-P", "MainPID", "reconciler-agent"))
        if state == "active" and pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    # -- what goes wrong -----------------------------------------------------------------

    def kill(self) -> None:
        """One of the four, each role as likely as another, at any instant of its life."""
        role = self.chance.choice(sorted(LIVES))
        moment = self.chance.uniform(0, LIVES[role])
        begun = time.monotonic()
        while not (pids := processes().get(role)):
            if time.monotonic() - begun > 3:
                begun = time.monotonic()
                self.tell(signal.SIGUSR1)
            time.sleep(0.005)
        time.sleep(moment)
        try:
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return  # it was faster
        self.killed[role] = self.killed.get(role, 0) + 1

    # -- what must hold ------------------------------------------------------------------

    def check_files(self) -> None:
        """At any instant a file is whole: of this version or an older one, drifted, or not there."""
        for number in range(FILES):
            try:
                text = (APP / f"f{number}").read_text()
            except FileNotFoundError:
                continue
            if text and text != "drift\n":
                version = int(text.split(",", 1)[0].removeprefix("version "))
                assert text == content(version, number), f"f{number} is half: {text[:80]!r}"

    def peace(self) -> float:
        """Until the agent is in sync and at rest, by itself: nobody asks it for anything; seconds."""
        start = calm = time.monotonic()
        while time.monotonic() - start < PEACE:
            time.sleep(0.2)
            if not self.is_done() or sorted(processes()) != ["supervisor"]:
                calm = time.monotonic()
            elif time.monotonic() - calm > CALM:
                return calm - start
        raise AssertionError(f"not in sync after {PEACE:.0f} s; running: {processes()}")

    def is_done(self) -> bool:
        try:
            with open("/run/reconciler/status.json") as file:
                status = json.load(file)
        except FileNotFoundError:
            return False
        conditions = {one["type"]: one["status"] for one in status["conditions"]}
        good = status["source"]["good"]["commit"] == self.commits[self.version]
        return (
            good
            and conditions["InSync"] == conditions["Ready"] == "True"
            and status["state"] == "idle"
        )

    def check(self) -> None:
        """The host is as declared, and nothing is left of those that were killed."""
        for number in range(FILES):
            path = APP / f"f{number}"
            assert path.read_text() == content(self.version, number), path
            assert path.stat().st_mode & 0o7777 == 0o640, path
        assert Path("/srv/stamp").read_text() == f"V={self.version}\nkept\n"
        assert run("getent", "passwd", "walker").strip().endswith("/bin/sh")
        assert Path("/run/steady").read_text() == f"{self.version}\n", (
            "the service was not restarted"
        )
        rung = Path("/srv/rung").read_text().splitlines()
        assert rung[-1] == f"version {self.version}, file 1", "the handler is still owed"
        audit = run("dpkg", "--audit")
        assert not audit, audit
        installed = subprocess.run(["dpkg", "-s", "payload"], check=False, capture_output=True)
        assert (installed.returncode == 0) == (self.version % 4 < 2), "the package"
        self.check_ledger()
        end = time.monotonic() + 15
        while left := self.leftovers():  # of a poll that goes on, perhaps
            assert time.monotonic() < end, f"left behind: {left}"
            time.sleep(0.2)
        with open("/run/reconciler/lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def check_ledger(self) -> None:
        import sqlite3

        with sqlite3.connect("/var/lib/reconciler/ledger.db") as ledger:
            assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            left = ledger.execute("SELECT resource FROM intents UNION SELECT handler FROM owed")
            assert left.fetchall() == []
            lost = ledger.execute("SELECT why FROM lost").fetchall()
            assert lost == [], lost
        ledger.close()
        found = list(Path("/var/lib/reconciler").glob("ledger.db.bad*"))
        assert not found, found

    def leftovers(self) -> list[str]:
        """Temporary files, and units that are still there."""
        places = [
            "/srv",
            "/etc",
            "/var/lib/reconciler",
            "/var/lib/reconciler-fetch",
            "/run/reconciler",
        ]
        temporary = ("*.rec-*", "*.new", "tmp_*", "*.lock", "quarantine-*", ".trust.json.*")
        names = ["(", *[word for one in temporary for word in ("-o", "-name", one)][1:], ")"]
        # That these are there is no sign of anybody: they are locked, or not.
        for name in (".pwd.lock", "agent.lock", "mirror-*.git.lock"):
            names += ["-not", "-name", name]
        left = run("find", *places, *names).split()
        patterns = ["reconciler-run-*", "reconciler-provider@*"]
        words = ["systemctl", "list-units", "--all", "--plain", "--no-legend", *patterns]
        return left + run(*words).splitlines()


def as_keeper(*words: str) -> str:
    """Git, as the user whom the state repo belongs to."""
    return run("runuser", "-u", "keeper", "--", "git", "-C", REPO, *words)


def run(*argv: str) -> str:
    """What a program says."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def main(seed: int, kills: int) -> int:
    """The series."""
    killer = Killer(seed)
    say({"seed": seed, "kills": kills})
    try:
        while (done := sum(killer.killed.values())) < kills:
            say(killer.batch(min(BATCH, kills - done)))
    except AssertionError as error:
        say({"wrong": str(error), "version": killer.version, "killed": killer.killed})
        return 1
    return 0


def say(line: Mapping[str, object]) -> None:
    """A line of the outcome."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
