"""Who touched a line last, and why: for `reconciler why`.

GitPython reads the repository here, and only here: it is slow to import, so whoever needs no
history must not import this file.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from git.cmd import Git as GitPython

from reconciler.errors import ConfigError, ReconcilerError, SourceError
from reconciler.source.git import OPTIONS, TIMEOUT, Git, check_ref, explain
from reconciler.source.gittree import GitTree
from reconciler.source.worktree import WorkTree
from reconciler.tree import clean

UNCOMMITTED = "not committed yet"
SHALLOW = "the history here is cut off; the line may be older"
#: Longest file, in lines, in which uncommitted lines are told from committed ones.
MAX_LINES = 20_000


class Touch(NamedTuple):
    """The commit that last touched a line. Author and subject are what somebody wrote: escape them.

    commit: full id, "" for a line that is not committed. date: ISO 8601, with the author's own
    offset. note: what else must be known, or "".
    """

    commit: str
    author: str = ""
    date: str = ""
    subject: str = ""
    note: str = ""


def last_touch(directory: str, ref: str | None, file: str, line: int) -> Touch | None:
    """What touched line `line` of `file`, at `ref` or in the work tree.

    directory: the state repo; file: relative to it; line: from 1. None where there is no
    history to ask: no repository, no commit, no such file or line. Raises UsageError for an
    unknown ref, SourceError.
    """
    path = clean(file)
    try:
        if ref is not None:
            with _open(GitTree(directory, check_ref(ref))) as tree:
                there = 1 <= line <= len(_lines(tree.read(path)))
                return _blame(directory, tree.commit, path, line) if there else None
        now = WorkTree(directory)
        if not now.commit:
            return None
        with _open(GitTree(directory, now.commit)) as head:
            committed = _line_in_head(now, head, path, line)
    except ConfigError as error:
        if error.mark is None:
            raise
        return None  # the file is not there
    if committed is None:
        return None
    return (
        Touch("", note=UNCOMMITTED)
        if committed == 0
        else _blame(directory, now.commit, path, committed)
    )


def _line_in_head(now: WorkTree, head: GitTree, path: str, line: int) -> int | None:
    """Where a line of the work tree is in HEAD: its number, 0 if it is new, None if there is none.

    Compared here and not by `git blame`, which would run the filters of `.git/config`.
    """
    lines = _lines(now.read(path))
    if not 1 <= line <= len(lines):
        return None
    if head.entry(path) is None:
        return 0
    old = _lines(head.read(path))
    if old == lines:
        return line
    if max(len(old), len(lines)) > MAX_LINES:
        raise SourceError(f"{path} is changed, and too long to tell which of its lines are")
    for block in difflib.SequenceMatcher(None, old, lines, autojunk=False).get_matching_blocks():
        if block.b < line <= block.b + block.size:
            return block.a + line - block.b
    return 0


def _lines(content: bytes) -> list[bytes]:
    """As git counts them: only a line feed ends a line."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _blame(directory: str, commit: str, path: str, line: int) -> Touch:
    where = Git(directory)
    owner = where.owner()
    run_as: dict[str, Any] = {}
    if owner is not None:
        run_as = {"user": owner.uid, "group": owner.gid, "extra_groups": []}
    blame = ["blame", "--porcelain", "--no-textconv", "-L", f"{line},{line}", commit, "--", path]
    with _without_git_variables():
        code, out, err = GitPython(where.directory).execute(
            ["git", *OPTIONS, *blame],
            env=where.environment(),
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            kill_after_timeout=TIMEOUT,
            start_new_session=True,
            **run_as,
        )
    if code != 0:
        said = err.decode("utf-8", "replace") if isinstance(err, bytes) else str(err)
        raise explain(said, where.directory)
    return _touch(out if isinstance(out, bytes) else str(out).encode(), _boundaries(where))


def _touch(porcelain: bytes, boundaries: frozenset[str]) -> Touch:
    first, *lines = porcelain.decode("utf-8", "replace").split("\n")
    commit = first.split(" ")[0]
    found: dict[str, str] = {}
    for text in lines:
        if text.startswith("\t"):
            break
        key, _, value = text.partition(" ")
        found[key] = value
    return Touch(
        commit,
        author=f"{found.get('author', '')} {found.get('author-mail', '')}".strip(),
        date=_date(found.get("author-time", ""), found.get("author-tz", "")),
        subject=found.get("summary", ""),
        note=SHALLOW if commit in boundaries else "",
    )


def _date(seconds: str, offset: str) -> str:
    try:
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        zone = timezone(timedelta(minutes=-minutes if offset.startswith("-") else minutes))
        return datetime.fromtimestamp(int(seconds), UTC).astimezone(zone).isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def _boundaries(where: Git) -> frozenset[str]:
    """The commits whose parents a shallow clone left out."""
    try:
        path = where.run("rev-parse", "--git-path", "shallow").decode("utf-8", "surrogateescape")
        with open(os.path.join(where.directory, path.strip()), "rb") as file:
            return frozenset(file.read(16 << 20).decode("ascii", "replace").split())
    except (OSError, ReconcilerError):
        return frozenset()


@contextmanager
def _open(tree: GitTree) -> Iterator[GitTree]:
    try:
        yield tree
    finally:
        tree.close()


@contextmanager
def _without_git_variables() -> Iterator[None]:
    """GitPython adds to the environment of this process and can take nothing out of it."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GIT_")}
    try:
        yield
    finally:
        os.environ.update(kept)
