"""The engine as a process of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from io import BufferedReader
from typing import BinaryIO, cast

from reconciler.errors import ProtocolError, ReconcilerError, TransportError
from reconciler.transport.link import Ended

#: Seconds until an engine that was told to stop is killed.
LAST_PATIENCE = 1000.0


class Process:
    """A `Link` to a process that speaks the protocol on its stdin and stdout."""

    def __init__(self, argv: Sequence[str]) -> None:
        try:
            # Its own process group: Ctrl-C reaches it once, through us, and stops it at a boundary.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise TransportError(f"cannot start the engine: {error}") from error
        self.incoming = cast("BufferedReader", self._process.stdout)
        self.outgoing = cast("BinaryIO", self._process.stdin)

    def stop(self) -> None:
        """Tell the engine to stop at the next boundary."""
        self._process.send_signal(signal.SIGTERM)

    def gone(self) -> ReconcilerError:
        """Why the engine has hung up."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ProtocolError("the engine hung up before it had answered")
        if code < 0:
            known = {number.value: number.name for number in signal.Signals}
            return TransportError(f"the engine was killed by {known.get(-code, f'signal {-code}')}")
        return Ended(
            f"the engine ended with code {code} before it had answered",
            hint="what it said is above",
        )

    def close(self, patience: float) -> None:
        """Hang up; an engine that does not end by itself is told to stop, and in the end killed."""
        self._hang_up()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            if patience >= 1:
                self._wait_or_kill()

    def kill(self) -> None:
        """End the engine and all that it has started in its process group."""
        self._hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _hang_up(self) -> None:
        for stream in (self.outgoing, self.incoming):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _wait_or_kill(self) -> None:
        try:
            self._process.wait(LAST_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
