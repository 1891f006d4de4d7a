"""What the remotes offer, found out beside the supervisor's loop, which never waits for a network.

Where nothing but the word of the last poll is expected, a glance finds out whether it is that.
Everything else is asked of the provider; and that too from time to time, since it also looks
whether the mirror is sound.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from reconciler.agent import glance
from reconciler.agent.child import Child, answer
from reconciler.agent.config import Config
from reconciler.agent.link import Provider
from reconciler.agent.places import Places
from reconciler.agent.schedule import NEVER, Rests
from reconciler.engine.wire import error_to_json
from reconciler.errors import ReconcilerError
from reconciler.source.refs import full_ref
from reconciler.source.remote import Remote, in_order

#: Seconds after which a poll is killed; its parts have their own, shorter limits.
LIMIT = 1200.0
#: Seconds after which the provider is asked, whether or not there is anything new.
THOROUGH = 3600.0


class Poller:
    """Polls one at a time. Times are of `time.monotonic`. offer: what the last one brought."""

    def __init__(self, places: Places, config: Config) -> None:
        self._places = places
        self._child: Child | None = None
        self._deadline = NEVER
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Go by other settings from the next poll on."""
        self._config = config
        self._rests = Rests()
        self._asked_at = -NEVER
        self.offer: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a poll is at work."""
        return self._child is not None

    @property
    def pipe(self) -> int:
        """Readable when the poll at work has said something."""
        assert self._child is not None  # noqa: S101  # asked before
        return self._child.pipe

    @property
    def deadline(self) -> float:
        """When the poll at work has to be looked after, whatever it says."""
        return self._deadline

    def start(self, *, thorough: bool) -> None:
        """Begin one. thorough: a glance does not do. Raises OSError."""
        now, config = time.monotonic(), self._config
        first = in_order([Remote(**one) for one in config.remotes], self._rests.resting(now))[0]
        # Of a list of remotes, the first is the one that must be asked.
        known = self.offer is not None and self.offer["remote"] == first.name
        self._glancing = known and not thorough and now < self._asked_at + THOROUGH
        if not self._glancing:
            self._ask(now)
            return
        limits, ref = config.fetch_limits(), full_ref(config.branch)
        self._deadline = now + limits.poll
        self._child = Child(
            lambda end: glance.ask(self._places, first, ref, limits, end), glance.MOST
        )

    def take(self) -> dict[str, Any] | None:
        """What the poll at work has brought, or its `error`; None while it goes on.

        Raises OSError.
        """
        child, now = self._child, time.monotonic()
        if child is None:
            return None
        overdue = now > self._deadline
        if overdue:
            child.kill()
        if not child.ended():
            if not overdue or not self._glancing:
                return None
            child.close()
        self._child = None
        if not self._glancing:
            return self._bring(child)
        if self.offer is not None and not overdue and bytes(child.said) == glance.word(self.offer):
            self.offer = {**self.offer, "received_at": time.time(), "rebuilt": "", "tried": {}}
            return self.offer
        self._ask(now)
        return None

    def _ask(self, now: float) -> None:
        self._glancing = False
        self._deadline = now + LIMIT
        resting = self._rests.resting(now)
        self._child = Child(lambda end: answer(end, ask(self._places, self._config, resting)))

    def _bring(self, child: Child) -> dict[str, Any]:
        found = child.answer() or {"error": {"message": "the poll ended without a word"}}
        if "error" not in found:
            now = time.monotonic()
            self.offer, self._asked_at = found, now
            for name in found["tried"]:
                self._rests.failed(name, now)
            self._rests.worked(found["remote"])
        return found


def ask(places: Places, config: Config, resting: Sequence[str]) -> dict[str, Any]:
    """In a fork: what the provider says that the remotes offer, or why they do not."""
    try:
        with Provider.start(places, config.secret_files()) as provider:
            return provider.fetch(config.to_json(), resting)
    except ReconcilerError as error:
        return {"error": {**error_to_json(error), "text": str(error)}}
