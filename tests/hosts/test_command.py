"""Commands on a booted host: guards decide in the plan, and handlers run once."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared, by_id, failed


@pytest.fixture
def declared(host: BootedHost) -> Declared:
    return Declared(host)


def command(cmd: str, **params: Any) -> dict[str, Any]:
    return {"command": {"cmd": cmd, **params}}


def test_it_runs_until_its_guard_holds(declared: Declared) -> None:
    wish = command("mkdir /srv/made", creates="/srv/made")
    outcome = declared.converge(wish)
    assert outcome.planned["command:mkdir /srv/made"]["action"] == "run"
    assert declared.host.testinfra().file("/srv/made").is_directory
    assert declared.converge(wish).changed == set()
    undo = command("rmdir /srv/made", removes="/srv/made")
    declared.converge(undo)
    assert not declared.host.testinfra().file("/srv/made").exists


def test_a_plan_knows_three_answers(declared: Declared) -> None:
    declared.host.run(["rm", "-f", "/usr/local/bin/tool"])
    planned, done = declared.attempt(
        command("true", unless="true"),
        command("touch /srv/run", creates="/srv/run"),
        {
            "copy": {
                "dest": "/usr/local/bin/tool",
                "content": '#!/bin/sh\ntest -e /srv/tooled || { test "$1" = do && touch /srv/tooled; }\n',
                "mode": "0755",
            }
        },
        command("/usr/local/bin/tool do", unless="/usr/local/bin/tool"),
    )
    assert [one["status"] for one in by_id(planned).values()] == [
        "ok",
        "pending",
        "pending",
        "unknown",
    ]
    assert not failed(done)
    assert declared.host.testinfra().file("/srv/tooled").exists


def test_a_command_that_does_not_bring_what_its_guard_wants_fails(declared: Declared) -> None:
    _, done = declared.attempt(command("true", creates="/srv/never"))
    assert "true went through, but /srv/never still does not exist" in failed(done)["command:true"]


def test_a_handler_runs_once_for_many_changes_and_not_without_one(declared: Declared) -> None:
    handlers = [{"name": "count", "command": {"argv": ["sh", "-c", "echo x >> /srv/count"]}}]
    resources = [
        {"file": {"path": f"/srv/part{number}", "state": "touch"}, "notify": "count"}
        for number in range(5)
    ]
    outcome = declared.converge(*resources, handlers=handlers)
    assert "handler:count" in outcome.changed
    assert declared.host.testinfra().file("/srv/count").content_string == "x\n"


def test_it_runs_as_a_user_in_a_directory_with_an_environment(declared: Declared) -> None:
    declared.converge(
        {"user": {"name": "runner", "groups": ["adm"]}},
        {
            "command": {
                "argv": ["sh", "-c", "echo $(whoami) $(id -nG) $PWD $HOME $X > out"],
                "creates": "out",
                "chdir": "/home/runner",
                "user": "runner",
                "environment": {"X": "1"},
            }
        },
    )
    seen = declared.host.testinfra().file("/home/runner/out")
    assert seen.content_string == "runner runner adm /home/runner /home/runner 1\n"
    assert seen.user == "runner"


def test_a_failure_stays_one_failure(declared: Declared) -> None:
    _, done = declared.attempt(
        command("false", creates="/srv/never"),
        {
            "name": "hangs",
            "command": {"argv": ["sleep", "600"], "creates": "/srv/never", "timeout": 1},
        },
        {"file": {"path": "/srv/goes-on", "state": "touch"}},
    )
    reasons = failed(done)
    assert "false ended with code 1" in reasons["command:false"]
    assert "took longer than 1 s" in reasons["command:sleep 600"]
    assert declared.host.testinfra().file("/srv/goes-on").exists
    assert declared.host.run(["pgrep", "-x", "sleep"], check=False).stdout == ""


def test_a_command_without_a_guard_is_an_error_of_the_compile(declared: Declared) -> None:
    with pytest.raises(AssertionError, match="guard"):
        declared.attempt(command("true"))
