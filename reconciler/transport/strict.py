"""Fabric's connection, with strict host keys and without delays.

Fabric accepts any host key, also of jump hosts; paramiko reads known_hosts without its markers
and patterns, and leaves Nagle's algorithm on, which costs 40 ms per round trip. This is where
that ends.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import fabric
import paramiko

from reconciler.errors import HostUnreachable
from reconciler.transport import certificate, known_hosts, sshtransport
from reconciler.transport.identities import HeldKeys, Identities
from reconciler.transport.known_hosts import Known
from reconciler.transport.sshtransport import ListeningTransport
from reconciler.transport.target import Hop
from reconciler.transport.tunnel import Tunnel

# Its threads log what goes wrong, tracebacks and all; here that arrives as an error of ours.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

#: Seconds until the host must speak SSH, and until the login must have been made.
CONNECT = 10.0
AUTH = 30.0
#: Seconds between two signs of life that are asked for, and how many may be missed in a row.
ALIVE = {"serveraliveinterval": 15, "serveralivecountmax": 4}
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
    user: str
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

    def reach(self) -> None:
        """Connect and log in; from then on a host that falls silent is noticed."""
        # paramiko would ask the agent of the environment, for all that it has.
        client: Any = self.client
        client._agent = HeldKeys(self._identities)  # noqa: SLF001  there is no other way
        try:
            self.open()
        except BaseException:
            # Fabric closes only what is open.
            client.close()
            raise
        cast("ListeningTransport", self.transport).listen(*self._alive)

    def get_gateway(self) -> None:
        """Jumps are given by whoever makes the connection: Fabric's own would trust any key."""
        return

    def open_gateway(self) -> Any:
        """What stands in for a TCP connection: a channel of a jump host, or a program."""
        gateway: Any = self.gateway
        return Tunnel(gateway) if isinstance(gateway, str) else super().open_gateway()

    def _how(self, heard: Mapping[str, Any], hop: Hop) -> dict[str, Any]:
        self._identities = Identities.of(heard, hop.key_file)
        if "connecttimeout" in heard:
            self.connect_timeout = int(heard["connecttimeout"])
        every, most = (heard.get(name, usual) for name, usual in ALIVE.items())
        self._alive = (int(every), int(most))
        return {
            "key_filename": [path for path in self._identities.files if os.path.isfile(path)],
            "password": hop.password,
            "passphrase": hop.passphrase,
            "allow_agent": self._identities.agent is not None,
            "look_for_keys": not self._identities.named,
            "banner_timeout": self.connect_timeout,
            "auth_timeout": AUTH,
            "channel_timeout": CONNECT,
            "disabled_algorithms": DISABLED,
            "transport_factory": functools.partial(sshtransport.make, self.known),
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
