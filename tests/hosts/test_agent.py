"""Agents on booted hosts, installed by `agent install`, that follow a Git server over ssh."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.agents import (
    INVENTORY,
    StateRepo,
    conditions,
    footprint,
    in_sync_at,
    main_pid,
    status,
    text,
    wait_for,
    woken,
)
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOSTS = "all:\n  hosts:\n    one:\n    two:\n    three:\n"
SITE = """\
- hosts: all
  resources:
    - name: the message of the day
      copy: {dest: /etc/motd, content: "hello from {{ inventory_hostname }}\\n", mode: "0644"}
    - name: a directory
      file: {path: /srv/app, state: directory, mode: "0750"}
    - name: somebody decides by hand
      drift: warn
      copy: {dest: /etc/by-hand, content: "a\\n"}
"""
GUEST = """\
    - name: a guest
      prune: restore
      copy: {dest: /etc/guest, content: "ours\\n"}
"""


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[list[BootedHost]]:
    with lab.lend("forge", "one", "two", "three") as found:
        yield found


@pytest.fixture(scope="module")
def repo(lab: Lab, hosts: list[BootedHost], tmp_path_factory: pytest.TempPathFactory) -> StateRepo:
    made = StateRepo(lab, hosts[0], tmp_path_factory.mktemp("state"))
    made.commit({"site.yml": SITE, INVENTORY: HOSTS})
    for host in hosts[1:]:
        made.enrol(host)
        made.install(host)
    return made


@pytest.fixture(scope="module")
def agents(repo: StateRepo, hosts: list[BootedHost]) -> list[BootedHost]:
    """Three hosts in sync with the first commit."""
    commit = repo.git("rev-parse", "HEAD")
    for host in hosts[1:]:
        wait_for(in_sync_at(host, commit), "converging the first commit", host)
    return hosts[1:]


@pytest.fixture(scope="module")
def one(agents: list[BootedHost]) -> BootedHost:
    return agents[0]


def test_three_hosts_follow_a_commit_without_a_person(
    repo: StateRepo, agents: list[BootedHost]
) -> None:
    commit = repo.commit({"site.yml": SITE.replace("hello", "good morning")})
    for host in agents:
        wait_for(in_sync_at(host, commit), "converging the commit", host)
        assert text(host, "/etc/motd") == f"good morning from {host.name}\n"


def test_polls_that_bring_nothing_are_settled_without_the_provider(one: BootedHost) -> None:
    assert woken(one, polls=3) == 0


def test_installing_again_changes_nothing(repo: StateRepo, one: BootedHost) -> None:
    assert repo.install(one).strip() == "0 changes"


def test_installing_again_takes_up_what_was_broken_off(repo: StateRepo, one: BootedHost) -> None:
    first = main_pid(one)
    one.run(["touch", "/run/reconciler/installing"])
    assert "started reconciler-agent.service" in repo.install(one)
    assert main_pid(one) != first
    assert repo.install(one).strip() == "0 changes"


def test_the_exposure_of_each_unit_stays_low(one: BootedHost) -> None:
    run = "reconciler-run-0.service"
    one.run(["systemd-run", "--quiet", "--collect", f"--unit={run}", "sleep", "60"])
    for unit, most in (
        ("reconciler-provider@x.service", 1.5),
        ("reconciler-agent.service", 6.5),
        (run, 7.9),  # any package must be installable
    ):
        found = one.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
        assert float(found.rsplit(": ", 1)[1].split()[0]) <= most, unit
    core = one.run(["systemctl", "show", "-P", "LimitCORE", "reconciler-agent", run]).stdout
    one.run(["systemctl", "stop", run])
    assert core.split() == ["0", "0"]


def test_what_is_edited_by_hand_is_put_back_by_the_event(one: BootedHost) -> None:
    good = text(one, "/etc/motd")
    took: list[float] = []
    for change in (
        "echo x > /etc/motd",
        "rm /etc/motd",
        "chmod 0600 /etc/motd",
        "chmod 0777 /srv/app",
    ):
        time.sleep(8)  # or the corrections of one file are taken for a fight, and slowed down
        one.run(["sh", "-c", change])
        look = "stat -c %a /srv/app" if "app" in change else "cat /etc/motd; stat -c %a /etc/motd"
        wanted = "750\n" if "app" in change else f"{good}644\n"
        took.append(
            wait_for(
                lambda command=look, w=wanted: (
                    one.run(["sh", "-c", command], check=False).stdout == w
                ),
                change,
                one,
                20,
            )
        )
    assert min(took) < 2


def test_drift_that_is_only_warned_of_stays_and_is_said(one: BootedHost) -> None:
    one.run(["sh", "-c", "echo mine > /etc/by-hand"])
    wait_for(lambda: "file:/etc/by-hand" in status(one)["drifted"], "noticing the drift", one)
    assert text(one, "/etc/by-hand") == "mine\n"
    assert conditions(one)["InSync"] == "False"
    told = one.reconciler("agent", "status", "--oneline", check=False)
    assert told.returncode == 4
    moved = one.reconciler("drift", "--detailed-exitcode", check=False)
    assert moved.returncode == 2
    assert "file:/etc/by-hand" in moved.stdout
    one.run(["sh", "-c", "echo a > /etc/by-hand"])
    wait_for(lambda: conditions(one)["InSync"] == "True", "noticing that it is back", one)


def test_a_suspended_agent_changes_nothing_and_is_never_green(
    repo: StateRepo, one: BootedHost
) -> None:
    one.reconciler("agent", "suspend", "--for", "1h", "--reason", "TICKET-7")
    one.run(["sh", "-c", "echo mine > /etc/motd"])
    wait_for(lambda: "file:/etc/motd" in status(one)["drifted"], "seeing the drift", one)
    assert text(one, "/etc/motd") == "mine\n"
    assert one.reconciler("agent", "status", check=False).returncode == 7
    commit = repo.commit({"site.yml": SITE.replace("hello", "good evening")})
    wait_for(lambda: status(one)["source"]["trusted"]["commit"] == commit, "seeing the commit", one)
    assert status(one)["source"]["applied"]["commit"] != commit
    one.reboot()
    wait_for(lambda: "Suspended" in conditions(one), "starting after the reboot", one)
    assert conditions(one)["Suspended"] == "True"
    assert text(one, "/etc/motd") == "mine\n"
    one.reconciler("agent", "resume")
    wait_for(in_sync_at(one, commit), "going on", one)
    assert text(one, "/etc/motd") == "good evening from one\n"


def test_a_commit_that_does_not_compile_stops_no_healing(repo: StateRepo, one: BootedHost) -> None:
    good = status(one)["source"]["applied"]["commit"]
    repo.commit({"site.yml": SITE + "    - nonsense: {}\n"})
    wait_for(lambda: conditions(one)["Ready"] == "False", "noticing that it does not compile", one)
    assert status(one)["source"]["applied"]["commit"] == good
    one.run(["sh", "-c", "echo x > /etc/motd"])
    wait_for(lambda: "from one" in text(one, "/etc/motd"), "healing", one)
    fixed = repo.commit({"site.yml": SITE})
    wait_for(in_sync_at(one, fixed), "converging the fix", one)


def test_an_older_commit_is_refused_and_healing_goes_on(repo: StateRepo, one: BootedHost) -> None:
    head = repo.git("rev-parse", "HEAD")
    repo.git("push", "--quiet", "--force", "origin", f"{head}~2:main")
    wait_for(lambda: conditions(one)["Trusted"] == "False", "refusing the older commit", one)
    assert one.reconciler("agent", "status", check=False).returncode == 10
    assert "trust reset" in one.reconciler("agent", "status", check=False).stdout
    one.run(["rm", "/etc/motd"])
    wait_for(lambda: text(one, "/etc/motd") == "hello from one\n", "healing", one)
    repo.push("--force")
    wait_for(lambda: conditions(one)["Trusted"] == "True", "trusting again", one)


def test_a_host_heals_at_boot_though_the_server_is_gone(repo: StateRepo, one: BootedHost) -> None:
    repo.server.run(["systemctl", "stop", "ssh.socket", "ssh"], check=False)
    try:
        one.run(["systemctl", "stop", "reconciler-agent"])
        one.run(["rm", "/etc/motd"])
        one.reboot()
        wait_for(
            lambda: text(one, "/etc/motd") == "hello from one\n", "healing without a server", one
        )
        wait_for(
            lambda: conditions(one)["SourceFresh"] == "False", "saying that it is cut off", one
        )
    finally:
        repo.server.reboot()
    wait_for(lambda: conditions(one)["SourceFresh"] == "True", "fetching again", one, 90)


def test_what_left_git_is_restored_in_the_second_step(repo: StateRepo, one: BootedHost) -> None:
    one.run(["sh", "-c", "echo theirs > /etc/guest"])
    commit = repo.commit({"site.yml": SITE + GUEST})
    wait_for(in_sync_at(one, commit), "converging", one)
    assert text(one, "/etc/guest") == "ours\n"
    commit = repo.commit({"site.yml": SITE})
    wait_for(in_sync_at(one, commit), "converging without it", one)
    assert text(one, "/etc/guest") == "ours\n"
    listed = json.loads(one.reconciler("prune", "--dry-run", "--json").stdout)
    assert [gone["id"] for gone in listed["ready"]] == ["file:/etc/guest"]
    one.reconciler("agent", "sync")
    assert text(one, "/etc/guest") == "theirs\n"


def test_a_killed_agent_comes_back_and_goes_on(one: BootedHost) -> None:
    one.run(["systemctl", "kill", "-s", "KILL", "reconciler-agent"])
    wait_for(
        lambda: (
            one.run(["systemctl", "is-active", "reconciler-agent"], check=False).stdout
            == "active\n"
        ),
        "restart",
        one,
    )
    one.run(["sh", "-c", "echo x > /etc/motd"])
    wait_for(lambda: text(one, "/etc/motd") == "hello from one\n", "healing", one)


def test_idle_it_is_one_small_process(one: BootedHost) -> None:
    pss, threads = footprint(one)
    print(f"PSS {pss} KiB, {threads} threads")
    assert pss <= 20 * 1024
    assert threads <= 8


def test_uninstalling_leaves_what_was_managed(agents: list[BootedHost]) -> None:
    host = agents[2]
    managed = text(host, "/etc/motd")
    assert "from three" in managed
    host.reconciler("agent", "uninstall")
    assert text(host, "/etc/motd") == managed
    drop_ins = ["ls", "/etc/systemd/system/reconciler-run-.service.d"]
    assert host.run(drop_ins, check=False).stdout == ""
    assert host.run(["systemctl", "is-active", "reconciler-agent"], check=False).returncode != 0
    assert not (Path(host.root) / "etc/systemd/system/reconciler-agent.service").exists()
    assert host.reconciler("agent", "uninstall").stdout.strip() == "0 changes"
