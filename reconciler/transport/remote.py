"""A `Link` over a channel: streams that end, whatever the host does."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, cast

from reconciler.engine.wire import Wire
from reconciler.errors import (
    ConnectionLost,
    HostUnreachable,
    ProtocolError,
    ReconcilerError,
)
from reconciler.transport.contract import GO_ON, PIECE, Channel
from reconciler.transport.link import Ended

#: Seconds between two looks at the clock while nothing comes.
TICK = 0.5


@dataclass(frozen=True)
class Limits:
    """What one host may cost. seconds: a whole run; received: bytes that it may send."""

    seconds: float = 3600.0
    received: int = 256 << 20


class RemoteLink:
    """An engine on another host.

    head: what has been read of its stdout already. release: ends the connection below it.
    """

    def __init__(
        self, channel: Channel, limits: Limits, head: bytes, release: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._release = release
        self._limits = limits
        self._end = time.monotonic() + limits.seconds
        self._left = limits.received
        self._head = head
        self._speaking = threading.Lock()
        incoming = io.BufferedReader(_Incoming(self._receive), PIECE)
        self.incoming = cast("io.BufferedReader", incoming)
        self.outgoing = cast("BinaryIO", _Outgoing(self._send))

    def stop(self) -> None:
        """Tell the engine to stop at the next boundary."""
        Wire(self.incoming, self.outgoing).send({"op": "stop"})

    def gone(self) -> ReconcilerError:
        """Why the engine has hung up."""
        code = self._channel.status(2.0)
        words = said(self._channel)
        if code is None:
            return ConnectionLost(f"the connection broke off{words}", hint=GO_ON)
        return Ended(f"the engine ended with code {code} before it had answered{words}")

    def close(self, patience: float) -> None:
        """Hang up; the engine sees that and stops at the next boundary."""
        self._channel.hang_up()
        if patience >= 1:
            self._channel.status(min(patience, 1.0))
        self.kill()

    def kill(self) -> None:
        """Hang up at once."""
        self._channel.close()
        self._release()

    def _receive(self) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        while True:
            left = self._end - time.monotonic()
            if left <= 0:
                raise HostUnreachable(
                    f"the host was not done within {self._limits.seconds:g} s",
                    hint="the engine stops at the next boundary; --host-timeout gives it more time",
                )
            piece = self._channel.receive(min(TICK, left))
            if piece is not None:
                self._left -= len(piece)
                if self._left < 0:
                    raise ProtocolError(
                        f"the host sent more than {self._limits.received >> 20} MiB"
                    )
                return piece

    def _send(self, data: bytes) -> None:
        # Whoever says stop may be another thread, and a frame must not be cut by that.
        with self._speaking:
            self._channel.send(data, max(1.0, self._end - time.monotonic()))


class _Incoming(io.RawIOBase):
    """Reading as io wants it."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer
        if not self._rest:
            self._rest = memoryview(self._receive())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _Outgoing(io.RawIOBase):
    """Writing as io wants it: each write is sent whole."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer
        self._send(bytes(data))
        return len(data)


def said(channel: Channel) -> str:
    """The last line that the host said on stderr, made harmless, as the end of a message."""
    lines = channel.errors().decode("utf-8", "replace").strip().splitlines()
    if not lines:
        return ""
    return ": " + "".join(c if c.isprintable() else "?" for c in lines[-1])[-300:]
