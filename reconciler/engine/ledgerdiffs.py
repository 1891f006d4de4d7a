"""What a text was before it was changed: unified diffs beside the history, within bounds.

They are those of reports, so what may be secret is in none of them. The same one is kept once, for
who fights over a file makes the same ever again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from reconciler.catalog import Result
from reconciler.words import counted

#: Bytes of one, and of all; so much more until the oldest are forgotten.
KEEP = 16 << 10
KEEP_ALL = 4 << 20
SLACK = 1 << 20


def keep(database: sqlite3.Connection, result: Result) -> str:
    """Keep the diff of a change; its digest. What was created is in Git: of that "" is kept."""
    if not result.diff or result.action == "create":
        return ""
    text = _cut(result.diff)
    digest = hashlib.sha256(text.encode()).hexdigest()
    database.execute(
        "INSERT OR IGNORE INTO diffs (digest, size, text) VALUES (?,?,?)",
        (digest, len(text.encode()), text),
    )
    return digest


def forget(database: sqlite3.Connection) -> None:
    """Those that no change has any more; and if there is too much of them, the oldest."""
    database.execute("DELETE FROM diffs WHERE digest NOT IN (SELECT diff FROM changes)")
    size = database.execute("SELECT coalesce(sum(size), 0) FROM diffs").fetchone()[0]
    if size < KEEP_ALL + SLACK:
        return
    newest_first: Sequence[tuple[str, int]] = database.execute(
        "SELECT diffs.digest, diffs.size FROM diffs JOIN changes ON changes.diff = diffs.digest"
        " GROUP BY diffs.digest ORDER BY max(changes.seq) DESC"
    ).fetchall()
    total = 0
    for digest, size in newest_first:
        total += size
        if total > KEEP_ALL:
            database.execute("DELETE FROM diffs WHERE digest = ?", (digest,))


def _cut(text: str) -> str:
    """The head of a text, and how much of it is missing."""
    whole = text.encode()
    if len(whole) <= KEEP:
        return text
    head = whole[:KEEP].decode(errors="ignore")
    return f"{head}\n... {counted(len(whole) - KEEP, 'more byte')} not kept\n"
