"""One program on a host, over a paramiko session."""

from __future__ import annotations

import contextlib
import time

import paramiko
from paramiko.ssh_exception import SSHException

from reconciler.errors import ConnectionLost
from reconciler.transport.contract import GO_ON, PIECE, TAIL
from reconciler.transport.sshtransport import Silent

#: Seconds between two looks at stderr, which must not fill while we wait for stdout.
TICK = 0.5


class SshChannel:
    """A `Channel` over a session of an SSH connection."""

    def __init__(self, session: paramiko.Channel) -> None:
        self._session = session
        self._tail = b""

    def receive(self, timeout: float) -> bytes | None:
        """What has come; b"" at the end, None if nothing comes in time. Raises ConnectionLost."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            self._take_errors()
            self._session.settimeout(max(0.0, min(left, TICK)))
            try:
                piece = self._session.recv(PIECE)
            except TimeoutError:
                if left <= TICK:
                    return None
                continue
            if not piece:
                self._check_alive()
            return piece

    def send(self, data: bytes, timeout: float) -> None:
        """All of it."""
        self._session.settimeout(timeout)
        try:
            self._session.sendall(data)
        except TimeoutError as error:
            raise BrokenPipeError("it does not take what is sent") from error
        except (OSError, SSHException) as error:
            raise BrokenPipeError("it does not listen any more") from error

    def errors(self) -> bytes:
        """The end of stderr."""
        self._take_errors()
        return self._tail

    def status(self, timeout: float) -> int | None:
        """The exit code; None by a signal, by a broken connection, or not yet."""
        self._session.status_event.wait(timeout)
        code = self._session.exit_status if self._session.exit_status_ready() else -1
        return code if code >= 0 else None

    def hang_up(self) -> None:
        """End its stdin."""
        with contextlib.suppress(OSError, SSHException, EOFError):
            self._session.shutdown_write()

    def close(self) -> None:
        """Close the session; sshd closes the pipes of the program."""
        with contextlib.suppress(OSError, SSHException, EOFError):
            self._session.close()

    def _check_alive(self) -> None:
        """An end may be a host that fell silent."""
        why = self._session.get_transport().saved_exception
        if isinstance(why, Silent):
            raise ConnectionLost(f"the host fell silent: {why}", hint=GO_ON)

    def _take_errors(self) -> None:
        while self._session.recv_stderr_ready():
            self._tail = (self._tail + self._session.recv_stderr(PIECE))[-TAIL:]


def open_session(transport: paramiko.Transport, command: str, timeout: float) -> SshChannel:
    """Start a command. Raises ConnectionLost."""
    try:
        session = transport.open_session(timeout=timeout)
        session.exec_command(command)
    except (SSHException, EOFError, OSError) as error:
        raise ConnectionLost(f"the host does not start a session: {error}") from error
    return SshChannel(session)
