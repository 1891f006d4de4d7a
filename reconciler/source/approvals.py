"""Changes of protected paths need several people: who made them, and who approved them.

An approval is a signed commit on top, empty if need be, whose message has the line
`Approves: COMMIT`. It approves what the protected paths hold in that commit, so that a change
after it counts for nothing.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from functools import cache

from reconciler.errors import NotApproved
from reconciler.source.mirror import Mirror
from reconciler.source.signed import message
from reconciler.words import counted

#: Commits between two trusted ones in which approvals are looked for.
MAX_COMMITS = 1000

_APPROVES = re.compile(r"^Approves: ([0-9a-f]{40}|[0-9a-f]{64})$", re.MULTILINE)
_PARENT = re.compile(rb"^parent ([0-9a-f]{40,64})$", re.MULTILINE)

Look = Callable[[str], tuple[str, bytes]]
"""Who signed a commit ("" for nobody trusted), and its content."""


def check_approvals(
    mirror: Mirror, since: str, head: str, protected: Sequence[str], needed: int, look: Look
) -> None:
    """Whether enough people stand behind what the protected paths hold in `head`.

    since: the last trusted commit; without one there is nothing to compare with. protected:
    globs, in which `*` matches `/` too and a final `/` means all below. Raises NotApproved,
    SourceError.
    """
    if not protected or not since:
        return

    @cache
    def held(commit: str) -> frozenset[bytes]:
        listing = mirror.git.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
        return frozenset(line for line in listing if _is_protected(line, protected))

    wanted = held(head)
    changed = wanted ^ held(since)
    if not changed:
        return
    commits = mirror.commits(since, head, MAX_COMMITS)
    people: set[str] = set()
    for id_ in commits:
        who, raw = look(id_)
        if not who:
            continue
        parents = [parent.decode() for parent in _PARENT.findall(raw.partition(b"\n\n")[0])]
        made_it = held(id_) == wanted and all(held(parent) != wanted for parent in parents)
        approved = (named for named in _APPROVES.findall(message(raw)) if named in commits)
        if made_it or any(held(named) == wanted for named in approved):
            people.add(who)
    if len(people) < needed:
        paths = sorted({line.partition(b"\t")[2].decode("utf-8", "replace") for line in changed})
        raise NotApproved(
            f"{', '.join(paths[:5])} changed up to {head[:12]} "
            f"with {len(people)} of {counted(needed, 'signature')}"
            + (f" ({', '.join(sorted(people))})" if people else ""),
            hint="another of the allowed signers adds:\n"
            f"git commit --allow-empty -S -m approved -m 'Approves: {head}'",
        )


def _is_protected(line: bytes, protected: Sequence[str]) -> bool:
    path = line.partition(b"\t")[2].decode("utf-8", "surrogateescape")
    return any(
        path.startswith(glob) if glob.endswith("/") else fnmatch.fnmatchcase(path, glob)
        for glob in (glob.lstrip("/") for glob in protected)
    )
