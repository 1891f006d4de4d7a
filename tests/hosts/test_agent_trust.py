"""Signed commits: what is not signed by a key that the host knows is refused, and healing goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.agents import INVENTORY, StateRepo, conditions, in_sync_at, status, wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SITE = '- hosts: all\n  resources:\n    - copy: {dest: /etc/signed, content: "v%s\\n"}\n'
HOSTS = "all: {hosts: {signed: {}}}\n"


def key(directory: Path, name: str) -> Path:
    path = directory / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True
    )
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    return {name: key(directory, name) for name in ("alice", "mallory")}


@pytest.fixture(scope="module")
def repo(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> StateRepo:
    return StateRepo(lab, lab.boot("safe"), tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def signed(lab: Lab, repo: StateRepo, keys: dict[str, Path]) -> Iterator[BootedHost]:
    host = lab.boot("signed")
    commit = repo.commit({"site.yml": SITE % 1, INVENTORY: HOSTS}, sign=keys["alice"])
    allowed = f'alice namespaces="git" {keys["alice"].with_suffix(".pub").read_text()}'
    host.run(["tee", "/root/allowed_signers"], input=allowed)
    repo.enrol(host)
    repo.install(host, "--trust", "every", "--allowed-signers", "/root/allowed_signers")
    wait_for(in_sync_at(host, commit), "converging the signed commit", host)
    yield host
    lab.discard(host)
    lab.discard(repo.server)


def content(host: BootedHost) -> str:
    return host.run(["cat", "/etc/signed"], check=False).stdout


def refused(host: BootedHost, good: str) -> None:
    """The last trusted commit stays, healing goes on, and it is said what to do."""
    wait_for(lambda: conditions(host)["Trusted"] == "False", "refusing it", host)
    assert status(host)["source"]["applied"]["commit"] == good
    told = host.reconciler("agent", "status", check=False)
    assert told.returncode == 10
    host.run(["sh", "-c", "echo x > /etc/signed"])
    wait_for(lambda: content(host) == "v1\n", "healing", host)
    synced = host.reconciler("agent", "sync", check=False)
    assert synced.returncode == 10


@pytest.mark.parametrize("who", ["nobody", "mallory"])
def test_a_commit_that_nobody_known_has_signed_is_refused(
    repo: StateRepo, signed: BootedHost, keys: dict[str, Path], who: str
) -> None:
    good = repo.git("rev-parse", "HEAD")
    repo.commit({"site.yml": SITE % 2}, sign=keys.get(who))
    refused(signed, good)
    repo.git("reset", "--quiet", "--hard", good)
    repo.push("--force")
    wait_for(lambda: conditions(signed)["Trusted"] == "True", "trusting again", signed)


def test_an_unsigned_commit_below_a_signed_one_is_refused(
    repo: StateRepo, signed: BootedHost, keys: dict[str, Path]
) -> None:
    good = repo.git("rev-parse", "HEAD")
    repo.commit({"site.yml": SITE % 3}, push=False)
    repo.commit({"site.yml": SITE % 4}, sign=keys["alice"])
    refused(signed, good)
    repo.git("reset", "--quiet", "--hard", good)
    repo.push("--force")
    wait_for(lambda: conditions(signed)["Trusted"] == "True", "trusting again", signed)


def test_lost_trust_state_fails_closed(
    repo: StateRepo, signed: BootedHost, keys: dict[str, Path]
) -> None:
    good = repo.git("rev-parse", "HEAD")
    signed.run(
        [
            "sh",
            "-c",
            "echo garbage > /var/lib/reconciler/trust.json; rm /var/lib/reconciler/trust.json.bak",
        ]
    )
    repo.commit({"site.yml": SITE % 5}, sign=keys["alice"])
    refused(signed, good)
