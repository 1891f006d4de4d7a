"""What the engine protocol needs of a connection: two streams, and ways to end."""

from __future__ import annotations

from io import BufferedReader
from typing import BinaryIO, Protocol

from reconciler.errors import ReconcilerError, TransportError


class Ended(TransportError):
    """The engine ended by itself before it had answered."""


class Link(Protocol):
    """A running engine as the controller reaches it."""

    incoming: BufferedReader
    outgoing: BinaryIO

    def stop(self) -> None:
        """Tell the engine to stop at the next boundary; its report still comes."""
        ...

    def gone(self) -> ReconcilerError:
        """Why the incoming stream has ended: ProtocolError where that cannot be explained."""
        ...

    def close(self, patience: float) -> None:
        """Hang up, and wait that many seconds for the engine before it is told to stop."""
        ...

    def kill(self) -> None:
        """Hang up on an engine that is not believed any more."""
        ...
