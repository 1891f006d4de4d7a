"""Whether a fetched commit may be used: order, signatures, repository, approvals.

`judge` decides and changes nothing, so it can run without rights; `record` makes its verdict the
new mark, and `accept` does both. Whatever is refused, the last trusted commit stays what the host is held to.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from reconciler.errors import (
    BadSignature,
    ConfigError,
    NotFastForward,
    ReconcilerError,
    SourceError,
    TrustError,
    WrongRepository,
)
from reconciler.source import signature
from reconciler.source.approvals import check_approvals
from reconciler.source.fetch import Fetched
from reconciler.source.git import Objects
from reconciler.source.mark import Mark, Marks
from reconciler.source.mirror import Mirror
from reconciler.source.refs import is_tag
from reconciler.source.signature import Keys, Signer
from reconciler.source.signed import MAX_OBJECT, split_commit, split_tag, tagged

Mode = Literal["none", "head", "every"]
#: Commits that are verified in one step; more than this takes a reset by a person.
MAX_COMMITS = 5000
SETTINGS = "reconciler.yml"
#: Seconds that clocks may differ without a word about it.
CLOCK = 3600.0


@dataclass(frozen=True)
class Policy:
    """What a host asks of a commit.

    mode: `none` asks for order only, `head` for a signature of what the ref names, `every` for
    signatures of all commits since the last trusted one. repository: the `name` that
    reconciler.yml must have, "" for any. max_age, max_quiet: seconds until silence is an alarm,
    0 for never. protected: globs of paths whose changes `approvals` people must have signed.
    """

    mode: Mode = "head"
    keys: Keys = field(default_factory=Keys)
    repository: str = ""
    max_age: float = 0.0
    max_quiet: float = 0.0
    protected: tuple[str, ...] = ()
    approvals: int = 2


@dataclass(frozen=True)
class Verdict:
    """A commit that may be used. mark: the mark to be; advanced: whether that is a new commit.

    checked: how many signatures were verified for it.
    """

    commit: str
    mark: Mark
    advanced: bool
    checked: int = 0


def accept(marks: Marks, mirror: Mirror, fetched: Fetched, policy: Policy) -> Verdict:
    """Judge what was fetched, and make it the mark. Raises TrustError, SourceError, LockBusy."""
    before = marks.mend()
    verdict = judge(mirror, fetched, before, policy)
    return record(marks, mirror, verdict, before, fetched.received_at.timestamp())


def record(
    marks: Marks, mirror: Mirror, verdict: Verdict, before: Mark, received_at: float
) -> Verdict:
    """Make a verdict on top of the mark `before` the truth; gives it with the mark as kept.

    First the mark, which nothing may lose, then the pointer, which the next call would mend.
    Raises LockBusy if the mark is another by now, StateLost, SourceError.
    """
    mark = marks.advance(verdict.mark, before=before) if verdict.mark != before else before
    if mirror.pointer("trusted") != verdict.commit:
        mirror.point("trusted", verdict.commit)
    marks.confirm(received_at)
    return replace(verdict, mark=mark)


def judge(mirror: Mirror, fetched: Fetched, mark: Mark, policy: Policy) -> Verdict:
    """Whether `fetched` may follow `mark`. Raises TrustError, SourceError, ConfigError."""
    _check_order(mirror, fetched, mark)
    if fetched.commit == mark.commit:
        seen = replace(mark, ref=fetched.ref, object=fetched.object)
        return Verdict(fetched.commit, seen, advanced=False)
    # A clock that was set back must not bring expired keys to life.
    at = max(fetched.received_at, datetime.fromtimestamp(mark.received_at, UTC))
    with closing(Objects(mirror.git)) as objects:
        judged = _Judged(mirror, objects, fetched, mark, policy, at)
        try:
            signers = judged.signers()
        except BadSignature as error:
            raise _with_clock(error, fetched, mark) from None
        epoch = judged.epoch()
        check_approvals(
            mirror,
            mark.commit,
            fetched.commit,
            policy.protected,
            policy.approvals,
            judged.try_commit,
        )
    new = replace(
        mark,
        commit=fetched.commit,
        ref=fetched.ref,
        object=fetched.object,
        epoch=epoch,
        signers=tuple(str(signer) for signer in signers[:1]),
        received_at=at.timestamp(),
        advanced_at=at.timestamp(),
    )
    return Verdict(fetched.commit, new, advanced=True, checked=len(signers))


def _with_clock(error: BadSignature, fetched: Fetched, mark: Mark) -> BadSignature:
    """The same, with a word on a clock that has gone back since the last trusted commit came."""
    ahead = mark.received_at - fetched.received_at.timestamp()
    if ahead > CLOCK:
        error.hint += (
            f"\nkeys must be valid at {datetime.fromtimestamp(mark.received_at, UTC):%Y-%m-%d %H:%M} UTC,"
            " when the last trusted commit came by the clock of this host; if that clock was wrong:\n"
            + _reset(mark.commit)
        )
    return error


def review(mirror: Mirror, mark: Mark, policy: Policy) -> BadSignature | None:
    """Why the mark would be refused today, if its key was revoked or taken away since.

    An alarm, for a person to decide on: the commit is applied already. Keys that have expired
    since are none. Raises SourceError, TrustError.
    """
    if (
        policy.mode == "none"
        or not mark.commit
        or (mark.resets and mark.resets[-1].to == mark.commit)
    ):
        return None
    at = datetime.fromtimestamp(mark.received_at, UTC)
    seen = Fetched(mark.commit, mark.object or mark.commit, mark.ref, "", at)
    with closing(Objects(mirror.git)) as objects:
        try:
            _Judged(mirror, objects, seen, mark, policy, at).head()
        except BadSignature as error:
            return error
    return None


def show(marks: Marks, policy: Policy, *, now: float | None = None) -> dict[str, Any]:
    """All that there is to know about trust on this host, as JSON would have it.

    Never raises for lost state: that is part of what it shows.
    """
    shown: dict[str, Any] = {
        "schema": ["reconciler/trust-show", 1],
        "mode": policy.mode,
        "keys": {
            "allowed_signers": policy.keys.allowed_signers,
            "revoked": policy.keys.revoked,
            "keyring": policy.keys.keyring,
            "fingerprints": list(policy.keys.fingerprints),
        },
        "repository": policy.repository,
        "protected": list(policy.protected),
        "copies": marks.copies(),
    }
    try:
        mark = marks.load()
        fresh = marks.freshness(max_age=policy.max_age, max_quiet=policy.max_quiet, now=now)
    except ReconcilerError as error:
        return {
            **shown,
            "error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint},
        }
    return {
        **shown,
        "commit": mark.commit,
        "ref": mark.ref,
        "signers": list(mark.signers),
        "epoch": mark.epoch,
        "received_at": mark.received_at,
        "advanced_at": mark.advanced_at,
        "age": fresh.age,
        "stale": fresh.stale,
        "resets": [vars(one) for one in mark.resets],
    }


def _check_order(mirror: Mirror, fetched: Fetched, mark: Mark) -> None:
    """Only forward, and a tag not at all. Raises NotFastForward."""
    if is_tag(fetched.ref) and mark.ref == fetched.ref and mark.object not in ("", fetched.object):
        raise NotFastForward(
            f"the tag {fetched.ref} was moved from {mark.object[:12]} to {fetched.object[:12]}",
            hint="a tag that was trusted must stay; release under a new name, or, if you know why:\n"
            + _reset(fetched.commit),
        )
    old, new = mark.commit, fetched.commit
    if not old or mirror.is_ancestor(old, new):
        return
    if mirror.is_ancestor(new, old):
        error = NotFastForward(
            f"{fetched.remote} offers {new[:12]}, which is older than {old[:12]}, the last trusted commit",
            hint="a lagging remote catches up by itself; to undo a change, git revert it and push; "
            "if the branch was reset on purpose:\n" + _reset(new),
        )
        error.behind = True
        raise error
    raise NotFastForward(
        f"{fetched.remote} offers {new[:12]}, which is not on top of {old[:12]}, the last trusted commit",
        hint=f"see what was rewritten: git log --oneline {old[:12]}...{new[:12]}\n"
        "if it was rewritten on purpose:\n" + _reset(new),
    )


def _reset(to: str) -> str:
    return f"reconciler trust reset --to {to} --reason 'why'"


@dataclass
class _Judged:
    """The objects of one judgement, each signature verified once."""

    mirror: Mirror
    objects: Objects
    fetched: Fetched
    mark: Mark
    policy: Policy
    at: datetime

    def signers(self) -> list[Signer]:
        """Who signed what the mode asks for, the head first. Raises TrustError, SourceError."""
        mode, head = self.policy.mode, self.fetched.commit
        if mode == "none":
            return []
        first = self.head()
        if mode == "head":
            return [first]
        annotated = self.fetched.object != head
        # The first commit of all is an anchor: there is nothing trusted that it could follow.
        ids = (
            self.mirror.commits(self.mark.commit, head, MAX_COMMITS + 1)
            if self.mark.commit
            else [head]
        )
        if len(ids) > MAX_COMMITS:
            raise TrustError(
                f"more than {MAX_COMMITS} commits since {self.mark.commit[:12]} are to be verified",
                hint="verify them once elsewhere, then:\n" + _reset(head),
            )
        rest = [self.commit(id_) for id_ in ids if annotated or id_ != head]
        return [first, *rest]

    def head(self) -> Signer:
        """Who signed what the ref names: the annotated tag, else the commit."""
        if self.fetched.object == self.fetched.commit:
            return self.commit(self.fetched.commit)
        id_, name = self.fetched.object, self.fetched.ref.removeprefix("refs/tags/")
        if not is_tag(self.fetched.ref):
            raise BadSignature(f"the branch {self.fetched.ref} names the tag object {id_[:12]}")
        raw = self._raw(id_, "tag")
        signed = split_tag(id_, raw, name)
        if tagged(raw) != self.fetched.commit:
            raise BadSignature(f"the tag {name} does not name {self.fetched.commit[:12]}")
        return signature.verify(f"tag {name} ({id_[:12]})", signed, self.policy.keys, self.at)

    def commit(self, id_: str) -> Signer:
        """Who signed a commit. Raises BadSignature, TrustError, SourceError."""
        signed = split_commit(id_, self._raw(id_, "commit"))
        return signature.verify(f"commit {id_[:12]}", signed, self.policy.keys, self.at)

    def try_commit(self, id_: str) -> tuple[str, bytes]:
        """Who signed a commit, "" for nobody that we trust, and its content."""
        raw = self._raw(id_, "commit")
        try:
            return self.commit(id_).who, raw
        except BadSignature:
            return "", raw

    def epoch(self) -> int:
        """The epoch of the state repo, if it says that it is the right one.

        Raises WrongRepository, ConfigError.
        """
        name, epoch = self._settings()
        wanted = self.policy.repository
        if wanted and name != wanted:
            raise WrongRepository(
                f"commit {self.fetched.commit[:12]} is of the state repo {name!r}, not of {wanted!r}",
                hint=f"`name: {wanted}` in {SETTINGS}, or another address in the configuration",
            )
        if epoch < self.mark.epoch:
            raise WrongRepository(
                f"commit {self.fetched.commit[:12]} has epoch {epoch}; {self.mark.epoch} was trusted before",
                hint=f"`epoch: {self.mark.epoch}` in {SETTINGS}; if it was lowered on purpose:\n"
                + _reset(self.fetched.commit),
            )
        return epoch

    def _settings(self) -> tuple[str, int]:
        from reconciler.yamldoc import load

        found = self.objects.read(f"{self.fetched.commit}:{SETTINGS}", 1 << 20)
        if found is None or found[0].kind != "blob":
            return "", 0
        document = load(found[1], SETTINGS)
        if not isinstance(document, dict):
            return "", 0
        name, epoch = document.get("name", ""), document.get("epoch", 0)
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ConfigError(f"epoch in {SETTINGS} is not a number", hint="epoch: 2")
        return str(name), int(epoch)

    def _raw(self, id_: str, kind: str) -> bytes:
        found = self.objects.read(id_, MAX_OBJECT)
        if found is None or found[0].kind != kind or found[0].id != id_:
            raise SourceError(
                f"the {kind} {id_[:12]} is not in the mirror {self.mirror.path}",
                hint="the next fetch looks for damage and makes it anew",
            )
        return found[1]
