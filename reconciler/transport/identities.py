"""The keys of a login, as ssh_config names them: files, and those that an agent holds.

With `IdentitiesOnly`, or a key from the inventory, an agent may use only the keys of these files:
that is how a key with a passphrase is used without typing it. paramiko would leave the agent out.
"""

from __future__ import annotations

import base64
import binascii
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paramiko.agent import AgentKey, AgentSSH
from paramiko.ssh_exception import SSHException

from reconciler.transport.certificate import Parts

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----"
MAGIC = b"openssh-key-v1\0"
#: Seconds that an agent may take, which may have to ask its owner.
PATIENCE = 60.0


@dataclass(frozen=True)
class Identities:
    """What may open a login.

    files: of private keys, those that are there. agent: its socket, None for no agent.
    only: the agent may use no other key than those of the files. named: whether any was named.
    """

    files: tuple[str, ...]
    agent: str | None
    only: bool
    named: bool

    @classmethod
    def of(cls, heard: Mapping[str, Any], key_file: str | None) -> Identities:
        """By the options of a host; key_file: the inventory's, which then is the only one."""
        said = heard.get("identityfile", [])
        named = [key_file] if key_file else [said] if isinstance(said, str) else list(said)
        files = [os.path.expanduser(path) for path in named]
        only = key_file is not None or str(heard.get("identitiesonly", "no")).lower() == "yes"
        agent = _socket(str(heard.get("identityagent", "SSH_AUTH_SOCK")))
        return cls(tuple(filter(_is_there, files)), agent, only, bool(named))


class HeldKeys:
    """What a login may use of an agent, which is asked when its keys are needed."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._agent: Any = AgentSSH()

    def get_keys(self) -> tuple[AgentKey, ...]:
        """The keys; none where no agent answers."""
        one = self._identities
        if one.agent is None:
            return ()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(PATIENCE)
        try:
            link.connect(one.agent)
            self._agent._connect(link)  # noqa: SLF001  its own agent is the environment's only
        except (OSError, SSHException, ValueError):
            link.close()
            return ()
        keys: tuple[AgentKey, ...] = self._agent.get_keys()
        wanted = {blob for path in one.files for blob in _public(path)} if one.only else None
        return tuple(key for key in keys if wanted is None or key.blob in wanted)

    def close(self) -> None:
        """Let go of the agent; paramiko does when its client closes."""
        self._agent._close()  # noqa: SLF001  as above


def _socket(said: str) -> str | None:
    """IdentityAgent: `none`, a path, or the variable of the environment that has it."""
    if said.lower() == "none":
        return None
    if said == "SSH_AUTH_SOCK" or said.startswith("$"):
        return os.environ.get(said.lstrip("$").strip("{}")) or None
    return os.path.expanduser(said)


def _is_there(path: str) -> bool:
    return os.path.isfile(path) or os.path.isfile(f"{path}.pub")


def _public(path: str) -> list[bytes]:
    """The public key that belongs to a file, and its certificate: a passphrase hides neither."""
    found = [_of_line(f"{path}.pub"), _of_line(f"{path}-cert.pub"), _of_line(path), _inside(path)]
    return [blob for blob in found if blob]


def _of_line(path: str) -> bytes:
    words = _read(path).split()
    try:
        return base64.b64decode(words[1], validate=True) if len(words) > 1 else b""
    except (binascii.Error, ValueError):
        return b""


def _inside(path: str) -> bytes:
    head, _, rest = _read(path).strip().partition(PRIVATE)
    if head or not rest:
        return b""
    try:
        packed = base64.b64decode("".join(rest.partition("-----")[0].split()), validate=True)
        parts = Parts(packed.removeprefix(MAGIC))
        for _ in range(3):  # how it is encrypted
            parts.string()
        parts.number(4)
        return parts.string()
    except (binascii.Error, ValueError):
        return b""


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
