"""A double of `Host`: files below a directory, and programs that answer from a recording.

    host = FakeHost(tmp_path)
    host.put("/etc/motd", "hello\\n")
    host.answers("systemctl", "show", out=recorded)
    ...
    assert ("systemctl", "start", "--", "nginx.service") in host.ran

A program without a recording is an AssertionError: a test says what it expects to be run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from reconciler.errors import CommandFailed
from reconciler.host import Completed, Host


class Recorded(NamedTuple):
    """What a program said, for every argv that begins with `start`."""

    start: tuple[str, ...]
    out: str
    err: str
    code: int


class FakeHost(Host):
    """A machine in a directory that believes to be the real one.

    ran: the argv of everything that was run, looking or acting.
    """

    def __init__(self, directory: Path | str, *, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(str(directory), facts=facts, durability="none")
        self.directory = Path(directory)
        self.root = "/"
        self.readonly = False
        self.ran: list[tuple[str, ...]] = []
        self._recorded: list[Recorded] = []

    def put(self, path: str, text: str = "", mode: int = 0o644) -> None:
        """Make a file, with the directories that it takes."""
        target = self.directory / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def answers(self, *start: str, out: str = "", err: str = "", code: int = 0) -> None:
        """Record what a program says; the latest recording that fits is the one that counts."""
        self._recorded.append(Recorded(start, out, err, code))

    def _execute(
        self,
        argv: Sequence[str],
        input: bytes | None,
        check: bool,
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
        timeout: float | None,
    ) -> Completed:
        words = tuple(argv)
        self.ran.append(words)
        for start, out, err, code in reversed(self._recorded):
            if words[: len(start)] == start:
                if check and code:
                    raise CommandFailed(words, code, err or out)
                return Completed(words, code, out, err)
        raise AssertionError(f"nothing is recorded for {' '.join(words)}")
