"""Which catalog a run goes by: that of the trusted commit, or the one that was applied last.

The newest trusted commit is wanted. What heals, and what runs while something holds that commit
back, goes by the applied one. Whatever fails on the way is noted and keeps the machine from
nothing: there is a catalog as long as there ever was one.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.agent.asking import Asking
from reconciler.agent.config import Config
from reconciler.agent.outcome import Outcome
from reconciler.agent.override import overridden
from reconciler.agent.places import Places, read_json, write
from reconciler.agent.settings import key_stamps
from reconciler.agent.state import suspension
from reconciler.catalog import Catalog, dumps
from reconciler.errors import (
    ConfigError,
    ProtocolError,
    ReconcilerError,
    SourceError,
    TrustError,
)

if TYPE_CHECKING:
    from reconciler.source.mark import Mark

#: What each mode of trust has verified.
VERIFIED = {"none": "order-only", "head": "head", "every": "all-commits"}
#: What holds back a commit that is trusted, by the problem that tells of it.
HOLDS = {"compile": "CompileFailed", "source": "Unreadable", "run": "RunFailed"}


class Choice:
    """Of one run. facts: of this machine. catalog: what was chosen, None where there never was
    any; compiled: whether it is other than the one that is kept."""

    def __init__(
        self,
        places: Places,
        config: Config,
        outcome: Outcome,
        asking: Asking,
        facts: Mapping[str, Any],
    ) -> None:
        self._places = places
        self._config = config
        self._outcome = outcome
        self._state = outcome.state
        self._asking = asking
        self._facts = facts
        self._healing: frozenset[str] = frozenset()
        self._window: str | None = None
        self.catalog: Catalog | None = None
        self.compiled = False

    def judge(self, offer: Mapping[str, Any] | None) -> None:
        """Which commit is trusted: what the mark says, or what was offered on top of it.

        Damage of the memory of trust is told by each whole run, before a commit needs it.
        """
        from reconciler.source.mark import Marks

        marks = Marks(self._places.trust)
        if offer is not None:
            self._state.keys = key_stamps(self._config)
        with self._judging():
            before = marks.mend()
            self._follow(before)
            if offer is None:
                return
            answer = self._asking.judge(before.to_json(), offer)
            self._state.problem("source", None, time.time())
            if "refused" in answer:
                self._refuse(offer, answer["refused"])
                return
            self._state.source["refused"] = ""
            new = _mark(answer)
            self._follow(marks.advance(new, before=before) if new != before else before)
            marks.confirm(float(offer["received_at"]))
            self._state.problem("trust", None, time.time())
            if "alarm" in answer:
                self._outcome.note("trust", answer["alarm"])

    def choose(self, *, healing: frozenset[str] = frozenset()) -> None:
        """The catalog. healing: ids; then it is the applied one, and what of it they need."""
        state, self._healing = self._state, healing
        stored = self._stored()
        wanted = state.applied if healing or self._gate() else state.trusted or state.applied
        fresh = bool(healing) or state.applied_facts == self._facts_digest()
        if stored is not None and stored.commit == wanted and fresh:
            self._asking.take(stored.commit, self._facts)
            self.catalog = stored
            return
        for commit in filter(None, dict.fromkeys((wanted, state.applied))):
            if self._compile(commit):
                return
            if stored is not None:
                break
        if stored is not None:
            self._asking.take(stored.commit, self._facts)
        self.catalog = stored

    def recall(self) -> None:
        """What heals, if our own memory of that was lost: the catalog tells its commit itself."""
        state = self._state
        known = None if state.applied else read_json(self._places.catalog)
        if known is not None:
            state.applied, state.applied_since = str(known.get("commit", "")), time.time()

    def advance(self, catalog: Catalog) -> None:
        """The run of a catalog came to its end: it is what healing goes by from now on.

        Raises OSError.
        """
        if not self.compiled:
            return
        state = self._state
        write(self._places.facts, dumps(self._facts))
        write(self._places.catalog, dumps(catalog.to_json()))
        if state.applied != catalog.commit:
            state.applied, state.applied_since = catalog.commit, time.time()
        state.applied_facts = self._facts_digest()

    def close(self) -> None:
        """Say which commit is waiting, and for what; what may still be needed stays in the mirror."""
        state = self._state
        found = [self._gate(), *(word for kind, word in HOLDS.items() if kind in state.problems)]
        state.held_by = next(filter(None, found), "") if state.candidate else ""
        # What stands in the way was met and said before, and the next conversation says it again.
        with contextlib.suppress(ReconcilerError):
            if state.trusted and not self._healing and state.subject.get("commit") != state.trusted:
                state.subject |= {**self._asking.describe(state.trusted), "commit": state.trusted}
            if self._asking.begun:
                pointers = {name: getattr(state, name) for name in ("candidate", "applied", "good")}
                self._asking.point(pointers)

    # -- trust ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _judging(self) -> Iterator[None]:
        """What is wrong with trust is one thing, and that nobody could find out another."""
        with self._outcome.going_on("source"):
            try:
                yield
            except TrustError as error:
                self._outcome.trouble("trust", error)

    def _follow(self, mark: Mark) -> None:
        """The mark is the truth: a person may have reset it, and we may have been killed since."""
        state = self._state
        if not mark.commit or (mark.commit == state.trusted and state.subject):
            return
        if mark.commit != state.trusted:
            state.first_seen = time.time()
        by_hand = bool(mark.resets) and mark.resets[-1].to == mark.commit
        state.trusted, state.subject = mark.commit, {
            "signer": ", ".join(mark.signers),
            "verified": "reset" if by_hand else VERIFIED[self._config.trust],
        }  # fmt: skip

    def _refuse(self, offer: Mapping[str, Any], why: Mapping[str, Any]) -> None:
        self._state.source["refused"] = offer["commit"]
        self._state.count("verify_failures_total", reason=str(why.get("type", "TrustError")))
        self._outcome.note("trust", why)

    # -- which commit --------------------------------------------------------------------

    def _gate(self) -> str:
        """What holds back a commit that is not applied yet; "" for nothing."""
        if suspension(self._places) is not None:
            self._state.held_until = 0.0
            return "Suspended"
        if self._window is None:
            self._window = self._shut()
        return self._window

    def _shut(self) -> str:
        """Whether the windows hold it back. Whose zone nobody knows any more stays shut."""
        state = self._state
        state.held_until = 0.0
        if not self._config.windows or not state.candidate:
            return ""
        if overridden(self._places, state.candidate):
            return ""
        from reconciler.agent.windows import opens

        try:
            state.held_until = opens(self._config.windows, time.time())
        except ConfigError as error:
            self._outcome.trouble("window", error)
            return "Window"
        state.problem("window", None, time.time())
        return "Window" if state.held_until else ""

    def _stored(self) -> Catalog | None:
        """The catalog that was applied last; for a heal, what of it that needs."""
        document = read_json(self._places.catalog)
        # Another one is what a run left that was killed before it could say so.
        if document is None or document.get("commit") != self._state.applied:
            return None
        try:
            if self._healing:
                document["resources"] = [
                    one
                    for one in document["resources"]
                    if one.get("handler") or f"{one['type']}:{one['key']}" in self._healing
                ]
            return Catalog.from_json(document)
        except (KeyError, TypeError, AttributeError, ReconcilerError):
            return None

    def _compile(self, commit: str) -> bool:
        """Whether that worked."""
        state, found = self._state, None
        with self._outcome.going_on("compile", commit=commit):
            try:
                found = self._asking.compile(commit, self._facts)
            except SourceError as error:
                self._outcome.trouble("source", error, commit=commit)
        if found is None:
            return False
        self.catalog, self.compiled = found, True
        state.problem("source", None, time.time())
        if commit == state.trusted:
            state.problem("compile", None, time.time())
        return True

    def _facts_digest(self) -> str:
        return hashlib.sha256(dumps(self._facts)).hexdigest()


def _mark(answer: Mapping[str, Any]) -> Mark:
    """The mark that a judgement would have us set. Raises ReconcilerError."""
    from reconciler.source.mark import Mark

    try:
        return Mark.from_json(answer["mark"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the provider judged without a mark: {error}") from None
