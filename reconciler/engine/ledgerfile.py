"""The file of the ledger: made, opened, judged, and put aside when it cannot be used.

A ledger that SQLite refuses, that lacks something of what we would have made or holds what we
never write (`ledgerrows`), is kept as `ledger.db.bad-TIME`, and a new one is begun: the host is the
truth, and the next run writes down again what it owns. Until then the ledger says that it lost
something.
A full disk or a lock is no damage: it passes, and the ledger is as good as it was.
"""

from __future__ import annotations

import functools
import os
import re
import sqlite3
import stat
import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from reconciler.engine import ledgerrows

STATE = "var/lib/reconciler"
#: Of the tables. Version 1 knew nothing of pruning, version 2 not how a resource is undone, version
#: 3 nothing of loss, version 4 not as which type a resource was written, nor what texts were.
VERSION = 5
#: The columns that were added to tables, and since which version there are.
ADDED = (
    (2, "resources", "prune TEXT DEFAULT ''"),
    (3, "resources", "undo TEXT DEFAULT ''"),
    (5, "resources", "written TEXT DEFAULT ''"),
    (5, "changes", "diff TEXT DEFAULT ''"),
)
TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, started REAL, seconds REAL, mode TEXT, host TEXT, commit_id TEXT,
    dirty INTEGER, status TEXT, summary TEXT);
CREATE TABLE IF NOT EXISTS resources (
    id TEXT PRIMARY KEY, type TEXT, wish TEXT, claims TEXT, file TEXT, line INTEGER,
    commit_id TEXT, run TEXT, since REAL, converged INTEGER, prune TEXT DEFAULT '',
    undo TEXT DEFAULT '', written TEXT DEFAULT '');
CREATE TABLE IF NOT EXISTS tombstones (resource TEXT PRIMARY KEY, run TEXT, since REAL);
CREATE TABLE IF NOT EXISTS changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT, at REAL, resource TEXT, status TEXT,
    action TEXT, cause TEXT, changes TEXT, reason TEXT, file TEXT, line INTEGER,
    diff TEXT DEFAULT '');
CREATE TABLE IF NOT EXISTS diffs (digest TEXT PRIMARY KEY, size INTEGER, text TEXT);
CREATE TABLE IF NOT EXISTS intents (
    resource TEXT PRIMARY KEY, run TEXT, notify TEXT, paths TEXT);
CREATE TABLE IF NOT EXISTS owed (
    handler TEXT, because TEXT, run TEXT, PRIMARY KEY (handler, because));
CREATE TABLE IF NOT EXISTS images (
    path TEXT PRIMARY KEY, run TEXT, at REAL, kind TEXT, mode INTEGER, uid INTEGER,
    gid INTEGER, size INTEGER, sha256 TEXT, link TEXT, stored TEXT);
CREATE TABLE IF NOT EXISTS lost (since REAL, why TEXT);
CREATE INDEX IF NOT EXISTS changes_of ON changes (resource, seq);
"""
#: Ledgers that were put aside and are kept.
KEEP_BAD = 3
#: The files of one ledger.
LOG = "-wal"
PARTS = ("", LOG, "-shm")
#: How the log of SQLite begins, in either order of bytes.
LOG_HEADS = (b"\x37\x7f\x06\x82\x00\x2d\xe2\x18", b"\x37\x7f\x06\x83\x00\x2d\xe2\x18")


class Opened(NamedTuple):
    """A database that can be used. lost: why it does not know what it should, or ""."""

    database: sqlite3.Connection
    lost: str


def place(root: str) -> str:
    """Where the ledger of a host is."""
    return os.path.join(root, STATE, "ledger.db")


def images(root: str) -> str:
    """Where first images are. It is made after the ledger: who has it has had a ledger."""
    return os.path.join(root, STATE, "images")


def connect(root: str) -> Opened:
    """Open the ledger to write, or begin one. Raises OSError, sqlite3.Error."""
    path = place(root)
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    why = _judge_log(path)
    try:
        opened = _connect(path, why, known_host=os.path.isdir(images(root)))
    except (sqlite3.DatabaseError, IsADirectoryError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.Error) and not _is_damage(error):
            raise
        said = "it is no file" if isinstance(error, IsADirectoryError) else str(error)
        why = f"the ledger was damaged ({said}) and is kept as {_put_aside(path)}"
        opened = _connect(path, why, known_host=True)
    os.makedirs(images(root), mode=0o700, exist_ok=True)
    return opened


def connect_readonly(root: str) -> Opened | None:
    """Open the ledger without touching a byte; None if there is none that can be used. One of an
    older version is brought up to date in memory.

    After a kill there is a write-ahead log, which `readonly_shm` lets SQLite read without
    writing beside it; without a log nobody else is writing, and `immutable` looks for none.
    """
    path = place(root)
    option = "readonly_shm=1" if _has_log(path) else "immutable=1"
    database: sqlite3.Connection | None = None
    if not os.path.isfile(path):
        return None  # SQLite would wait for somebody to write into a pipe
    try:
        _check_head(path)
        database = sqlite3.connect(f"file:{_quoted(path)}?mode=ro&{option}", uri=True)
        version = _version(database)
        if 0 < version < VERSION:
            database = _copied(database)
            _migrate(database, version, "")
        _check(database, ledgerrows.MEMORY)
        return Opened(database, _lost(database))
    except (OSError, sqlite3.Error, UnicodeDecodeError):
        if database is not None:
            database.close()
        return None


def was_here(root: str) -> bool:
    """Whether this host has had a ledger, though there may be none now."""
    return os.path.isdir(images(root))


def _connect(path: str, why: str, *, known_host: bool) -> Opened:
    _own(path)
    _check_head(path)
    database = sqlite3.connect(path, timeout=10)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        version = _version(database)
        if version == 0:
            why = why or _judge_empty(database, known_host=known_host)
        if version < VERSION or why:
            _migrate(database, version, why)
        _check(database, (*ledgerrows.MEMORY, *ledgerrows.HISTORY))
        return Opened(database, _lost(database))
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        database.close()
        raise


def _migrate(database: sqlite3.Connection, version: int, why: str) -> None:
    """Bring the tables of an older version up to date and note what was lost, whole or not at all.

    Those of a newer one stay as they are: tables only grow, so what we know of is there. The
    version may be wrong, by a bit that flipped.
    """
    found = _tables(database)
    columns = "".join(
        f"ALTER TABLE {table} ADD COLUMN {column};\n"
        for since, table, column in ADDED
        if 0 < version < since and (column.split()[0], 0) not in found.get(table, set())
    )
    database.executescript(f"BEGIN;{TABLES}{columns}PRAGMA user_version={max(version, VERSION)};")
    with database:
        if why:
            database.execute("INSERT INTO lost (since, why) VALUES (?,?)", (time.time(), why))


def _copied(database: sqlite3.Connection) -> sqlite3.Connection:
    """The same in memory."""
    copy = sqlite3.connect(":memory:")
    with closing(database):
        database.backup(copy)
    return copy


def _judge_empty(database: sqlite3.Connection, *, known_host: bool) -> str:
    """What was lost with a ledger that nobody has finished making. Raises DatabaseError."""
    others = _tables(database).keys() - _wanted().keys()
    if others:
        raise sqlite3.DatabaseError(f"a database with the table {min(others)} is not ours")
    return "the ledger of this host is gone" if known_host and not _tables(database) else ""


def _own(path: str) -> None:
    """Make the file if there is none, and see to it that it is ours alone."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(f"{path} is not a file")
        if found.st_uid != os.geteuid():
            os.fchown(fd, os.geteuid(), os.getegid())
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _version(database: sqlite3.Connection) -> int:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version < 0:
        raise sqlite3.DatabaseError(f"there is no version {version} of it")
    return version


