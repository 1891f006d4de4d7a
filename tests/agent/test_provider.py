"""The conversation with the part that fetches, when whoever began it is killed: it just ends."""

from __future__ import annotations

import io
import select
import socket
import subprocess
import sys
from pathlib import Path

from reconciler.engine.wire import Wire


def begin(theirs: socket.socket, directory: Path) -> subprocess.Popen[bytes]:
    end = theirs.fileno()
    command = [sys.executable, "-m", "reconciler.agent.provider", str(directory)]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.PIPE)
    theirs.close()
    return process


def ask(ours: socket.socket) -> None:
    """Something that fails at once."""
    outgoing = io.BytesIO()
    Wire(io.BufferedReader(io.BytesIO()), outgoing).send({"op": "no such thing"})
    ours.sendall(outgoing.getvalue())


def just_ends(process: subprocess.Popen[bytes]) -> bool:
    _, said = process.communicate(timeout=30)
    assert said.decode() == ""
    return process.returncode == 0


def test_nobody_is_there_any_more_to_take_the_answer(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ask(ours)
    ours.close()
    assert just_ends(begin(theirs, tmp_path))


def test_the_answer_was_not_read(tmp_path: Path) -> None:
    """Then the kernel says that the connection was reset, not that it came to its end."""
    ours, theirs = socket.socketpair()
    process = begin(theirs, tmp_path)
    ask(ours)
    assert select.select([ours], [], [], 30)[0]
    ours.close()
    assert just_ends(process)
