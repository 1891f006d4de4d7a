"""A Git server over https on the lab's network that misbehaves on demand, and hosts that follow it.

It runs in the process of the tests: a commit is on the server when it is made, and a fault is an
attribute. Behind TLS it is `git http-backend`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hosts.agents import conditions, in_sync_at, status, text, wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab
from reconciler import yamldoc
from source.servers import Server, make_certificate
from source.signers import People, StateRepo

SITE = (
    '- hosts: all\n  resources:\n    - copy: {dest: /etc/followed, content: "%s\\n"}\n'
    + "".join(f'    - copy: {{dest: /etc/healed-{n}, content: "well\\n"}}\n' for n in range(100))
)
MIRROR = "/var/lib/reconciler-fetch"
STATE = "/var/lib/reconciler"
#: `git fsck` of the mirror as its owner; nothing but the mirror and its lock may be there.
SOUND = f"cd {MIRROR}; ls; runuser -u reconciler -- git -C mirror-*.git fsck --full --no-dangling"
#: Where a host under test gets its files before they are installed.
HANDED = "/root/handed"


class Forge:
    """State repos below one directory, an authority, and the servers that it vouches for."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        [link] = json.loads(
            subprocess.run(
                ["ip", "-j", "-4", "address", "show", "dev", lab.session.bridge],
                check=True,
                capture_output=True,
            ).stdout
        )
        self.address: str = link["addr_info"][0]["local"]
        self.root = directory / "repos"
        self.people = People(directory / "people")
        self.authority = make_certificate(directory, "authority")
        self._certificate = make_certificate(directory, "git", self.address, self.authority)
        self._servers: list[Server] = []

    def serve(self, port: int = 0) -> Server:
        """One more server, of all repos. port: of one that was stopped, to have it back."""
        server = Server(self.root, self._certificate, self.address, port)
        self._servers.append(server)
        return server

    def repo(self, name: str = "state.git", *init: str) -> StateRepo:
        """A state repo that the servers have as /NAME. init: options of `git init`."""
        return StateRepo(self.root / name, self.people, *init)

    def close(self) -> None:
        """Stop the servers."""
        for server in self._servers:
            server.stop()

    def install(
        self, host: BootedHost, server: Server, *options: str, repo: str = "state.git"
    ) -> str:
        """`agent install` for a repo of a server, by our authority; what it said."""
        put(host, f"{HANDED}/ca.pem", Path(self.authority[0]).read_text())
        ours = ["--repo", f"{server.url}/{repo}", "--ca-file", f"{HANDED}/ca.pem"]
        return host.reconciler("agent", "install", *ours, "--interval", "5s", *options).stdout


def configure(host: BootedHost, **settings: object) -> None:
    """Change settings of an agent, as a person would: edit the file, and install again."""
    path = "/etc/reconciler/agent.yml"
    document = yamldoc.load(host.run(["cat", path]).stdout.encode(), path)
    assert isinstance(document, dict)
    put(host, path, json.dumps({**document, **settings}))
    host.reconciler("agent", "install")
    host.run(["systemctl", "reload", "reconciler-agent"])


def put(host: BootedHost, path: str, text: str, mode: str = "0600") -> None:
    """Write a file on a host."""
    host.run(["install", "-D", "-m", mode, "/dev/stdin", path], input=text)


def shell(host: BootedHost, script: str) -> str:
    """What a shell script on a host prints."""
    return host.run(["sh", "-ec", script]).stdout


def sync(host: BootedHost) -> tuple[int, str]:
    """Have the agent fetch and converge now; its exit code, and what the status says then."""
    code = host.reconciler("agent", "sync", check=False).returncode
    return code, host.reconciler("agent", "status", check=False).stdout


def heals(host: BootedHost, path: str, wanted: str) -> float:
    """Spoil a file that is managed, and wait until it is what it should be; seconds."""
    host.run(["sh", "-c", 'echo spoiled > "$1"', "sh", path])

    def well() -> bool:
        return text(host, path) == wanted

    return wait_for(well, f"healing {path}", host)


def recovers(host: BootedHost, condition: str) -> None:
    """Wait until a condition is true again."""
    wait_for(lambda: conditions(host)[condition] == "True", f"{condition} again", host, 60)


class Follower:
    """A host with an agent, and the state repo that it follows."""

    def __init__(self, host: BootedHost, repo: StateRepo, server: Server) -> None:
        self.host, self.repo, self.server = host, repo, server
        self._number = self._healed = 0

    @property
    def url(self) -> str:
        return f"{self.server.url}/state.git"

    @property
    def text(self) -> str:
        """What the newest commit wants to be in the file."""
        return f"text {self._number}\n"

    def commit(
        self,
        by: str | None = None,
        files: Mapping[str, str] | None = None,
        *,
        noise: int = 0,
        **more: str,
    ) -> str:
        """A commit with another text, and noise that no pack makes smaller. by: who signs it."""
        self._number += 1
        content = {"site.yml": SITE % self.text.strip(), "noise": os.urandom(noise).hex()}
        return self.repo.commit(by, {**content, **(files or {})}, **more)

    def settled(self) -> str:
        """Have the host in sync with the newest commit, and give that."""
        head = self.repo.head
        sync(self.host)
        wait_for(in_sync_at(self.host, head), "being in sync", self.host)
        return head

    def converges(self, commit: str) -> None:
        """Once the fault is over, one poll is enough."""
        code, said = sync(self.host)
        assert code == 0, said
        assert in_sync_at(self.host, commit)()
        assert self.content == self.text

    def heals(self) -> float:
        """Drift is healed; each time another file, or it would be taken for a fight. Seconds."""
        self._healed += 1
        return heals(self.host, f"/etc/healed-{self._healed % 100}", "well\n")

    @property
    def content(self) -> str:
        return text(self.host, "/etc/followed")

    @property
    def trusted(self) -> str:
        return str(status(self.host)["source"]["trusted"]["commit"])

    def mirror_is_sound(self) -> None:
        done = self.host.run(["sh", "-c", SOUND])
        assert "error" not in done.stdout + done.stderr
        names = [line for line in done.stdout.split() if line.startswith("mirror-")]
        beside = {name.partition(".git")[2] for name in names}
        # Who was sent rubbish looks whether what he has is any better.
        assert beside - {".suspect", ".examined"} == {"", ".lock"}
