"""Fleet runs over booted hosts: some of them down, hung, without Python, or somebody else."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hosts import pushing
from hosts.access import generate_key
from hosts.booted import BootedHost
from hosts.fleets import Fleet, states, wait_for_file
from hosts.lab import Lab
from hosts.room import room_for

GOOD = 4
PASSWORD = "hunter2 is%no secret"
#: Fifty hosts need a machine to themselves.
SIZES = [16, pytest.param(50, marks=pytest.mark.soak)]


@pytest.fixture(scope="module")
def booted(lab: Lab) -> Iterator[list[BootedHost]]:
    names = [f"fleet{number}" for number in range(GOOD)]
    with room_for(GOOD + 4), lab.lend(*names) as hosts:
        yield hosts


@pytest.fixture
def fleet(tmp_path: Path, lab: Lab, booted: list[BootedHost]) -> Fleet:
    for host in booted:
        host.run(["sh", "-c", "rm -rf /srv/*"])
    return Fleet(tmp_path, lab, booted)


def test_a_fleet_is_converged_in_batches_and_then_in_sync(fleet: Fleet) -> None:
    planned = fleet.document("plan", "--detailed-exitcode")
    assert (planned["exit"], set(states(planned).values())) == (2, {"pending"})
    done = fleet.document("apply", "--batches", "1,50%", "--canary", "fleet2")
    assert [batch["hosts"] for batch in done["batches"]] == [
        ["fleet2"], ["fleet0"], ["fleet1", "fleet3"],
    ]  # fmt: skip
    assert states(done) == dict.fromkeys(["fleet2", "fleet0", "fleet1", "fleet3"], "changed")
    for name, host in fleet.hosts.items():
        assert (host.root / "srv/site/index").read_text() == f"{name} v1\n"
        assert host.testinfra().file("/srv/notified").exists
    again = fleet.document("apply", "--detailed-exitcode")
    assert (again["exit"], set(states(again).values())) == (0, {"ok"})


def test_hosts_that_are_not_well_cost_themselves_only(
    fleet: Fleet, lab: Lab, tmp_path: Path
) -> None:
    bad = ["down", "hung", "bare", "posing"]
    with lab.lend(*bad) as (down, hung, bare, _):
        down.kill()
        bare.run(["sh", "-c", "rm /usr/bin/python3*"])
        other = " ".join(generate_key(tmp_path / "other", "other").split()[:2])
        pid = int(hung.run(["systemctl", "show", "-P", "MainPID", "ssh"]).stdout)
        hung.run(["kill", "-STOP", str(pid)])
        hung.access.hang_up("hung")
        fleet.also = {"down": {}, "hung": {}, "bare": {}, "posing": {"host_keys": [other]}}
        fleet.want(1)
        begun = time.monotonic()
        found = fleet.document("apply", "--connect-retries", "0", "--host-timeout", "6")
        took = time.monotonic() - begun
    good = dict.fromkeys(fleet.names, "changed")
    assert states(found) == {**good, **dict.fromkeys(bad, "unreachable")}
    assert found["exit"] == 5
    kinds = {name: found["hosts"][name]["errors"][0]["kind"] for name in bad}
    assert kinds == {
        "down": "HostUnreachable",
        "hung": "HostUnreachable",
        "bare": "HostUnfit",
        "posing": "HostKeyRefused",
    }
    assert took < 6 + 6, "it ends at most its time limit later"
    assert all(found["states"][name]["seconds"] < 5 for name in fleet.names)


def test_a_failing_host_stops_the_rollout_which_is_resumed(fleet: Fleet) -> None:
    fleet.hosts["fleet1"].run(["sh", "-c", "echo in the way > /srv/site"])
    held = fleet.document("apply", "--batches", "1")
    assert held["exit"] == 7
    assert states(held) == {
        "fleet0": "changed", "fleet1": "failed", "fleet2": "held", "fleet3": "held",
    }  # fmt: skip
    assert not (fleet.hosts["fleet2"].root / "srv/site").exists()
    fleet.hosts["fleet1"].run(["rm", "/srv/site"])
    resumed = fleet.document("apply", "--resume", held["run"])
    assert states(resumed) == dict.fromkeys(["fleet1", "fleet2", "fleet3"], "changed")
    assert resumed["run"] == held["run"]


def test_the_exit_code_says_what_came_of_the_run(fleet: Fleet) -> None:
    """The rest of the table is in tests/push/test_outcome.py, and 7 and 130 are here."""
    some = ("--connect-retries", "0", "--limit")
    first, second, *_ = fleet.names
    fleet.also = {
        "nobody": {"ansible_host": fleet.hosts[first].address, "ansible_port": 9},
        "liar": {**_liar(fleet.hosts[first], "f(b'no JSON')"), "ansible_host": first},
    }
    fleet.want(1)
    fleet.hosts[second].run(["sh", "-c", "echo in the way > /srv/site"])
    table = [
        (2, "plan", "--detailed-exitcode", *some, first),
        (0, "plan", *some, first),
        (2, "apply", "--detailed-exitcode", *some, first),
        (0, "apply", "--detailed-exitcode", *some, first),
        (1, "apply", *some, f"{first},liar"),
        (3, "apply", *some, "nosuch"),
        (3, "apply", "--batches", "none", *some, first),
        (4, "apply", *some, f"{first},{second}"),
        (5, "apply", *some, f"{first},nobody"),
        (6, "apply", *some, f"{first},{second},nobody"),
        (7, "apply", "--batches", "1", *some, f"{second},fleet3"),
    ]
    for code, *words in table:
        found, _, err = fleet.call(*words)
        assert found == code, f"{words}: {err}"


def test_ctrl_c_stops_hosts_at_a_boundary_and_their_reports_still_come(fleet: Fleet) -> None:
    fleet.want(2, slow=3)
    process = fleet.start("apply", "--json", "--batches", "2")
    slow = [fleet.hosts[name] for name in ("fleet0", "fleet1")]
    wait_for_file(slow, "srv/site/index")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    assert states(found) == {
        "fleet0": "interrupted", "fleet1": "interrupted", "fleet2": "held", "fleet3": "held",
    }  # fmt: skip
    for host in slow:
        assert found["hosts"][host.name]["interrupted"]
        assert (host.root / "srv/slow-2").exists(), "the resource at work was not cut off"
        assert not (host.root / "srv/site/last").exists()
    again = fleet.document("apply", "--resume", "last")
    assert states(again) == dict.fromkeys(fleet.names, "changed")


def test_the_second_ctrl_c_waits_for_nobody_and_hosts_stop_by_themselves(fleet: Fleet) -> None:
    fleet.want(3, slow=4)
    process = fleet.start("apply", "--json")
    slow = list(fleet.hosts.values())
    wait_for_file(slow, "srv/site/index")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 2, "it waited for a host"
    assert (process.returncode, states(json.loads(out))) == (
        130, dict.fromkeys(fleet.names, "interrupted"),
    ), err  # fmt: skip
    wait_for_file(slow, "srv/slow-3")
    time.sleep(1)
    for host in slow:
        assert not (host.root / "srv/site/last").exists(), "the engine went on without us"
    again = fleet.document("apply", "--only-failed", "last")
    assert states(again) == dict.fromkeys(fleet.names, "changed")


def test_a_unit_that_is_down_holds_the_next_batch_back(fleet: Fleet) -> None:
    rollout = "rollout:\n  batches: [2]\n  verify:\n    - unit: {name: UNIT, within: 1s}\n"
    rollout += "    - tcp: {port: 22, within: 5s}\n"
    fleet.also = {name: {"ansible_host": host.address} for name, host in fleet.hosts.items()}
    fleet.want(1)
    settings = fleet.path / "reconciler.yml"
    settings.write_text(rollout.replace("UNIT", "nosuch.service"))
    held = fleet.document("apply")
    assert held["exit"] == 7
    assert "check `unit nosuch.service` for fleet0 does not hold" in held["stopped"]
    assert states(held)["fleet2"] == "held"
    settings.write_text(rollout.replace("UNIT", "ssh.service"))
    assert fleet.document("apply")["exit"] == 0


@pytest.fixture
def asking(fleet: Fleet) -> Iterator[BootedHost]:
    """One of the fleet's hosts, where sudo now wants the password of the login."""
    host = fleet.hosts["fleet1"]
    if host.run(["id", "deploy"], check=False).returncode:
        pushing.login(host, "deploy", password=PASSWORD)
    rule = host.root / "etc/sudoers.d/deploy"
    rule.write_text("deploy ALL=(ALL) ALL\n")
    fleet.add(host, ansible_user="deploy", ansible_become=True)
    fleet.want(1)
    yield host
    rule.unlink()


