"""What left Git leaves the host, where policy says so: from the ledger, never by looking around.

In two steps. A run that converged whole finds a resource that is declared no more and marks it;
a later one acts. In between, a commit that was a mistake can be taken back at no cost. What
another resource has taken over is only forgotten. And more than a few at once are held back: it
is rarely meant that a host loses a tenth of what it has.

    keep      it stays as it is, and is listed
    restore   a path becomes what it was before it was first changed; what we made goes
    delete    it goes, whatever was there before

A path is known by its first image. Other types say, while they are declared, by which parameters
they are taken away (`Resource.undone`); what says nothing is kept, and listed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable

from reconciler.catalog import Catalog, Declaration, Report, Result
from reconciler.engine.ledger import Ledger, Owned, paths_of
from reconciler.engine.limit import Boundary
from reconciler.errors import Mark, ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.safepath import Attributes
from reconciler.words import counted

#: Types whose first picture is kept as an image; others say themselves how they are undone.
PATHS = ("file",)
#: The order in which types go: what uses another before what is used; types not named are at 0.
TURNS = {"service": -2, "cron": -1, "user": 1, "group": 2, "package": 3}

Converge = Callable[[Catalog], Report]


@dataclass(frozen=True)
class Rules:
    """Words for types, and for `default`; most, percent: the larger of the two is the budget."""

    policy: Mapping[str, str]
    most: int = 5
    percent: int = 10
    over_budget: bool = False

    def of(self, owned: Owned) -> str:
        """`keep`, `restore` or `delete`."""
        return owned.prune or self.policy.get(owned.type) or self.policy.get("default", "keep")


@dataclass(frozen=True)
class Gone:
    """A resource that is declared no more, and what is to be done: "" is nothing."""

    id: str
    owned: Owned
    policy: str
    act: str
    why: str = ""

    def to_json(self, done: str = "") -> dict[str, object]:
        """As it is listed."""
        shown: dict[str, object] = {
            "id": self.id,
            "source": [self.owned.file, self.owned.line],
            "policy": self.policy,
            "act": self.act,
            "why": self.why,
        }
        return {**shown, "done": done} if done else shown


@dataclass(frozen=True)
class Pruning:
    """What is to be pruned. ready: marked by an earlier run. held: why nothing is done, or ""."""

    kept: Sequence[Gone]
    waiting: Sequence[Gone]
    ready: Sequence[Gone]
    taken_over: Sequence[str]
    held: str

    def to_json(self, pruned: Sequence[Mapping[str, object]] = ()) -> dict[str, object]:
        """The document of `reconciler prune`."""
        return {
            "schema": ["reconciler/prune", 1],
            "held": self.held,
            "kept": [one.to_json() for one in self.kept],
            "waiting": [one.to_json() for one in self.waiting],
            "ready": [one.to_json() for one in self.ready],
            "pruned": list(pruned),
        }


def survey(ledger: Ledger, present: Iterable[str], rules: Rules) -> Pruning:
    """What is owned and declared no more. Changes nothing."""
    owned = ledger.owned()
    declared = set(present)
    claimed = {claim for id, one in owned.items() if id in declared for claim in one.claims}
    images = ledger.images()
    kept: list[Gone] = []
    waiting: list[Gone] = []
    ready: list[Gone] = []
    taken: list[str] = []
    for id, one in owned.items():
        if id in declared or id.startswith("handler:"):
            continue
        left = [claim for claim in one.claims if not _is_claimed(claim, claimed)]
        if one.claims and not left:
            taken.append(id)
            continue
        gone = _decide(id, one, rules.of(one), images, ledger, claimed)
        if len(left) < len(one.claims):
            gone = Gone(id, one, gone.policy, "", "part of it is declared by another resource")
        (kept if not gone.act else ready if one.tombstone else waiting).append(gone)
    budget = max(rules.most, len(owned) * rules.percent // 100)
    count = len(ready) + len(waiting)
    held = ""
    if count > budget and not rules.over_budget:
        held = (
            f"{counted(count, 'resource')} left the state repo at once, "
            f"more than {budget} are not pruned without a word"
        )
    return Pruning(kept, waiting, ready, taken, held)


def prune(
    host: Host, ledger: Ledger, plan: Pruning, run: str, name: str, commit: str, converge: Converge,
    boundary: Boundary,
) -> tuple[dict[str, object], list[str]]:  # fmt: skip
    """Mark what is newly undeclared, and act on what was marked before; and what failed.

    converge: carries a catalog out, for what has no path. What is left at the boundary stays ready.
    """
    marked = {id for id, one in ledger.owned().items() if one.tombstone}
    undeclared = {one.id for one in (*plan.kept, *plan.waiting, *plan.ready)}
    ledger.bury(run, undeclared, marked - undeclared)
    ledger.forget(plan.taken_over)
    if plan.held:
        return plan.to_json(), []
    pruned: list[dict[str, object]] = []
    failed: list[str] = []
    for gone in sorted(plan.ready, key=_turn):
        if boundary.reached:
            break
        try:
            if gone.owned.type in PATHS:
                done = _undo_path(host, ledger, gone)
            else:
                done = _undo(gone, name, commit, converge)
            host.files.flush()
        except (ReconcilerError, OSError) as error:
            failed.append(f"{gone.id}: {error}")
            continue
        pruned.append(gone.to_json(done))
        ledger.note(run, Result(
            gone.id, "changed", Mark(gone.owned.file, gone.owned.line), action="remove",
            cause="prune", reason=f"declared no more: {done}",
        ))  # fmt: skip
        ledger.forget([gone.id], paths_of(gone.owned.claims))
    left = replace(
        plan, ready=[one for one in plan.ready if one.id not in {p["id"] for p in pruned}]
    )
    return left.to_json(pruned), failed


def _is_claimed(claim: str, claimed: set[str]) -> bool:
    """Whether what is declared owns this: itself, or the whole file that it is in."""
    kind, _, what = claim.partition(":")
    if kind in ("line", "content"):
        return claim in claimed or f"path:{what.split('#', 1)[0]}" in claimed
    return claim in claimed


def _decide(
    id: str, one: Owned, policy: str, images: Mapping[str, Mapping[str, object]], ledger: Ledger,
    claimed: set[str],
) -> Gone:  # fmt: skip
    if policy == "keep":
        return Gone(id, one, policy, "", "policy: keep")
    if one.type not in PATHS:
        if one.undo is None:
            return Gone(id, one, policy, "", f"nobody knows how to undo this {one.type}")
        if policy == "restore" and not ledger.is_ours(id):
            return Gone(id, one, policy, "", "it was there before us, or nobody knows")
        return Gone(id, one, policy, "delete")
    return _decide_path(id, one, policy, images, claimed)


def _decide_path(
    id: str, one: Owned, policy: str, images: Mapping[str, Mapping[str, object]], claimed: set[str]
) -> Gone:
    path = next(iter(paths_of(one.claims)), "")
    if any(claim.startswith(f"path:{path}/") for claim in claimed):
        return Gone(id, one, policy, "", "what is below it is still declared")
    if policy == "delete":
        return Gone(id, one, policy, "delete")
    image = images.get(path)
    if image is None:
        return Gone(id, one, policy, "", "it was never changed by us")
    kind = image["kind"]
    if kind == "absent":
        return Gone(id, one, policy, "delete", "it was not there before us")
    if kind == "file" and not image["stored"]:
        return Gone(
            id, one, policy, "", "its first content was too large, or secret, and is not kept"
        )
    if kind in ("file", "link"):
        return Gone(id, one, policy, "restore")
    if kind == "unknown":
        return Gone(
            id, one, policy, "", "the ledger was lost, and with it what was there before us"
        )
    return Gone(id, one, policy, "", f"there was a {kind} before us")


def _turn(gone: Gone) -> tuple[int, int, str]:
    """By type, and of paths the deepest first."""
    depth = max((path.count("/") for path in paths_of(gone.owned.claims)), default=0)
    return (TURNS.get(gone.owned.type, 0), -depth, gone.id)


def _undo_path(host: Host, ledger: Ledger, gone: Gone) -> str:
    """Raises ResourceError."""
    path = paths_of(gone.owned.claims)[0]
    host.readonly = False
    host.before_change = lambda path: None
    found = host.lstat(path)
    if gone.act == "delete":
        if found is None:
            return "was gone already"
        # Not what is in a directory: that is not ours.
        if stat.S_ISDIR(found.st_mode) and host.listdir(path):
            return "kept, because it is not empty"
        host.remove(path)
        return "deleted"
    image = ledger.images()[path]
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise ResourceError(f"{path} is a directory now; what was there before is not put back")
    mode, uid, gid = (int(str(image[name])) for name in ("mode", "uid", "gid"))
    if image["kind"] == "link":
        host.symlink(path, str(image["link"]))
        return "restored, as a link"
    content = ledger.image_content(str(image["stored"]))
    host.write(path, content, Attributes(uid=uid, gid=gid, mode=mode))
    return "restored"


def _undo(gone: Gone, name: str, commit: str, converge: Converge) -> str:
    """Raises ResourceError."""
    kind, _, key = gone.id.partition(":")
    mark = Mark(gone.owned.file, gone.owned.line)
    declaration = Declaration(kind, key, gone.owned.undo or {}, mark)
    report = converge(Catalog(name, (declaration,), commit=commit))
    result: Result | None = next(iter(report.results), None)
    if result is None or result.status in ("failed", "blocked"):
        raise ResourceError(result.reason if result else "the run did not get to it")
    if result.status == "ok":
        return "was gone already"
    said = [f"{one.attribute} is {one.after}" for one in result.changes if one.after is not None]
    return ", ".join(said) or "deleted"
