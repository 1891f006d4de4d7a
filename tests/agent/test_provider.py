"""The part that fetches and compiles: whoever asks may be killed, and what it reads may be forged."""

from __future__ import annotations

import hashlib
import io
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.agent import keys, provider
from reconciler.agent.config import Config
from reconciler.agent.places import HANDED, credential
from reconciler.agent.provider import Provider
from reconciler.engine.wire import Message, Wire
from reconciler.errors import ConfigError, Damaged
from reconciler.source.mirror import Mirror, mirror_path
from source.conftest import Repo
from source.forging import forge


def begin(theirs: socket.socket, directory: Path) -> subprocess.Popen[bytes]:
    end = theirs.fileno()
    command = [sys.executable, "-m", "reconciler.agent.provider", str(directory)]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.PIPE)
    theirs.close()
    return process


def ask(ours: socket.socket) -> None:
    """Something that fails at once."""
    outgoing = io.BytesIO()
    Wire(io.BufferedReader(io.BytesIO()), outgoing).send({"op": "no such thing"})
    ours.sendall(outgoing.getvalue())


def just_ends(process: subprocess.Popen[bytes]) -> bool:
    _, said = process.communicate(timeout=30)
    assert said.decode() == ""
    return process.returncode == 0


def test_nobody_is_there_any_more_to_take_the_answer(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ask(ours)
    ours.close()
    assert just_ends(begin(theirs, tmp_path))


def test_the_answer_was_not_read(tmp_path: Path) -> None:
    """Then the kernel says that the connection was reset, not that it came to its end."""
    ours, theirs = socket.socketpair()
    process = begin(theirs, tmp_path)
    ask(ours)
    assert select.select([ours], [], [], 30)[0]
    ours.close()
    assert just_ends(process)


SITE = "- hosts: all\n  resources:\n    - copy: {dest: /etc/long, src: long}\n"
FACTS = {"nodename": "host", "fqdn": "host", "hostname": "host"}


class Conversation:
    """A provider that is asked, and the mirror that it reads."""

    def __init__(self, directory: Path) -> None:
        self.repo = Repo(directory / "state")
        long = os.urandom(100_000).hex()
        self.commit = self.repo.commit({"site.yml": SITE, "files/long": long})
        self.config = Config(remotes=({"url": str(self.repo), "name": "origin"},))
        self.mirror = Mirror(mirror_path(str(directory / "mirrors"), str(self.repo), "main"))
        self.said = io.BytesIO()
        wire = Wire(io.BufferedReader(io.BytesIO()), self.said)
        self.provider = Provider(wire, str(directory / "mirrors"))

    def ask(self, **request: object) -> Message:
        """What is answered first."""
        self.said.seek(0)
        self.said.truncate()
        self.provider.answer(request)
        said = io.BytesIO(self.said.getvalue())
        return Wire(io.BufferedReader(said), io.BytesIO()).receive()

    def rebuilt(self) -> str:
        """What was wrong with the mirror, if a fetch has made it anew."""
        fetched = self.ask(op="fetch", config=self.config.to_json())["fetched"]
        assert isinstance(fetched, dict)
        return str(fetched["rebuilt"])

    def compile(self) -> None:
        config = self.config.to_json()
        self.ask(op="compile", config=config, commit=self.commit, facts=FACTS)

    def forge(self, name: str, content: bytes) -> None:
        forge(self.mirror.path, self.repo.git("rev-parse", f"HEAD:{name}"), content)


@pytest.fixture
def asked(tmp_path: Path) -> Conversation:
    asked = Conversation(tmp_path)
    asked.rebuilt()
    return asked


@pytest.mark.parametrize("name", ["site.yml", "files/long"])
def test_a_mirror_that_holds_something_else_is_made_anew_by_the_next_fetch(
    asked: Conversation, name: str
) -> None:
    asked.forge(name, b"forged\n")
    with pytest.raises(Damaged, match="not what its id says") as caught:
        asked.compile()
    assert asked.rebuilt() == caught.value.message[:200]
    asked.compile()


def test_so_is_one_of_which_only_a_content_is_damaged_that_was_sound_when_it_was_compiled(
    asked: Conversation,
) -> None:
    asked.compile()
    sha256 = hashlib.sha256((asked.repo.path / "files/long").read_bytes()).hexdigest()
    (pack,) = Path(asked.mirror.path, "objects/pack").glob("*.pack")
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"\0\xff" * 100)
    with pytest.raises(Damaged):
        asked.ask(ask="content", sha256=sha256)
    assert asked.rebuilt()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_a_key_that_others_can_read_is_not_used_though_it_was_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """The copy is closed; that says nothing of the file."""
    key = tmp_path / "key"
    key.write_bytes(b"secret")
    key.chmod(mode)
    known_hosts = tmp_path / "known_hosts"
    settings = {"url": "ssh://git@127.0.0.1/x.git", "deploy_key": str(key)}
    with keys.copies([str(key)], os.getuid()) as copies:
        words = [f"{credential(path)}={fd}" for path, fd in copies.items()]
        monkeypatch.setenv(HANDED, " ".join(words))
        remote = provider._remote({**settings, "known_hosts": str(known_hosts)})
        if mode == 0o600:
            assert remote.deploy_key.startswith("/proc/")
            remote.check_files()
        else:
            with pytest.raises(ConfigError, match=f"the deploy key {key} has mode {mode:04o}"):
                remote.check_files()
