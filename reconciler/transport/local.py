"""This machine as a target: the same arrival and protocol, without a network."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.transport.pipes import PipeChannel


class LocalTransport:
    """A `Transport` to this machine."""

    def start(self, argv: Sequence[str]) -> PipeChannel:
        """Start a program here."""
        return PipeChannel(argv)

    def close(self) -> None:
        """Nothing is held."""
