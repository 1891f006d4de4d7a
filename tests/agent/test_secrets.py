"""A whole agent and values that nobody may see: where they are afterwards, and where they never were.

Runs on a directory in place of a machine, by what the timer starts, while somebody else reads the
arguments and the environment of every process as fast as they can.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.test_worker import Machine
from reconciler.agent import journal
from reconciler.agent import once as module
from reconciler.agent.places import read_json
from reconciler.agent.state import resume, suspend

#: Each run starts a provider, which fetches and compiles.
pytestmark = pytest.mark.slow

CONTENT, LINE, SECRET, OLD = (
    f"canary-{name}-9f2c" for name in ("content", "line", "secret", "old")
)
CANARIES = (CONTENT, LINE, SECRET, OLD)
DECOY = "decoy-7d41"
SITE = f"""\
- hosts: all
  vars: {{token: {SECRET}}}
  resources:
    - {{no_log: true, copy: {{dest: /etc/app.conf, content: "key={CONTENT}\\n", mode: "0600"}}}}
    - {{no_log: true, copy: {{dest: /etc/app.conf/below, content: "{CONTENT}"}}}}
    - {{no_log: true, lineinfile: {{path: /etc/conf, regexp: ^key=, line: "key={LINE}"}}}}
    - {{vault: {{path: /etc/vault, token: "{{{{ token }}}}"}}}}
    - {{vault: {{path: /etc/forgetful, token: "{{{{ token }}}}", mood: forgetful}}}}
    - {{vault: {{path: /etc/talkative, token: "{{{{ token }}}}", mood: talkative}}}}
"""
#: A type of the state repo's own, whose parameter is a secret; it may lose it, or fail with it.
VAULT = '''\
"""Keep a token in a file of its own.

    - name: a token
      vault: {path: /etc/vault, token: x}
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.host import Host
from reconciler.resource import Diff, Path, Resource, Secret, State


@dataclass(frozen=True)
class Vault(Resource):
    path: Path  #: The file.
    token: Secret  #: What is in it.
    mood: str = ""  #: What it does instead of keeping it.

    def claims(self) -> set[str]:
        return {f"path:{self.path}"}

    def desired(self) -> State:
        return {"token": self.token}

    def actual(self, host: Host) -> State:
        if host.lstat(self.path) is None:
            return None
        return {"token": host.read(self.path).decode()}

    def apply(self, host: Host, diff: Diff) -> None:
        if self.mood == "talkative":
            raise ValueError(f"what is {self.token!s}?")
        host.write(self.path, [(self.mood or self.token).encode()])
'''
#: Reads words on stdin, looks at every process once, and again until it is told to stop; prints what
#: it saw.
SPY = """\
import os, select, sys
words, seen, ready = sys.stdin.readline().split(), set(), False
while not ready or not select.select([sys.stdin], [], [], 0)[0]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            seen |= {f"{word} in {name}" for word in words if word.encode() in text}
    if not ready:
        print("ready", flush=True)
        ready = True
for one in sorted(seen):
    print(one)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Machine(tmp_path)
    monkeypatch.setattr(module, "Places", lambda: made.places)
    settings = Path(made.places.config)
    settings.parent.mkdir(parents=True)
    sink = f"notify: {{command: [tee, -a, {tmp_path}/told]}}\n"
    settings.write_text(f"repo: {made.repo}\n{sink}")
    made.repo.commit({"site.yml": SITE, "modules/vault.py": VAULT})
    return made


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every entry of the journal, with its fields."""
    entries: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "journal"))
        link.setblocking(False)
        monkeypatch.setattr(journal, "JOURNAL", str(tmp_path / "journal"))
        monkeypatch.setenv("JOURNAL_STREAM", "8:1")
        keep = journal.keep

        def take(*args: str, **fields: object) -> None:
            keep(*args, **fields)
            entries.append(link.recv(1 << 20).decode())

        monkeypatch.setattr(journal, "keep", take)
        yield entries


@contextlib.contextmanager
def spied(*words: str) -> Iterator[list[str]]:
    """Which of these words a process had in its arguments or environment meanwhile."""
    seen: list[str] = []
    argv = [sys.executable, "-c", SPY]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as spy:
        assert spy.stdin is not None
        assert spy.stdout is not None
        spy.stdin.write(" ".join(words) + "\n")
        spy.stdin.flush()
        assert spy.stdout.readline() == "ready\n"
        try:
            yield seen
        finally:
            said, _ = spy.communicate("stop\n", timeout=30)
            seen += said.splitlines()


def holders(directory: Path) -> dict[str, set[str]]:
    """File -> which canaries it holds, or its name does."""
    found: dict[str, set[str]] = {}
    for path in directory.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        name = str(path.relative_to(directory))
        here = {one for one in CANARIES if one.encode() in text or one in name}
        if here:
            found[name] = here
    return found


def test_who_looks_at_processes_sees_what_they_show() -> None:
    for argv, environment, where in (
        (["sh", "-c", "read x", DECOY], {}, "cmdline"),
        (["sh", "-c", "read x"], {"X": DECOY}, "environ"),
    ):
        with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE) as shown:
            with spied(DECOY) as seen:
                pass
            shown.communicate()
        assert seen == [f"{DECOY} in {where}"]


def test_a_secret_is_where_it_was_declared_to_be_and_nowhere_else(
    machine: Machine, logged: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    etc = machine.root / "etc"
    (etc / "app.conf").write_text(f"key={OLD}\n")
    (etc / "conf").touch()
    with spied(*CANARIES) as seen:
        for _ in range(2):  # what fails twice is told to people
            assert module.main() == 4
        applied = {path: (etc / path).read_text() for path in ("app.conf", "conf", "vault")}
        for path in applied:
            (etc / path).write_text(f"key={OLD}\n")
        suspend(machine.places, "TICKET-7", 60, "alice")
        module.main()
        resume(machine.places)
        module.main()
    assert seen == []
    assert {path: (etc / path).read_text() for path in applied} == applied

    said = [row for entry in logged for row in entry.splitlines()]
    assert any("file:/etc/app.conf drift corrected: content" in row for row in said)
    assert any("vault:/etc/talkative failed: " in row for row in said)
    assert "InSync" in (tmp_path / "told").read_text()
    document = read_json(machine.places.status) or {}
    unwilling = {"vault:/etc/forgetful", "vault:/etc/talkative"}
    assert set(document["failed"]) == {"file:/etc/app.conf/below", *unwilling}

    output = capfd.readouterr()
    for text in (*said, (tmp_path / "told").read_text(), output.out, output.err):
        assert [one for one in CANARIES if one in text] == []
    assert holders(machine.root) == {
        "etc/app.conf": {CONTENT},
        "etc/conf": {LINE},
        "etc/vault": {SECRET},
        # Of `no_log`, what is no content goes with the catalog.
        "var/lib/reconciler/applied.json": {LINE},
    }
    assert stat.S_IMODE(os.stat(machine.places.catalog).st_mode) == 0o600
