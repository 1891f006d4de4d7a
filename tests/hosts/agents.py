"""A Git server on the lab's network, a state repo that is pushed to it, and hosts with agents."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hosts.booted import BootedHost
from hosts.lab import Lab

HEALING = Path(__file__).with_name("healing.py")
INVENTORY = "inventories/lab/hosts.yml"
GIT = {
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.org",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


class StateRepo:
    """A work tree whose commits go to `server` over ssh, as the user git."""

    def __init__(self, lab: Lab, server: BootedHost, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self._ssh = f"ssh -F {lab.access.config}"
        server.run(["useradd", "--create-home", "--shell", "/bin/bash", "git"])
        server.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", "/srv/state.git"])
        server.run(["chown", "-R", "git:", "/srv/state.git"])
        server.run(["install", "-d", "-o", "git", "-m", "700", "/home/git/.ssh"])
        server.run(
            ["install", "-o", "git", "-m", "600", "/root/.ssh/authorized_keys", "/home/git/.ssh/"]
        )
        self.host_key = lab.access.known_hosts.read_text()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", f"git@{server.name}:/srv/state.git")

    @property
    def url(self) -> str:
        return f"ssh://git@{self.server.address}/srv/state.git"

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args],
            cwd=self.directory,
            env={**os.environ, **GIT, "GIT_SSH_COMMAND": self._ssh},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(
        self, files: Mapping[str, str], *, sign: Path | None = None, push: bool = True
    ) -> str:
        """Write files, commit and push; the commit's id."""
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        signing = ["-c", "gpg.format=ssh", "-c", f"user.signingKey={sign}"] if sign else []
        extra = ["-S"] if sign else ["--no-gpg-sign"]
        self.git(
            *signing, "commit", "--quiet", "--allow-empty", *extra, "-m", f"change {sorted(files)}"
        )
        if push:
            self.push()
        return self.git("rev-parse", "HEAD")

    def push(self, *options: str) -> None:
        self.git("push", "--quiet", *options, "origin", "HEAD:main")

    def enrol(self, host: BootedHost) -> None:
        """Give a host a deploy key, and the server's host key."""
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/deploy_key"])
        key = host.run(["cat", "/root/deploy_key.pub"]).stdout
        self.server.run(["tee", "-a", "/home/git/.ssh/authorized_keys"], input=key)
        host.run(["tee", "/root/known_hosts"], input=self.host_key)

    def install(self, host: BootedHost, *options: str) -> str:
        """`agent install` with what this lab needs."""
        ours = ["--deploy-key", "/root/deploy_key", "--known-hosts", "/root/known_hosts"]
        ours += ["--inventory", INVENTORY, "--interval", "5s"]
        return host.reconciler("agent", "install", "--repo", self.url, *ours, *options).stdout


def status(host: BootedHost) -> dict[str, Any]:
    """What the agent says about itself."""
    return json.loads(host.run(["cat", "/run/reconciler/status.json"]).stdout)


def conditions(host: BootedHost) -> dict[str, str]:
    """Condition -> `True`, `False` or `Unknown`."""
    return verdicts(status(host))


def spoken(host: BootedHost) -> dict[str, Any]:
    """The same, but nothing before the agent has said anything."""
    done = host.run(["cat", "/run/reconciler/status.json"], check=False)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}


def verdicts(document: Mapping[str, Any]) -> dict[str, str]:
    """Condition -> `True`, `False` or `Unknown`, of what an agent has said."""
    return {one["type"]: one["status"] for one in document.get("conditions", ())}


def main_pid(host: BootedHost) -> str:
    """The supervisor, as the host sees it; 0 if there is none."""
    return host.run(["systemctl", "show", "-P", "MainPID", "reconciler-agent"]).stdout.strip()


def footprint(host: BootedHost) -> tuple[int, int]:
    """KiB of memory that are the supervisor's share (PSS), and its threads."""
    pid = main_pid(host)
    rollup = host.run(["cat", f"/proc/{pid}/smaps_rollup"]).stdout
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return pss, len(host.run(["ls", f"/proc/{pid}/task"]).stdout.split())


def woken(host: BootedHost, polls: int) -> int:
    """How often the provider is started while an agent polls so many times and finds nothing."""

    def count(what: str) -> float:
        lines = host.run(["cat", "/run/reconciler/metrics.prom"]).stdout.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(what))

    def accepted() -> int:
        words = ["systemctl", "show", "-P", "NAccepted", "reconciler-provider.socket"]
        return int(host.run(words).stdout)

    before, asked = accepted(), count("reconciler_fetch_total")
    wait_for(lambda: count("reconciler_fetch_total") >= asked + polls, "polling", host, 20 * polls)
    return accepted() - before


def heal_times(host: BootedHost, pattern: str) -> tuple[list[float], list[float]]:
    """Damage files that match, one after the other; see `healing.py` for the two lists."""
    host.copy(HEALING, "/root/healing.py")
    done = host.run(["python3", "/root/healing.py", pattern], timeout=500)
    took, stretch = json.loads(done.stdout)
    return took, stretch


def text(host: BootedHost, path: str) -> str:
    """What a file of a host holds; "" if there is none."""
    return host.run(["cat", path], check=False).stdout


#: Another file system in the place of a directory, or none; what is in it comes along.
REPLACE = """systemctl stop reconciler-agent
rm -f {path}/filler
rm -rf /root/kept; cp -a {path} /root/kept
{how}
find {path} -mindepth 1 -delete
cp -a /root/kept/. {path}; chown --reference=/root/kept {path}
{then}
systemctl start reconciler-agent"""


@contextlib.contextmanager
def small_disk(
    host: BootedHost, path: str, size: str, mode: str = "0700", then: str = ""
) -> Iterator[None]:
    """Have a directory on a small file system of its own, which `filler` in it may fill.

    then: a script that runs there before the agent does. What was in it before is in /root/kept.
    """
    mount = f"mount -t tmpfs -o size={size},mode={mode} small {path}"
    host.run(["sh", "-ec", REPLACE.format(path=path, how=mount, then=then)])
    try:
        yield
    finally:
        host.run(["sh", "-ec", REPLACE.format(path=path, how=f"umount {path}", then="")])


def wait_for(
    happened: Callable[[], bool], what: str, host: BootedHost, seconds: float = 40
) -> float:
    """Wait; how long it took. On failure, with what the agent said."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if happened():
            return time.monotonic() - start
        time.sleep(0.05)
    said = host.run(
        ["journalctl", "--no-pager", "-n", "60", "-o", "cat", "-u", "reconciler*"], check=False
    )
    now = host.run([f"{sys.prefix}/bin/reconciler", "agent", "status"], check=False)
    raise AssertionError(
        f"{host.name}: {what} did not happen within {seconds} s\n{now.stdout}{now.stderr}\n{said.stdout}"
    )


def in_sync_at(host: BootedHost, commit: str) -> Callable[[], bool]:
    """Whether the agent has converged this commit whole."""

    def look() -> bool:
        found = spoken(host)
        return (
            found.get("source", {}).get("good", {}).get("commit") == commit
            and verdicts(found).get("InSync") == "True"
        )

    return look
