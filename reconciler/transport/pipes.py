"""A channel to a child process of ours: a local program, or `ssh`."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Sequence
from typing import IO, cast

from reconciler.errors import TransportError
from reconciler.transport.contract import PIECE, TAIL


class PipeChannel:
    """A `Channel` over the pipes of a child process."""

    def __init__(self, argv: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        try:
            # Its own session: Ctrl-C is for us, and no program of theirs reads our terminal.
            self._process = subprocess.Popen(
                argv, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise TransportError(f"cannot start {argv[0]}: {error.strerror}") from error
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._stderr = cast("IO[bytes]", self._process.stderr)
        self._tail = b""
        self._open = {self._stdout.fileno(), self._stderr.fileno()}
        # One thread may send while another receives, and both take in what comes on stderr.
        for stream in (self._stdin, self._stderr):
            os.set_blocking(stream.fileno(), False)

    def receive(self, timeout: float) -> bytes | None:
        """What has come; b"" at the end, None if nothing comes in time."""
        end = time.monotonic() + timeout
        out = self._stdout.fileno()
        while out in self._open:
            ready = self._wait(max(0.0, end - time.monotonic()))
            if out in ready:
                piece = os.read(out, PIECE)
                if piece:
                    return piece
                self._open.discard(out)
            elif time.monotonic() >= end:
                return None
        return b""

    def send(self, data: bytes, timeout: float) -> None:
        """All of it, while what comes on stderr is taken in."""
        end = time.monotonic() + timeout
        left = memoryview(data)
        while left:
            poll = select.poll()
            poll.register(self._stdin.fileno(), select.POLLOUT)
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                raise BrokenPipeError("it does not take what is sent")
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._stdin.fileno(), left[:PIECE]) :]
            self._wait(0.0)

    def errors(self) -> bytes:
        """The end of stderr."""
        self._wait(0.0)
        return self._tail

    def status(self, timeout: float) -> int | None:
        """The exit code; None by a signal or not yet."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        while self._stderr.fileno() in self._wait(0.0):
            pass
        return code if code >= 0 else None

    def hang_up(self) -> None:
        """End its stdin."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def close(self) -> None:
        """End its streams, and itself if that does not."""
        for stream in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()
        self._open.clear()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
                return
            self._process.kill()
            self._process.wait()

    def _wait(self, timeout: float) -> set[int]:
        """Which streams have something; stderr is read at once, so that it never fills."""
        if not self._open:
            return set()
        poll = select.poll()  # select() ends at descriptor 1024, which a fleet run passes
        for fd in tuple(self._open):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(timeout * 1000)}
        err = self._stderr.fileno() if not self._stderr.closed else -1
        if err in ready:
            with contextlib.suppress(BlockingIOError):
                piece = os.read(err, PIECE)
                self._tail = (self._tail + piece)[-TAIL:]
                if not piece:
                    self._open.discard(err)
        return ready
