# ruff: noqa: S604  `shell` is the login shell of a user
"""Users on a booted host, checked by testinfra."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared, failed
from hosts.driver import Driver

#: `openssl passwd -6 -salt salt first`, and the same of `second`.
FIRST = (
    "$6$salt$VHdcM1/tHJSQKtkWtnD1AXLLdGvUJLbRbkyI3tRjJEjxIFgIZNwlEuDa1vWSbMQ5VZ8WBSZrkqHs3.v6vX6Rm0"
)
SECOND = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"


@pytest.fixture
def declared(host: BootedHost) -> Declared:
    return Declared(host)


def user(name: str, **params: Any) -> dict[str, Any]:
    return {"user": {"name": name, **params}}


def test_a_user_comes_changes_and_goes(declared: Declared) -> None:
    host = declared.host.testinfra()
    declared.converge(
        user("ann", uid=2001, shell="/bin/bash", comment="Ann", password=FIRST, groups=["adm"])
    )
    seen = host.user("ann")
    assert (seen.uid, seen.shell, seen.gecos, seen.home) == (2001, "/bin/bash", "Ann", "/home/ann")
    assert (seen.group, sorted(seen.groups), seen.password) == ("ann", ["adm", "ann"], FIRST)
    assert host.file("/home/ann/.profile").user == "ann"
    outcome = declared.converge(
        user(
            "ann", uid=2002, shell="/bin/sh", comment="Ann Other", password=SECOND, groups=["sudo"],
            home="/srv/ann", move_home=True, expires=1893456000, password_expire_max=90,
        )
    )  # fmt: skip
    assert set(outcome.changes("user:ann")) == {
        "uid", "shell", "comment", "password", "groups", "home", "expires", "password_expire_max",
    }  # fmt: skip
    assert (seen.uid, seen.shell, seen.gecos, seen.home) == (
        2002,
        "/bin/sh",
        "Ann Other",
        "/srv/ann",
    )
    assert (sorted(seen.groups), seen.password) == (["ann", "sudo"], SECOND)
    assert seen.expiration_date.strftime("%Y-%m-%d") == "2030-01-01"
    assert host.file("/srv/ann/.profile").uid == 2002
    assert not host.file("/home/ann").exists
    declared.converge(user("ann", state="absent"))
    assert not host.user("ann").exists
    assert host.file("/srv/ann").exists


def test_its_files_go_only_if_that_is_declared(declared: Declared) -> None:
    declared.converge(user("bob"))
    declared.converge(user("bob", state="absent", remove=True))
    assert not declared.host.testinfra().file("/home/bob").exists


def test_groups_are_exact_or_added_to(declared: Declared) -> None:
    seen = declared.host.testinfra().user("eve")
    declared.converge(user("eve", groups=["adm", "sudo"]))
    declared.converge(user("eve", groups=["dialout"], append=True))
    assert sorted(seen.groups) == ["adm", "dialout", "eve", "sudo"]
    declared.converge(user("eve", groups=["adm"]))
    assert sorted(seen.groups) == ["adm", "eve"]
    declared.converge(user("eve", groups=[]))
    assert seen.groups == ["eve"]


def test_a_user_with_groups_that_the_same_run_makes(declared: Declared) -> None:
    outcome = declared.converge(
        user("kim", group="crew", groups=["extra"]),
        {"group": {"name": "crew", "gid": 3001}},
        {"group": {"name": "extra"}},
        {"group": {"name": "lee", "gid": 3900}},
        user("lee"),
    )
    assert list(outcome.done)[:2] == ["group:crew", "group:extra"]
    host = declared.host.testinfra()
    assert (host.user("kim").group, sorted(host.user("kim").groups)) == ("crew", ["crew", "extra"])
    assert host.user("lee").gid == 3900
    declared.converge(
        {"group": {"name": "crew", "state": "absent"}},
        user("kim", group="crew", state="absent"),
    )
    assert not host.group("crew").exists


def test_a_password_is_locked_and_unlocked_and_kept(declared: Declared) -> None:
    seen = declared.host.testinfra().user("pat")
    declared.converge(user("pat", password=FIRST, password_lock=True))
    assert seen.password == f"!{FIRST}"
    declared.converge(user("pat", password_lock=False))
    assert seen.password == FIRST
    declared.converge(user("pat", password="!"))
    assert seen.password == "!"
    declared.converge(user("pat", password=SECOND, update_password="on_create"))
    assert seen.password == "!"


def test_a_hash_is_never_in_argv_or_the_report_or_the_ledger(
    declared: Declared, host: BootedHost
) -> None:
    watch = (
        "import glob, sys, time\n"
        "found, end = 0, time.monotonic() + 20\n"
        "open('/run/watching', 'w').close()\n"
        "while time.monotonic() < end and not glob.glob('/run/stop'):\n"
        "    for name in glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/[0-9]*/environ'):\n"
        "        try:\n"
        "            found += sys.argv[1].encode() in open(name, 'rb').read() and 'watch' not in name\n"
        "        except OSError:\n"
        "            pass\n"
        "print(found)\n"
    )
    host.run(["tee", "/run/watch.py"], input=watch)
    marker = SECOND[20:40]
    half = len(marker) // 2
    # The watcher must not find itself.
    start = f"python3 -c \"import sys; sys.argv = ['', '{marker[:half]}' + '{marker[half:]}']; exec(open('/run/watch.py').read())\""
    host.run(["sh", "-c", f"rm -f /run/stop; ({start}) > /run/found 2>&1 &"])
    for _ in range(100):
        if host.run(["test", "-e", "/run/watching"], check=False).returncode == 0:
            break
        time.sleep(0.05)
    outcome = declared.converge(user("sam", password=SECOND))
    declared.converge(user("sam", password=FIRST))
    host.run(["sh", "-c", "touch /run/stop; sleep 0.5"])
    assert host.run(["cat", "/run/found"]).stdout.strip() == "0"
    assert marker not in str(outcome)
    stored = host.run(
        ["grep", "-rlaF", marker, "/var/lib/reconciler", "/run/reconciler", "/var/log"], check=False
    )
    assert stored.stdout == ""


def test_a_plain_password_is_refused_before_anything_is_made(declared: Declared) -> None:
    planned, done = declared.attempt(user("tim", password="hunter2"))
    for document in (planned, done):
        assert "is not a hash" in failed(document)["user:tim"]
        assert "hunter2" not in str(document)
    assert not declared.host.testinfra().user("tim").exists


def test_a_user_with_running_processes_is_a_clear_error(declared: Declared) -> None:
    declared.converge(user("busy", uid=2100))
    declared.host.run(["systemd-run", "--uid=busy", "--unit=busy", "sleep", "600"])
    _, done = declared.attempt(user("busy", uid=2101))
    reason = failed(done)["user:busy"]
    assert "usermod refuses to change user 'busy'" in reason
    assert "currently used by process" in reason
    declared.host.run(["systemctl", "stop", "busy"])
    declared.converge(user("busy", uid=2101))


def test_a_home_that_is_missing_is_made_again_like_a_new_one(declared: Declared) -> None:
    declared.converge(user("ned"))
    declared.host.run(["cp", "-a", "/home/ned", "/root/as-useradd-made-it"])
    declared.host.run(["rm", "-r", "/home/ned"])
    outcome = declared.converge(user("ned"))
    assert outcome.changes("user:ned") == {"create_home": (False, True)}
    listing = "cd $0 && find . -printf '%P %M %U %G\\n' | sort && cat .profile"
    made = declared.host.run(["sh", "-c", listing, "/home/ned"]).stdout
    assert made == declared.host.run(["sh", "-c", listing, "/root/as-useradd-made-it"]).stdout


def test_a_system_user_without_a_home(declared: Declared) -> None:
    declared.converge(
        user("svc", system=True, create_home=False, shell="/usr/sbin/nologin", home="/nonexistent")
    )
    seen = declared.host.testinfra().user("svc")
    assert seen.uid < 1000
    assert not declared.host.testinfra().file("/nonexistent").exists


def test_a_key_is_the_users_own(declared: Declared) -> None:
    declared.converge(
        user("key", generate_ssh_key=True, ssh_key_type="ed25519", ssh_key_comment="hi")
    )
    host = declared.host.testinfra()
    assert host.file("/home/key/.ssh/id_ed25519").mode == 0o600
    assert host.file("/home/key/.ssh/id_ed25519").user == "key"
    assert host.file("/home/key/.ssh/id_ed25519.pub").content_string.endswith(" hi\n")


def test_it_works_with_the_oldest_python(bullseye_host: BootedHost) -> None:
    driver = Driver(bullseye_host)
    wishes = [
        ("group", {"name": "crew", "gid": 3001}),
        (
            "user",
            {"name": "ann", "group": "root", "groups": ["adm"], "password": FIRST, "expires": 0.0},
        ),
    ]
    assert driver.apply(*wishes).clean
    assert driver.plan(*wishes).in_sync
    assert bullseye_host.testinfra().user("ann").password == FIRST
    change = (
        "user",
        {"name": "ann", "groups": [], "password": SECOND, "expires": -1.0, "uid": 2500},
    )
    assert driver.apply(change).clean
    assert driver.apply(("user", {"name": "ann", "state": "absent", "remove": True})).clean
