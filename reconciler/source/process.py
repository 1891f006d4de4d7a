"""Programs that read hostile input: a clean environment, a time limit, an end for all of them.

Whatever a program leaves running in its process group is killed when the call returns.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

CHUNK = 1 << 16


class Ended(NamedTuple):
    """What a program left. stopped: why we ended it, "" if it ended by itself.

    code: its exit code, negative for a signal. ok: by itself, with code 0.
    """

    code: int
    out: bytes
    err: bytes
    stopped: Literal["", "time", "output"] = ""

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.stopped

    @property
    def said(self) -> str:
        """What it complained about, else what it printed."""
        return (self.err.strip() or self.out.strip()).decode("utf-8", "replace")


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    seconds: float,
    cap: int = 1 << 20,
    feed: bytes = b"",
    pass_fds: Sequence[int] = (),
    **options: Any,
) -> Ended:
    """Run a program to its end, or end it with its whole process group.

    seconds: its time limit. feed: its standard input. cap: most bytes that it may print. options: for Popen, such as
    `cwd` and `user`. Raises OSError when it cannot be started.
    """
    started: dict[str, Any] = {"env": dict(env), "cwd": "/", "start_new_session": True, **options}
    with memory_file(feed) as stdin:
        process = cast(
            "subprocess.Popen[bytes]",
            subprocess.Popen(
                list(argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=tuple(pass_fds),
                **started,
            ),
        )
    try:
        out, err, stopped = drain(process, time.monotonic() + seconds, cap)
    finally:
        # Before it is reaped, its number can belong to no other group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return Ended(code, out, err, stopped)


@contextlib.contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """A file that is in memory only, at its beginning; `/proc/self/fd/N` opens it again."""
    fd = os.memfd_create("reconciler")
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def drain(
    process: subprocess.Popen[bytes], deadline: float, cap: int
) -> tuple[bytes, bytes, Literal["", "time", "output"]]:
    """What a program prints and complains of until it ends, and why it was not waited for longer.

    deadline: of the monotonic clock. cap: most bytes of both together. It is not reaped.
    """
    assert process.stdout is not None  # noqa: S101  # asked for above
    assert process.stderr is not None  # noqa: S101
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = kept.values()
    reading = list(kept)
    while reading:
        left = deadline - time.monotonic()
        ready = select.select(reading, [], [], left)[0] if left > 0 else []
        if not ready:
            return bytes(out), bytes(err), "time"
        for fd in ready:
            data = os.read(fd, CHUNK)
            kept[fd] += data
            if not data:
                reading.remove(fd)
        if len(out) + len(err) > cap:
            return bytes(out), bytes(err), "output"
    # Both pipes are closed; what closes them and lives on is waited for like the rest.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > deadline:
            return bytes(out), bytes(err), "time"
        time.sleep(0.001)
    return bytes(out), bytes(err), ""
