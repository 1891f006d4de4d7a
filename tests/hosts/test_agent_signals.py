"""What signals do to an agent on a booted host, and what becomes of one that is stuck."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hosts.agents import INVENTORY, StateRepo, in_sync_at, main_pid, status, wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOSTS = "all:\n  hosts:\n    signalled:\n"
SITE = """\
- hosts: all
  resources:
    - name: the message of the day
      copy: {dest: /etc/motd, content: "hello\\n"}
"""
#: A run that is at work until somebody makes /run/go, and says that it was.
LONG = (
    SITE
    + """\
    - name: takes its time
      command: {cmd: sh -c "touch /run/begun; until test -e /run/go; do sleep 0.1; done; touch /run/ended", creates: /run/ended}
    - name: comes after that
      copy: {dest: /etc/after, content: "after\\n"}
"""
)


@pytest.fixture(scope="module")
def world(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StateRepo, BootedHost]]:
    with lab.lend("source", "signalled") as (hub, host):
        repo = StateRepo(lab, hub, tmp_path_factory.mktemp("state"))
        commit = repo.commit({"site.yml": SITE, INVENTORY: HOSTS})
        repo.enrol(host)
        # Nothing happens by itself while the tests look.
        repo.install(host, "--interval", "1h")
        wait_for(in_sync_at(host, commit), "converging", host)
        yield repo, host


@pytest.fixture
def repo(world: tuple[StateRepo, BootedHost]) -> StateRepo:
    return world[0]


@pytest.fixture
def host(world: tuple[StateRepo, BootedHost]) -> Iterator[BootedHost]:
    """In sync, idle, and again so afterwards."""
    repo, host = world
    host.run(["sh", "-c", "rm -f /run/begun /run/go /run/ended /etc/after"])
    host.run(["systemctl", "start", "reconciler-agent"])
    idle(host)
    yield host
    host.run(["touch", "/run/go"])
    commit = repo.commit({"site.yml": SITE})
    host.run(["systemctl", "start", "reconciler-agent"])
    idle(host)
    send(host, "USR1")
    wait_for(in_sync_at(host, commit), "coming back", host)


def send(host: BootedHost, name: str) -> None:
    host.run(["systemctl", "kill", "--kill-who=main", "-s", name, "reconciler-agent"])


#: What an agent may be in when no run is at work.
RESTS = ("idle", "degraded", "suspended")


def idle(host: BootedHost) -> None:
    wait_for(lambda: status(host)["state"] in RESTS, "being idle", host)


def exists(host: BootedHost, path: str) -> bool:
    return host.run(["test", "-e", path], check=False).returncode == 0


def ready(host: BootedHost) -> str:
    """Why the agent is ready, or is not."""
    found = {one["type"]: one["reason"] for one in status(host)["conditions"]}
    return str(found["Ready"])


def journal(host: BootedHost, since: str) -> str:
    unit = ["journalctl", "-o", "cat", "--no-pager", "-u", "reconciler-agent"]
    return host.run([*unit, f"--since={since}"]).stdout


def now(host: BootedHost) -> str:
    return host.run(["date", "+%Y-%m-%d %H:%M:%S.%6N"]).stdout.strip()


def begin_a_long_run(repo: StateRepo, host: BootedHost) -> str:
    commit = repo.commit({"site.yml": LONG})
    send(host, "USR1")
    wait_for(lambda: exists(host, "/run/begun"), "beginning", host)
    return commit


def test_usr1_fetches_and_converges_at_once(repo: StateRepo, host: BootedHost) -> None:
    commit = repo.commit({"site.yml": SITE.replace("hello", "good morning")})
    send(host, "USR1")
    wait_for(in_sync_at(host, commit), "following the commit", host)


def test_usr2_sweeps_without_asking_any_remote(repo: StateRepo, host: BootedHost) -> None:
    commit = repo.commit({"site.yml": SITE.replace("hello", "good evening")})
    before = status(host)["last_run"]["started"]
    send(host, "USR2")
    wait_for(lambda: status(host)["last_run"]["started"] > before, "sweeping", host)
    assert status(host)["last_run"]["kind"] == "sweep"
    assert status(host)["source"]["trusted"]["commit"] != commit


def test_hup_reads_the_settings_again_and_keeps_the_run(repo: StateRepo, host: BootedHost) -> None:
    agent = main_pid(host)
    commit = begin_a_long_run(repo, host)
    since = now(host)
    host.run(["sed", "-i", "s/^interval:.*/interval: 30m/", "/etc/reconciler/agent.yml"])
    host.run(["systemctl", "reload", "reconciler-agent"])
    wait_for(lambda: "settings read again" in journal(host, since), "reading", host)
    assert not exists(host, "/run/ended")
    host.run(["touch", "/run/go"])
    wait_for(in_sync_at(host, commit), "ending the run", host)
    assert main_pid(host) == agent


def test_settings_that_cannot_be_used_leave_those_that_were(host: BootedHost) -> None:
    agent, since = main_pid(host), now(host)
    host.run(["cp", "/etc/reconciler/agent.yml", "/root/agent.yml"])
    host.run(["sh", "-c", "echo 'intervall: 5s' >> /etc/reconciler/agent.yml"])
    host.run(["systemctl", "reload", "reconciler-agent"])
    wait_for(lambda: "the settings stay as they were" in journal(host, since), "refusing", host)
    assert main_pid(host) == agent
    # A start finds them as they are, heals all the same, and says so until they are mended.
    host.run(["rm", "/etc/motd"])
    host.run(["systemctl", "restart", "reconciler-agent"])
    wait_for(lambda: exists(host, "/etc/motd"), "healing", host)
    wait_for(lambda: ready(host) == "BadSettings", "saying so", host)
    host.run(["cp", "/root/agent.yml", "/etc/reconciler/agent.yml"])
    send(host, "USR2")
    wait_for(lambda: ready(host) == "Ready", "reading what is mended", host)


def test_term_ends_after_the_resource_at_work_and_the_next_start_goes_on(
    repo: StateRepo, host: BootedHost
) -> None:
    before = status(host)["source"]["applied"]["commit"]
    commit = begin_a_long_run(repo, host)
    send(host, "TERM")
    wait_for(lambda: status(host)["state"] == "stopping", "stopping", host)
    time.sleep(1)
    assert main_pid(host) != "0"
    host.run(["touch", "/run/go"])
    wait_for(lambda: main_pid(host) == "0", "ending", host)
    assert exists(host, "/run/ended")
    assert not exists(host, "/etc/after")
    # The run did not come to its end, so this is not what healing goes by.
    assert status(host)["source"]["applied"]["commit"] == before
    assert status(host)["source"]["candidate"]["commit"] == commit
    host.run(["systemctl", "start", "reconciler-agent"])
    wait_for(in_sync_at(host, commit), "going on", host)
    assert exists(host, "/etc/after")


def test_a_second_term_does_not_wait_for_the_run(repo: StateRepo, host: BootedHost) -> None:
    commit = begin_a_long_run(repo, host)
    send(host, "TERM")
    wait_for(lambda: status(host)["state"] == "stopping", "stopping", host)
    send(host, "TERM")
    wait_for(lambda: main_pid(host) == "0", "ending", host, 10)
    assert not exists(host, "/run/ended")
    host.run(["touch", "/run/go"])
    host.run(["systemctl", "start", "reconciler-agent"])
    wait_for(in_sync_at(host, commit), "going on", host)


def test_a_suspension_ends_the_run_at_work_after_its_resource(
    repo: StateRepo, host: BootedHost
) -> None:
    commit, since = begin_a_long_run(repo, host), now(host)
    host.reconciler("agent", "suspend", "--reason", "TICKET-7")
    wait_for(lambda: "suspended by" in journal(host, since), "hearing of it", host)
    try:
        assert not exists(host, "/run/ended")
        host.run(["touch", "/run/go"])
        idle(host)
        assert exists(host, "/run/ended")
        time.sleep(1)
        assert not exists(host, "/etc/after")
        assert status(host)["source"]["candidate"]["held_by"] == "Suspended"
        assert ready(host) == "Ready"
    finally:
        host.reconciler("agent", "resume")
    wait_for(in_sync_at(host, commit), "going on", host)
    assert exists(host, "/etc/after")


def test_a_run_at_work_makes_way_for_a_newer_commit(repo: StateRepo, host: BootedHost) -> None:
    begin_a_long_run(repo, host)
    since = now(host)
    newer = repo.commit({"site.yml": SITE})
    send(host, "USR1")
    wait_for(lambda: "there is a newer commit" in journal(host, since), "seeing it", host)
    host.run(["touch", "/run/go"])
    wait_for(in_sync_at(host, newer), "following it", host)
    assert exists(host, "/run/ended")
    assert not exists(host, "/etc/after")


def test_a_second_agent_is_refused(host: BootedHost) -> None:
    done = host.reconciler("agent", "run", check=False)
    assert done.returncode == 9
    assert "an agent is at work on this host already" in done.stderr
    assert main_pid(host) != "0"


def test_quit_says_where_it_is_and_goes_on(host: BootedHost) -> None:
    agent, since = main_pid(host), now(host)
    send(host, "QUIT")
    wait_for(lambda: "supervisor.py" in journal(host, since), "saying where it is", host)
    assert main_pid(host) == agent
    host.run(["rm", "/etc/motd"])
    wait_for(lambda: exists(host, "/etc/motd"), "healing", host)


def test_an_agent_that_is_stuck_is_started_again_by_systemd(host: BootedHost) -> None:
    host.run(["mkdir", "-p", "/etc/systemd/system/reconciler-agent.service.d"])
    drop_in = "/etc/systemd/system/reconciler-agent.service.d/quick.conf"
    host.run(["tee", drop_in], input="[Service]\nWatchdogSec=4\nRestartSec=1\n")
    try:
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "restart", "reconciler-agent"])
        agent = main_pid(host)
        # Fed in time, it lives for more than two of its watchdog's times.
        time.sleep(9)
        assert main_pid(host) == agent
        send(host, "STOP")
        wait_for(lambda: main_pid(host) not in (agent, "0"), "being started again", host, 30)
        host.run(["rm", "/etc/motd"])
        wait_for(lambda: exists(host, "/etc/motd"), "healing", host)
    finally:
        host.run(["rm", drop_in])
        host.run(["systemctl", "daemon-reload"])
        host.run(["systemctl", "restart", "reconciler-agent"])


def test_an_agent_whose_run_is_killed_says_so_and_tries_again(
    repo: StateRepo, host: BootedHost
) -> None:
    commit = begin_a_long_run(repo, host)
    children = host.run(
        ["cat", f"/proc/{main_pid(host)}/task/{main_pid(host)}/children"]
    ).stdout.split()
    host.run(["kill", "-KILL", *children])
    wait_for(lambda: "run" in str(status(host)["conditions"]), "saying so", host)
    host.run(["touch", "/run/go"])
    wait_for(in_sync_at(host, commit), "trying again", host)
