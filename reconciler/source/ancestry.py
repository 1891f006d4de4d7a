"""Who descends from whom, by the commits themselves.

git finds the way fast, and reads commits without looking whether they are what their ids say: one that
somebody has put in the place of another could make a stranger's commit descend from a trusted one. So
each step of the way is gone again, from commit to commit, each checked against its id.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.errors import Damaged
from reconciler.source.git import Git
from reconciler.source.objects import Objects
from reconciler.source.refs import is_id
from reconciler.source.signed import MAX_OBJECT, Lineage, lineage


class Ancestry:
    """The history in a repository. objects: of the same."""

    def __init__(self, git: Git, objects: Objects) -> None:
        self._git = git
        self._objects = objects
        self._known: dict[str, Lineage] = {}

    def tree(self, commit: str) -> str:
        """The id of what a commit holds. Raises as `parents`."""
        return self._lineage(commit).tree

    def parents(self, commit: str) -> tuple[str, ...]:
        """What a commit was made on top of. Raises SourceError, ConfigError for a giant."""
        return self._lineage(commit).parents

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` is `old` or was made on top of it; what is not known is not so.

        Raises SourceError.
        """
        if not (is_id(old) and is_id(new) and self._has(old) and self._has(new)):
            return False
        if old == new:
            return True
        way = self._listed("--ancestry-path", new, f"^{old}")
        if way and old not in self._reached(new, way):
            raise self._other_history(old, new)
        return bool(way)

    def between(self, since: str, head: str, most: int) -> list[str]:
        """The ids of what is in `head` and not in `since`, newest first; not more than `most`.

        since: "" for nothing. Where there are fewer, none is missing. Raises SourceError.
        """
        limits = [f"^{since}"] if since else []
        ids = self._listed(f"--max-count={most}", "--topo-order", head, *limits)
        reached = self._reached(head, ids)
        outside = reached.difference(ids)
        if len(ids) < most:
            for parent in outside:
                if not since or not self.is_ancestor(parent, since):
                    raise self._other_history(parent, since or head)
        return [id_ for id_ in ids if id_ in reached]

    def _reached(self, head: str, ids: Iterable[str]) -> set[str]:
        """`head`, those of `ids` that it descends from by way of them, and the parents of all these."""
        inside, seen, todo = set(ids), {head}, [head]
        while todo:
            commit = todo.pop()
            if commit in inside:
                new = set(self.parents(commit)) - seen
                seen |= new
                todo += new
        return seen

    def _lineage(self, commit: str) -> Lineage:
        if commit not in self._known:
            found = self._objects.read(commit, MAX_OBJECT)
            if found is None or found[0].kind != "commit":
                raise Damaged(
                    f"the commit {commit[:12]} is not in {self._git.directory}",
                    hint="the next fetch looks for damage and makes it anew",
                )
            self._known[commit] = lineage(commit, found[1])
        return self._known[commit]

    def _has(self, commit: str) -> bool:
        found = self._objects.find(commit)
        return found is not None and found.kind == "commit"

    def _listed(self, *args: str) -> list[str]:
        return self._git.run("rev-list", *args).decode("ascii").split()

    def _other_history(self, old: str, new: str) -> Damaged:
        return Damaged(
            f"the repository {self._git.directory} is damaged, or somebody has written into it: "
            f"what git takes for the way from {new[:12]} to {old[:12]} is not in the commits",
            hint="the next fetch makes another",
        )
