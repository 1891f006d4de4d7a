"""A fleet of booted hosts with a state repo, and calls of the program about them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import program
from hosts.booted import BootedHost
from hosts.lab import Lab

SITE = """\
- hosts: all
  resources:
    - file: {path: /srv/site, state: directory, mode: "0755"}
    - copy: {dest: /srv/site/index, content: "{{ inventory_hostname }} v{{ v }}\\n", mode: "0644"}
      notify: say so
    - command: {argv: [sh, -c, "sleep {{ slow }}; touch /srv/slow-{{ v }}"], creates: "/srv/slow-{{ v }}"}
      when: slow > 0
    - file: {path: /srv/site/last, state: directory}
      when: slow > 0
  handlers:
    - name: say so
      command: touch /srv/notified
"""


class Fleet:
    """Some booted hosts, a state repo for them, and calls of the program.

    also: further hosts of the inventory, or variables of these. environment: of the calls.
    """

    def __init__(self, path: Path, lab: Lab, hosts: Sequence[BootedHost]) -> None:
        self.path = path / "repo"
        self.kept = path
        self.lab = lab
        self.hosts = {host.name: host for host in hosts}
        self.names = list(self.hosts)
        self.also: dict[str, dict[str, Any]] = {}
        self.environment: dict[str, str] = {}
        self.want(1)

    def add(self, host: BootedHost, **variables: Any) -> None:
        """One more host, or what the inventory says about one of them."""
        self.also[host.name] = variables

    def want(self, version: int, slow: float = 0) -> None:
        (self.path / "group_vars").mkdir(parents=True, exist_ok=True)
        (self.path / "site.yml").write_text(SITE)
        (self.path / "group_vars/all.yml").write_text(f"v: {version}\nslow: {slow}\n")
        hosts = {**{name: {} for name in self.names}, **self.also}
        (self.path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))

    def start(self, verb: str, *words: str, stdin: int | None = None) -> subprocess.Popen[str]:
        """Begin a call. stdin: a terminal to type on, which then is the only one it has."""
        given = [verb, "-i", "hosts.yml", "--ssh-config", str(self.lab.access.config), *words]
        return program.start(
            self.path, *given, kept=self.kept, stdin=stdin, environment=self.environment
        )

    def call(self, verb: str, *words: str) -> tuple[int, str, str]:
        return program.ended(self.start(verb, *words), 180)

    def document(self, verb: str, *words: str) -> dict[str, Any]:
        code, out, err = self.call(verb, "--json", *words)
        assert out, err
        found: dict[str, Any] = json.loads(out)
        assert found["exit"] == code
        return found


def states(document: dict[str, Any]) -> dict[str, str]:
    return {host: one["state"] for host, one in document["states"].items()}


def wait_for_file(hosts: Sequence[BootedHost], path: str, seconds: float = 20) -> None:
    """Until a file is there on all of them."""
    end = time.monotonic() + seconds
    while not all((host.root / path).exists() for host in hosts):
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)
