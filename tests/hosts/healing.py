"""Runs on a host: damages files here and there, and measures how long each stays so.

    python3 healing.py PATTERN

Each kind of damage comes equally often, in random order. The files must be declared with content,
owner, group, mode and `force`; a file is healed when it is in all of them what it was.
Two sorted lists as JSON: the seconds until each file was healed, and how much longer than on a
machine of its own 20 ms of CPU time took in between. Ends with a message if one is not healed.
"""

from __future__ import annotations

import glob
import json
import os
import random
import stat
import sys
import time
from collections.abc import Callable

#: How often each kind comes.
ROUNDS = 3
DAEMON = 1


def main(pattern: str) -> None:
    """Damage and look."""
    took: list[float] = []
    stretch: list[float] = []
    kinds = random.sample([*KINDS] * ROUNDS, len(KINDS) * ROUNDS)
    for kind, path in zip(kinds, random.sample(glob.glob(pattern), len(kinds)), strict=True):
        good = look(path)
        time.sleep(random.uniform(0.1, 0.3))  # noqa: S311  # no secret
        started = time.monotonic()
        KINDS[kind](path)
        while look(path) != good:
            if time.monotonic() - started > 10:
                sys.exit(f"{path} was not healed after it was {kind}: {look(path)}, was {good}")
            time.sleep(0.001)
        took.append(time.monotonic() - started)
        if os.path.lexists(aside(path)):
            os.unlink(aside(path))
        wall, cpu = time.monotonic(), time.process_time()
        while time.process_time() - cpu < 0.02:
            pass
        stretch.append((time.monotonic() - wall) / 0.02)
    print(json.dumps([sorted(took), sorted(stretch)]))


def look(path: str) -> tuple[int, int, int, bytes] | None:
    """All that is declared: type and mode, owner, group, content; None if it is not there."""
    try:
        found = os.lstat(path)
        content = read(path) if stat.S_ISREG(found.st_mode) else b""
    except FileNotFoundError:
        return None
    return found.st_mode, found.st_uid, found.st_gid, content


def read(path: str) -> bytes:
    """What a file holds."""
    with open(path, "rb") as file:
        return file.read()


def write(path: str, content: bytes, how: str = "wb") -> None:
    """Write into a file as it is."""
    with open(path, how) as file:
        file.write(content)


def aside(path: str) -> str:
    """Where the file that is there goes to, or one comes from that takes its place."""
    return f"{path}.aside"


def other(number: int) -> int:
    """A user or group that `number` is not."""
    return 0 if number == DAEMON else DAEMON


def swap(path: str) -> None:
    """Another file comes by rename."""
    write(aside(path), b"by hand")
    os.rename(aside(path), path)


def replace(make: Callable[[str], object]) -> Callable[[str], None]:
    """Something else is made in the file's place."""

    def act(path: str) -> None:
        os.unlink(path)
        make(path)

    return act


KINDS: dict[str, Callable[[str], object]] = {
    "edited": lambda path: write(path, b"by hand"),
    "emptied": lambda path: write(path, b""),
    "appended to": lambda path: write(path, b"by hand", "ab"),
    "given another mode": lambda path: os.chmod(path, 0o600),
    "made writable for all": lambda path: os.chmod(path, 0o666),
    "made to run as its owner": lambda path: os.chmod(path, os.stat(path).st_mode | stat.S_ISUID),
    "given to another user": lambda path: os.chown(path, other(os.stat(path).st_uid), -1),
    "given to another group": lambda path: os.chown(path, -1, other(os.stat(path).st_gid)),
    "deleted": os.unlink,
    "moved away": lambda path: os.rename(path, aside(path)),
    "swapped": swap,
    "made a link": replace(lambda path: os.symlink("/etc/passwd", path)),
    "made a directory": replace(os.mkdir),
    "made a fifo": replace(os.mkfifo),
}


if __name__ == "__main__":
    main(sys.argv[1])
