"""`plan` and `apply` over an inventory of directory roots: a fleet without a network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import program
from cli.test_json_documents import documented
from reconciler.engine.lock import lock

SITE = """\
- hosts: all
  resources:
    - file: {path: /srv/site, state: directory, mode: "0755"}
    - copy: {dest: /srv/site/index, content: "hello\\n", mode: "0644"}
    - copy: {dest: /srv/site/own, content: "{{ inventory_hostname }}\\n", mode: "0644"}
      when: inventory_hostname == "h3"
    - file: {path: /srv/block/sub, state: directory}
      when: inventory_hostname in broken | default([])
"""
NOWHERE = {"ansible_host": "127.0.0.1", "ansible_port": 1}
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a chroot takes root")


class World:
    """A state repo, and roots of hosts h1 to h6."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hosts: dict[str, dict[str, Any]] = {}
        (path / "repo").mkdir()
        self.write("site.yml", SITE)
        for number in range(1, 7):
            self.add(f"h{number}")

    def add(self, name: str, **variables: Any) -> None:
        root = self.path / name
        if not variables:
            (root / "srv").mkdir(parents=True)
            (root / "etc").mkdir()
            (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
            (root / "etc/group").write_text("root:x:0:\n")
            variables = {"ansible_connection": "chroot", "ansible_host": str(root)}
        self.hosts[name] = variables
        self.write("hosts.yml", json.dumps({"all": {"hosts": self.hosts}}))

    def write(self, name: str, text: str) -> None:
        (self.path / "repo" / name).write_text(text)

    def break_(self, *names: str) -> None:
        """What is to be a directory is a file there."""
        for name in names:
            (self.path / name / "srv/site").write_text("in the way\n")

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
        verb, *rest = words
        return subprocess.run(
            [sys.executable, "-c", code, verb, "-C", "repo", "-i", "hosts.yml", *rest],
            cwd=self.path,
            env={
                **os.environ,
                "XDG_CACHE_HOME": str(self.path / "cache"),
                "XDG_STATE_HOME": str(self.path / "state"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def states(self, *words: str) -> dict[str, str]:
        done = self.call(*words, "--json")
        document = json.loads(done.stdout)
        assert document["exit"] == done.returncode
        return {host: one["state"] for host, one in document["states"].items()}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_hosts_with_the_same_plan_are_shown_once(world: World) -> None:
    done = world.call("plan", "--detailed-exitcode")
    assert done.returncode == 2, done.stderr
    assert "5 hosts: site, index\n  h1, h2, h4, h5, h6\n" in done.stdout
    assert "1 host: site, index, own\n  h3\n" in done.stdout
    assert done.stdout.count("+hello") == 2
    assert "plan: 6 hosts: 6 to change in " in done.stdout
    assert not (world.path / "h1/srv/site").exists()
    assert not (world.path / "state").exists()


def test_an_expression_that_never_ends_on_what_a_host_says_costs_that_host_only(
    world: World,
) -> None:
    world.write(
        "site.yml",
        """\
- hosts: all
  resources:
    - file: {path: /srv/a, state: directory}
      when: inventory_hostname != 'h2' or (40 * 'a' ~ '!') is match('(a+)+$')
""",
    )
    done = world.call("apply", "--json")
    document = json.loads(done.stdout)
    states = {host: one["state"] for host, one in document["states"].items()}
    assert states.pop("h2") == "failed"
    assert set(states.values()) == {"changed"}
    assert "'(a+)+$' took more than 2 s" in done.stdout


def test_apply_converges_all_hosts_and_a_second_run_changes_nothing(world: World) -> None:
    assert world.call("apply").returncode == 0
    assert (world.path / "h3/srv/site/own").read_text() == "h3\n"
    again = world.call("apply", "--detailed-exitcode")
    assert again.returncode == 0
    assert "apply: 6 hosts: 0 changes, 6 in sync in " in again.stdout


@pytest.mark.parametrize(
    "broken, gone, words, expected",
    [
        ([], [], [], 0),
        ([], [], ["--detailed-exitcode"], 2),
        (["h2"], [], [], 4),
        ([], ["h9"], [], 5),
        (["h2"], ["h9"], [], 6),
        (["h2"], [], ["--batches", "2"], 7),
        ([], ["h0"], ["--batches", "1", "--order", "sorted"], 7),
        ([], ["h9"], ["--batches", "2", "--max-unreachable", "1"], 5),
        (["h2"], [], ["--canary", "h2"], 7),
        ([], [], ["--limit", "nosuch"], 3),
        ([], [], ["--canary", "nosuch"], 3),
        ([], [], ["--batches", "0"], 3),
        ([], [], ["--max-failed", "many"], 3),
        ([], [], ["--parallel", "0"], 3),
        ([], [], ["--resume", "nosuch"], 3),
        ([], [], ["--only-failed", "last"], 3),
    ],
)
def test_the_exit_code_of_a_fleet_run(
    world: World, broken: list[str], gone: list[str], words: list[str], expected: int
) -> None:
    for name in gone:
        world.add(name, **NOWHERE)
    world.break_(*broken)
    done = world.call("apply", "--connect-retries", "0", *words)
    assert done.returncode == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_rollout_stops_at_its_budget_and_is_resumed(world: World) -> None:
    world.break_("h2")
    done = world.call("apply", "--batches", "1,2,100%")
    assert done.returncode == 7
    assert "stopped: 1 of 6 hosts failed, and 0 may be" in done.stderr
    assert not (world.path / "h4/srv/site").exists()
    (world.path / "h2/srv/site").unlink()
    assert world.states("apply", "--resume", "last") == dict.fromkeys(
        ["h2", "h4", "h5", "h6"], "changed"
    )
    complete = world.call("apply", "--resume", "last")
    assert complete.returncode == 0
    assert "every host is done" in complete.stderr


def test_a_run_is_not_resumed_with_another_state_repo(world: World) -> None:
    world.break_("h1")
    assert world.call("apply", "--batches", "1").returncode == 7
    world.write("site.yml", SITE.replace("hello", "goodbye"))
    done = world.call("apply", "--resume", "last")
    assert done.returncode == 3
    assert "files that have changed since" in done.stderr
    assert not (world.path / "h2/srv/site").exists()


def test_only_the_hosts_that_failed_are_tried_again(world: World) -> None:
    world.break_("h2", "h5")
    assert world.call("apply").returncode == 4
    (world.path / "h2/srv/site").unlink()
    assert world.states("apply", "--only-failed", "last") == {"h2": "changed", "h5": "failed"}
    assert world.states("plan", "--only-failed", "last") == {"h5": "failed"}


def test_the_settings_of_the_state_repo_hold_and_flags_win(world: World) -> None:
    world.write("reconciler.yml", "rollout: {batches: [1], order: reverse, canary: h4}\n")
    world.break_("h6")
    assert world.states("apply") == {
        "h4": "changed", "h6": "failed", **dict.fromkeys(["h5", "h3", "h2", "h1"], "held"),
    }  # fmt: skip
    assert world.states("apply", "--max-failed", "1", "--canary", "h1")["h5"] == "changed"


def test_wrong_settings_are_an_error_with_its_place(world: World) -> None:
    world.write("reconciler.yml", "rollout:\n  batchs: [1]\n")
    done = world.call("apply")
    assert done.returncode == 3
    assert "reconciler.yml:2:3" in done.stderr
    assert "did you mean 'batches'?" in done.stderr
    world.write("reconciler.yml", "rolout: {batches: [1]}\n")
    assert "did you mean 'rollout'?" in world.call("plan").stderr


def test_a_check_between_batches_holds_the_rest_back(world: World) -> None:
    code = "import sys; sys.exit(sys.argv[1] == 'h2')"
    check = {"command": {"argv": [sys.executable, "-c", code, "{host}"], "within": 0.5}}
    rollout = {"batches": [2], "verify": [check]}
    world.write("reconciler.yml", json.dumps({"rollout": rollout}))
    done = world.call("apply")
    assert done.returncode == 7
    assert "for h2 does not hold" in done.stderr
    assert (world.path / "h2/srv/site").exists()
    assert not (world.path / "h3/srv/site").exists()


def test_events_are_one_json_object_a_line(world: World) -> None:
    world.add("h9", **NOWHERE)
    done = world.call("apply", "--jsonl", "--connect-retries", "0")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "run"
    assert events[0]["schema"] == ["reconciler/fleet-event", 1]
    assert events[-1]["event"] == "end"
    assert events[-1]["exit"] == done.returncode == 5
    ended = {one["host"]: one for one in events if one["event"] == "ended"}
    assert ended["h1"]["document"]["schema"] == ["reconciler/report", 1]
    assert ended["h9"]["document"]["errors"][0]["kind"] == "HostUnreachable"
    results = [one["result"]["id"] for one in events if one["event"] == "result"]
    assert results.count("file:/srv/site") == 6
    assert len({one["run"] for one in events}) == 1


def test_a_host_on_which_another_run_is_at_work_is_waited_for(world: World) -> None:
    h1 = str(world.path / "h1")
    words = ["apply", "-C", "repo", "-i", "hosts.yml", "--limit", "h1"]
    with lock(h1, "r1", "agent", command="reconciler agent"):
        done = world.call("apply", "--limit", "h1", "--lock-timeout", "0")
        assert done.returncode == 9
        assert "another run holds the lock: agent run r1" in done.stderr
        assert "waiting" not in done.stderr
        waits = program.start(world.path, *words)
        assert waits.stderr is not None
        assert waits.stderr.readline().startswith(
            "h1: waiting for another run, at most 60 s: agent"
        )
    code, out, _ = program.ended(waits, 60)
    assert (code, "1 host changed" in out or "1 changed" in out) == (0, True)
    with lock(h1, "r1", "agent"):
        told = program.start(world.path, *words, "--jsonl")
        assert told.stdout is not None
        events = [json.loads(told.stdout.readline()) for _ in range(4)]
    assert program.ended(told, 60)[0] == 0
    (waiting,) = [one for one in events if one["event"] == "waiting"]
    assert (waiting["host"], waiting["seconds"]) == ("h1", 60)
    assert waiting["holder"].startswith("agent run r1")
    assert {*waiting} | {"waiting"} <= documented("fleet")


def test_junit_has_a_suite_for_each_host_and_a_case_for_each_resource(world: World) -> None:
    world.break_("h2")
    world.add("h9", **NOWHERE)
    world.call("apply", "--junit", "out.xml", "--connect-retries", "0")
    written = ElementTree.parse(world.path / "out.xml").getroot()  # noqa: S314  our own
    suites = {one.get("name"): one for one in written}
    assert set(suites) == {*world.hosts}
    assert (suites["h1"].get("tests"), suites["h1"].get("failures")) == ("2", "0")
    assert (suites["h2"].get("failures"), suites["h2"].get("skipped")) == ("1", "1")
    assert suites["h9"].get("errors") == "1"


def test_the_document_has_every_host(world: World) -> None:
    world.break_("h1")
    done = world.call("apply", "--batches", "1", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == ["reconciler/fleet", 1]
    assert document["summary"]["held"] == 5
    assert document["hosts"]["h1"]["summary"]["failed"] == 1
    assert document["hosts"]["h2"] is None
    assert document["stopped"]
    assert [batch["hosts"] for batch in document["batches"]][:2] == [["h1"], ["h2"]]


def test_what_does_not_compile_is_said_once_for_all_hosts(world: World) -> None:
    world.write("site.yml", SITE.replace('"hello\\n"', '"{{ nosuch }}"'))
    done = world.call("apply")
    assert done.returncode == 3
    assert done.stderr.count("error: site.yml:4:") == 1
    assert "for h1, h2, h3, h4, h5 and 1 more" in done.stderr
    assert not (world.path / "h1/srv/site").exists()


def test_a_terminal_gets_a_table_that_goes_away_and_then_the_groups(world: World) -> None:
    import pty

    code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "apply", "-C", "repo", "-i", "hosts.yml", "--parallel", "1"],
        cwd=world.path,
        env={
            **os.environ,
            "XDG_CACHE_HOME": str(world.path / "cache"),
            "XDG_STATE_HOME": str(world.path / "state"),
            "TERM": "xterm",
            "COLUMNS": "120",
        },
        stdout=subprocess.PIPE,
        stderr=terminal,
        stdin=terminal,
        text=True,
    )
    os.close(terminal)
    drawn = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody is there any more
        while piece := os.read(controller, 65536):
            drawn += piece
    out, _ = process.communicate(timeout=60)
    os.close(controller)
    assert process.returncode == 0
    seen = drawn.decode()
    assert "1 at work" in seen
    assert re.search(r"[1-5] changed", seen)
    assert "hosts/s" in seen
    assert re.search(r"h[1-6].{1,16}connecting", seen)
    assert "\x1b" not in out
    assert "in sync in" not in out, "no line for each host as well"
    assert "6 hosts: " in out


def test_every_field_of_documents_and_events_is_documented(world: World) -> None:
    known = documented("fleet")
    world.add("h9", **NOWHERE)
    document = json.loads(world.call("apply", "--json", "--connect-retries", "0").stdout)
    names = {*document, *document["states"]["h1"], *document["batches"][0]}
    world.write("site.yml", SITE.replace("hello", "goodbye"))
    world.write("reconciler.yml", "rollout: {batches: [3], pause: 0.1s}\n")
    events = world.call("apply", "--jsonl", "--connect-retries", "0", "--max-unreachable", "1")
    told = [json.loads(line) for line in events.stdout.splitlines()]
    names |= {name for event in told for name in event}
    assert names - known == set()
    assert {event["event"] for event in told} - known == set()
