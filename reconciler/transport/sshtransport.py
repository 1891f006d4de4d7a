"""paramiko's transport, without delays, for known host keys, and with an ear for a host that died.

paramiko's own keepalive asks for no answer: with a host that was frozen, or cut off behind a
firewall that acknowledges for it, a run would last until its time limit.
"""

from __future__ import annotations

import socket
from typing import Any

import paramiko
from paramiko.common import MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS, cMSG_GLOBAL_REQUEST
from paramiko.ssh_exception import SSHException

import reconciler
from reconciler.transport import certificate
from reconciler.transport.known_hosts import Known

#: Milliseconds until the kernel gives up a connection on which nothing is acknowledged.
USER_TIMEOUT = 60_000


class Silent(SSHException):
    """The other side has not answered when it was asked for a sign of life."""


def make(known: Known, sock: Any, **settings: Any) -> ListeningTransport:
    """A transport that asks for a key that we can check, and sends at once."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
    transport = ListeningTransport(sock, **settings)
    transport.order_keys(known)
    transport.daemon = True
    return transport


class ListeningTransport(paramiko.Transport):
    """paramiko's transport, which offers first the key types that are known for the host."""

    _CLIENT_ID = f"reconciler_{reconciler.__version__}"

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

    def listen(self, every: int, most: int) -> None:
        """Ask for a sign of life every so many seconds, and hang up after `most` without answer.

        every: 0 for never. As ServerAliveInterval and ServerAliveCountMax of OpenSSH.
        """
        unanswered = 0
        own: Any = self

        def ask() -> None:
            nonlocal unanswered
            if unanswered >= most:
                raise Silent(f"it has not answered for {every * most} s")
            unanswered += 1
            request = paramiko.Message()
            request.add_byte(cMSG_GLOBAL_REQUEST)
            request.add_string("keepalive@openssh.com")
            request.add_boolean(True)
            own._send_user_message(request)  # noqa: SLF001  as its own keepalive

        def answered(message: paramiko.Message) -> None:
            nonlocal unanswered
            unanswered = 0

        # Nothing else asks what these would answer: no port is forwarded.
        handlers: dict[int, Any] = own._handler_table  # noqa: SLF001  for subclasses, it says
        handlers[MSG_REQUEST_SUCCESS] = handlers[MSG_REQUEST_FAILURE] = answered
        self.packetizer.set_keepalive(every, ask)
