"""Runs that are killed: the whole process group, as a power cut or the OOM killer would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import reconciler
from behaviour.world import World
from reconciler.engine.wire import Message, Wire

#: Above this many bytes content is not fetched for a preview.
LARGE = 256 << 10
MAIN = Path(reconciler.__file__).parent / "engine" / "__main__.py"


class Victim:
    """An engine process in the middle of an apply, spoken to frame by frame."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(MAIN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.wire = Wire(self.process.stdout, self.process.stdin)  # type: ignore[arg-type]
        self.wire.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.hang_up()

    def hang_up(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def start(self, durability: str = "none") -> None:
        self.wire.send({"op": "apply", "root": str(self.world.root), "durability": durability})
        self.wire.send_json(self.world.catalog())

    def run_to(self, path: str) -> Message:
        """Start, and go on until the content of the large file `path` is asked for: the question.

        Content that is too large for a preview is asked for in the middle of the change, so the
        engine waits for us just there.
        """
        wanted = next(one for one in self.world.resources if one.id == f"file:{path}")
        sha256, size = wanted.params["content"]["$content"]  # type: ignore[index]
        assert size > LARGE
        self.start()
        while True:
            message = self.wire.receive()
            assert "report" not in message, "the run was over before it came there"
            if message.get("sha256") == sha256:
                return message
            if message.get("ask") == "content":
                self.answer(message)

    def report(self) -> dict[str, object]:
        """What it says at its end; questions are answered."""
        while True:
            report = self.next().get("report")
            if isinstance(report, dict):
                return report

    def next(self) -> Message:
        """The next message that is not a question; questions are answered."""
        while True:
            message = self.wire.receive()
            if message.get("ask") != "content":
                return message
            self.answer(message)

    def answer(self, question: Message) -> None:
        self.wire.send_content(self.world.fetch(str(question["sha256"])))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def kill_at(world: World, path: str) -> None:
    """Kill an apply when it is about to write the large file `path`."""
    with Victim(world) as victim:
        victim.run_to(path)


def kill_after(world: World, seconds: float) -> bool:
    """Kill an apply `seconds` after it was asked for; whether it was still going on."""
    with Victim(world) as victim:
        timer = threading.Timer(seconds, victim.kill)
        victim.start()
        timer.start()
        try:
            while "report" not in victim.next():
                pass
        except (EOFError, BrokenPipeError):
            return True
        finally:
            timer.cancel()
            timer.join()
        return False


def processes_in(root: Path) -> list[str]:
    """Command lines of processes that still work below `root`, ours excepted."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            files = [os.readlink(one) for one in (entry / "fd").iterdir()]
            if any(name.startswith(f"{root}/") for name in files):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def measured(world: World) -> float:
    """Seconds that a straight apply takes in an engine that has already started."""
    with Victim(world) as victim:
        begun = time.monotonic()
        victim.start()
        while "report" not in victim.next():
            pass
        return time.monotonic() - begun
