"""The host's own memory: what it owns, what it applied, what it still owes.

Written in few transactions, because each one costs a sync: before the first change of a run
what is intended, with the notifications that it would owe and the first image of each file;
at its end what came of it. A run that was killed in between leaves intents behind: if such a
resource is found in sync by the next run, its change did happen, and its notifications are
owed. So nothing that was owed is lost, whatever the instant.

A ledger that SQLite refuses is put aside (`ledger.db.bad-TIME`) and a new one begun: the host
is the truth, and the next run writes down again what it owns.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import (
    Any,
    NamedTuple,
)

from reconciler.catalog import Declaration, Report, Result, dumps
from reconciler.errors import ReconcilerError, ResourceError
from reconciler.host import Host

STATE = "var/lib/reconciler"
#: Larger files are not copied; their image says so.
IMAGE_CAP = 64 << 20
#: Runs, and their changes, that are kept; so many more until the oldest are forgotten.
KEEP_RUNS = 1000
SLACK = 100
#: The end of the name of an image that is not yet whole.
NEW = ".new"

#: Of the tables. Version 1 knew nothing of pruning, version 2 not how a resource is undone.
VERSION = 3
#: What each version added to the table of resources.
ADDED = {2: "prune TEXT DEFAULT ''", 3: "undo TEXT DEFAULT ''"}
TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, started REAL, seconds REAL, mode TEXT, host TEXT, commit_id TEXT,
    dirty INTEGER, status TEXT, summary TEXT);
CREATE TABLE IF NOT EXISTS resources (
    id TEXT PRIMARY KEY, type TEXT, wish TEXT, claims TEXT, file TEXT, line INTEGER,
    commit_id TEXT, run TEXT, since REAL, converged INTEGER, prune TEXT DEFAULT '',
    undo TEXT DEFAULT '');
CREATE TABLE IF NOT EXISTS tombstones (resource TEXT PRIMARY KEY, run TEXT, since REAL);
CREATE TABLE IF NOT EXISTS changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT, at REAL, resource TEXT, status TEXT,
    action TEXT, cause TEXT, changes TEXT, reason TEXT, file TEXT, line INTEGER);
CREATE TABLE IF NOT EXISTS intents (
    resource TEXT PRIMARY KEY, run TEXT, notify TEXT, paths TEXT);
CREATE TABLE IF NOT EXISTS owed (
    handler TEXT, because TEXT, run TEXT, PRIMARY KEY (handler, because));
CREATE TABLE IF NOT EXISTS images (
    path TEXT PRIMARY KEY, run TEXT, at REAL, kind TEXT, mode INTEGER, uid INTEGER,
    gid INTEGER, size INTEGER, sha256 TEXT, link TEXT, stored TEXT);
CREATE INDEX IF NOT EXISTS changes_of ON changes (resource, seq);
"""

