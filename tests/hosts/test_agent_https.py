"""Agents that follow a Git server over https: their own authority, credentials that stay secret."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hosts.agents import conditions, in_sync_at, status, wait_for, woken
from hosts.booted import BootedHost
from hosts.forge import HANDED, Forge, heals, put, recovers, shell, sync
from hosts.lab import Lab
from source.servers import Server, make_certificate
from source.signers import StateRepo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOKEN = secrets.token_hex(20)
SECRET = f"ci:{TOKEN}"
SITE = '- hosts: all\n  resources:\n    - copy: {dest: /etc/followed, content: "%s\\n"}\n'
#: Prints arguments and environment of every process, again and again for three seconds.
WATCH = """\
import glob, sys, time
end = time.monotonic() + 3
while time.monotonic() < end:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            sys.stdout.buffer.write(open(path, "rb").read().replace(b"\\0", b" ") + b"\\n")
        except OSError:
            pass
    time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def server(forge: Forge) -> Server:
    made = forge.serve()
    made.password = SECRET
    return made


@pytest.fixture(scope="module")
def repo(forge: Forge) -> StateRepo:
    made = forge.repo()
    made.commit(None, {"site.yml": SITE % "first"})
    return made


@pytest.fixture(scope="module")
def hosts(lab: Lab, forge: Forge, server: Server, repo: StateRepo) -> Iterator[list[BootedHost]]:
    """Three hosts, followers by nothing but `agent install`."""

    def follow(host: BootedHost) -> None:
        put(host, f"{HANDED}/credentials", SECRET + "\n")
        forge.install(host, server, "--credentials", f"{HANDED}/credentials")
        host.run(["rm", "-r", HANDED])
        wait_for(in_sync_at(host, repo.head), "converging the first commit", host)

    with lab.lend("one", "two", "three") as found:
        with ThreadPoolExecutor() as pool:
            list(pool.map(follow, found))
        yield found


def test_three_hosts_follow_a_commit_without_a_person(
    repo: StateRepo, hosts: list[BootedHost]
) -> None:
    commit = repo.commit(None, {"site.yml": SITE % "second"})
    took = [wait_for(in_sync_at(host, commit), "converging the commit", host) for host in hosts]
    print(f"commit to converged: {took}")
    assert [shell(host, "cat /etc/followed") for host in hosts] == ["second\n"] * 3


def test_polls_that_bring_nothing_are_settled_without_the_provider(
    hosts: list[BootedHost],
) -> None:
    assert woken(hosts[0], polls=3) == 0


def test_credentials_are_in_one_file_that_only_root_can_read(hosts: list[BootedHost]) -> None:
    one = hosts[0]
    places = "/etc /var /run /tmp /srv /root"
    encoded = base64.b64encode(SECRET.encode()).decode()
    look = f"find {places} -xdev -type f -exec grep -lsaF -e {TOKEN} -e {encoded} {{}} + || true"
    found = shell(one, look).split()
    assert found == ["/etc/reconciler/credentials"]
    assert shell(one, "stat -c '%U %a' /etc/reconciler/credentials") == "root 600\n"
    said = shell(one, "journalctl --no-pager -o json --all")
    assert TOKEN not in said
    assert encoded not in said


def test_credentials_are_in_no_argument_and_in_no_environment_of_any_process(
    repo: StateRepo, server: Server, hosts: list[BootedHost]
) -> None:
    server.fault = ("hang", 0.5)
    try:
        one = hosts[0]
        noise = os.urandom(30_000).hex()
        commit = repo.commit(None, {"site.yml": SITE % "third", "noise": noise})
        wait_for(lambda: server.hanging == len(hosts), "the fetches to hang", one)
        lines = one.run(["python3", "-c", WATCH]).stdout
    finally:
        server.fault = ("", 0)
    assert "remote-https" in lines
    assert "GIT_CONFIG_NOSYSTEM=1" in lines
    for word in (TOKEN, "Authorization", base64.b64encode(SECRET.encode()).decode()):
        assert word not in lines
    for host in hosts:
        wait_for(in_sync_at(host, commit), "converging after all", host, 60)


def test_a_server_that_another_authority_vouches_for_is_refused(
    repo: StateRepo, hosts: list[BootedHost], tmp_path: Path
) -> None:
    two, asked = hosts[1], repo.commit(None, {"site.yml": SITE % "fourth"})
    good = shell(two, "cat /etc/reconciler/ca.pem")
    wait_for(in_sync_at(two, asked), "converging", two)
    stranger = Path(make_certificate(tmp_path, "stranger")[0]).read_text()
    put(two, "/etc/reconciler/ca.pem", stranger, "0644")
    repo.commit(None, {"site.yml": SITE % "unseen"})
    code, said = sync(two)
    assert code == 5
    assert "its certificate is not one that we trust" in said
    assert "ca_file" in said
    assert conditions(two)["SourceFresh"] == "False"
    assert status(two)["source"]["trusted"]["commit"] == asked
    heals(two, "/etc/followed", "fourth\n")
    put(two, "/etc/reconciler/ca.pem", good, "0644")
    sync(two)
    recovers(two, "SourceFresh")


def test_a_wrong_password_is_told_and_not_shown(server: Server, hosts: list[BootedHost]) -> None:
    three = hosts[2]
    server.password = "ci:another"
    try:
        code, said = sync(three)
    finally:
        server.password = SECRET
    assert code == 5
    assert "wants other credentials" in said
    assert TOKEN not in said
    sync(three)
    recovers(three, "SourceFresh")