def test_a_password_for_sudo_is_typed_once_for_all_hosts(fleet: Fleet, asking: BootedHost) -> None:
    without = fleet.document("apply")
    assert states(without)["fleet1"] == "unreachable"
    assert "--ask-become-pass" in without["hosts"]["fleet1"]["errors"][0]["hint"]
    done = _typed(fleet, PASSWORD, "apply", "--json", "--ask-become-pass")
    assert states(json.loads(done)) == {**dict.fromkeys(fleet.names, "ok"), "fleet1": "changed"}
    assert (asking.root / "srv/site/index").read_text() == "fleet1 v1\n"


def test_a_password_for_sudo_may_be_in_a_file(
    fleet: Fleet, asking: BootedHost, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    assert (
        states(fleet.document("apply", "--become-password-file", str(path)))["fleet1"] == "changed"
    )
    assert (asking.root / "srv/site/index").read_text() == "fleet1 v1\n"
    path.write_text("\n")
    code, _, err = fleet.call("apply", "--become-password-file", str(path))
    assert (code, "is empty" in err) == (3, True)


def test_a_password_for_sudo_may_be_in_the_keyring(
    fleet: Fleet, asking: BootedHost, tmp_path: Path
) -> None:
    # In the place of the library, which asks the desktop.
    library = tmp_path / "library/keyring"
    library.mkdir(parents=True)
    fleet.environment["PYTHONPATH"] = str(library.parent)
    (library / "__init__.py").write_text("raise ImportError\n")
    code, _, err = fleet.call("apply", "--keyring")
    assert (code, "pip install 'reconciler[keyring]'" in err) == (3, True)
    (library / "__init__.py").write_text(
        "import sys\n"
        "def get_password(service, name):\n"
        "    print('asked for', service, name, file=sys.stderr)\n"
        f"    return {{('reconciler-become', 'default'): {PASSWORD!r}}}.get((service, name))\n"
    )
    (library / "errors.py").write_text("class KeyringError(Exception): pass\n")
    done = fleet.document("apply", "--keyring")
    assert states(done)["fleet1"] == "changed"
    assert (asking.root / "srv/site/index").read_text() == "fleet1 v1\n"
    _, _, err = fleet.call("apply", "--keyring", "--limit", "fleet1")
    services = ("login", "become")
    asked = [
        f"asked for reconciler-{one} {name}" for one in services for name in ("fleet1", "default")
    ]
    assert [line for line in err.splitlines() if line.startswith("asked")] == asked


def _typed(fleet: Fleet, text: str, *words: str) -> str:
    """What a call says on stdout whose password is typed on a terminal."""
    ours, theirs = pty.openpty()
    try:
        process = fleet.start(*words, stdin=theirs)
        time.sleep(0.5)
        os.write(ours, f"{text}\n".encode())
        out, err = process.communicate(timeout=60)
        assert text not in out + err
        return out
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("way", ["ssh", "openssh"])
def test_hosts_that_turn_connections_away_are_tried_again(fleet: Fleet, way: str) -> None:
    """As sshd does where many come at a time: it lets in three that have not logged in yet."""
    crowded = fleet.hosts["fleet3"]
    drop_in = crowded.root / "etc/ssh/sshd_config.d/crowded.conf"
    drop_in.write_text("MaxStartups 3:100:3\n")
    crowded.run(["systemctl", "reload", "ssh"])
    crowded.wait_for_ssh()
    try:
        many = [f"way{number}" for number in range(8)]
        for name in many:
            fleet.also[name] = {"ansible_host": "fleet3", "ansible_connection": way}
        fleet.want(1)
        found = fleet.document("plan", "--limit", "way*", "--connect-retries", "4")
        assert states(found) == dict.fromkeys(many, "pending")
    finally:
        drop_in.unlink()
        crowded.run(["systemctl", "reload", "ssh"])


# -- hosts that answer what they like ----------------------------------------------------------

LIAR = """\
#!/usr/bin/python3
import json, os, struct, sys, time
os.write(1, sys.argv[-4].encode() + b"\\ngo\\n")
def raw(data):
    while data: data = data[os.write(1, data):]
def f(payload): raw(struct.pack(">cI", b"J", len(payload)) + payload)
def say(**message): f(json.dumps(message).encode())
def talk():
    say(hello=1)
    say(facts={"hostname": ESCAPES})
ESCAPES = "\\x1b]0;owned\\x07\\x1b[2J\\x1b[31m\\u202e\\r\\n"
"""
REPORT = """\
talk()
say(event="start", id=ESCAPES, source=["x", 1, 1])
one = {"id": ESCAPES, "status": "failed", "source": [ESCAPES, 1, 1], "reason": ESCAPES,
       "hint": ESCAPES, "title": ESCAPES, "diff": ESCAPES}
say(report={"schema": ["reconciler/report", 1], "host": "fleet0", "commit": ESCAPES, "dirty": False,
            "seconds": 1, "warnings": [ESCAPES], "results": [one], "run": ESCAPES, "mode": "push",
            "started": 0, "interrupted": False})
"""
#: By name: what is said, and what becomes of the host.
LIARS = {
    "endless": ("talk()\nwhile True: say(event='x' * 1000000)", "failed"),
    "gigantic": ("raw(b'J\\xff\\xff\\xff\\xff')", "failed"),
    "deep": ("talk(); f(b'[' * 1000000)", "failed"),
    "deeper": ("talk(); f(b'{\"report\":' * 1000000 + b'1' + b'}' * 1000000)", "failed"),
    "garbage": ("raw(os.urandom(4096))", "failed"),
    "escapes": (REPORT, "failed"),
    "shouting": ("os.write(2, ESCAPES.encode() * 1000); sys.exit(3)", "unreachable"),
    "open": ("talk()", "unreachable"),
    "dripping": ("raw(b'J\\0\\1\\0\\0')\nwhile True: raw(b' '); time.sleep(0.2)", "unreachable"),
    "deaf": ("talk()\nos.close(0)", "unreachable"),
}


def _liar(host: BootedHost, program: str, name: str = "liar") -> dict[str, Any]:
    """Variables by which an interpreter on a host says what it likes."""
    path = f"/usr/local/bin/{name}"
    script = host.root / path.lstrip("/")
    script.write_text(f"{LIAR}{program}\ntime.sleep(600)\n")
    script.chmod(0o755)
    return {"ansible_python_interpreter": path}


@pytest.mark.slow
def test_what_hostile_hosts_say_costs_them_only(fleet: Fleet) -> None:
    for number, (name, (program, _)) in enumerate(LIARS.items()):
        on = fleet.names[number % len(fleet.names)]
        fleet.also[name] = {**_liar(fleet.hosts[on], program, name), "ansible_host": on}
    fleet.want(1)
    begun = time.monotonic()
    found = fleet.document("apply", "--host-timeout", "15")
    assert time.monotonic() - begun < 40
    expected = {name: state for name, (_, state) in LIARS.items()}
    said = {name: found["hosts"][name].get("errors") for name in LIARS}
    assert states(found) == {**dict.fromkeys(fleet.names, "changed"), **expected}, said
    for name in fleet.names:
        assert found["states"][name]["seconds"] < 14, "it waited for a hostile one"
    for host in fleet.hosts.values():
        host.run(["pkill", "-f", "/usr/local/bin/"], check=False)
    # The terminal of a person is not theirs either.
    for words in (("apply", "-v"), ("apply", "--jsonl"), ("plan",)):
        _, out, err = fleet.call(
            *words, "--host-timeout", "2", "--limit", "escapes,shouting,fleet1"
        )
        assert not [c for c in out + err if c != "\n" and not c.isprintable()], out + err
        assert "owned" in out + err or "shouting" in out + err


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", SIZES)
def test_a_large_fleet_converges_whatever_is_wrong_with_some_of_its_hosts(
    lab: Lab, tmp_path: Path, count: int
) -> None:
    names = [f"many{count}-{number}" for number in range(count)]
    with room_for(count), lab.lend(*names) as hosts:
        fleet = Fleet(tmp_path, lab, hosts)
        first = fleet.document("apply")
        assert set(states(first).values()) == {"changed"}
        begun = time.monotonic()
        again = fleet.document("apply")
        without = time.monotonic() - begun
        assert set(states(again).values()) == {"ok"}
        hung = hosts[-1]
        pid = hung.run(["systemctl", "show", "-P", "MainPID", "ssh"]).stdout.strip()
        hung.run(["kill", "-STOP", pid])
        hung.access.hang_up(hung.name)
        begun = time.monotonic()
        one_hung = fleet.document("apply", "--host-timeout", "10")
        took = time.monotonic() - begun
        assert one_hung["summary"]["ok"] == count - 1
        assert states(one_hung)[hung.name] == "unreachable"
        assert took < without + 10 + 3
        _converges_around(fleet, hosts, tmp_path)


def _converges_around(fleet: Fleet, hosts: Sequence[BootedHost], tmp_path: Path) -> None:
    """The last host hangs; six more are made unwell, or hard to reach."""
    down, bare, full, posing, asking, behind, jump = hosts[:7]
    down.kill()
    bare.run(["sh", "-c", "rm /usr/bin/python3*"])
    _fill(full, "/srv/site")
    other = " ".join(generate_key(tmp_path / "other", "other").split()[:2])
    fleet.add(posing, host_keys=[other])
    pushing.login(asking, "deploy", password=PASSWORD)
    (asking.root / "etc/sudoers.d/deploy").write_text("deploy ALL=(ALL) ALL\n")
    become = {"ansible_become": True, "ansible_become_password": PASSWORD}
    fleet.add(asking, ansible_user="deploy", **become)
    fleet.add(behind, via=[jump.name], **_hidden(behind, jump))
    fleet.want(2)
    found = fleet.document("apply", "--host-timeout", "20", "--connect-retries", "0")
    bad = {
        down.name: "HostUnreachable",
        bare.name: "HostUnfit",
        posing.name: "HostKeyRefused",
        hosts[-1].name: "HostUnreachable",
    }
    expected = {host.name: "changed" for host in hosts}
    expected.update(dict.fromkeys(bad, "unreachable"))
    said = [one["errors"][0] for one in found["hosts"].values() if "errors" in one]
    assert states(found) == {**expected, full.name: "failed"}, json.dumps(said)
    assert {name: found["hosts"][name]["errors"][0]["kind"] for name in bad} == bad
    assert found["exit"] == 6
    (failed,) = [one for one in found["hosts"][full.name]["results"] if one["status"] == "failed"]
    assert "No space left on device" in failed["reason"]
    for host in (asking, behind, jump):
        assert (host.root / "srv/site/index").read_text() == f"{host.name} v2\n"
    # Only what was wrong is tried again, and what is well by now converges.
    full.run(["umount", "/srv/site"])
    again = fleet.document(
        "apply", "--only-failed", "last", "--host-timeout", "20", "--connect-retries", "0"
    )
    assert states(again) == {**dict.fromkeys(bad, "unreachable"), full.name: "changed"}


def _fill(host: BootedHost, path: str) -> None:
    """A file system below `path` that has no room left."""
    fill = f"mount -t tmpfs -o size=64k tmpfs {path} && cat /dev/zero >{path}/all"
    host.run(["sh", "-c", fill], check=False)


def _hidden(host: BootedHost, jump: BootedHost) -> dict[str, Any]:
    """Variables of a host whose sshd now listens where only the jump host can reach it."""
    for one, address in ((jump, "198.51.100.1/30"), (host, "198.51.100.2/30")):
        one.run(["ip", "address", "add", address, "dev", "host0"])
    (host.root / "etc/ssh/sshd_config.d/hidden.conf").write_text("ListenAddress 198.51.100.2\n")
    host.run(["systemctl", "restart", "ssh"])
    host.access.hang_up(host.name)
    with pytest.raises(OSError, match="refused"), socket.create_connection((host.address, 22), 2):
        pass
    key = (host.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
    return {"ansible_host": "198.51.100.2", "host_keys": [" ".join(key)]}