#: Columns go by their names: a newer version may have added others.
ADD_RUN = (
    "INSERT OR REPLACE INTO runs (id, started, seconds, mode, host, commit_id, dirty, status, summary)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
ADD_RESOURCE = (
    "INSERT OR REPLACE INTO resources (id, type, wish, claims, file, line, commit_id, run, since, converged, prune, undo)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
ADD_TOMBSTONE = "INSERT OR IGNORE INTO tombstones (resource, run, since) VALUES (?,?,?)"
ADD_INTENT = "INSERT OR REPLACE INTO intents (resource, run, notify, paths) VALUES (?,?,?,?)"
ADD_DEBT = "INSERT OR IGNORE INTO owed (handler, because, run) VALUES (?,?,?)"
ADD_IMAGE = (
    "INSERT OR IGNORE INTO images (path, run, at, kind, mode, uid, gid, size, sha256, link, stored)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)


class Known(NamedTuple):
    """What the ledger knows of a resource: the digest of its wish, and if that was reached."""

    wish: str
    converged: bool


class Intent(NamedTuple):
    """A change that a run was about to make: the handlers it notifies, the paths it touches."""

    resource: str
    notify: tuple[str, ...]
    paths: tuple[str, ...]


class Owned(NamedTuple):
    """What the ledger keeps of a resource for the time when nobody declares it any more.

    prune: its own word on that, or "". undo: the parameters that take it away; None: nobody knows
    any. tombstone: the run that first found it undeclared, or "".
    """

    type: str
    claims: tuple[str, ...]
    file: str
    line: int
    prune: str
    undo: dict[str, Any] | None
    tombstone: str


class Owning(NamedTuple):
    """What a run says of a resource at its end: what `Owned` has, and whether it converged."""

    declaration: Declaration
    claims: Sequence[str]
    undo: Mapping[str, object] | None
    converged: bool


class Takeover(NamedTuple):
    """What a run takes over from those before it.

    owed: debts that follow from their intents, handler -> resources. intents: the resources
    whose intents are answered by that.
    """

    owed: dict[str, list[str]]
    intents: tuple[str, ...]


class Ledger:
    """The open ledger of a host. One writer at a time, under the host's lock."""

    def __init__(
        self, root: str, database: sqlite3.Connection, warnings: Sequence[str] = ()
    ) -> None:
        self.root = root
        self.warnings = list(warnings)
        self._database = database
        self._imaged: set[str] | None = None

    @classmethod
    @contextmanager
    def open(cls, root: str) -> Iterator[Ledger]:
        """For a run that changes things. Raises ReconcilerError if it cannot be written."""
        directory = os.path.join(root, STATE)
        path = os.path.join(directory, "ledger.db")
        warnings: list[str] = []
        try:
            os.makedirs(os.path.join(directory, "images"), mode=0o700, exist_ok=True)
            os.chmod(directory, 0o700)
            try:
                database = _connect(path)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                aside = f"{path}.bad-{int(time.time())}"
                for suffix in ("", "-wal", "-shm"):
                    if os.path.exists(path + suffix):
                        os.rename(path + suffix, aside + suffix)
                warnings.append(
                    f"the ledger was damaged ({error}) and is kept as {aside}; a new one was begun"
                )
                database = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise ReconcilerError(
                f"cannot write the ledger {path}: {error}", hint="is there space, and is it root's?"
            ) from error
        try:
            yield cls(root, database, warnings)
        except sqlite3.Error as error:
            raise ReconcilerError(f"cannot write the ledger {path}: {error}") from error
        finally:
            database.close()

    @classmethod
    @contextmanager
    def open_readonly(cls, root: str) -> Iterator[Ledger | None]:
        """For a look that must not touch a byte; None if there is no ledger, or none readable.

        After a kill there is a write-ahead log, which `readonly_shm` lets SQLite read without
        writing beside it; without a log nobody else is writing, and `immutable` looks for none.
        """
        path = os.path.join(root, STATE, "ledger.db")
        option = "readonly_shm=1" if _has_log(path) else "immutable=1"
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(f"file:{_quoted(path)}?mode=ro&{option}", uri=True)
            _check(database)
        except sqlite3.Error:
            if database is not None:
                database.close()
            yield None
            return
        try:
            yield cls(root, database)
        finally:
            database.close()

    # -- what it knows -------------------------------------------------------------------

    def known(self) -> dict[str, Known]:
        """Every resource that the ledger owns."""
        rows = self._database.execute("SELECT id, wish, converged FROM resources")
        return {id: Known(wish, bool(converged)) for id, wish, converged in rows}

    def claims(self) -> dict[str, tuple[str, ...]]:
        """What every resource that the ledger owns claims."""
        rows = self._database.execute("SELECT id, claims FROM resources")
        return {id: tuple(json.loads(claims)) for id, claims in rows}

    def owned(self) -> dict[str, Owned]:
        """Every resource that the ledger owns, whole."""
        rows = self._database.execute(
            "SELECT id, type, claims, file, line, prune, undo, coalesce(t.run, '') FROM resources"
            " LEFT JOIN tombstones t ON t.resource = id ORDER BY id"
        )
        return {
            id: Owned(kind, tuple(json.loads(claims)), file, line, prune, json.loads(undo or "null"), tomb)
            for id, kind, claims, file, line, prune, undo, tomb in rows
        }  # fmt: skip

    def is_ours(self, resource: str) -> bool:
        """Whether there was nothing of it when we first changed it; False if that is not known."""
        row = self._database.execute(
            "SELECT action, changes FROM changes WHERE resource = ? AND status = 'changed'"
            " ORDER BY seq LIMIT 1",
            (resource,),
        ).fetchone()
        if row is None:
            return False
        found = [change["before"] for change in json.loads(row[1] or "[]")]
        return row[0] == "create" or (bool(found) and all(before is None for before in found))

    def image_content(self, stored: str) -> Iterator[bytes]:
        """The pieces of a first image. Raises OSError."""
        with open(os.path.join(self.root, STATE, "images", stored), "rb") as file:
            while piece := file.read(1 << 20):
                yield piece

    def note(self, run: str, result: Result) -> None:
        """One change that belongs to no catalog."""
        with self._database:
            self._record(run, result)

    def bury(self, run: str, undeclared: Iterable[str], declared: Iterable[str]) -> None:
        """Remember since when resources are undeclared, and forget it of those that are back."""
        with self._database:
            self._database.executemany(
                ADD_TOMBSTONE,
                [(id, run, time.time()) for id in undeclared],
            )
            self._database.executemany(
                "DELETE FROM tombstones WHERE resource = ?", [(id,) for id in declared]
            )

    def forget(self, ids: Iterable[str], paths: Iterable[str] = ()) -> None:
        """Own these resources no more, nor the first images of these paths."""
        with self._database:
            for table, column in (("resources", "id"), ("tombstones", "resource")):
                self._database.executemany(
                    f"DELETE FROM {table} WHERE {column} = ?",  # noqa: S608  # the names are ours
                    [(id,) for id in ids],
                )
            self._database.executemany(
                "DELETE FROM images WHERE path = ?", [(_to_sql(path),) for path in paths]
            )
            self._imaged = None

    def owed(self) -> dict[str, tuple[str, ...]]:
        """Handlers that earlier runs owe: id -> the resources that notified it."""
        owed: dict[str, list[str]] = {}
        for handler, because in self._database.execute(
            "SELECT handler, because FROM owed ORDER BY rowid"
        ):
            owed.setdefault(handler, []).append(because)
        return {handler: tuple(because) for handler, because in owed.items()}

    def intents(self) -> list[Intent]:
        """What a killed run was about to do."""
        rows = self._database.execute("SELECT resource, notify, paths FROM intents ORDER BY rowid")
        return [
            Intent(id, tuple(json.loads(notify)), tuple(json.loads(paths)))
            for id, notify, paths in rows
        ]

    def runs(self, limit: int = 20) -> list[dict[str, object]]:
        """The last runs, newest first."""
        names = (
            "run",
            "started",
            "seconds",
            "mode",
            "host",
            "commit",
            "dirty",
            "status",
            "summary",
        )
        rows = self._database.execute(
            "SELECT id, started, seconds, mode, host, commit_id, dirty, status, summary"
            " FROM runs ORDER BY started DESC, rowid DESC LIMIT ?",
            (limit,),
        )
        found: list[dict[str, object]] = [dict(zip(names, row)) for row in rows]
        for run in found:
            run["dirty"] = bool(run["dirty"])
            run["summary"] = json.loads(str(run["summary"] or "{}"))
        return found

    def changes(
        self, resource: str | None = None, cause: str | None = None, limit: int = 100
    ) -> list[dict[str, object]]:
        """The last changes, newest first, of one resource and of one cause if given."""
        names = (
            "run",
            "at",
            "resource",
            "status",
            "action",
            "cause",
            "changes",
            "reason",
            "file",
            "line",
            "commit",
            "started",
        )
        rows = self._database.execute(
            "SELECT c.run, c.at, c.resource, c.status, c.action, c.cause, c.changes, c.reason,"
            " c.file, c.line, r.commit_id, r.started FROM changes c LEFT JOIN runs r ON r.id = c.run"
            " WHERE (?1 IS NULL OR c.resource = ?1) AND (?2 IS NULL OR c.cause = ?2)"
            " ORDER BY c.seq DESC LIMIT ?3",
            (resource, cause, limit),
        )
        found: list[dict[str, object]] = [dict(zip(names, row)) for row in rows]
        for change in found:
            change["changes"] = json.loads(str(change["changes"] or "[]"))
        return found

    def check(self) -> str:
        """What SQLite's own check says: "ok", or what is wrong."""
        try:
            return str(self._database.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return str(error)

    # -- what it is told -----------------------------------------------------------------

    def begin(
        self,
        run: str,
        mode: str,
        host: str,
        commit: str,
        dirty: bool,
        intents: Sequence[Intent],
        taken: Takeover,
    ) -> None:
        """Before the first change: the run, all that it intends, and what it took over from a
        run that was killed; in one transaction, durably."""
        with self._database:
            self._database.execute(
                ADD_RUN,
                (run, time.time(), 0, mode, host, commit, dirty, "running", "{}"),
            )
            self._owe(run, taken.owed)
            self._close(taken.intents)
            self._intend(run, intents)

    def intend(self, run: str, intent: Intent) -> None:
        """Before a change that `begin` did not foresee."""
        with self._database:
            self._intend(run, [intent])

    def _intend(self, run: str, intents: Sequence[Intent]) -> None:
        self._database.executemany(
            ADD_INTENT,
            [(one.resource, run, json.dumps(one.notify), json.dumps(one.paths)) for one in intents],
        )

    def _owe(self, run: str, owed: Mapping[str, Iterable[str]]) -> None:
        self._database.executemany(
            ADD_DEBT,
            [(handler, one, run) for handler, because in owed.items() for one in because],
        )

    def delivered(self, handlers: Iterable[str]) -> None:
        """These handlers are owed nothing any more."""
        with self._database:
            self._database.executemany(
                "DELETE FROM owed WHERE handler = ?", [(h,) for h in handlers]
            )

    def settle(
        self,
        run: str,
        results: Sequence[Result],
        owed: Mapping[str, Iterable[str]],
        closed: Iterable[str],
    ) -> None:
        """What came of these resources so far becomes history and debts.

        closed: the resources of which it is known whether they were changed. The intent of a
        change that failed half-way stays open: a later run that finds it in sync owes for it.
        """
        with self._database:
            for result in results:
                self._record(run, result)
            self._close(closed)
            self._owe(run, owed)

    def _close(self, resources: Iterable[str]) -> None:
        self._database.executemany(
            "DELETE FROM intents WHERE resource = ?", [(one,) for one in resources]
        )

    def _record(self, run: str, result: Result) -> None:
        changes = [
            {"attribute": c.attribute, "before": c.before, "after": c.after} for c in result.changes
        ]
        self._database.execute(
            "INSERT INTO changes (run, at, resource, status, action, cause, changes, reason, file, line)"
            " VALUES (?,?,?,?,?,?,?,?,?,?)",
            (run, time.time(), result.id, result.status, result.action, result.cause, json.dumps(changes),
             result.reason, result.mark.file, result.mark.line),
        )  # fmt: skip

    def finish(self, report: Report, owned: Mapping[str, Owning]) -> None:
        """The end of a run."""
        known = self.known()
        rows = self._database.execute("SELECT id, prune, undo FROM resources")
        ends = {id: (prune, undo) for id, prune, undo in rows}
        with self._database:
            for id, (declaration, claims, undo, converged) in owned.items():
                wish = wish_digest(declaration)
                end = (declaration.prune, json.dumps(undo, sort_keys=True) if undo else "")
                if known.get(id) != Known(wish, converged) or ends[id] != end:
                    self._database.execute(
                        ADD_RESOURCE,
                        (id, declaration.type, wish, json.dumps(sorted(claims)), declaration.mark.file,
                         declaration.mark.line, report.commit, report.run, time.time(), converged,
                         *end),
                    )  # fmt: skip
            status = "interrupted" if report.interrupted else "failed" if report.failed else "done"
            self._database.execute(
                ADD_RUN,
                (report.run, report.started, report.seconds, report.mode, report.host, report.commit,
                 report.dirty, status, json.dumps(report.counts())),
            )  # fmt: skip
            self._forget_old_runs()

    def _forget_old_runs(self) -> None:
        """Those that changed nothing go first: an agent makes many of them, and they say little."""
        count = self._database.execute("SELECT count(*) FROM runs").fetchone()[0]
        if count < KEEP_RUNS + SLACK:
            return
        self._database.execute(
            "DELETE FROM runs WHERE id IN (SELECT id FROM runs"
            " ORDER BY id IN (SELECT run FROM changes), started LIMIT ?)",
            (count - KEEP_RUNS,),
        )
        self._database.execute("DELETE FROM changes WHERE run NOT IN (SELECT id FROM runs)")

    # -- first images --------------------------------------------------------------------

    def keep_images(self, run: str, host: Host, paths: Iterable[str], hidden: set[str]) -> None:
        """Keep what these paths were, if we never touched them before.

        hidden: paths whose content may be secret; of these only the attributes are kept.
        Raises ResourceError for the first that cannot be kept; the others are.
        """
        if self._imaged is None:
            rows = self._database.execute("SELECT path FROM images")
            self._imaged = {_from_sql(row[0]) for row in rows}
        images: dict[str, tuple[object, ...]] = {}
        failed: ResourceError | None = None
        for path in paths:
            if path in self._imaged or path in images:
                continue
            try:
                images[path] = self._image(host, path, path in hidden)
            except (OSError, ResourceError) as error:
                failed = failed or ResourceError(
                    f"cannot keep what {path} was before its first change: {_said(error)}",
                    hint="it is not changed without that",
                )
        if images:
            now = time.time()
            with self._database:
                self._database.executemany(
                    ADD_IMAGE,
                    [(_to_sql(path), run, now, *image) for path, image in images.items()],
                )
            self._imaged.update(images)
        if failed is not None:
            raise failed

    def sweep_images(self) -> None:
        """Remove the images that a killed run had not yet copied whole."""
        directory = os.path.join(self.root, STATE, "images")
        for name in os.listdir(directory):
            if name.endswith(NEW):
                os.unlink(os.path.join(directory, name))

    def _image(self, host: Host, path: str, hidden: bool) -> tuple[object, ...]:
        found = host.lstat(path)
        if found is None:
            return ("absent", None, None, None, None, None, None, None)
        attributes = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_size)
        if stat.S_ISLNK(found.st_mode):
            return ("link", *attributes, None, _to_sql(host.readlink(path)), None)
        if not stat.S_ISREG(found.st_mode):
            return (
                "directory" if stat.S_ISDIR(found.st_mode) else "special",
                *attributes,
                None,
                None,
                None,
            )
        if hidden or found.st_size > IMAGE_CAP:
            return ("file", *attributes, None, None, None)
        sha256 = host.digest(path)
        stored = os.path.join(self.root, STATE, "images", sha256)
        if not os.path.exists(stored):
            _store(f"{stored}{NEW}", host.files.chunks(path))
            os.rename(f"{stored}{NEW}", stored)
        return ("file", *attributes, sha256, None, sha256)

    def images(self) -> dict[str, dict[str, object]]:
        """path -> what it was before it was first changed."""
        names = ("kind", "mode", "uid", "gid", "size", "sha256", "link", "stored")
        rows = self._database.execute(
            "SELECT path, kind, mode, uid, gid, size, sha256, link, stored FROM images"
        )
        found: dict[str, dict[str, object]] = {
            str(_from_sql(row[0])): dict(zip(names, row[1:])) for row in rows
        }
        for image in found.values():
            image["link"] = _from_sql(image["link"])
        return found


def wish_digest(declaration: Declaration) -> str:
    """The digest of what a declaration wants; secrets enter as handles only."""
    return hashlib.sha256(
        dumps([declaration.type, declaration.key, declaration.params])
    ).hexdigest()


def _connect(path: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, timeout=10)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            _migrate(database, version)
        _check(database)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection, version: int) -> None:
    """Bring the tables of an older version up to date, whole or not at all.

    Those of a newer one stay as they are: tables only grow, so what we know of is there.
    """
    if version > VERSION:
        return
    added = [column for since, column in ADDED.items() if 0 < version < since]
    columns = "".join(f"ALTER TABLE resources ADD COLUMN {column};\n" for column in added)
    database.executescript(f"BEGIN;{TABLES}{columns}PRAGMA user_version={VERSION};COMMIT;")


def _check(database: sqlite3.Connection) -> None:
    """Raise DatabaseError for one that cannot be used; takes a few milliseconds."""
    said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        raise sqlite3.DatabaseError(said)
    database.execute("SELECT count(*) FROM resources").fetchone()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Not so a full disk, a lock, a file system that is read-only: these pass, and the ledger
    is as good as it was."""
    return not isinstance(error, sqlite3.OperationalError) or "no such table" in str(error)


def _store(path: str, content: Iterable[bytes]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as image:
            for piece in content:
                image.write(piece)
            image.flush()
            os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _to_sql(text: str) -> str | bytes:
    """SQLite's text is UTF-8; names of files need not be."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw
    return text


def _from_sql(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _has_log(path: str) -> bool:
    try:
        return os.stat(path + "-wal").st_size > 0
    except OSError:
        return False


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
