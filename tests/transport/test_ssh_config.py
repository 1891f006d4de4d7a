"""What an operator's ssh_config says counts: files, keys, agents, and ways through other hosts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from reconciler.errors import AuthFailed, ConfigError, HostUnreachable
from reconciler.push.verify import Check, Verifier
from reconciler.transport import ssh_config
from reconciler.transport.connect import Connector
from reconciler.transport.ssh import Connections
from reconciler.transport.target import Target
from transport.server import SshServer

SECRET = "open sesame"
BRIDGE = """\
import os, socket, sys, threading
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def there():
    while data := os.read(0, 65536): link.sendall(data)
    link.shutdown(socket.SHUT_WR)
threading.Thread(target=there, daemon=True).start()
while data := link.recv(65536): os.write(1, data)
"""


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


@pytest.fixture
def server(key: paramiko.PKey) -> Iterator[SshServer]:
    with SshServer(key) as server:
        yield server


def write(tmp_path: Path, server: SshServer, text: str = "", name: str = "config") -> str:
    """An ssh_config in which the server is known."""
    (host_key,) = server.keys
    known = f"[127.0.0.1]:{server.port} {host_key.get_name()} {host_key.get_base64()}\n"
    (tmp_path / "known").write_text(known)
    path = tmp_path / name
    always = f"UserKnownHostsFile {tmp_path}/known\nGlobalKnownHostsFile /dev/null\n"
    path.write_text(f"{always}{text}")
    return str(path)


def log_in(server: SshServer, path: str, **more: Any) -> None:
    """Log in, and send something there and back."""
    reach = {"ansible_host": "127.0.0.1", "ansible_port": server.port, "ansible_user": "me"}
    with contextlib.closing(Connections().open(Target.of("web", {**reach, **more}, path))) as open_:
        channel = open_.start(["cat"])
        channel.send(b"hello", 5)
        assert channel.receive(5) == b"hello"


# -- files -------------------------------------------------------------------------------------


def test_included_files_count(tmp_path: Path, server: SshServer) -> None:
    write(tmp_path, server, "IdentityFile /nonexistent\nIdentityAgent none\n", "conf1")
    (tmp_path / "outer").write_text(f"Include {tmp_path}/conf*\n")
    log_in(server, str(tmp_path / "outer"), ansible_password="right")


def test_what_follows_an_included_file_is_for_whom_it_was_before(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("Host inner\n  User inside\n")
    outer = tmp_path / "outer"
    outer.write_text(f"Host one\n  Include {tmp_path}/inner\n  User first\nHost *\n  User last\n")
    found = ssh_config.load(str(outer))
    users = {name: found.lookup(name)["user"] for name in ("inner", "one", "other")}
    assert users == {"inner": "inside", "one": "first", "other": "last"}


def test_sections_for_hosts_and_users_count(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(
        "Match host db*,!db3\n  User dba\nMatch originalhost web exec true\n  HostName 192.0.2.7\n"
        "Match host 192.0.2.7\n  User www\nMatch exec false\n  User never\nMatch all\n  Port 2222\n"
    )
    found = ssh_config.load(str(path))
    assert found.lookup("db1")["user"] == "dba"
    assert "user" not in found.lookup("db3")
    assert (found.lookup("web")["hostname"], found.lookup("web")["user"]) == ("192.0.2.7", "www")
    assert found.lookup("db3")["port"] == "2222"


def test_a_file_that_is_none_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "config").write_text('just some words\nand = 1\n\n"\n')
    with pytest.raises(ConfigError, match="there is no ssh_config"):
        ssh_config.load(str(tmp_path / "nowhere"))


def test_programs_of_sections_neither_read_nor_print_nor_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ssh_config, "PATIENCE", 0.5)
    path = tmp_path / "config"
    path.write_text(
        'Match exec "read line || true"\n  User read\nMatch exec "echo loud; sleep 9"\n  Port 7\n'
    )
    found = ssh_config.load(str(path)).lookup("web")
    assert (found["user"], found.get("port")) == ("read", None)
    assert capfd.readouterr().out == ""


def test_checks_look_at_the_address_that_a_name_stands_for(
    tmp_path: Path, server: SshServer
) -> None:
    path = write(tmp_path, server, "Host web\n  HostName 127.0.0.1\n")
    check = Check("tcp", ("{address}",), server.port, within=3.0)
    with Connector() as connector:
        verify = Verifier([check], lambda host: Target.of(host, {}, path), connector)
        assert verify(["web"]) == ""
        assert "does not hold" in verify(["web.invalid"])


# -- a way through a program -------------------------------------------------------------------


def test_a_program_may_be_the_way_to_a_host(tmp_path: Path, server: SshServer) -> None:
    bridge = tmp_path / "bridge.py"
    bridge.write_text(BRIDGE)
    way = f"Host 127.0.0.1\n  ProxyCommand {sys.executable} {bridge} %h %p\n"
    path = write(tmp_path, server, f"IdentityFile /nonexistent\nIdentityAgent none\n{way}")
    log_in(server, path, ansible_password="right")
    fails = write(tmp_path, server, "ProxyCommand echo no way there >&2; exit 1\n")
    with pytest.raises(HostUnreachable, match="by ProxyCommand: it ended: no way there"):
        log_in(server, fails, ansible_password="right")
    silent = write(tmp_path, server, "ConnectTimeout 1\nProxyCommand sleep 60\n")
    with pytest.raises(HostUnreachable, match="does not speak SSH in time"):
        log_in(server, silent, ansible_password="right")
    unknown = write(tmp_path, server, "ProxyCommand nc %i\n")
    with pytest.raises(ConfigError, match="ProxyCommand has %i"):
        log_in(server, unknown, ansible_password="right")


# -- keys --------------------------------------------------------------------------------------


def make_key(path: Path, passphrase: str = "") -> paramiko.PKey:
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(keygen, check=True)
    return paramiko.Ed25519Key(filename=str(path), password=passphrase or None)


@contextlib.contextmanager
def agent(path: Path, *keys: Path) -> Iterator[str]:
    """An ssh-agent that has these keys, which have no passphrase."""
    started = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(250):
            if path.exists():
                break
            time.sleep(0.02)
        for key in keys:
            add = ["ssh-add", "-q", str(key)]
            subprocess.run(add, check=True, env={"SSH_AUTH_SOCK": str(path), "PATH": "/usr/bin"})
        yield str(path)
    finally:
        started.terminate()
        started.wait()


def test_a_key_with_a_passphrase_opens_with_it_and_only_with_it(
    tmp_path: Path, server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    server.authorized.append(make_key(tmp_path / "id", SECRET))
    path = write(tmp_path, server, f"IdentityFile {tmp_path}/id\n")
    log_in(server, path, ansible_ssh_private_key_passphrase=SECRET)
    for wrong in ({}, {"ansible_private_key_passphrase": "guess"}):
        with pytest.raises(AuthFailed) as failure:
            log_in(server, path, **wrong)
        assert "passphrase" in failure.value.message
        assert "guess" not in str(failure.value)
    assert server.logins == [], "no password was sent"


def test_an_agent_opens_a_key_that_has_a_passphrase(
    tmp_path: Path, server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The file that is named is locked; the agent has the same key, opened.
    server.authorized.append(make_key(tmp_path / "id", SECRET))
    make_key(tmp_path / "other")
    subprocess.run(["cp", tmp_path / "id", tmp_path / "opened"], check=True)
    unlock = ["ssh-keygen", "-q", "-p", "-P", SECRET, "-N", "", "-f", str(tmp_path / "opened")]
    subprocess.run(unlock, check=True, stdout=subprocess.DEVNULL)
    path = write(tmp_path, server, "IdentitiesOnly yes\n")
    with agent(tmp_path / "agent", tmp_path / "other", tmp_path / "opened") as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        named = {"ansible_ssh_private_key_file": str(tmp_path / "id")}
        log_in(server, path, **named)
        (tmp_path / "id.pub").unlink()
        log_in(server, path, **named)
        # What was not named is not tried: a server ends a login after so many keys.
        server.authorized = [paramiko.Ed25519Key(filename=str(tmp_path / "other"))]
        with pytest.raises(AuthFailed):
            log_in(server, path, **named)


def test_the_agent_that_is_named_is_asked_and_none_is_none(
    tmp_path: Path, server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    server.authorized.append(make_key(tmp_path / "held"))
    with agent(tmp_path / "agent", tmp_path / "held") as socket:
        log_in(server, write(tmp_path, server, f"IdentityAgent {socket}\n"))
        monkeypatch.setenv("MY_AGENT", socket)
        log_in(server, write(tmp_path, server, "IdentityAgent $MY_AGENT\n"))
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        log_in(server, write(tmp_path, server))
        with pytest.raises(AuthFailed):
            log_in(server, write(tmp_path, server, "IdentityAgent none\n"))
    with pytest.raises(AuthFailed):
        log_in(server, write(tmp_path, server, f"IdentityAgent {tmp_path}/gone\n"))
