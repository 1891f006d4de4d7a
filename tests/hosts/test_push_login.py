"""Logins to real hosts: passwords, keys, agents and certificates; what an ssh_config says of them."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import pushing
from hosts.access import generate_key
from hosts.booted import BootedHost
from hosts.pushing import on_host, wish
from reconciler.errors import AuthFailed, ConfigError, HostKeyRefused, HostUnreachable
from reconciler.transport.target import Target

BOTH = pytest.mark.parametrize("way", ["ssh", "openssh"])
SECRET = "open sesame"
#: What `nc` does, which is not everywhere.
BRIDGE = (
    "import os,socket,sys,threading as t;"
    "s=socket.create_connection(sys.argv[1:3]);"
    "t.Thread(target=lambda:[s.sendall(d) for d in iter(lambda:os.read(0,65536),bytes())],daemon=1).start();"
    "[os.write(1,d) for d in iter(lambda:s.recv(65536),bytes())]"
)


@BOTH
def test_nobody_is_let_in_without_a_right(host: BootedHost, way: str) -> None:
    to = pushing.target(host, ansible_user="stranger", ansible_connection=way)
    with pytest.raises(AuthFailed) as failure:
        pushing.plan(to, wish("never"))
    assert failure.value.exit_code == 5


@BOTH
def test_a_port_on_which_nobody_answers_is_unreachable(host: BootedHost, way: str) -> None:
    to = pushing.target(host, ansible_port=23, ansible_connection=way)
    with pytest.raises((HostUnreachable, HostKeyRefused)) as failure:
        pushing.plan(to, wish("never"))
    assert type(failure.value) is HostUnreachable


def test_a_password_lets_in_where_keys_do_not(host: BootedHost, tmp_path: Path) -> None:
    pushing.login(host, "bypass", password="open sesame")
    config = tmp_path / "config"
    config.write_text(
        f"UserKnownHostsFile {host.access.known_hosts}\nIdentityFile /nonexistent\n"
        "IdentitiesOnly yes\n"
    )
    reach = {"ansible_host": host.address, "ansible_user": "bypass"}
    right = Target.of("x", {**reach, "ansible_password": "open sesame"}, str(config))
    assert pushing.plan(right, wish("bypass")).differs
    wrong = Target.of("x", {**reach, "ansible_password": "open barley"}, str(config))
    with pytest.raises(AuthFailed) as failure:
        pushing.plan(wrong, wish("never"))
    assert "barley" not in str(failure.value)


@contextlib.contextmanager
def _agent(path: Path, key: Path) -> Iterator[None]:
    """An ssh-agent at `path` that holds one key."""
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.02)
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env={"SSH_AUTH_SOCK": str(path)})
        yield
    finally:
        agent.terminate()
        agent.wait()


def _locked(host: BootedHost, directory: Path) -> str:
    """The lab's key, with a passphrase."""
    locked = str(directory / "locked")
    subprocess.run(["cp", host.access.key, locked], check=True)
    lock = ["ssh-keygen", "-q", "-p", "-P", "", "-N", SECRET, "-f", locked]
    subprocess.run(lock, check=True, stdout=subprocess.DEVNULL)
    return locked


