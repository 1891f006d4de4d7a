"""What left Git leaves the host, where policy says so: from the ledger, never by looking around.

In two steps. A run that converged whole finds a resource that is declared no more and marks it;
a later one acts. In between, a commit that was a mistake can be taken back at no cost. What
another resource has taken over is only forgotten; what another one declares a part of is kept, and
its two steps begin when that one is gone. And more than a few at once are held back: it is rarely
meant that a host loses a tenth of what it has.

    keep      it stays as it is, and is listed
    restore   a path becomes what it was before it was first changed; what we made goes
    delete    it goes, whatever was there before

A path is known by its first image: see `prunepath`. Other types say, while they are declared, by
which parameters they are taken away (`Resource.undone`); what says nothing is kept, and listed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Callable

from reconciler.catalog import Catalog, Declaration, Report, Result
from reconciler.engine.ledger import Ledger, Owned, paths_of
from reconciler.engine.limit import Boundary
from reconciler.engine.prunepath import Share, decide, undo
from reconciler.errors import Mark, ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.safepath import Looking
from reconciler.words import counted

#: Types whose first picture is kept as an image; others say themselves how they are undone.
PATHS = ("file",)
#: Kinds of claims on parts of a path: who declares the path has them.
OF_PATH = ("content", "entry", "attribute")
#: Kinds that what a file holds has nothing to do with; all others are parts of that.
OF_NO_CONTENT = ("path", "xattr")
#: The order in which types go: what uses another before what is used; types not named are at 0.
TURNS = {"service": -2, "cron": -1, "user": 1, "group": 2, "package": 3}

Converge = Callable[[Catalog], Report]


@dataclass(frozen=True)
class Rules:
    """Words for types, as they are written in the state repo or as compile makes others of them, and
    for `default`; most, percent: the larger of the two is the budget."""

    policy: Mapping[str, str]
    most: int = 5
    percent: int = 10
    over_budget: bool = False

    def of(self, owned: Owned) -> str:
        """`keep`, `restore` or `delete`."""
        words = (self.policy.get(name) for name in (owned.written, owned.type, "default"))
        return owned.prune or next(filter(None, words), "keep")


@dataclass(frozen=True)
class Gone:
    """A resource that is declared no more, and what is to be done: "" is nothing.

    shared: another resource declares a part of it, so it does not count as left behind yet.
    """

    id: str
    owned: Owned
    policy: str
    act: str
    why: str = ""
    shared: bool = False

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


def survey(
    ledger: Ledger, present: Iterable[str], rules: Rules, knows: Callable[[str], bool]
) -> Pruning:
    """What is owned and declared no more. Changes nothing. knows: whether a type has a module."""
    owned = ledger.owned()
    declared = set(present)
    with closing(Looking(ledger.root)) as files, files.reading():
        claims = {id: {_really(claim, files) for claim in one.claims} for id, one in owned.items()}
    others = _Others({id: claims[id].union(owned[id].claims) for id in owned if id in declared})
    images = ledger.images()
    kept: list[Gone] = []
    waiting: list[Gone] = []
    ready: list[Gone] = []
    taken: list[str] = []
    for id, one in owned.items():
        if id in declared or id.startswith("handler:"):
            continue
        if claims[id] and all(map(others.have, claims[id])):
            taken.append(id)
            continue
        policy, shared = rules.of(one), others.share(claims[id])
        act, why = ("", shared) if shared else _decide(id, one, policy, images, ledger, knows)
        gone = Gone(id, one, policy, act, why, bool(shared))
        (kept if not act else ready if one.tombstone else waiting).append(gone)
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
    undeclared = {one.id for one in (*plan.kept, *plan.waiting, *plan.ready) if not one.shared}
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
                done = undo(host, ledger, Share.of(gone.owned.claims), gone.act)
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


class _Others:
    """What is declared, and so not to be touched on behalf of what is not."""

    def __init__(self, claims: Mapping[str, Iterable[str]]) -> None:
        self._claims = {claim for claimed in claims.values() for claim in claimed}
        self._places = {
            place: id for id, claimed in claims.items() for one in claimed for place in _places(one)
        }

    def have(self, claim: str) -> bool:
        """Whether what is declared owns this: itself, or the whole that it is a part of."""
        kind = claim.partition(":")[0]
        if claim in self._claims or kind in OF_NO_CONTENT:
            return claim in self._claims
        wholes = ["path:{}"] if kind in OF_PATH else ["content:{}", "entry:{}#link"]
        return any(
            whole.format(place) in self._claims for place in _places(claim) for whole in wholes
        )

    def share(self, claims: Collection[str]) -> str:
        """Why it cannot be taken away alone, or ""."""
        if any(map(self.have, claims)):
            return "part of it is declared by another resource"
        for path in paths_of(claims):
            if path in self._places:
                return f"{self._places[path]} declares a part of it"
            if any(place.startswith(f"{path}/") for place in self._places):
                return "what is below it is still declared"
        return ""


def _really(claim: str, files: Looking) -> str:
    """A claim without the links on the way: one file may be declared by several."""
    kind, _, what = claim.partition(":")
    path = re.split("[#:]", what, maxsplit=1)[0]
    return f"{kind}:{files.real(path)}{what[len(path) :]}" if path.startswith("/") else claim


def _places(claim: str) -> Iterator[str]:
    """The paths that a claim may be about: all that it names, and what is before a # or : of that."""
    what = claim.partition(":")[2]
    if what.startswith("/"):
        yield what
        yield from (what[: found.start()] for found in re.finditer("[#:]", what))


def _decide(
    id: str, one: Owned, policy: str, images: Mapping[str, Mapping[str, object]], ledger: Ledger,
    knows: Callable[[str], bool],
) -> tuple[str, str]:  # fmt: skip
    """What is to be done, and why; "" is nothing."""
    if policy == "keep":
        return "", "policy: keep"
    if one.type in PATHS:
        share = Share.of(one.claims)
        return decide(share, policy, images.get(share.path))
    if one.undo is None:
        return "", f"nobody knows how to undo this {one.type}"
    if not knows(one.type):
        return "", f"the module of type '{one.type}' left the state repo, too"
    if policy == "restore" and not ledger.is_ours(id):
        return "", "it was there before us, or nobody knows"
    return "delete", ""


def _turn(gone: Gone) -> tuple[int, int, str]:
    """By type, and of paths the deepest first."""
    depth = max((path.count("/") for path in paths_of(gone.owned.claims)), default=0)
    return (TURNS.get(gone.owned.type, 0), -depth, gone.id)


def _undo(gone: Gone, name: str, commit: str, converge: Converge) -> str:
    """Raises ResourceError."""
    kind, _, key = gone.id.partition(":")
    mark = Mark(gone.owned.file, gone.owned.line)
    declaration = Declaration(kind, key, gone.owned.undo or {}, mark)
    report = converge(Catalog(name, (declaration,), commit=commit, partial=True))
    result: Result | None = next(iter(report.results), None)
    if result is None or result.status in ("failed", "blocked"):
        raise ResourceError(result.reason if result else "the run did not get to it")
    if result.status == "ok":
        return "was gone already"
    said = [f"{one.attribute} is {one.after}" for one in result.changes if one.after is not None]
    return ", ".join(said) or "deleted"
