"""Edited files on a booted host."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared, failed
from hosts.driver import Driver


@pytest.fixture
def declared(host: BootedHost) -> Declared:
    return Declared(host)


def line(path: str, **params: Any) -> dict[str, Any]:
    return {"lineinfile": {"path": path, **params}}


def test_a_line_comes_changes_and_goes(declared: Declared) -> None:
    seen = declared.host.testinfra().file("/etc/environment.conf")
    declared.converge(
        line("/etc/environment.conf", line="A=1", regexp="^A=", create=True, mode="0640")
    )
    assert (seen.content_string, seen.mode) == ("A=1\n", 0o640)
    outcome = declared.converge(line("/etc/environment.conf", line="A=2", regexp="^A="))
    assert outcome.changes("lineinfile:/etc/environment.conf#^A=") == {"line": ("A=1", "A=2")}
    assert (seen.content_string, seen.mode) == ("A=2\n", 0o640)
    declared.converge(line("/etc/environment.conf", regexp="^A=", state="absent"))
    assert seen.content_string == ""


def test_sshd_is_configured_checked_and_reloaded_once(declared: Declared) -> None:
    path = "/etc/ssh/sshd_config"
    check = {"validate": "/usr/sbin/sshd -t -f %s"}
    edits = {
        "^#?PasswordAuthentication": "PasswordAuthentication no",
        "^#?PermitRootLogin": "PermitRootLogin prohibit-password",
        "^#?X11Forwarding": "X11Forwarding no",
    }
    resources = [
        {**line(path, regexp=regexp, line=text, **check), "notify": "reload ssh"}
        for regexp, text in edits.items()
    ]
    handlers = [{"name": "reload ssh", "command": {"cmd": "systemctl reload ssh"}}]
    outcome = declared.converge(*resources, handlers=handlers)
    assert "handler:reload ssh" in outcome.changed
    content = declared.host.testinfra().file(path).content_string
    for text in edits.values():
        assert content.count(f"\n{text}\n") == 1
    _, done = declared.attempt(line(path, regexp="^#?Port ", line="Port nonsense", **check))
    assert "nothing was changed" in next(iter(failed(done).values()))
    assert "nonsense" not in declared.host.testinfra().file(path).content_string


def test_many_edits_of_one_file_are_one_write(declared: Declared) -> None:
    declared.host.run(["sh", "-c", "seq 1 100 > /etc/numbers"])
    before = declared.host.run(["stat", "-c", "%i", "/etc/numbers"]).stdout
    outcome = declared.converge(
        *(line("/etc/numbers", regexp=f"^{n}(=.*)?$", line=f"{n}={n}") for n in range(1, 101))
    )
    assert len(outcome.changed) == 100
    content = declared.host.testinfra().file("/etc/numbers").content_string
    assert content == "".join(f"{n}={n}\n" for n in range(1, 101))
    assert declared.host.run(["stat", "-c", "%i", "/etc/numbers"]).stdout != before


def test_a_file_that_an_earlier_resource_brings_is_edited_in_the_same_run(
    declared: Declared,
) -> None:
    declared.converge(
        line("/srv/brought/conf", line="b"),
        {"file": {"path": "/srv/brought", "state": "directory"}},
        {"file": {"path": "/srv/brought/conf", "state": "touch"}},
    )
    assert declared.host.testinfra().file("/srv/brought/conf").content_string == "b\n"


def test_two_wishes_for_one_line_are_an_error_that_names_both(declared: Declared) -> None:
    one = line("/etc/numbers", regexp="^A=", line="A=1")
    other = line("/etc/numbers", regexp="^A=", line="A=2")
    with pytest.raises(AssertionError, match=r"site\.yml:1:"):
        declared.attempt(one, other)


def test_it_works_with_the_oldest_python(bullseye_host: BootedHost) -> None:
    driver = Driver(bullseye_host)
    bullseye_host.run(["sh", "-c", "printf 'x=1\\r\\ncaf\\351\\r\\n' > /etc/conf"])
    edit = ("lineinfile", {"path": "/etc/conf", "regexp": "^x=", "line": "x=2"})
    assert driver.apply(edit).clean
    assert driver.plan(edit).in_sync
    assert bullseye_host.testinfra().file("/etc/conf").content == b"x=2\r\ncaf\xe9\r\n"
    slow = ("lineinfile", {"path": "/etc/slow", "regexp": "^(a+)+$", "line": "b"})
    bullseye_host.run(["tee", "/etc/slow"], input="a" * 60 + "!\n")
    assert driver.plan(slow).plan[0]["error"] == "TimedOut"
