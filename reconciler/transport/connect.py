"""From a target to a running engine, whichever way leads there."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from reconciler.transport.bootstrap import Launch, launch
from reconciler.transport.contract import Transport
from reconciler.transport.engine import Engine
from reconciler.transport.local import LocalTransport
from reconciler.transport.remote import Limits
from reconciler.transport.target import Target

if TYPE_CHECKING:
    from reconciler.transport.openssh import Sockets
    from reconciler.transport.ssh import Connections


class Connector:
    """Opens the connections of one run; what they share ends with it. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: Connections | None = None
        self._sockets: Sockets | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections to jump hosts, and those that ssh keeps open."""
        if self._connections is not None:
            self._connections.close()
        if self._sockets is not None:
            self._sockets.close()

    def open(self, target: Target) -> Transport:
        """A connection to the host. Raises TransportError and what is below it, ConfigError."""
        if target.connection in ("local", "chroot"):
            return LocalTransport()
        if target.connection == "nspawn":
            from reconciler.transport.nspawn import NspawnTransport

            return NspawnTransport(target)
        # The libraries of a way are imported when it is taken: they cost more than a run.
        if target.connection == "openssh":
            from reconciler.transport.openssh import OpenSshTransport

            return OpenSshTransport(target, self._shared_sockets())
        return self._shared_connections().open(target)

    def address(self, target: Target) -> str:
        """Where the host is on the network, as the operator's ssh_config knows its name."""
        if target.connection not in ("ssh", "openssh"):
            return target.hop.address
        from reconciler.transport import ssh_config

        return ssh_config.hostname(target.hop.address, target.ssh_config)

    def engine(
        self, target: Target, how: Launch, limits: Limits, durability: str = "batch"
    ) -> Engine:
        """The engine, started on the host. Raises TransportError and what is below it."""
        if target.connection in ("local", "chroot") and how.become is None:
            return Engine.local(target.root, durability)
        transport = self.open(target)
        root = target.root
        if target.connection == "nspawn":
            # The engine is inside, where there is no cache: /run is gone with the container.
            root, how = "/", replace(how, keep=False)
        try:
            link = launch(transport, how, limits)
        except BaseException:
            transport.close()
            raise
        return Engine(link, root=root, durability=durability)

    def _shared_connections(self) -> Connections:
        from reconciler.transport.libraries import import_ssh

        with self._lock:
            if self._connections is None:
                import_ssh()
                from reconciler.transport.ssh import Connections

                self._connections = Connections()
            return self._connections

    def _shared_sockets(self) -> Sockets:
        from reconciler.transport.openssh import Sockets

        with self._lock:
            if self._sockets is None:
                self._sockets = Sockets()
            return self._sockets
