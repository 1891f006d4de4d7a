"""A child at work, that nobody waits on: what it says is taken as it comes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from reconciler.agent.fork import Forked

#: Bytes that a child of our own code may say: the state and the watches of a very large host.
SPACIOUS = 256 << 20
#: Seconds that a child lives on at most after its last word: somebody else may be due meanwhile.
PATIENCE = 5.0

#: At the head of a process group of its own.
Process = Forked | subprocess.Popen[bytes]


class Child:
    """A process with a pipe to us. pipe: readable when there is something to take."""

    def __init__(self, start: Callable[[int], Process], most: int = SPACIOUS) -> None:
        """start: gets the end that it speaks into. most: bytes; who says more is ended.

        Raises what `start` does, and OSError.
        """
        self.pipe, end = os.pipe()
        try:
            self.process = start(end)
        except BaseException:
            os.close(self.pipe)
            raise
        finally:
            os.close(end)
        os.set_blocking(self.pipe, False)
        self.said = bytearray()
        self._most = most

    def ended(self) -> bool:
        """Take what it has said; whether that was all."""
        while len(self.said) <= self._most:
            try:
                piece = os.read(self.pipe, 1 << 18)
            except BlockingIOError:
                return False
            if not piece:
                break
            self.said += piece
        else:
            self.kill()
        self.close()
        return True

    def answer(self) -> dict[str, Any] | None:
        """The JSON object that it has said, once it has ended; None if it died of something."""
        try:
            document = json.loads(self.said)
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def kill(self) -> None:
        """End it, and what it has started in its session's first group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Listen to it no longer, and see to its end."""
        os.close(self.pipe)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()


def forked(work: Callable[[int], object]) -> Callable[[int], Process]:
    """What starts a fork of ours that does `work`, which gets the end that it speaks into."""
    return lambda end: Forked(lambda: work(end), keep=[end])


def answer(pipe: int, document: dict[str, Any]) -> None:
    """In a child: say this, which is all."""
    # A supervisor that was killed hears no answer.
    with contextlib.suppress(BrokenPipeError), open(pipe, "wb") as file:
        file.write(json.dumps(document, separators=(",", ":")).encode())
