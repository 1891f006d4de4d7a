"""What the remotes offer, found out beside the supervisor's loop, which never waits for a network.

Where nothing but the word of the last poll is expected, a glance finds out whether it is that.
Everything else is asked of the provider; and that too from time to time, since it also looks
whether the mirror is sound.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.agent import glance
from reconciler.agent.child import Child, answer, forked
from reconciler.agent.config import Config
from reconciler.agent.link import Provider
from reconciler.agent.places import Places
from reconciler.agent.schedule import NEVER, Rests
from reconciler.agent.settings import key_stamps
from reconciler.agent.state import State
from reconciler.engine.wire import error_to_json
from reconciler.errors import ProtocolError, ReconcilerError, SourceError
from reconciler.source.mark import Marks
from reconciler.source.refs import full_ref
from reconciler.source.remote import Remote, in_order

#: Seconds after which a poll is killed that should have ended by itself.
OVERDUE = 60.0
#: Seconds after which the provider is asked, whether or not there is anything new.
THOROUGH = 3600.0


class Poller:
    """Polls one at a time. Times are of `time.monotonic`. offer: what the last one brought."""

    def __init__(self, places: Places, config: Config) -> None:
        self._places = places
        self._child: Child | None = None
        self._deadline = NEVER
        self._judging = False
        #: Whether the poll at work is nothing but a glance.
        self.glancing = False
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Go by other settings from now on; what is at work by the old ones counts no more."""
        self._config = config
        self._remotes = [Remote(**one) for one in config.remotes]
        self._limits, self._ref = config.fetch_limits(), full_ref(config.branch)
        self._rests = Rests()
        self._asked_at = -NEVER
        self._outdated = self.busy
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

    def start(self, *, thorough: bool, judging: bool = False) -> None:
        """Begin one. thorough: a glance does not do. judging: as `ask` has it. Raises OSError."""
        now = time.monotonic()
        self._judging = judging
        first = in_order(self._remotes, self._rests.resting(now))[0]
        # Of a list of remotes, the first is the one that must be asked.
        known = self.offer is not None and self.offer["remote"] == first.name
        self.glancing = known and not thorough and now < self._asked_at + THOROUGH
        if not self.glancing:
            self._ask(now)
            return
        places, ref, limits = self._places, self._ref, self._limits
        try:
            self._child = Child(
                lambda end: glance.start(places, first, ref, limits, end), glance.MOST
            )
            self._deadline = now + limits.poll
        except (ReconcilerError, KeyError, OSError):  # the provider will say what is missing
            self._ask(now)

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
            if not overdue or not self.glancing:
                return None
            child.close()
        self._child = None
        if self._outdated:
            self._ask(now)
            return None
        if not self.glancing:
            return self._bring(child)
        if self.offer is not None and not overdue and bytes(child.said) == glance.word(self.offer):
            self.offer = {**self.offer, "received_at": time.time(), "rebuilt": "", "tried": {}}
            return self.offer
        self._ask(now)
        return None

    def _ask(self, now: float) -> None:
        self.glancing = self._outdated = False
        self._deadline = now + self._config.fetch_patience + OVERDUE
        places, config, judging = self._places, self._config, self._judging
        resting = self._rests.resting(now)
        start = forked(lambda end: answer(end, ask(places, config, resting, judging=judging)))
        self._child = Child(start)

    def _bring(self, child: Child) -> dict[str, Any]:
        found = child.answer() or {"error": {"message": "the poll ended without a word"}}
        if "error" not in found:
            now = time.monotonic()
            self.offer, self._asked_at = found, now
            for name in found["tried"]:
                self._rests.failed(name, now)
            self._rests.worked(found["remote"])
        return found


def ask(
    places: Places, config: Config, resting: Sequence[str] = (), *, judging: bool = False
) -> dict[str, Any]:
    """What the provider says that the remotes offer, or the `error` why they do not.

    resting: names of remotes to try last. judging: `usable` says whether an offer that is news
    may be used; whoever converges by it judges for himself.
    """
    try:
        with Provider.start(places, config.secret_files(), config.fetch_patience) as provider:
            offer = _offer(provider.fetch(config.to_json(), resting))
            spare = offer["remote"] != Remote(**config.remotes[0]).name
            if spare or judging:
                _judge(places, config, provider, offer)
    except ReconcilerError as error:
        return {"error": {**error_to_json(error), "text": str(error)}}
    if not (spare and offer.pop("behind", False)):
        return offer
    if resting:  # the first remote may be well again
        return ask(places, config, judging=judging)
    return {"error": _lagging(offer)}


def _offer(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was fetched, each part as what it must be. Raises ProtocolError."""
    try:
        tried = {str(name): str(said) for name, said in dict(found["tried"]).items()}
        texts = ("commit", "object", "ref", "remote", "rebuilt")
        offer = {name: str(found[name]) for name in texts}
        return {**offer, "received_at": float(found["received_at"]), "tried": tried}
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the provider does not say what it has fetched: {error}") from None


def _judge(places: Places, config: Config, provider: Provider, offer: dict[str, Any]) -> None:
    """Say of an offer whether it is `usable`, and whether it is `behind` what is trusted."""
    try:
        mark = Marks(places.trust).load()
        if mark.commit and offer["commit"] != mark.commit:
            found = provider.judge(config.to_json(), mark.to_json(), offer)
            offer |= {"usable": "refused" not in found, "behind": bool(found.get("behind"))}
    except ReconcilerError:
        return  # nobody knows, and whoever needs to will say why


def _lagging(offer: Mapping[str, Any]) -> dict[str, Any]:
    """Of a spare remote, an older commit is no word. Of the first one, it is history set back."""
    said = f"{offer['remote']} lags behind: it offers {offer['commit'][:12]}, which is older than what is trusted"
    others = [text for name, text in offer["tried"].items() if name != offer["remote"]]
    error = SourceError("\n".join([*others, said]), hint="it catches up by itself")
    return {**error_to_json(error), "text": str(error)}


def is_news(state: State, config: Config, offer: Mapping[str, Any]) -> bool:
    """Whether an offer is to be judged: nobody has yet, or it may be seen otherwise now."""
    known = (state.trusted, state.source.get("refused"))
    doubt = not state.problems.keys().isdisjoint(("trust", "source"))
    return offer["commit"] not in known or doubt or key_stamps(config) != state.keys


def confirm(places: Places, now: float) -> None:
    """The word of a remote is remembered where trust is, for the alarm of `max_age`."""
    with contextlib.suppress(SourceError):
        Marks(places.trust).confirm(now)


def take_in(
    state: State, config: Config, found: Mapping[str, Any], now: float
) -> list[dict[str, Any]]:
    """Remember what a poll brought, or why it did not; lines for the log."""
    said: list[dict[str, Any]] = []

    def say(priority: str, message: str) -> None:
        said.append({"priority": priority, "message": message})

    error = found.get("error")
    if error is None:
        if state.reached():
            say("info", "fetching works again")
        if found["rebuilt"]:
            say("warning", f"the mirror was damaged and made anew: {found['rebuilt']}")
        state.heard(config.remotes, found, now)
    elif error.get("type") != "LockBusy":
        state.unheard(config.remotes, str(error.get("message", "")), now)
        if state.unreached(error, now):
            say("err", f"fetch: {error.get('text') or error['message']}")
    return said
