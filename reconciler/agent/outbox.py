"""Notices on their way to people: each is sent to each place until it arrives, or is too old.

What cannot be reached is often the very thing that there is to tell of. Places are addresses, which
hold secrets: here they are digests, and what they stand for is in the settings only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from reconciler.agent.link import python
from reconciler.agent.places import read_json, write
from reconciler.agent.schedule import NEVER

#: Seconds that all deliveries of one message may take.
PATIENCE = 300
#: Seconds until a message that did not arrive is sent again: at first, and at most.
FIRST, CAP = 60.0, 3600.0
#: Seconds after which nobody needs to know any more; and as many messages are kept at most.
OLD, MOST = 86400.0, 100
#: Seconds after which who waits for deliveries begins no further one: a run by a timer does other
#: things as well.
ENOUGH = 60.0

Sink = Mapping[str, Any]


@dataclass
class Parcel:
    """One message. job: what `tell` makes it of. to: the places that it has not come to. Times are
    seconds since the epoch; at: not before. tried: when it was sent last."""

    job: dict[str, Any]
    to: list[str]
    since: float
    at: float
    tries: int = 0
    tried: float = 0.0


@dataclass
class Outbox:
    """path: where it outlives a restart."""

    path: str
    parcels: list[Parcel] = field(default_factory=list)
    _sender: subprocess.Popen[bytes] | None = None
    _sent: Parcel | None = None
    #: The places by the numbers that the sender knows; the settings may be others meanwhile.
    _numbers: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: str) -> Self:
        """As the last process left it; empty if that is lost."""
        made = cls(path)
        for one in (read_json(path) or {}).get("parcels", ()):
            with contextlib.suppress(TypeError):
                made.parcels.append(Parcel(**one))
        return made

    @property
    def due(self) -> float:
        """When there is something to send, in seconds since the epoch; while something is sent, never."""
        return NEVER if self._sender else min((one.at for one in self.parcels), default=NEVER)

    def post(
        self,
        notices: Sequence[Mapping[str, Any]],
        status: Mapping[str, Any],
        sinks: Sequence[Sink],
        now: float,
    ) -> None:
        """One message of these notices, to all these places."""
        self.parcels.append(Parcel(_job(notices, status), [*map(_place, sinks)], now, now))
        del self.parcels[:-MOST]
        self._save()

    def send(self, sinks: Sequence[Sink], now: float) -> None:
        """Start to send what is due. sinks: the places that there are now. Raises OSError."""
        self._heed_clock(now)
        if now < self.due:
            return
        parcel = self._next()
        self._numbers = [*map(_place, sinks)]
        known = {one: number for number, one in enumerate(self._numbers)}
        parcel.to = [one for one in parcel.to if one in known]
        parcel.at, parcel.tried = now + FIRST, now
        if parcel.to:
            self._sender = deliver(sinks, parcel.job, [known[one] for one in parcel.to])
        self._sent = parcel
        if not parcel.to:
            self._conclude(parcel)

    def take(self, now: float) -> list[dict[str, Any]]:
        """What became of what was sent, once that is known; lines for the log."""
        sender, parcel = self._sender, self._sent
        if sender is None or parcel is None or sender.poll() is None:
            return []
        if sender.returncode < 0:
            with contextlib.suppress(ProcessLookupError):
                # Who was killed alone leaves a program that may hold our end of the pipe for long.
                os.killpg(sender.pid, signal.SIGKILL)
        with sender:
            said = sender.stdout.read() if sender.stdout else b""
        self._sender = None
        try:
            failed = {self._numbers[int(number)] for number in json.loads(said)}
        except (ValueError, TypeError, IndexError):
            failed = set(parcel.to)  # it was killed before it could say
        parcel.to = [one for one in parcel.to if one in failed]
        parcel.tries += 1
        parcel.at = now + min(CAP, FIRST * 2.0 ** min(parcel.tries - 1, 10))
        given_up = bool(parcel.to) and now - parcel.since > OLD
        if given_up or not parcel.to:
            self._conclude(parcel)
        self._save()
        if given_up:
            return [_said("err", "a notification has not arrived for a day and is given up")]
        if parcel.to and parcel.tries == 1:
            return [_said("warning", "it is sent again, ever more slowly, for a day")]
        late = not parcel.to and parcel.tries > 1
        return [_said("info", "a notification has arrived after all")] if late else []

    def wait(self, sinks: Sequence[Sink], now: float) -> list[dict[str, Any]]:
        """Send what is due and wait for it, within reason; lines for the log. Raises OSError."""
        said: list[dict[str, Any]] = []
        self._heed_clock(now)
        end = time.monotonic() + ENOUGH
        while now >= self.due:
            self.send(sinks, now)
            if self._sender is not None:
                self._sender.wait()
            said += self.take(now)
            if time.monotonic() >= end:
                break
        return said

    def _heed_clock(self, now: float) -> None:
        """A clock that was set back must not make anything wait for years."""
        for one in self.parcels:
            one.since, one.at = min(one.since, now), min(one.at, now + CAP)
            one.tried = min(one.tried, now)

    def _next(self) -> Parcel:
        """The one that is due first, after those before it that go the same way: what is over must
        not be told before it has begun."""
        due = min(self.parcels, key=lambda one: one.at)
        before = (
            one
            for one in self.parcels
            if one.since < due.since and one.tried < due.at and not set(one.to).isdisjoint(due.to)
        )
        return min(before, key=lambda one: one.since, default=due)

    def _conclude(self, parcel: Parcel) -> None:
        # Of too many, it may have been left out meanwhile.
        self.parcels = [one for one in self.parcels if one is not parcel]
        self._sent = None

    def _save(self) -> None:
        document = {"parcels": [asdict(one) for one in self.parcels]}
        with contextlib.suppress(OSError):  # it is sent all the same, unless we end before
            write(self.path, json.dumps(document).encode())


def deliver(
    sinks: Sequence[Sink],
    job: Mapping[str, Any],
    to: Sequence[int] | None = None,
    *,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start what sends a message; it ends by itself, and prints which of the places it did not come to.

    to: the numbers of those that it is for, None for all. stderr: where it says why, as
    `subprocess` takes it. Raises OSError.
    """
    whole = {**job, "sinks": list(sinks), "to": list(range(len(sinks)) if to is None else to)}
    # A file that only we and it have: addresses hold secrets, and argv is everybody's.
    with open(os.memfd_create("notices"), "w+b") as file:
        file.write(json.dumps(whole).encode())
        file.seek(0)
        return subprocess.Popen(
            ["timeout", "-k", "10", str(PATIENCE), *python("reconciler.agent.tell")],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )


def rehearse(sinks: Sequence[Sink], who: str, status: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Send a test to these places, the way that notices take; whether all arrived, and what was
    said about it. Raises OSError."""
    notice = {
        "type": "Test",
        "event": "test",
        "status": "True",
        "reason": "Asked",
        "message": f"{who} wants to know whether this arrives",
        "since": status["written"],
        "commit": status["source"]["applied"]["commit"],
        "missed": 0,
    }
    with deliver(sinks, _job([notice], status), stderr=subprocess.PIPE) as sender:
        _, said = sender.communicate()
    return sender.returncode == 0, said.decode("utf-8", "replace").splitlines()


def _job(notices: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "notices": list(notices),
        "host": status["host"],
        "id": status["agent"]["id"],
        "next": status["next"],
        "named": {name: list(status[name])[:1] for name in ("failed", "drifted", "contended")},
        "subject": {key: status["source"]["trusted"].get(key, "") for key in ("author", "subject")},
    }


def _place(sink: Sink) -> str:
    return hashlib.sha256(json.dumps(sink, sort_keys=True).encode()).hexdigest()[:16]


def _said(priority: str, message: str) -> dict[str, Any]:
    return {"priority": priority, "message": message}
