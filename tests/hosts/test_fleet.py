"""Fleet runs over booted hosts: some of them down, hung, without Python, or somebody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hosts.access import generate_key
from hosts.booted import BootedHost
from hosts.lab import Lab
from hosts.room import room_for

GOOD = 4
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

#: Fifty hosts need a machine to themselves.
SIZES = [16, pytest.param(50, marks=pytest.mark.soak)]


class Fleet:
    """Some booted hosts, a state repo for them, and calls of the program."""

    def __init__(self, path: Path, lab: Lab, hosts: Sequence[BootedHost]) -> None:
        self.path = path / "repo"
        self.kept = path
        self.lab = lab
        self.hosts = {host.name: host for host in hosts}
        self.names = list(self.hosts)
        self.also: dict[str, dict[str, Any]] = {}
        self.want(1)

    def want(self, version: int, slow: float = 0) -> None:
        (self.path / "group_vars").mkdir(parents=True, exist_ok=True)
        (self.path / "site.yml").write_text(SITE)
        (self.path / "group_vars/all.yml").write_text(f"v: {version}\nslow: {slow}\n")
        hosts = {**{name: {} for name in self.names}, **self.also}
        (self.path / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))

    def start(self, verb: str, *words: str) -> subprocess.Popen[str]:
        code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
        config = ["--ssh-config", str(self.lab.access.config)]
        return subprocess.Popen(
            [sys.executable, "-c", code, verb, "-i", "hosts.yml", *config, *words],
            cwd=self.path,
            env={
                **os.environ,
                "XDG_CACHE_HOME": str(self.kept / "cache"),
                "XDG_STATE_HOME": str(self.kept / "state"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, verb: str, *words: str) -> tuple[int, str, str]:
        process = self.start(verb, *words)
        out, err = process.communicate(timeout=180)
        return process.returncode, out, err

    def document(self, verb: str, *words: str) -> dict[str, Any]:
        code, out, err = self.call(verb, "--json", *words)
        assert out, err
        found: dict[str, Any] = json.loads(out)
        assert found["exit"] == code
        return found


def states(document: dict[str, Any]) -> dict[str, str]:
    return {host: one["state"] for host, one in document["states"].items()}


@pytest.fixture(scope="module")
def booted(lab: Lab) -> Iterator[list[BootedHost]]:
    with room_for(GOOD + 4):
        hosts = lab.boot_many([f"fleet{number}" for number in range(GOOD)])
        yield hosts
        for host in hosts:
            lab.discard(host)


@pytest.fixture
def fleet(tmp_path: Path, lab: Lab, booted: list[BootedHost]) -> Fleet:
    for host in booted:
        host.run(["sh", "-c", "rm -rf /srv/*"])
    return Fleet(tmp_path, lab, booted)


def test_a_fleet_is_converged_in_batches_and_then_in_sync(fleet: Fleet) -> None:
    planned = fleet.document("plan", "--detailed-exitcode")
    assert (planned["exit"], set(states(planned).values())) == (2, {"pending"})
    done = fleet.document("apply", "--batches", "1,50%", "--canary", "fleet2")
    assert [batch["hosts"] for batch in done["batches"]] == [
        ["fleet2"], ["fleet0"], ["fleet1", "fleet3"],
    ]  # fmt: skip
    assert states(done) == dict.fromkeys(["fleet2", "fleet0", "fleet1", "fleet3"], "changed")
    for name, host in fleet.hosts.items():
        assert (host.root / "srv/site/index").read_text() == f"{name} v1\n"
        assert host.testinfra().file("/srv/notified").exists
    again = fleet.document("apply", "--detailed-exitcode")
    assert (again["exit"], set(states(again).values())) == (0, {"ok"})


def test_hosts_that_are_not_well_cost_themselves_only(
    fleet: Fleet, lab: Lab, tmp_path: Path
) -> None:
    down, hung, bare, posing = lab.boot_many(["down", "hung", "bare", "posing"])
    try:
        down.kill()
        bare.run(["sh", "-c", "rm /usr/bin/python3*"])
        other = " ".join(generate_key(tmp_path / "other", "other").split()[:2])
        pid = int(hung.run(["systemctl", "show", "-P", "MainPID", "ssh"]).stdout)
        hung.run(["kill", "-STOP", str(pid)])
        hung.access.hang_up("hung")
        fleet.also = {"down": {}, "hung": {}, "bare": {}, "posing": {"host_keys": [other]}}
        fleet.want(1)
        begun = time.monotonic()
        found = fleet.document("apply", "--connect-retries", "0", "--host-timeout", "6")
        took = time.monotonic() - begun
    finally:
        for host in (down, hung, bare, posing):
            lab.discard(host)
    bad = ["down", "hung", "bare", "posing"]
    good = dict.fromkeys(fleet.names, "changed")
    assert states(found) == {**good, **dict.fromkeys(bad, "unreachable")}
    assert found["exit"] == 5
    kinds = {name: found["hosts"][name]["errors"][0]["kind"] for name in bad}
    assert kinds == {
        "down": "HostUnreachable",
        "hung": "HostUnreachable",
        "bare": "HostUnfit",
        "posing": "HostKeyRefused",
    }
    assert took < 6 + 6, "it ends at most its time limit later"
    assert all(found["states"][name]["seconds"] < 5 for name in fleet.names)


def test_a_failing_host_stops_the_rollout_which_is_resumed(fleet: Fleet) -> None:
    fleet.hosts["fleet1"].run(["sh", "-c", "echo in the way > /srv/site"])
    held = fleet.document("apply", "--batches", "1")
    assert held["exit"] == 7
    assert states(held) == {
        "fleet0": "changed", "fleet1": "failed", "fleet2": "held", "fleet3": "held",
    }  # fmt: skip
    assert not (fleet.hosts["fleet2"].root / "srv/site").exists()
    fleet.hosts["fleet1"].run(["rm", "/srv/site"])
    resumed = fleet.document("apply", "--resume", held["run"])
    assert states(resumed) == dict.fromkeys(["fleet1", "fleet2", "fleet3"], "changed")
    assert resumed["run"] == held["run"]


def test_one_failed_and_one_out_of_reach_are_6(fleet: Fleet) -> None:
    fleet.hosts["fleet0"].run(["sh", "-c", "echo in the way > /srv/site"])
    fleet.also = {"nobody": {"ansible_host": fleet.hosts["fleet0"].address, "ansible_port": 9}}
    fleet.want(1)
    assert fleet.document("apply", "--connect-retries", "0")["exit"] == 6


def test_ctrl_c_stops_hosts_at_a_boundary_and_their_reports_still_come(fleet: Fleet) -> None:
    fleet.want(2, slow=3)
    process = fleet.start("apply", "--json", "--batches", "2")
    slow = [fleet.hosts[name] for name in ("fleet0", "fleet1")]
    for _ in range(200):
        if all((host.root / "srv/site/index").exists() for host in slow):
            break
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert states(found) == {
        "fleet0": "interrupted", "fleet1": "interrupted", "fleet2": "held", "fleet3": "held",
    }  # fmt: skip
    for host in slow:
        assert found["hosts"][host.name]["interrupted"]
        assert (host.root / "srv/slow-2").exists(), "the resource at work was not cut off"
        assert not (host.root / "srv/site/last").exists()
    again = fleet.document("apply", "--resume", "last")
    assert states(again) == dict.fromkeys(fleet.names, "changed")


def test_a_unit_that_is_down_holds_the_next_batch_back(fleet: Fleet) -> None:
    rollout = "rollout:\n  batches: [2]\n  verify:\n    - unit: {name: UNIT, within: 1s}\n"
    rollout += "    - tcp: {port: 22, within: 5s}\n"
    fleet.also = {name: {"ansible_host": host.address} for name, host in fleet.hosts.items()}
    fleet.want(1)
    settings = fleet.path / "reconciler.yml"
    settings.write_text(rollout.replace("UNIT", "nosuch.service"))
    held = fleet.document("apply")
    assert held["exit"] == 7
    assert "check `unit nosuch.service` for fleet0 does not hold" in held["stopped"]
    assert states(held)["fleet2"] == "held"
    settings.write_text(rollout.replace("UNIT", "ssh.service"))
    assert fleet.document("apply")["exit"] == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", SIZES)
def test_a_large_fleet_with_one_host_hung(lab: Lab, tmp_path: Path, count: int) -> None:
    with room_for(count):
        hosts = lab.boot_many([f"many{count}-{number}" for number in range(count)])
        try:
            fleet = Fleet(tmp_path, lab, hosts)
            first = fleet.document("apply")
            assert set(states(first).values()) == {"changed"}
            begun = time.monotonic()
            again = fleet.document("apply")
            without = time.monotonic() - begun
            assert set(states(again).values()) == {"ok"}
            hung = hosts[count // 2]
            pid = hung.run(["systemctl", "show", "-P", "MainPID", "ssh"]).stdout.strip()
            hung.run(["kill", "-STOP", pid])
            hung.access.hang_up(hung.name)
            begun = time.monotonic()
            one_hung = fleet.document("apply", "--host-timeout", "10")
            took = time.monotonic() - begun
            assert one_hung["summary"]["ok"] == count - 1
            assert states(one_hung)[hung.name] == "unreachable"
            assert took < without + 10 + 3
        finally:
            for host in hosts:
                lab.discard(host)
