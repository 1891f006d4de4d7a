"""A clock that tests move."""

from __future__ import annotations


class Clock:
    """In place of the module `time`. now: of `monotonic`; ahead: by how much the other one is."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + self.ahead
