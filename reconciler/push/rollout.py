"""The algebra of a fleet run: who goes when, and when it must not go on. Pure: no host, no clock.

A fleet is cut into batches. The canary hosts, if there are any, are the first batch; the rest
follows in the given sizes, the last of which repeats. Every host is in exactly one batch, and no
batch is empty. Before each start the tally is held against the limits; the denominator of every
percentage is the whole selected fleet, never a batch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reconciler.words import counted

Order = Literal["inventory", "reverse", "sorted", "shuffle"]
ORDERS: tuple[Order, ...] = ("inventory", "reverse", "sorted", "shuffle")
_SIZE = re.compile(r"([0-9]{1,9})(%?)")


@dataclass(frozen=True)
class Size:
    """A number of hosts, or a part of the fleet in percent."""

    amount: int
    percent: bool = False

    @classmethod
    def parse(cls, text: object) -> Size:
        """`3` or `10%`. Raises ValueError for anything else."""
        found = None if isinstance(text, bool) else _SIZE.fullmatch(str(text))
        if found is None or (found[2] and int(found[1]) > 100):
            raise ValueError(f"expected a number of hosts such as 3, or 10%, found {text!r}")
        return cls(int(found[1]), bool(found[2]))

    def of(self, total: int) -> int:
        """How many of `total` hosts, rounded down."""
        return total * self.amount // 100 if self.percent else self.amount

    def __str__(self) -> str:
        return f"{self.amount}{'%' if self.percent else ''}"


WHOLE = Size(100, percent=True)


@dataclass(frozen=True)
class Rollout:
    """How a fleet run proceeds.

    batches: sizes, the last of which repeats. canary: a pattern of hosts that go first.
    max_failed, max_unreachable: so many hosts may fail or be out of reach, and no more; None:
    as many as like in a run of one batch, none in a run of several.
    order: of hosts within the run; seed: of a shuffle. pause: seconds between batches.
    """

    batches: tuple[Size, ...] = (WHOLE,)
    canary: str = ""
    max_failed: Size | None = None
    max_unreachable: Size | None = None
    order: Order = "inventory"
    seed: int = 0
    pause: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Hosts that go together. canary: none of them may fail or be out of reach."""

    hosts: tuple[str, ...]
    canary: bool = False


@dataclass(frozen=True)
class Limits:
    """How many hosts of the fleet may fail, and be out of reach; None: as many as like."""

    failed: int | None = None
    unreachable: int | None = None


@dataclass(frozen=True)
class Tally:
    """What has come of the hosts so far."""

    failed: int = 0
    unreachable: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.failed + other.failed, self.unreachable + other.unreachable)


def arrange(hosts: Sequence[str], order: Order, seed: int = 0) -> list[str]:
    """The same hosts in another order. A shuffle with the same seed is the same shuffle."""
    arranged = list(hosts)
    if order == "reverse":
        arranged.reverse()
    elif order == "sorted":
        arranged.sort()
    elif order == "shuffle":
        random.Random(seed).shuffle(arranged)  # noqa: S311  an order, not a secret
    return arranged


def cut(hosts: Sequence[str], rollout: Rollout, canary: Collection[str] = ()) -> list[Batch]:
    """The batches of a run over these hosts, in the order in which they go.

    canary: the hosts that its pattern means; what of it is not among `hosts` does not count.
    A percentage is of all hosts, and at least one host.
    """
    arranged = arrange(hosts, rollout.order, rollout.seed)
    first = [host for host in arranged if host in canary]
    rest = [host for host in arranged if host not in canary]
    batches = [Batch(tuple(first), canary=True)] if first else []
    sizes = _sizes(rollout.batches, len(arranged))
    while rest:
        size = next(sizes)
        batches.append(Batch(tuple(rest[:size])))
        rest = rest[size:]
    return batches


def _sizes(batches: Sequence[Size], total: int) -> Iterator[int]:
    for size in batches or (WHOLE,):
        yield max(1, size.of(total))
    last = batches[-1] if batches else WHOLE
    while True:
        yield max(1, last.of(total))


def limits(rollout: Rollout, total: int, batches: int) -> Limits:
    """The limits of a run over `total` hosts in so many batches.

    Who rolls out in steps wants to stop at a bad one; who gives no steps wants all hosts tried.
    """
    default = None if batches < 2 else 0
    failed, unreachable = rollout.max_failed, rollout.max_unreachable
    return Limits(
        default if failed is None else failed.of(total),
        default if unreachable is None else unreachable.of(total),
    )


def verdict(tally: Tally, allowed: Limits, total: int) -> str:
    """Why no further host may begin; "" if it may."""
    for count, most, what in (
        (tally.failed, allowed.failed, "failed"),
        (tally.unreachable, allowed.unreachable, "unreachable"),
    ):
        if most is not None and count > most:
            return f"{count} of {counted(total, 'host')} {what}, and {most} may be"
    return ""
