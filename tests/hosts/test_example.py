"""The example web server, converged on a booted host and checked by others' code.

The host lives for the whole file: its tests follow each other, as runs do.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.snapshot import differences

EXAMPLE = Path(__file__).parents[2] / "examples/webserver"
REPO = "/srv/state"
HERE = ("-C", REPO, "--local")


@pytest.fixture(scope="module")
def web(host: BootedHost) -> BootedHost:
    """A host with the example as a state repo of one commit."""
    host.copy(EXAMPLE, REPO)
    host.run(["git", "init", "-q", REPO])
    host.run(["git", "-C", REPO, "add", "."])
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.test"]
    host.run(["git", "-C", REPO, *identity, "commit", "-qm", "a web server"])
    return host


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout)


def ids(document: dict[str, Any], *statuses: str) -> set[str]:
    return {one["id"] for one in document["results"] if one["status"] in statuses}


def processes(host: BootedHost) -> set[str]:
    """The programs that run, but for kernel threads and what looking itself starts."""
    lines = host.run(["ps", "-eo", "ppid=,args="]).stdout.splitlines()
    ours = ("sshd:", "ps ", "(sd-pam)", "/lib/systemd/systemd --user")
    return {
        args
        for _, _, args in (line.strip().partition(" ") for line in lines)
        if not args.strip().startswith(ours)
    }


def test_a_dry_run_leaves_files_and_processes_as_they_are(web: BootedHost) -> None:
    before, running = web.snapshot(), processes(web)
    done = web.reconciler("plan", *HERE, "--detailed-exitcode", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert differences(before, web.snapshot()) == {}
    assert processes(web) == running


def test_the_first_apply_does_what_plan_said_and_serves_the_site(web: BootedHost) -> None:
    plan = document(web.reconciler("plan", *HERE, "--json"))
    assert len(plan["results"]) >= 60
    assert not ids(plan, "failed", "blocked")
    report = document(web.reconciler("apply", *HERE, "--json"))
    assert not ids(report, "failed", "blocked")
    promised = ids(plan, "pending", "unknown")
    assert ids(plan, "pending") <= ids(report, "changed") <= promised
    assert ids(plan, "owed") <= ids(report, "notified") <= ids(plan, "owed", "unknown")
    page = web.run(["curl", "--silent", "--fail", "http://127.0.0.1/about.html"]).stdout
    assert "<h1>About</h1>" in page


def test_the_second_run_changes_nothing(web: BootedHost) -> None:
    before = web.snapshot()
    done = web.reconciler("apply", *HERE, "--detailed-exitcode")
    assert "0 changes" in done.stdout
    state = "/var/lib/reconciler"
    assert [
        one for one in differences(before, web.snapshot()) if not str(one).startswith(state)
    ] == []
    assert web.reconciler("plan", *HERE, "--detailed-exitcode").returncode == 0


def test_the_machine_is_what_the_example_says(web: BootedHost) -> None:
    machine = web.testinfra()
    assert machine.package("nginx-light").is_installed
    for name in ("nginx", "cron", "ssh"):
        assert machine.service(name).is_running
        assert machine.service(name).is_enabled
    ada = machine.user("ada")
    assert (ada.uid, ada.shell, ada.home) == (3101, "/bin/bash", "/home/ada")
    assert {"deploy", "oncall"} <= set(ada.groups)
    keys = machine.file("/home/ada/.ssh/authorized_keys")
    assert (keys.user, keys.group, keys.mode) == ("ada", "ada", 0o600)
    sudoers = machine.file("/etc/sudoers.d/60-deploy")
    assert (sudoers.user, sudoers.mode) == ("root", 0o440)
    assert machine.run("visudo -c").rc == 0
    assert machine.run("sshd -T").stdout.count("maxauthtries 4") == 1
    assert (
        machine.file("/etc/nginx/sites-enabled/main.conf").linked_to
        == "/etc/nginx/sites-available/main.conf"
    )
    assert not machine.file("/etc/nginx/sites-enabled/default").exists
    assert "vm.swappiness = 10" in machine.file("/etc/sysctl.d/60-web.conf").content_string
    assert machine.run("crontab -l").stdout.count("/site/disk-report >>") == 1
    assert machine.file("/etc/cron.d/site-uploads").contains("@daily root find /var/tmp/uploads")
    assert machine.socket("tcp://0.0.0.0:8080").is_listening


def test_drift_is_named_healed_and_remembered_as_such(web: BootedHost) -> None:
    web.run(["sh", "-c", "echo mine > /etc/motd; systemctl stop nginx; userdel grace"])
    plan = document(web.reconciler("plan", *HERE, "--json"))
    moved = {"file:/etc/motd", "service:nginx", "user:grace"}
    assert moved <= ids(plan, "pending")
    report = document(web.reconciler("apply", *HERE, "--json"))
    assert ids(report, "changed") == ids(plan, "pending")
    assert {one["cause"] for one in report["results"] if one["id"] in moved} == {"corrective"}
    assert "0 changes" in web.reconciler("plan", *HERE).stdout
    history = web.reconciler("history", "--json").stdout
    assert "corrective" in history


def test_why_names_the_line_and_the_commit(web: BootedHost) -> None:
    said = web.reconciler("why", "file:/etc/motd", "-C", REPO).stdout
    assert "roles/base/main.yml:" in said
    assert "Ada" in said
    assert "a web server" in said


def test_a_broken_change_is_refused_and_the_site_stays_up(web: BootedHost) -> None:
    broken = f"{REPO}/roles/accounts/templates/sudoers.j2"
    web.run(["sh", "-c", f"echo 'this is no sudoers' >> {broken}"])
    done = web.reconciler("apply", *HERE, check=False)
    assert done.returncode == 4
    assert "visudo" in done.stdout
    assert web.run(["visudo", "-c"]).returncode == 0
    web.run(["git", "-C", REPO, "checkout", "-q", "."])
    assert "0 changes" in web.reconciler("apply", *HERE).stdout
