"""The questions that a fetched commit is asked: order, signatures, repository, approvals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from reconciler.errors import (
    BadSignature,
    ConfigError,
    NotFastForward,
    SourceError,
    TrustError,
    WrongRepository,
)
from reconciler.identity import FILE, Identity, read_identity
from reconciler.source import signature
from reconciler.source.ancestry import Ancestry
from reconciler.source.approvals import Approvals
from reconciler.source.fetch import Fetched
from reconciler.source.mark import Mark
from reconciler.source.mirror import Mirror
from reconciler.source.objects import Objects
from reconciler.source.policy import Policy
from reconciler.source.refs import is_tag
from reconciler.source.signature import Signer
from reconciler.source.signed import MAX_OBJECT, split_commit, split_tag, tagged
from reconciler.source.treeobjects import directory

#: Commits that are verified in one step; more than this takes a reset by a person.
MAX_COMMITS = 5000


@dataclass
class Judgement:
    """One fetched commit before the law: its objects, read from the mirror as their ids say.

    at: when a key must have been valid.
    """

    mirror: Mirror
    objects: Objects
    fetched: Fetched
    mark: Mark
    policy: Policy
    at: datetime

    def __post_init__(self) -> None:
        self.history = Ancestry(self.mirror.git, self.objects)

    def check_order(self) -> None:
        """Only forward, and a tag not at all. Raises NotFastForward."""
        fetched, mark, history = self.fetched, self.mark, self.history
        if (
            is_tag(fetched.ref)
            and mark.ref == fetched.ref
            and mark.object not in ("", fetched.object)
        ):
            raise NotFastForward(
                f"the tag {fetched.ref} was moved from {mark.object[:12]} to {fetched.object[:12]}",
                hint="a tag that was trusted must stay; release under a new name, or, if you know why:\n"
                + reset_hint(fetched.commit),
            )
        old, new = mark.commit, fetched.commit
        if not old or history.is_ancestor(old, new):
            return
        if history.is_ancestor(new, old):
            error = NotFastForward(
                f"{fetched.remote} offers {new[:12]}, which is older than {old[:12]}, the last trusted commit",
                hint="a lagging remote catches up by itself; to undo a change, git revert it and push; "
                "if the branch was reset on purpose:\n" + reset_hint(new),
            )
            error.behind = True
            raise error
        raise NotFastForward(
            f"{fetched.remote} offers {new[:12]}, which is not on top of {old[:12]}, the last trusted commit",
            hint=f"see what was rewritten: git log --oneline {old[:12]}...{new[:12]}\n"
            "if it was rewritten on purpose:\n" + reset_hint(new),
        )

    def signers(self) -> list[Signer]:
        """Who signed what the mode asks for, the head first. Raises TrustError, SourceError."""
        mode, head = self.policy.mode, self.fetched.commit
        if mode == "none":
            self._tag()
            return []
        first = self.head()
        if mode == "head":
            return [first]
        annotated = self.fetched.object != head
        # The first commit of all is an anchor: there is nothing trusted that it could follow.
        ids = (
            self.history.between(self.mark.commit, head, MAX_COMMITS + 1)
            if self.mark.commit
            else [head]
        )
        if len(ids) > MAX_COMMITS:
            raise TrustError(
                f"more than {MAX_COMMITS} commits since {self.mark.commit[:12]} are to be verified",
                hint="verify them once elsewhere, then:\n" + reset_hint(head),
            )
        rest = [self.commit(id_) for id_ in ids if annotated or id_ != head]
        return [first, *rest]

    def head(self) -> Signer:
        """Who signed what the ref names: the annotated tag, else the commit."""
        raw = self._tag()
        if not raw:
            return self.commit(self.fetched.commit)
        id_, ref = self.fetched.object, self.fetched.ref
        if not is_tag(ref):
            raise BadSignature(
                f"the branch {ref} names the tag object {id_[:12]}",
                hint=f"a branch names a commit: git update-ref {ref} {self.fetched.commit}",
            )
        name = ref.removeprefix("refs/tags/")
        signed = split_tag(id_, raw, name)
        return signature.verify(f"tag {name} ({id_[:12]})", signed, self.policy.keys, self.at)

    def _tag(self) -> bytes:
        """The annotated tag that the ref names, b"" for none. Raises BadSignature, SourceError."""
        id_, commit = self.fetched.object, self.fetched.commit
        if id_ == commit:
            return b""
        raw = self._raw(id_, "tag")
        if tagged(raw) != commit:
            raise BadSignature(
                f"the tag object {id_[:12]} does not name {commit[:12]}",
                hint="a tag of a tag is none of a commit: make a new one with git tag -s",
            )
        return raw

    def commit(self, id_: str) -> Signer:
        """Who signed a commit. Raises BadSignature, TrustError, SourceError."""
        signed = split_commit(id_, self._raw(id_, "commit"))
        return signature.verify(f"commit {id_[:12]}", signed, self.policy.keys, self.at)

    def check_approvals(self) -> None:
        """Whether enough people stand behind what protected paths hold. Raises NotApproved, SourceError."""
        since, head, policy = self.mark.commit, self.fetched.commit, self.policy
        if policy.protected and since:
            found = Approvals(self.objects, self.history, policy.protected, self._try_commit)
            found.check(since, head, policy.approvals)

    def _try_commit(self, id_: str) -> tuple[str, bytes]:
        """Who signed a commit, "" for nobody that we trust, and its content."""
        raw = self._raw(id_, "commit")
        try:
            return self.commit(id_).who, raw
        except BadSignature:
            return "", raw

    def epoch(self) -> int:
        """The epoch of the state repo, if it says that it is the right one.

        Raises WrongRepository, SourceError.
        """
        wanted, offered = self.policy.repository, self.fetched.commit
        try:
            name, epoch = self._identity()
        except ConfigError as error:
            if not wanted and not self.mark.epoch:
                return 0  # nobody asks, and compile tells what is wrong with it
            raise WrongRepository(
                f"commit {offered[:12]} does not say which state repo it is: "
                f"{error.mark or FILE}: {error.message}",
                hint=error.hint or f"`name:` and `epoch:` in {FILE}, as they were before",
            ) from error
        if wanted and name != wanted:
            raise WrongRepository(
                f"commit {offered[:12]} is of the state repo {name!r}, not of {wanted!r}",
                hint=f"`name: {wanted}` in {FILE}, or another address in the configuration",
            )
        if epoch < self.mark.epoch:
            raise WrongRepository(
                f"commit {offered[:12]} has epoch {epoch}; {self.mark.epoch} was trusted before",
                hint=f"`epoch: {self.mark.epoch}` in {FILE}; if it was lowered on purpose:\n"
                + reset_hint(offered),
            )
        return epoch

    def _identity(self) -> Identity:
        """What it says of itself. Raises ConfigError for what cannot be read, SourceError."""
        top = directory(self.objects, self.history.tree(self.fetched.commit))
        one = next((one for one in top if one.path == FILE), None)
        if one is None:
            return Identity()
        if not one.mode.startswith("100"):
            raise ConfigError(f"{FILE} is no regular file")
        return read_identity(self.objects.need(one.id).size, self.objects.content())

    def _raw(self, id_: str, kind: str) -> bytes:
        found = self.objects.read(id_, MAX_OBJECT)
        if found is None or found[0].kind != kind:
            raise SourceError(
                f"the {kind} {id_[:12]} is not in the mirror {self.mirror.path}",
                hint="the next fetch looks for damage and makes it anew",
            )
        return found[1]


def reset_hint(to: str) -> str:
    """How a person overrules a refusal."""
    return f"reconciler trust reset --to {to} --reason 'why'"
