"""Fabric's connection, with strict host keys and without delays.

Fabric accepts any host key, also of jump hosts; paramiko reads known_hosts without its markers
and patterns, and leaves Nagle's algorithm on, which costs 40 ms per round trip. This is where
that ends.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, cast

import fabric
import paramiko

from reconciler.errors import HostUnreachable
from reconciler.transport import certificate, known_hosts
from reconciler.transport.known_hosts import Known
from reconciler.transport.target import Hop

# Its threads log what goes wrong, tracebacks and all; here that arrives as an error of ours.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

#: Seconds until the TCP connection, the greeting, and the login must have been made.
CONNECT = 10.0
BANNER = 15.0
AUTH = 30.0
#: Seconds between two signs of life on a connection on which nothing happens.
KEEPALIVE = 15
#: Milliseconds until the kernel gives up a connection on which nothing is acknowledged.
USER_TIMEOUT = 60_000
#: Algorithms that SSH still knows and nobody should need: SHA-1, MD5, CBC, small groups.
DISABLED: Mapping[str, Sequence[str]] = {
    "ciphers": ("aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"),
    "macs": ("hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"),
    "kex": ("diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"),
    "keys": ("ssh-rsa", "ssh-dss"),
}


class StrictConnection(fabric.Connection):
    """A Fabric connection that knows its host, and lets nobody through it.

    options: of ssh, from the inventory; they win over those of the config.
    """

    # What Fabric sets; it has no types of its own.
    host: str
    port: int
    ssh_config: dict[str, Any]
    client: paramiko.SSHClient
    connect_timeout: int

    def __init__(
        self, hop: Hop, config: fabric.Config, options: Mapping[str, str], **settings: Any
    ) -> None:
        super().__init__(
            hop.address,
            user=hop.user,
            port=hop.port,
            config=config,
            forward_agent=False,
            connect_timeout=int(CONNECT),
            **settings,
        )
        heard: dict[str, Any] = dict(self.ssh_config)
        heard.update(options)
        alias = heard.get("hostkeyalias", hop.address)
        name = alias if "hostkeyalias" in heard else known_hosts.lookup_name(self.host, self.port)
        files = [
            *heard.get("userknownhostsfile", " ".join(known_hosts.USER_FILES)).split(),
            *heard.get("globalknownhostsfile", " ".join(known_hosts.GLOBAL_FILES)).split(),
        ]
        entries = known_hosts.read(files)
        if hop.host_keys:
            revoked = [entry for entry in entries if entry.marker == "revoked"]
            entries = [*revoked, *known_hosts.pinned(hop.host_keys)]
        self.known = Known(name, entries)
        # Fabric has just put AutoAddPolicy there.
        self.client.set_missing_host_key_policy(_OnlyKnown(self.known))
        self.connect_kwargs = self._how(heard, hop)

    @property
    def session_transport(self) -> paramiko.Transport:
        """What sessions are opened on, once it is open."""
        return cast("paramiko.Transport", self.transport)

    def get_gateway(self) -> None:
        """Jumps are given by whoever makes the connection: Fabric's own would trust any key."""
        return

    def _how(self, heard: Mapping[str, Any], hop: Hop) -> dict[str, Any]:
        keys = heard.get("identityfile", [])
        keys = [keys] if isinstance(keys, str) else list(keys)
        files = [hop.key_file] if hop.key_file else keys
        only = str(heard.get("identitiesonly", "no")).lower() == "yes" or hop.key_file is not None
        if "connecttimeout" in heard:
            self.connect_timeout = int(heard["connecttimeout"])
        return {
            "key_filename": [
                path for path in map(os.path.expanduser, files) if os.path.isfile(path)
            ],
            "password": hop.password,
            "allow_agent": not only and "SSH_AUTH_SOCK" in os.environ,
            "look_for_keys": not files,
            "banner_timeout": BANNER,
            "auth_timeout": AUTH,
            "channel_timeout": CONNECT,
            "disabled_algorithms": DISABLED,
            "transport_factory": functools.partial(_transport, self.known),
        }


class _OnlyKnown(paramiko.MissingHostKeyPolicy):
    """Asked for every key, because paramiko itself is given none to know."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        transport: Any = client.get_transport()
        if not transport.agreed_on_strict_kex and "-etm@" in str(transport.remote_mac):
            raise HostUnreachable(
                f"{hostname} has no strict key exchange, so somebody between could drop messages",
                hint="update its sshd (CVE-2023-48795), or allow MACs that are not -etm",
            )
        blob = getattr(key, "public_blob", None)
        certificate.check(self._known, key.asbytes(), None if blob is None else blob.key_blob)


def _transport(known: Known, sock: Any, **settings: Any) -> paramiko.Transport:
    """A transport that asks for a key that we can check, and sends at once."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
    transport = _Transport(sock, **settings)
    transport.order_keys(known)
    transport.daemon = True
    return transport


class _Transport(paramiko.Transport):
    """paramiko's transport, which offers first the key types that are known for the host."""

    def order_keys(self, known: Known) -> None:
        """As OpenSSH does: otherwise a host with a known RSA key shows an unknown Ed25519 key."""
        kinds = known.kinds
        wanted = [k for k in kinds if not k.startswith("ssh-rsa")]
        if "ssh-rsa" in kinds:
            wanted += ["rsa-sha2-512", "rsa-sha2-256"]
        options = self.get_security_options()
        first = [one for one in options.key_types if one in wanted]
        options.key_types = tuple(first + [one for one in options.key_types if one not in first])
        self._certificates_first = bool(known.authorities)

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        names: tuple[str, ...] = tuple(super().preferred_keys)
        if not self._certificates_first:
            return names
        return tuple(sorted(names, key=lambda name: not name.endswith(certificate.SUFFIX)))
