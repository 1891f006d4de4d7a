"""The provisioning scripts of vagrant/, on booted hosts: what the README promises.

Not covered: building the wheels and installing them, which the hosts get from our environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.agents import wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VAGRANT = Path(__file__).parents[2] / "vagrant"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` makes, but for the wheels: the hosts have our environment already."""
    directory = tmp_path_factory.mktemp("shared")
    for name in ("deploy_key", "forge_host_key"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name]
        subprocess.run(made, check=True)
    shutil.copytree(VAGRANT / "state", directory / "state")
    return directory


@pytest.fixture(scope="module")
def fleet(lab: Lab, shared: Path) -> Iterator[list[BootedHost]]:
    hosts = lab.boot_many(["vforge", "web1", "web2"])
    for host in hosts:
        host.copy(shared, "/vagrant/shared")
        host.copy(VAGRANT / "provision", "/vagrant/provision")
    yield hosts
    for host in hosts:
        lab.discard(host)


def test_the_scripts_make_a_forge_and_agents_that_follow_it(fleet: list[BootedHost]) -> None:
    forge, *agents = fleet
    # The key that the forge gets is not the one that this session's ssh knows it by.
    ours = forge.run(["cat", "/etc/ssh/ssh_host_ed25519_key"]).stdout
    key = forge.run(["cat", "/vagrant/shared/forge_host_key"]).stdout
    assert ours != key
    with forge.access.known_hosts.open("a") as known:
        public = forge.run(["cat", "/vagrant/shared/forge_host_key.pub"]).stdout
        known.write(f"{forge.name},{forge.address} {public}")
    forge.run(["sh", "/vagrant/provision/forge.sh", "/vagrant/shared"])
    for host in agents:
        # In place of the wheels: the environment under test, as the script would have made it.
        host.run(
            [
                "sh",
                "-c",
                f"mkdir -p /opt/reconciler/bin; ln -s {sys.prefix}/bin/reconciler /opt/reconciler/bin/; ln -s /bin/true /opt/reconciler/bin/pip",
            ]
        )
        script = host.run(
            ["sh", "/vagrant/provision/agent.sh", "/vagrant/shared", forge.address], check=False
        )
        assert script.returncode == 0, script.stdout + script.stderr
    for host in agents:
        wait_for(
            lambda h=host: (
                f"{h.name} is kept by reconciler" in h.run(["cat", "/etc/motd"], check=False).stdout
            ),
            "following",
            host,
        )
    work = "git clone -q /srv/state.git /root/work && cd /root/work && sed -i 's/Do not edit/Please do not edit/' site.yml"
    commit = "git -c user.name=me -c user.email=me@example.org commit -qam polite && git push -q"
    forge.run(["sh", "-c", f"{work} && {commit}"])
    for host in agents:
        wait_for(
            lambda h=host: "Please" in h.run(["cat", "/etc/motd"], check=False).stdout,
            "the commit",
            host,
        )


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")
def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=VAGRANT,
        check=True,
        env={"VAGRANT_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
