"""Files on a booted host, from absent to present to changed to absent."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import REPO, Declared, failed
from hosts.snapshot import differences


@pytest.fixture
def declared(host: BootedHost) -> Declared:
    return Declared(host)


def file(path: str, **params: Any) -> dict[str, Any]:
    return {"file": {"path": path, **params}}


def copy(path: str, content: str, **params: Any) -> dict[str, Any]:
    return {"copy": {"dest": path, "content": content, **params}}


def test_content_comes_changes_and_goes(declared: Declared) -> None:
    seen = declared.host.testinfra().file("/etc/story")
    declared.converge(copy("/etc/story", "once\n", mode="0640", owner="root", group="adm"))
    assert (seen.content_string, seen.mode, seen.user, seen.group) == (
        "once\n",
        0o640,
        "root",
        "adm",
    )
    outcome = declared.converge(
        copy("/etc/story", "twice\n", mode="0600", owner="daemon", group="adm")
    )
    assert set(outcome.changes("file:/etc/story")) == {"content", "mode", "owner"}
    assert "-once" in outcome.done["file:/etc/story"]["diff"]
    assert "+twice" in outcome.done["file:/etc/story"]["diff"]
    assert (seen.content_string, seen.mode, seen.user) == ("twice\n", 0o600, "daemon")
    declared.converge(file("/etc/story", state="absent"))
    assert not seen.exists


def test_directories_links_and_what_is_below_them(declared: Declared) -> None:
    host = declared.host.testinfra()
    tree = file("/srv/app", state="directory", owner="daemon", mode="u=rwX,g=rX,o=", recurse=True)
    declared.host.run(
        [
            "sh",
            "-c",
            "mkdir -p /srv/app/bin; touch /srv/app/data; install -m 777 /dev/null /srv/app/bin/run",
        ]
    )
    declared.converge(tree, file("/srv/current", state="link", src="app/bin"))
    assert host.file("/srv/app/data").mode == 0o640
    assert host.file("/srv/app/bin/run").mode == 0o750
    assert host.file("/srv/app/bin/run").user == "daemon"
    assert host.file("/srv/current").linked_to == "/srv/app/bin"
    declared.converge(file("/srv/current", state="link", src="app"))
    assert host.file("/srv/current").linked_to == "/srv/app"
    declared.converge(file("/srv/current", state="absent"), file("/srv/app", state="absent"))
    assert not host.file("/srv/app").exists
    assert not host.file("/srv/current").exists


def test_files_with_their_owner_and_directory_on_a_host_that_has_neither(
    declared: Declared,
) -> None:
    outcome = declared.converge(
        copy("/srv/new/deep/conf", "x\n", owner="fresh", group="fresh"),
        file("/srv/new/deep", state="directory", owner="fresh"),
        file("/srv/new", state="directory"),
        {"user": {"name": "fresh", "create_home": False}},
    )
    assert list(outcome.done) == [
        "file:/srv/new", "user:fresh", "file:/srv/new/deep", "file:/srv/new/deep/conf",
    ]  # fmt: skip
    assert declared.host.testinfra().file("/srv/new/deep/conf").user == "fresh"


def test_sudoers_that_visudo_refuses_are_not_installed(declared: Declared) -> None:
    good = copy("/etc/sudoers.d/ops", "root ALL=(ALL) ALL\n", mode="0440", validate="visudo -cf %s")
    declared.converge(good)
    bad = copy("/etc/sudoers.d/ops", "nonsense\n", mode="0440", validate="visudo -cf %s")
    _, done = declared.attempt(bad, copy("/etc/other", "goes on\n"))
    assert "refused by 'visudo -cf %s'" in failed(done)["file:/etc/sudoers.d/ops"]
    host = declared.host.testinfra()
    assert host.file("/etc/sudoers.d/ops").content_string == "root ALL=(ALL) ALL\n"
    assert host.file("/etc/other").exists
    listed = declared.host.run(["ls", "-A", "/etc/sudoers.d"]).stdout.split()
    assert [name for name in listed if ".rec-" in name] == []


def test_acls_and_attributes_of_a_replaced_file_stay(declared: Declared) -> None:
    declared.host.run(["sh", "-c", "echo old > /etc/acl"])
    mark = "import os; os.setxattr('/etc/acl', 'user.note', b'kept')"
    declared.host.run(["python3", "-c", mark])
    declared.converge(copy("/etc/acl", "new\n"))
    look = "import os; print(os.getxattr('/etc/acl', 'user.note').decode())"
    assert declared.host.run(["python3", "-c", look]).stdout == "kept\n"


def test_a_plan_leaves_no_trace(declared: Declared) -> None:
    declared.converge(copy("/etc/story", "x\n"))
    wishes = [
        copy("/etc/story", "y\n"),
        file("/srv/not", state="directory"),
        file("/etc/hostname", mode="0600"),
    ]
    declared.write(*wishes)
    declared.host.reconciler("plan", "-C", REPO, "--local")
    before = declared.host.snapshot()
    declared.host.reconciler("plan", "-C", REPO, "--local")
    changed = differences(before, declared.host.snapshot())
    # The compiled catalog is kept by whoever plans, who here is on the host as well.
    assert [path for path in changed if not path.startswith("/root/.cache/reconciler/")] == []