def _check(database: sqlite3.Connection, rows: Sequence[str]) -> None:
    """Raise DatabaseError for one that cannot be used; takes a few milliseconds.

    rows: tables whose rows must be as we write them.
    """
    said = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if said != "ok":
        raise sqlite3.DatabaseError(said)
    found = _tables(database)
    for name, columns in _wanted().items():
        if not columns <= found.get(name, set()):
            raise sqlite3.DatabaseError(f"the table {name} is not as we make it")
    ledgerrows.check(database, rows)


def _check_head(path: str) -> None:
    """Raise DatabaseError for what SQLite calls no damage: an end within a page, which may be in a
    log, and an unknown format.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(48)
    page = int.from_bytes(head[16:18], "big")
    if page and not _has_log(path) and size % (65536 if page == 1 else page):
        raise sqlite3.DatabaseError("it is cut off")
    if max(head[18:20], default=0) > 2 or int.from_bytes(head[44:48], "big") > 4:
        raise sqlite3.DatabaseError("its format is unknown")


@functools.cache
def _wanted() -> dict[str, set[tuple[str, int]]]:
    """The tables as we make them."""
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(TABLES)
        return _tables(model)


def _tables(database: sqlite3.Connection) -> dict[str, set[tuple[str, int]]]:
    """Table -> its columns, and which of them are its key."""
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: {
            (row[1], row[5])
            for row in database.execute("SELECT * FROM pragma_table_info(?)", [name])
        }
        for (name,) in names
        if not name.startswith("sqlite_")
    }


def _lost(database: sqlite3.Connection) -> str:
    row = database.execute("SELECT why FROM lost ORDER BY rowid DESC LIMIT 1").fetchone()
    return str(row[0]) if row else ""


def _is_damage(error: sqlite3.Error) -> bool:
    """Not so a full disk, a lock, a file system that is read-only: these pass."""
    words = ("no such", "Could not decode")
    return not isinstance(error, sqlite3.OperationalError) or any(
        one in str(error) for one in words
    )


def _put_aside(path: str, parts: Sequence[str] = PARTS) -> str:
    """Give these parts of a ledger a name that is free, and forget all but a few of those before."""
    times = _times(path)
    now = max([int(time.time()), *(one + 1 for one in times)])
    aside = f"{path}.bad-{now}"
    for suffix in parts:
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    for old in times[: -(KEEP_BAD - 1)]:
        for suffix in PARTS:
            try:
                os.unlink(f"{path}.bad-{old}{suffix}")
            except OSError:
                continue  # not there, or a directory, which is for a person to look into
    return aside


def _times(path: str) -> list[int]:
    """When ledgers were put aside, in seconds since the epoch, oldest first."""
    directory, name = os.path.split(path)
    found = (re.match(re.escape(name) + r"\.bad-(\d+)", one) for one in os.listdir(directory))
    return sorted({int(one[1]) for one in found if one})


def _judge_log(path: str) -> str:
    """What was lost with a log that SQLite would pass over in silence; "" for a good one.

    What is written in the middle of a kill is no damage: SQLite takes it up to the last commit.
    """
    try:
        with open(path + LOG, "rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        return ""
    if len(head) < 32 or head.startswith(LOG_HEADS):
        return ""
    return f"the log of the ledger was damaged and is kept as {_put_aside(path, [LOG])}{LOG}"


def _has_log(path: str) -> bool:
    try:
        return os.stat(path + LOG).st_size > 0
    except OSError:
        return False


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
