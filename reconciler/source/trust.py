"""Whether a fetched commit may be used: order, signatures, repository, approvals.

`judge` decides and changes nothing, so it can run without rights; `record` makes its verdict the
new mark, and `accept` does both. Whatever is refused, the last trusted commit stays what the host is held to.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from reconciler.errors import BadSignature, ConfigError, ReconcilerError, TrustError
from reconciler.source.fetch import Fetched
from reconciler.source.judgement import Judgement, reset_hint
from reconciler.source.mark import Mark, Marks
from reconciler.source.mirror import Mirror
from reconciler.source.objects import Objects
from reconciler.source.policy import Policy

#: Seconds that clocks may differ without a word about it.
CLOCK = 3600.0


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
    """Whether `fetched` may follow `mark`. Raises TrustError, SourceError."""
    # A clock that was set back must not bring expired keys to life.
    known = datetime.fromtimestamp(max(mark.received_at, mark.heard_at), UTC)
    at = max(fetched.received_at, known)
    with closing(Objects(mirror.git)) as objects:
        judged = Judgement(mirror, objects, fetched, mark, policy, at)
        try:
            judged.check_order()
            if fetched.commit == mark.commit:
                seen = replace(mark, ref=fetched.ref, object=fetched.object)
                return Verdict(fetched.commit, seen, advanced=False)
            signers = judged.signers()
            epoch = judged.epoch()
            judged.check_approvals()
        except BadSignature as error:
            raise _with_clock(error, fetched, mark, at) from None
        except ConfigError as error:
            raise TrustError(
                f"commit {fetched.commit[:12]} cannot be judged: {error.message}",
                hint=error.hint or "what is as large as that belongs in no state repo",
            ) from error
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


def _with_clock(error: BadSignature, fetched: Fetched, mark: Mark, at: datetime) -> BadSignature:
    """The same, with a word on a clock that has gone back since a remote was heard."""
    if at.timestamp() - fetched.received_at.timestamp() > CLOCK:
        error.hint += (
            f"\nkeys must be valid at {at:%Y-%m-%d %H:%M} UTC, the latest time by the clock of this host"
            " at which a remote was heard; if that clock was wrong:\n" + reset_hint(mark.commit)
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
            Judgement(mirror, objects, seen, mark, policy, at).head()
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
