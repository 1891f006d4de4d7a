"""A fleet run on workers over SSH, one of which is killed in mid-run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import program
from hosts.booted import BootedHost
from hosts.fleets import wait_for_file
from hosts.lab import Lab
from hosts.room import room_for
from push.cluster import Cluster, certificates
from reconciler.push.workers import Keys
from source.conftest import Repo

#: Each command says on its host when it begins and ends.
SITE = """\
- hosts: all
  resources:
    - file: {path: /srv/site, state: directory, mode: "0755"}
    - copy: {dest: /srv/site/index, content: "{{ inventory_hostname }}\\n", mode: "0644"}
    - command:
        argv: [sh, -c, "echo begin >>/srv/log; sleep 2; echo end >>/srv/log; touch /srv/{{ item }}"]
        creates: "/srv/{{ item }}"
      loop: [one, two, three]
"""
HOSTS = 4


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[list[BootedHost]]:
    names = [f"afar{number}" for number in range(HOSTS)]
    with room_for(HOSTS), lab.lend(*names) as booted:
        yield booted


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return certificates(tmp_path / "keys")


@pytest.fixture
def cluster(tmp_path: Path, lab: Lab, hosts: list[BootedHost], keys: Keys) -> Iterator[Cluster]:
    """Two workers, which have room for two hosts each."""
    repo = Repo(tmp_path / "repo")
    inventory = {"all": {"hosts": {host.name: {} for host in hosts}}}
    repo.commit({"site.yml": SITE, "hosts.yml": json.dumps(inventory)})
    settings = {
        "DASK_RECONCILER__REPO": str(repo),
        "DASK_RECONCILER__SSH_CONFIG": str(lab.access.config),
        "XDG_CACHE_HOME": str(tmp_path / "cache-of-workers"),
    }
    with Cluster(tmp_path, threads=HOSTS // 2, keys=keys, settings=settings) as cluster:
        yield cluster


def start(path: Path, cluster: Cluster, keys: Keys, *words: str) -> subprocess.Popen[str]:
    tls = {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": keys.ca_file,
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": keys.cert,
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": keys.key,
    }
    apply = ["apply", "-C", "repo", "-i", "hosts.yml", "--json", *words]
    return program.start(path, *apply, "--executor", cluster.address, environment=tls)


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    _, out, err = program.ended(process, 120)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.soak
def test_with_a_worker_killed_every_host_ends_converged_and_none_runs_twice_at_once(
    tmp_path: Path, hosts: list[BootedHost], cluster: Cluster, keys: Keys
) -> None:
    process = start(tmp_path, cluster, keys)
    wait_for_file(hosts, "srv/log", 60)
    # Both are full; with a third one the lost hosts begin again at once, at engines still at work.
    cluster.add()
    cluster.kill(0)
    found = ended(process)
    assert found["exit"] == 0
    # Who was lost after its last change and before its report is found in sync.
    assert {one["state"] for one in found["states"].values()} <= {"changed", "ok"}
    for host in hosts:
        assert (host.root / "srv/log").read_text().split() == ["begin", "end"] * 3
        assert (host.root / "srv/site/index").read_text() == f"{host.name}\n"
    again = ended(start(tmp_path, cluster, keys, "--detailed-exitcode"))
    assert (again["exit"], again["summary"]["ok"]) == (0, HOSTS)
