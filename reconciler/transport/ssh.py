"""SSH in this process: connections to hosts, through jump hosts that are shared."""

from __future__ import annotations

import contextlib
import shlex
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence

import fabric
import paramiko
from paramiko.ssh_exception import (
    AuthenticationException,
    ChannelException,
    IncompatiblePeer,
    NoValidConnectionsError,
    PasswordRequiredException,
    ProxyCommandFailure,
    SSHException,
)

from reconciler.errors import (
    AuthFailed,
    ConfigError,
    ConnectionLost,
    HostUnreachable,
    TransportError,
)
from reconciler.transport import ssh_config
from reconciler.transport.command import shell_line
from reconciler.transport.options import check_options
from reconciler.transport.sshchannel import SshChannel, open_session
from reconciler.transport.strict import CONNECT, StrictConnection
from reconciler.transport.target import Hop, Target


class SshTransport:
    """A `Transport` over one SSH connection."""

    def __init__(self, connection: StrictConnection) -> None:
        self._connection = connection

    def start(self, argv: Sequence[str]) -> SshChannel:
        """Start a program. Raises ConnectionLost."""
        return open_session(self._connection.session_transport, shell_line(argv), CONNECT)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Connections:
    """The connections of one run. Jump hosts are reached once and shared by all behind them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jumps: dict[tuple[object, ...], tuple[threading.Lock, StrictConnection]] = {}
        self._files: dict[str | None, paramiko.SSHConfig] = {}

    def open(self, target: Target) -> SshTransport:
        """Connect and log in. Raises HostUnreachable, HostKeyRefused, AuthFailed, ConfigError."""
        check_options(target)
        config = self._config(target.ssh_config)
        with _explained(target.hop.address, target.hop):
            connection = StrictConnection(target.hop, config, dict(target.options), gateway=False)
        via = target.via or _proxy_jump(connection.ssh_config)
        connection.gateway = self._gateway(via, target) or _proxy_command(
            connection, target.hop.address
        )
        with _explained(connection.host, target.hop):
            connection.reach()
        return SshTransport(connection)

    def close(self) -> None:
        """End the connections to jump hosts."""
        with self._lock:
            for _, connection in reversed(list(self._jumps.values())):
                connection.close()
            self._jumps.clear()

    def _gateway(self, via: Sequence[Hop], target: Target) -> StrictConnection | None:
        gateway: StrictConnection | None = None
        for end in range(1, len(via) + 1):
            gateway = self._jump(tuple(via[:end]), gateway, target)
        return gateway

    def _jump(
        self, way: tuple[Hop, ...], before: StrictConnection | None, target: Target
    ) -> StrictConnection:
        key = (target.ssh_config, way)
        config = self._config(target.ssh_config)
        with self._lock:
            if key not in self._jumps:
                made = StrictConnection(way[-1], config, {}, gateway=before or False)
                self._jumps[key] = (threading.Lock(), made)
            lock, connection = self._jumps[key]
        with lock, _explained(f"the jump host {way[-1].address}", way[-1]):
            if not connection.is_connected:
                connection.reach()
        return connection

    def _config(self, path: str | None) -> fabric.Config:
        """One for each connection: Fabric's is changed by whoever reads it."""
        with self._lock:
            if path not in self._files:
                self._files[path] = ssh_config.load(path)
        # lazy: Fabric's own configuration files are none of ours.
        return fabric.Config(lazy=True, ssh_config=self._files[path])


def _proxy_jump(heard: Mapping[str, str]) -> Sequence[Hop]:
    said = heard.get("proxyjump", "none")
    return () if said.lower() == "none" else tuple(map(Hop.parse, said.split(",")))


def _proxy_command(connection: StrictConnection, name: str) -> str | bool:
    """What the operator's own ssh_config says; an inventory cannot say that."""
    values = {"h": connection.host, "p": connection.port, "r": connection.user, "n": name, "%": "%"}
    said = connection.ssh_config.get("proxycommand", "none")
    return ssh_config.proxy_command(said, values) or False


@contextlib.contextmanager
def _explained(name: str, hop: Hop) -> Iterator[None]:
    """Errors of the libraries as errors of ours."""
    try:
        yield
    except TransportError:
        raise
    except SSHException as error:
        raise _of_ssh(error, name, hop) from error
    except (OSError, EOFError) as error:
        raise _of_network(error, f"{name} port {hop.port}" if hop.port else name) from error
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _of_network(error: OSError | EOFError, where: str) -> TransportError:
    if isinstance(error, NoValidConnectionsError):
        reasons = sorted(
            {str(getattr(one, "strerror", None) or one).lower() for one in error.errors.values()}
        )
        return HostUnreachable(f"cannot connect to {where}: {', '.join(reasons)}")
    if isinstance(error, socket.gaierror):
        return HostUnreachable(
            f"the name of {where} cannot be resolved: {str(error.strerror).lower()}",
            hint="give its address with ansible_host",
        )
    if isinstance(error, TimeoutError):
        return HostUnreachable(f"{where} does not answer in time")
    return HostUnreachable(f"cannot connect to {where}: {error}")


def _of_ssh(error: SSHException, name: str, hop: Hop) -> TransportError:
    where = f"{name} port {hop.port}" if hop.port else name
    words = str(error)
    if isinstance(error, PasswordRequiredException):
        return AuthFailed(
            f"the private key for {name} needs a passphrase",
            hint="add it to ssh-agent (ssh-add), or give --ask-key-pass",
        )
    if isinstance(error, AuthenticationException):
        return AuthFailed(
            f"{name} does not let us in as {hop.user or 'this user'}: {words.rstrip('.').lower()}",
            hint="try it by hand: ssh " + shlex.quote(f"{hop.user}@{name}" if hop.user else name),
        )
    if isinstance(error, IncompatiblePeer):
        return HostUnreachable(
            f"{name} speaks only algorithms that are not safe any more: {words}",
            hint="update its sshd, or set ansible_connection: openssh and allow them in ssh_config",
        )
    if isinstance(error, ProxyCommandFailure):
        return HostUnreachable(f"cannot connect to {where} by ProxyCommand: {error.error}")
    if isinstance(error, ChannelException):
        return HostUnreachable(f"the jump host cannot connect to {where}: {words}")
    if "checkints" in words or "Invalid key" in words:
        return AuthFailed(
            f"the private key for {name} does not open: another passphrase, or a damaged file",
            hint="try it by hand: ssh-keygen -y -f FILE",
        )
    if "No authentication methods" in words or "not a valid" in words:
        return AuthFailed(
            f"there is no key and no password for {name}",
            hint="start ssh-agent, or set ansible_ssh_private_key_file or ansible_password",
        )
    if "banner" in words or "No existing session" in words:
        return HostUnreachable(f"{where} accepts connections but does not speak SSH in time")
    return ConnectionLost(f"{where}: {words}")
