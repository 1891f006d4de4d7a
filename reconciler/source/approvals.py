"""Changes of protected paths need several people: who made them, and who approved them.

An approval is a signed commit on top, empty if need be, whose message has the line
`Approves: COMMIT`. It approves what the protected paths hold in that commit, so that a change
after it counts for nothing.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from reconciler.errors import ConfigError, NotApproved
from reconciler.source.ancestry import Ancestry
from reconciler.source.listing import MAX_DEPTH, check_count
from reconciler.source.objects import Objects
from reconciler.source.signed import message
from reconciler.source.treeobjects import DIRECTORY, Named, directory
from reconciler.words import counted

#: Commits between two trusted ones in which approvals are looked for.
MAX_COMMITS = 1000

_APPROVES = re.compile(r"^Approves: ([0-9a-f]{40}|[0-9a-f]{64})$", re.MULTILINE)

Look = Callable[[str], tuple[str, bytes]]
"""Who signed a commit ("" for nobody trusted), and its content."""


class Approvals:
    """Who stands behind what the protected paths of commits hold.

    protected: globs, in which `*` matches `/` too and a final `/` means all below.
    """

    def __init__(
        self, objects: Objects, history: Ancestry, protected: Sequence[str], look: Look
    ) -> None:
        self._objects = objects
        self._history = history
        self._protected = [glob.lstrip("/") for glob in protected]
        self._look = look
        self._names = 0
        self._known: dict[tuple[str, str], frozenset[Named]] = {}

    def check(self, since: str, head: str, needed: int) -> None:
        """Whether enough people stand behind what is in `head` and was not in `since`.

        since: the last trusted commit. Raises NotApproved, SourceError, ConfigError.
        """
        wanted = self._held(head)
        changed = wanted ^ self._held(since)
        if not changed:
            return
        people = self._people(since, head, wanted)
        if len(people) < needed:
            paths = sorted({one.path for one in changed})
            raise NotApproved(
                f"{', '.join(paths[:5])} changed up to {head[:12]} "
                f"with {len(people)} of {counted(needed, 'signature')}"
                + (f" ({', '.join(sorted(people))})" if people else ""),
                hint="another of the allowed signers adds:\n"
                f"git commit --allow-empty -S -m approved -m 'Approves: {head}'",
            )

    def _people(self, since: str, head: str, wanted: frozenset[Named]) -> set[str]:
        """Those who made the protected paths what they are, or have approved of that."""
        commits = self._history.between(since, head, MAX_COMMITS)
        people: set[str] = set()
        for id_ in commits:
            who, raw = self._look(id_)
            if not who:
                continue
            parents = self._history.parents(id_)
            made_it = self._held(id_) == wanted and all(
                self._held(parent) != wanted for parent in parents
            )
            approved = (named for named in _APPROVES.findall(message(raw)) if named in commits)
            if made_it or any(self._held(named) == wanted for named in approved):
                people.add(who)
        return people

    def _held(self, commit: str) -> frozenset[Named]:
        """What a commit has at protected paths."""
        self._names = 0
        return self._below(self._history.tree(commit), "")

    def _below(self, tree: str, prefix: str) -> frozenset[Named]:
        """The same of a directory; most of them are the same in one commit after another."""
        if (tree, prefix) not in self._known:
            if prefix.count("/") > MAX_DEPTH:
                raise ConfigError(f"{prefix}: more than {MAX_DEPTH} directories below each other")
            names = directory(self._objects, tree, prefix)
            self._names += len(names)
            check_count(self._names)
            inner = [self._below(one.id, f"{one.path}/") for one in names if one.mode == DIRECTORY]
            mine = [one for one in names if one.mode != DIRECTORY and self._is_protected(one.path)]
            self._known[tree, prefix] = frozenset(mine).union(*inner)
        return self._known[tree, prefix]

    def _is_protected(self, path: str) -> bool:
        return any(
            path.startswith(glob) if glob.endswith("/") else fnmatch.fnmatchcase(path, glob)
            for glob in self._protected
        )
