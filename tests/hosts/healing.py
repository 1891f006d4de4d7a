"""Runs on a host: damages files here and there, and measures how long each stays so.

    python3 healing.py PATTERN

Two sorted lists as JSON: the seconds until each file was healed, and how much longer than on a
machine of its own 20 ms of CPU time took in between. Ends with a message if one is not healed.
"""

from __future__ import annotations

import glob
import json
import random
import sys
import time

FILES = 40


def main(pattern: str) -> None:
    """Damage and look."""
    took: list[float] = []
    stretch: list[float] = []
    for path in random.sample(glob.glob(pattern), FILES):
        good = read(path)
        time.sleep(random.uniform(0.1, 0.3))  # noqa: S311  # no secret
        started = time.monotonic()
        with open(path, "w") as file:
            file.write("by hand")
        while read(path) != good:
            if time.monotonic() - started > 10:
                sys.exit(f"{path} was not healed")
            time.sleep(0.001)
        took.append(time.monotonic() - started)
        wall, cpu = time.monotonic(), time.process_time()
        while time.process_time() - cpu < 0.02:
            pass
        stretch.append((time.monotonic() - wall) / 0.02)
    print(json.dumps([sorted(took), sorted(stretch)]))


def read(path: str) -> str:
    """What a file holds."""
    with open(path) as file:
        return file.read()


if __name__ == "__main__":
    main(sys.argv[1])
