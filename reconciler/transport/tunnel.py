"""The program of a `ProxyCommand`, as the socket that paramiko wants.

paramiko's own waits until it has as much as it asked for, turns round and round once the program
has ended, and never reads what that says on stderr.
"""

from __future__ import annotations

import os

from paramiko.ssh_exception import ProxyCommandFailure

from reconciler.errors import TransportError
from reconciler.transport.pipes import PipeChannel
from reconciler.transport.remote import said

#: Seconds that the program may take to accept what is sent.
SENDING = 60.0


class Tunnel:
    """A connection through a program. command: as the operator's ssh_config has it."""

    def __init__(self, command: str) -> None:
        shell = os.environ.get("SHELL") or "/bin/sh"
        self._command = command
        try:
            self._program = PipeChannel([shell, "-c", f"exec {command}"])
        except TransportError as error:
            raise ProxyCommandFailure(command, error.message) from error
        self._timeout: float | None = None
        self._rest = b""
        self._spoke = False
        self._closed = False  # read by paramiko, as a socket's

    def settimeout(self, timeout: float | None) -> None:
        """As a socket's."""
        self._timeout = timeout

    def recv(self, size: int) -> bytes:
        """As a socket's. Raises TimeoutError, ProxyCommandFailure."""
        if not self._rest:
            piece = self._program.receive(SENDING if self._timeout is None else self._timeout)
            if piece is None:
                raise TimeoutError
            if not piece and not self._spoke:
                self._program.status(1.0)
                raise ProxyCommandFailure(self._command, f"it ended{said(self._program)}")
            self._spoke = True
            self._rest = piece
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def send(self, data: bytes) -> int:
        """As a socket's. Raises ProxyCommandFailure."""
        try:
            self._program.send(data, SENDING)
        except OSError as error:
            raise ProxyCommandFailure(self._command, f"it ended{said(self._program)}") from error
        return len(data)

    def close(self) -> None:
        """End the program."""
        self._closed = True
        self._program.close()
