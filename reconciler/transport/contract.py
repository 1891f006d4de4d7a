"""What a way to a host must offer: start one program there and exchange bytes with it.

ssh.py         SSH in this process, the default
openssh.py     SSH through the `ssh` of this machine
local.py       this machine itself
nspawn.py      a directory root, as a container of this machine
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

#: How much is read or sent at once, in bytes.
PIECE = 1 << 18
#: The end of what a program says on stderr that is kept, in bytes.
TAIL = 8 << 10
#: What to do about a connection that broke off.
GO_ON = "the engine stops by itself at the next boundary: run again to go on"


class Channel(Protocol):
    """A program that runs on the host. Everything that comes from it is untrusted."""

    def receive(self, timeout: float) -> bytes | None:
        """What has come on its stdout; b"" once it has ended; None if nothing comes within
        `timeout` seconds. Raises ConnectionLost."""
        ...

    def send(self, data: bytes, timeout: float) -> None:
        """All of `data` to its stdin. Raises BrokenPipeError if it does not listen any more or
        does not take it within `timeout` seconds, ConnectionLost."""
        ...

    def errors(self) -> bytes:
        """The end of what it has said on stderr so far."""
        ...

    def status(self, timeout: float) -> int | None:
        """Its exit code; None if it does not end within `timeout` seconds, or by a signal."""
        ...

    def hang_up(self) -> None:
        """No more is sent: its stdin ends."""
        ...

    def close(self) -> None:
        """Let go of it, whatever it does."""
        ...


class Transport(Protocol):
    """A connection to one host."""

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program. Raises TransportError and what is below it."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...