@BOTH
def test_a_key_of_the_agent_lets_in(
    host: BootedHost, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with _agent(tmp_path / "agent", host.access.key):
        assert pushing.plan(_without_key(host, tmp_path, way), wish("agent")).differs
        # The file that is named has a passphrase; the agent has the same key, opened.
        named = {"ansible_ssh_private_key_file": _locked(host, tmp_path)}
        assert pushing.plan(_without_key(host, tmp_path, way, **named), wish("agent")).differs
    with pytest.raises(AuthFailed):
        pushing.plan(_without_key(host, tmp_path, way, **named), wish("never"))


@BOTH
def test_the_agent_that_ssh_config_names_lets_in(
    host: BootedHost, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with _agent(tmp_path / "agent", host.access.key):
        line = f"IdentityAgent {tmp_path}/agent\n"
        assert pushing.plan(_without_key(host, tmp_path, way, line), wish("agent")).differs
        with pytest.raises(AuthFailed):
            pushing.plan(_without_key(host, tmp_path, way, "IdentityAgent none\n"), wish("never"))


def test_a_key_with_a_passphrase_opens_with_it(host: BootedHost, tmp_path: Path) -> None:
    named = {
        "ansible_ssh_private_key_file": _locked(host, tmp_path),
        "ansible_ssh_private_key_passphrase": SECRET,
    }
    assert pushing.plan(_without_key(host, tmp_path, "ssh", **named), wish("locked")).differs
    with pytest.raises(ConfigError, match="OpenSSH takes no passphrase"):
        pushing.plan(_without_key(host, tmp_path, "openssh", **named), wish("never"))


@BOTH
def test_sections_and_programs_of_ssh_config_lead_to_the_host(
    host: BootedHost, tmp_path: Path, way: str
) -> None:
    config = tmp_path / "config"
    (tmp_path / "more").write_text(
        f"Match originalhost by-program\n  HostName {host.address}\n"
        f'Match exec "test %n = by-program"\n  User root\n  IdentityFile {host.access.key}\n'
        f"  ProxyCommand python3 -c '{BRIDGE}' %h %p\n"
    )
    config.write_text(
        f"Include {tmp_path}/mo*\nUserKnownHostsFile {host.access.known_hosts}\n"
        f"HostKeyAlias {host.name}\nIdentitiesOnly yes\n"
    )
    to = Target.of("by-program", {"ansible_connection": way}, str(config))
    assert pushing.apply(to, wish(f"by-program-{way}")).changed
    assert on_host(host, f"/srv/by-program-{way}").exists()


@BOTH
def test_a_user_certificate_lets_in(host: BootedHost, tmp_path: Path, way: str) -> None:
    ca = generate_key(tmp_path / "ca", "ca")
    generate_key(tmp_path / "mine", "mine")
    sign = ["ssh-keygen", "-q", "-s", str(tmp_path / "ca"), "-I", "me", "-n", "root"]
    subprocess.run([*sign, str(tmp_path / "mine.pub")], check=True)
    on_host(host, "/etc/ssh/user_ca.pub").write_text(ca)
    drop_in = on_host(host, "/etc/ssh/sshd_config.d/ca.conf")
    drop_in.write_text("TrustedUserCAKeys /etc/ssh/user_ca.pub\n")
    host.run(["systemctl", "reload", "ssh"])
    host.wait_for_ssh()
    mine = str(tmp_path / "mine")
    to = _without_key(host, tmp_path, way, ansible_ssh_private_key_file=mine)
    assert pushing.plan(to, wish("user-cert")).differs
    (tmp_path / "mine-cert.pub").unlink()
    with pytest.raises(AuthFailed):
        pushing.plan(to, wish("never"))


def _without_key(
    host: BootedHost, directory: Path, way: str, line: str = "", **variables: object
) -> Target:
    config = directory / "config"
    config.write_text(f"User root\nUserKnownHostsFile {host.access.known_hosts}\n{line}")
    reach = {"ansible_host": host.address, "ansible_connection": way, **variables}
    return Target.of(host.name, reach, str(config))


@BOTH
def test_a_host_that_speaks_only_weak_algorithms_is_told_apart(
    fresh_host: BootedHost, way: str
) -> None:
    # The lab's own connection is open already, and stays.
    drop_in = on_host(fresh_host, "/etc/ssh/sshd_config.d/weak.conf")
    drop_in.write_text("KexAlgorithms diffie-hellman-group14-sha1\n")
    fresh_host.run(["systemctl", "restart", "ssh"])
    fresh_host.wait_for_ssh()
    with pytest.raises(HostUnreachable):
        pushing.plan(pushing.target(fresh_host, ansible_connection=way), wish("never"))
