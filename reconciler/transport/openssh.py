"""SSH through the `ssh` of this machine: for GSSAPI, hardware keys and all that ssh_config can say.

Connections are shared by ssh itself (ControlMaster), in a directory that is ours alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

from reconciler.errors import (
    AuthFailed,
    ConfigError,
    ConnectionLost,
    HostKeyRefused,
    HostUnreachable,
    TransportError,
)
from reconciler.transport import known_hosts
from reconciler.transport.command import shell_line
from reconciler.transport.contract import GO_ON
from reconciler.transport.options import check_options, merged
from reconciler.transport.pipes import PipeChannel
from reconciler.transport.target import Hop, Target

#: What ssh says with this code is about the connection, not about our program.
SSH_FAILED = 255
#: A socket's path may have 108 bytes; ssh adds 40 of its own, and 17 while it makes it.
MAX_DIRECTORY = 45
#: What it says of a connection that was never made, or that the host turned away.
BEFORE_LOGIN = (
    "connect to host|resolve hostname|timed out|UNKNOWN port|stdio forwarding"
    "|kex_exchange_identification|banner exchange|Unable to negotiate"
)
ALWAYS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "EscapeChar": "none",
    "LogLevel": "INFO",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
}


class Sockets:
    """The directory of this run's control sockets, and of the keys that inventories pin."""

    def __init__(self) -> None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        base = (
            runtime
            if _is_ours(runtime) and len(runtime) < MAX_DIRECTORY - 12
            else tempfile.gettempdir()
        )
        # mkdtemp: 0700, and a name that nobody can have taken before us.
        self.path = tempfile.mkdtemp(prefix="rc-", dir=base)
        self._masters: set[tuple[str, ...]] = set()

    def remember(self, argv: tuple[str, ...]) -> None:
        """A connection that may be left open in the background."""
        self._masters.add(argv)

    def close(self) -> None:
        """End the connections, and remove the directory."""
        for argv in self._masters:
            exit_ = [argv[0], "-O", "exit", *argv[1:]]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(exit_, check=False, capture_output=True, timeout=5)
        shutil.rmtree(self.path, ignore_errors=True)


class OpenSshTransport:
    """A `Transport` over `ssh`."""

    def __init__(self, target: Target, sockets: Sockets) -> None:
        if shutil.which("ssh") is None:
            raise ConfigError(
                "ansible_connection openssh needs the program ssh, which is not there",
                hint="install openssh-client, or use ansible_connection: ssh",
            )
        if target.hop.password is not None:
            raise ConfigError(
                "OpenSSH takes no password from a program",
                hint="use a key or an agent, or ansible_connection: ssh",
            )
        if target.hop.passphrase is not None:
            raise ConfigError(
                "OpenSSH takes no passphrase from a program",
                hint="add the key to ssh-agent (ssh-add), or use ansible_connection: ssh",
            )
        check_options(target)
        self._argv = _argv(target, sockets.path)
        self._target = target
        sockets.remember(tuple(self._argv))

    def start(self, argv: Sequence[str]) -> SshProcess:
        """Start a program; that ssh cannot connect shows when it is read from."""
        return SshProcess([*self._argv, shell_line(argv)], self._target)

    def close(self) -> None:
        """The connection is shared; it ends with the run."""


class SshProcess(PipeChannel):
    """A channel whose end may be ssh's own failure."""

    def __init__(self, argv: Sequence[str], target: Target) -> None:
        super().__init__(argv)
        self._target = target

    def receive(self, timeout: float) -> bytes | None:
        """As any channel; at its end ssh may have something to say. Raises TransportError."""
        piece = super().receive(timeout)
        if piece == b"" and super().status(2.0) == SSH_FAILED:
            raise _explained(self.errors().decode("utf-8", "replace"), self._target)
        return piece

    def status(self, timeout: float) -> int | None:
        """None also where ssh lost the connection."""
        code = super().status(timeout)
        return None if code == SSH_FAILED else code


def _argv(target: Target, directory: str) -> list[str]:
    argv = ["ssh"]
    if target.ssh_config is not None:
        argv += ["-F", target.ssh_config]
    # ssh takes the first value of an option that it gets.
    for name, value in [*_of(target, directory), *merged(target), *ALWAYS.items()]:
        argv += ["-o", f"{name}={value}"]
    return [*argv, *target.extra, "--", target.hop.address]


def _of(target: Target, directory: str) -> Iterator[tuple[str, str]]:
    yield "ControlMaster", "auto"
    yield "ControlPath", f"{directory}/%C"
    yield "ControlPersist", "60"
    if target.hop.port is not None:
        yield "Port", str(target.hop.port)
    if target.hop.user is not None:
        yield "User", target.hop.user
    if target.hop.key_file is not None:
        yield "IdentityFile", os.path.expanduser(target.hop.key_file)
        yield "IdentitiesOnly", "yes"
    if target.via:
        yield "ProxyJump", ",".join(map(_jump, target.via))
    if target.hop.host_keys:
        yield "UserKnownHostsFile", _pinned(target, directory)
        yield "GlobalKnownHostsFile", "none"
        yield "HostKeyAlias", target.name


def _jump(hop: Hop) -> str:
    host = f"[{hop.address}]" if ":" in hop.address else hop.address
    user = f"{hop.user}@" if hop.user else ""
    return f"{user}{host}" + (f":{hop.port}" if hop.port else "")


def _pinned(target: Target, directory: str) -> str:
    """A known_hosts file with the keys that the inventory gives."""
    known_hosts.pinned(target.hop.host_keys)
    path = os.path.join(directory, f"keys-{target.name}")
    with open(path, "w", encoding="utf-8") as file:
        for key in target.hop.host_keys:
            marker, rest = (
                ("@cert-authority ", key[16:]) if key.startswith("@cert-a") else ("", key)
            )
            file.write(f"{marker}{target.name} {rest}\n")
    return path


def _explained(words: str, target: Target) -> TransportError:
    """What ssh said, which it says in English everywhere."""
    lines = [line for line in words.strip().splitlines() if not line.startswith("@")]
    last = (
        "".join(c if c.isprintable() else "?" for c in lines[-1])[-300:] if lines else "no reason"
    )
    name = target.hop.address
    if "IDENTIFICATION HAS CHANGED" in words:
        found = re.search(r"SHA256:[A-Za-z0-9+/]+", words)
        return HostKeyRefused(
            f"THE HOST KEY OF {name} HAS CHANGED to {found[0] if found else 'another'}. "
            "Somebody may be posing as this host",
            hint=f"if it was installed anew: ssh-keygen -R '{name}', then add the new key",
        )
    if "Host key verification failed" in words or "REVOKED" in words:
        found = re.search(r"No (\S+) host key is known", words)
        return HostKeyRefused(
            f"the host key of {name} is unknown or refused" + (f" ({found[1]})" if found else ""),
            hint="compare it with what the host's console says, then add it:\n"
            + known_hosts.commands(
                known_hosts.lookup_name(name, target.hop.port or known_hosts.DEFAULT_PORT)
            ),
        )
    if "Permission denied" in words or "Too many authentication failures" in words:
        return AuthFailed(f"{name} does not let us in: {last}")
    if re.search(BEFORE_LOGIN, words):
        return HostUnreachable(f"cannot connect to {name}: {last}")
    why = f": {last}" if last else ""
    return ConnectionLost(f"the connection to {name} broke off{why}", hint=GO_ON)


def _is_ours(path: str) -> bool:
    """Whether nobody else can write to the directory."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    )
