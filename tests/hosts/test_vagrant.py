"""vagrant/: the Vagrantfile as Vagrant sees it, and what its README promises, on booted hosts.

`scripts/setup vagrant` has run `prepare`, and has fetched what the machines would fetch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hosts.agents import wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPO = Path(__file__).parents[2]
VAGRANT = REPO / "vagrant"
PREPARED = REPO / "build" / "vagrant"
#: All that the Vagrantfile gives its machines beside the shared directory.
SHARED = "/vagrant/shared"


def _needs(there: object, what: str) -> None:
    if not there:
        told = f"{what} is missing: scripts/setup debian everything wheel vagrant"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(told)


# -- the Vagrantfile ---------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy, as Vagrant leaves files beside a Vagrantfile; and a VirtualBox that has only a version."""
    _needs(shutil.which("vagrant"), "vagrant")
    shutil.copytree(VAGRANT, tmp_path / "project", ignore=shutil.ignore_patterns("shared"))
    stand_in = tmp_path / "bin" / "VBoxManage"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\necho 6.1.50r161033\n")
    stand_in.chmod(0o755)
    return tmp_path / "project"


def validate(project: Path, provider: str) -> subprocess.CompletedProcess[str]:
    top = project.parent
    environment = {
        "VAGRANT_HOME": str(top / "home"),
        "VAGRANT_DEFAULT_PROVIDER": provider,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "HOME": str(top),
        "PATH": f"{top}/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        ["vagrant", "validate"],
        cwd=project,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    _needs("could not be found" not in done.stderr, f"Vagrant's provider {provider}")
    return done


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_the_vagrantfile_is_valid_for_both_providers(project: Path, provider: str) -> None:
    done = validate(project, provider)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_a_mistake_in_what_only_one_provider_reads_would_be_found(
    project: Path, provider: str
) -> None:
    file = project / "Vagrantfile"
    before, found, after = file.read_text().partition(f'provider "{provider}"')
    assert found
    file.write_text(before + found + after.replace("machine.cpus", "machine.cpuz", 1))
    done = validate(project, provider)
    assert done.returncode != 0
    assert "cpuz" in done.stderr


# -- what the README promises --------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[list[BootedHost]]:
    """The forge and two machines, with what `prepare` has made, before any is provisioned."""
    _needs((PREPARED / ".made").exists(), "what vagrant/prepare makes")
    hosts = lab.boot_many(["vforge", "web1", "web2"])
    for host in hosts:
        host.copy(PREPARED, SHARED)
        host.copy(VAGRANT / "provision", "/vagrant/provision")
    yield hosts
    for host in hosts:
        lab.discard(host)


def provision_forge(forge: BootedHost) -> None:
    # The key that the forge gets is not the one that this session's ssh knows it by.
    key = forge.run(["cat", f"{SHARED}/forge_host_key.pub"]).stdout
    with forge.access.known_hosts.open("a") as known:
        known.write(f"{forge.name},{forge.address} {key}")
    forge.run(["sh", "/vagrant/provision/forge.sh", SHARED])


def provision_agent(host: BootedHost, forge: BootedHost) -> None:
    """As on a real machine, but that pip finds all it wants in the shared directory."""
    script = ["sh", "/vagrant/provision/agent.sh", SHARED, str(forge.address)]
    host.run(["env", "PIP_NO_INDEX=1", *script], timeout=300)


def motd(host: BootedHost) -> str:
    return host.run(["cat", "/etc/motd"], check=False).stdout


def test_three_machines_follow_a_push_and_put_back_what_is_changed_by_hand(
    fleet: list[BootedHost],
) -> None:
    forge, *agents = fleet
    # With libvirt all machines come up at once.
    with ThreadPoolExecutor() as at_once:
        begun = [at_once.submit(provision_agent, host, forge) for host in agents]
        provision_forge(forge)
        for one in begun:
            one.result()
    for host in agents:
        greeting = f"{host.name} is kept by reconciler"
        wait_for(lambda h=host, text=greeting: text in motd(h), "following", host)
        # Not the environment under test, but what was installed from the wheel.
        assert host.run(["readlink", "-f", "/usr/local/bin/reconciler"]).stdout.startswith("/opt/")
        status = ["reconciler", "agent", "status"]
        wait_for(
            lambda h=host, s=status: h.run(s, check=False).stdout.startswith("in sync at"),
            "status",
            host,
        )

    work = "git clone -q /srv/state.git /root/work && cd /root/work && sed -i 's/Do not edit/Please do not edit/' site.yml"
    commit = "git -c user.name=me -c user.email=me@example.org commit -qam polite && git push -q"
    forge.run(["sh", "-c", f"{work} && {commit}"])
    for host in agents:
        wait_for(lambda h=host: "Please" in motd(h), "the commit", host)

    changed = agents[1]
    changed.run(["sh", "-c", "echo mine >/etc/motd"])
    wait_for(lambda: "Please" in motd(changed), "healing", changed, seconds=5)
    history = ["reconciler", "history", "--cause", "corrective"]
    wait_for(lambda: "/etc/motd" in changed.run(history).stdout, "history", changed, seconds=5)


def test_provisioning_twice_is_once(fleet: list[BootedHost]) -> None:
    forge, *agents = fleet
    provision_forge(forge)
    provision_agent(agents[0], forge)
    status = agents[0].run(["systemctl", "is-active", "reconciler-agent.service"])
    assert status.stdout.strip() == "active"
    assert forge.run(["git", "-C", "/srv/state.git", "rev-list", "--count", "main"]).stdout == "2\n"
