"""When things happen: intervals with jitter, back-off, and the same for a thousand hosts at once.

Nothing here reads a clock; times are of `time.monotonic`, so a clock that jumps moves nothing.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

#: A time that does not come.
NEVER = float("inf")
#: Seconds: after boot until the first fetch, at most.
SPLAY = 30.0
#: Seconds: the first wait after a fetch that failed, and the longest.
FETCH_FIRST, FETCH_CAP = 1.0, 900.0
APPLY_FIRST, APPLY_CAP = 5.0, 900.0
#: Seconds for which a remote that did not answer is tried last: at first, and at most.
REST_FIRST, REST_CAP = 60.0, 900.0
#: Seconds between two sweeps while no events tell of all changes, at most.
BLIND = 300.0
#: Seconds since the last correction of a resource, by how many there were in the last minutes.
HEAL_STEPS = (0.0, 2.0, 6.0, 18.0, 54.0, 162.0, 300.0)


def share(identity: str, purpose: str = "") -> float:
    """A number from 0 to 1 that is this host's own: the same at every start."""
    digest = hashlib.sha256(f"{purpose}\n{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass
class Schedule:
    """The times of one host's fetches and sweeps. identity: what its jitter depends on."""

    identity: str
    interval: float
    sweep: float
    chance: random.Random = field(default_factory=random.Random)
    failures: int = 0
    tries: int = 0

    def first_fetch(self, now: float) -> float:
        """After a start: spread, so that hosts that boot together do not fetch together."""
        return now + share(self.identity, "splay") * min(SPLAY, self.interval)

    def next_fetch(self, now: float) -> float:
        """After one that worked: up to a fifth later by the host's own share, and 5 % by chance."""
        self.failures = 0
        wait = self.interval * (1 + 0.2 * share(self.identity, "fetch"))
        return now + wait * self.chance.uniform(0.95, 1.05)

    def after_failure(self, now: float) -> float:
        """After one that failed: anywhere within a time that doubles with each failure.

        So hosts that lost their server together do not come back to it together.
        """
        longest = min(FETCH_CAP, FETCH_FIRST * 2.0 ** min(self.failures, 20))
        self.failures += 1
        return now + self.chance.uniform(min(FETCH_FIRST, longest) / 2, longest)

    def next_sweep(self, now: float, *, blind: bool = False) -> float:
        """Half an hour or so, a tenth more or less. blind: there are no events, or not all."""
        every = min(self.sweep, BLIND) if blind else self.sweep
        return now + every * self.chance.uniform(0.9, 1.1)

    def retry(self, now: float) -> float:
        """When a run that failed in part is tried again; a new commit is not waited for."""
        wait = min(APPLY_CAP, APPLY_FIRST * 2.0 ** min(self.tries, 20))
        self.tries += 1
        return now + wait

    def succeeded(self) -> None:
        """A run went through: the next failure starts from the beginning."""
        self.tries = 0


@dataclass
class Rests:
    """Remotes that did not answer while another one did: so often, and tried last until then."""

    known: dict[str, tuple[int, float]] = field(default_factory=dict)

    def failed(self, name: str, now: float) -> None:
        """It is tried last for a time that doubles with each failure."""
        times = self.known.get(name, (0, 0.0))[0]
        self.known[name] = (times + 1, now + min(REST_CAP, REST_FIRST * 2.0 ** min(times, 20)))

    def worked(self, name: str) -> None:
        """It has its place in the list again."""
        self.known.pop(name, None)

    def resting(self, now: float) -> list[str]:
        """Those that are tried last now."""
        return [name for name, (_, end) in self.known.items() if now < end]
