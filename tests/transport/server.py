"""An SSH server on loopback, for what must be seen from both ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED


class SshServer:
    """Answers logins with the password `right` or one of the keys in `authorized`, and echoes what
    an exec'd program is sent. droppable: somebody between could drop messages (CVE-2023-48795).
    """

    def __init__(self, *keys: paramiko.PKey, droppable: bool = False) -> None:
        self.keys = keys
        self.logins: list[str] = []
        self.authorized: list[paramiko.PKey] = []
        self.forwarding_asked = False
        self._droppable = droppable
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._transports: list[paramiko.Transport] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self._transports:
            transport.close()
        self._thread.join(5)

    def freeze(self) -> None:
        """Answer nothing any more, with every connection open, as a host that was stopped."""
        for transport in self._transports:
            transport.packetizer.read_message = _never

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection, strict_kex=not self._droppable)
            if self._droppable:
                transport.get_security_options().digests = ("hmac-sha2-256-etm@openssh.com",)
            for key in self.keys:
                transport.add_server_key(key)
            self._transports.append(transport)
            transport.start_server(server=_Answers(self), event=threading.Event())


class _Answers(paramiko.ServerInterface):
    def __init__(self, server: SshServer) -> None:
        self._server = server

    def check_auth_password(self, username: str, password: str) -> int:
        self._server.logins.append(username)
        return AUTH_SUCCESSFUL if password == "right" else AUTH_FAILED

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = [one.asbytes() for one in self._server.authorized]
        return AUTH_SUCCESSFUL if key.asbytes() in known else AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_forward_agent_request(self, channel: paramiko.Channel) -> bool:
        self._server.forwarding_asked = True
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_echo, args=(channel,), daemon=True).start()
        return True


def _never() -> tuple[int, paramiko.Message]:
    while True:
        time.sleep(0.1)


def _echo(channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := channel.recv(4096):
            channel.sendall(data)
        channel.send_exit_status(0)
        channel.close()
