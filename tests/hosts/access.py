"""How hosts are reached: the session's key, one ssh_config and one known_hosts for all of them.

Both files are whole at any time and need no other file, so that OpenSSH, paramiko and testinfra
can all read them.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

#: One connection per host is kept open (`ControlPersist`), so that a command costs milliseconds.
EVERYWHERE = """\
User root
IdentityFile {state}/key
IdentitiesOnly yes
BatchMode yes
ConnectTimeout 10
UserKnownHostsFile {state}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
ControlMaster auto
ControlPath {state}/%C
ControlPersist 600
LogLevel ERROR
"""
STANZA = """
Host {name}
    HostName {address}
    HostKeyAlias {name}
"""


class Access:
    """The key and the two files, which follow the hosts that come and go."""

    def __init__(self, state: Path) -> None:
        self.key = state / "key"
        self.config = state / "ssh_config"
        self.known_hosts = state / "known_hosts"
        self._defaults = EVERYWHERE.format(state=state)
        self._hosts: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        generate_key(self.key, "reconciler lab")

    def add(self, name: str, address: str, public: str) -> None:
        """Let a host in that will answer at `address` with this public key."""
        with self._lock:
            self._hosts[name] = (address, public)
            self._write()

    def remove(self, name: str) -> None:
        """Forget a host; the next one of this name has another address and key."""
        with self._lock:
            self._hosts.pop(name, None)
            self._write()

    def hang_up(self, name: str) -> None:
        """Close the connection that is kept open."""
        close = ["ssh", "-F", str(self.config), "-O", "exit", name]
        subprocess.run(close, check=False, capture_output=True)

    def _write(self) -> None:
        stanzas = [STANZA.format(name=n, address=at) for n, (at, _) in self._hosts.items()]
        known = [f"{n},{at} {public}" for n, (at, public) in self._hosts.items()]
        _replace(self.config, self._defaults + "".join(stanzas))
        _replace(self.known_hosts, "".join(known))


def generate_key(path: Path, comment: str) -> str:
    """Make an ed25519 key pair without a passphrase; returns the public half."""
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text()


def _replace(path: Path, text: str) -> None:
    """Write beside and rename: another thread's ssh may be reading the file."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.rename(path)
