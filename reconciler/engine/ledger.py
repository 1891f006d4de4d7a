"""The host's own memory: what it owns, what it applied, what it still owes.

Written in few transactions, because each one costs a sync: before the first change of a run
what is intended, with the notifications that it would owe and the first image of each file;
at its end what came of it. A run that was killed in between leaves intents behind: if such a
resource is found in sync by the next run, its change did happen, and its notifications are
owed. So nothing that was owed is lost, whatever the instant.

What its file goes through is in `ledgerfile`. One that lost what it knew says so until a run has
written down again what it owns: what that run changes has an unknown cause, and what was there
before us is not known any more, so that it is never put back.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.catalog import Declaration, Report, Result, dumps
from reconciler.engine import image, ledgerdiffs, ledgerfile, ledgerrows
from reconciler.engine.image import Image, from_sql, to_sql
from reconciler.engine.ledgerfile import Opened
from reconciler.errors import ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.refusals import NO_INODES, has_no_inodes, reason

#: Runs, and their changes, that are kept; so many more until the oldest are forgotten.
KEEP_RUNS = 1000
SLACK = 100
#: Changes, of all runs; a run may make very many.
KEEP_CHANGES = 20_000

#: But not the first of what is owned.
LATER = (
    " AND seq NOT IN (SELECT min(seq) FROM changes WHERE status = 'changed'"
    " AND resource IN (SELECT id FROM resources) GROUP BY resource)"
)

#: Columns go by their names: a newer version may have added others.
ADD_RUN = (
    "INSERT OR REPLACE INTO runs (id, started, seconds, mode, host, commit_id, dirty, status, summary)"
    " VALUES (?,?,?,?,?,?,?,?,?)"
)
ADD_RESOURCE = (
    "INSERT OR REPLACE INTO resources (id, type, wish, claims, file, line, commit_id, run, since, converged, prune, undo, written)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
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


@dataclass(frozen=True)
class Memory:
    """What a run can know of the ones before it. lost: the ledger was begun anew."""

    known: Mapping[str, Known]
    lost: bool = False

    @classmethod
    def of(cls, ledger: Ledger | None, root: str) -> Memory:
        """From a ledger; without one, of a host that may have had one."""
        if ledger is None:
            return cls({}, ledgerfile.was_here(root))
        return cls(ledger.known(), bool(ledger.lost))

    def settled(self, declaration: Declaration) -> bool:
        """Whether an earlier run converged this very wish: what differs now is drift."""
        return self.known.get(declaration.id) == Known(wish_digest(declaration), True)

    def cause(self, declaration: Declaration) -> str:
        """Why this differs: `corrective`, `intentional`, or `unknown`."""
        if self.settled(declaration):
            return "corrective"
        return "unknown" if self.lost and declaration.id not in self.known else "intentional"


class Intent(NamedTuple):
    """A change that a run was about to make: the handlers it notifies, the paths it touches."""

    resource: str
    notify: tuple[str, ...]
    paths: tuple[str, ...]


class Owned(NamedTuple):
    """What the ledger keeps of a resource for the time when nobody declares it any more.

    prune: its own word on that, or "". undo: the parameters that take it away; None: nobody knows
    any. tombstone: the run that first found it undeclared, or "". written: the type as it was
    written, where compile made another of it, or "".
    """

    type: str
    claims: tuple[str, ...]
    file: str
    line: int
    prune: str
    undo: dict[str, Any] | None
    tombstone: str
    written: str = ""


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

    def __init__(self, root: str, opened: Opened) -> None:
        self.root = root
        #: Why it does not know what it should, or "".
        self.lost = opened.lost
        self._database = opened.database
        self._imaged: dict[str, Image] | None = None
        self._unsynced: OSError | None = None

    @classmethod
    @contextmanager
    def open(cls, root: str) -> Iterator[Ledger]:
        """For a run that changes things. Raises ReconcilerError if it cannot be written."""
        path = ledgerfile.place(root)
        try:
            opened = ledgerfile.connect(root)
        except (OSError, sqlite3.Error) as error:
            raise ReconcilerError(
                f"cannot write the ledger {path}: {_said(error, os.path.dirname(path))}",
                hint="is there space (df -h, df -i), or a quota, and is it root's?",
            ) from error
        try:
            yield cls(root, opened)
        except sqlite3.Error as error:
            raise ReconcilerError(f"cannot write the ledger {path}: {error}") from error
        finally:
            opened.database.close()

    @classmethod
    @contextmanager
    def open_readonly(cls, root: str) -> Iterator[Ledger | None]:
        """For a look that must not touch a byte; None if there is no ledger, or none readable.

        Raises ReconcilerError if it becomes unreadable meanwhile.
        """
        opened = ledgerfile.connect_readonly(root)
        if opened is None:
            yield None
            return
        try:
            yield cls(root, opened)
        except sqlite3.Error as error:
            raise ReconcilerError(
                f"cannot read the ledger {ledgerfile.place(root)}: {error}",
                hint="the next run keeps a damaged one aside and begins a new one",
            ) from error
        finally:
            opened.database.close()

    @property
    def path(self) -> str:
        """Where it is, to be named in messages."""
        return ledgerfile.place(self.root)

    @property
    def warnings(self) -> list[str]:
        """What a person should know of it."""
        then = "the cause of what differs now is unknown, and what left Git before is not pruned"
        return [f"{self.lost}; a new one was begun: {then}"] if self.lost else []

    # -- what it knows -------------------------------------------------------------------

    def known(self) -> dict[str, Known]:
        """Every resource that the ledger owns."""
        rows = self._database.execute("SELECT id, wish, converged FROM resources")
        return {id: Known(wish, bool(converged)) for id, wish, converged in rows}

    def claims(self) -> dict[str, tuple[str, ...]]:
        """What every resource that the ledger owns claims."""
        rows = self._database.execute("SELECT id, claims FROM resources")
        return {id: ledgerrows.texts(claims) for id, claims in rows}

    def owned(self) -> dict[str, Owned]:
        """Every resource that the ledger owns, whole."""
        rows = self._database.execute(
            "SELECT id, type, claims, file, line, prune, undo, coalesce(t.run, ''), written FROM resources"
            " LEFT JOIN tombstones t ON t.resource = id ORDER BY id"
        )
        return {
            id: Owned(
                kind, ledgerrows.texts(claims), file, line, prune, ledgerrows.undo(undo), *rest
            )
            for id, kind, claims, file, line, prune, undo, *rest in rows
        }

    def is_ours(self, resource: str) -> bool:
        """Whether there was nothing of it when we first changed it; False if that is not known."""
        row = self._database.execute(
            "SELECT action, cause, changes FROM changes WHERE resource = ? AND status = 'changed'"
            " ORDER BY seq LIMIT 1",
            (resource,),
        ).fetchone()
        # Drift when we first changed it: so we had changed it before, and what we knew is lost.
        if row is None or row[1] in ("corrective", "unknown"):
            return False
        found = [change["before"] for change in ledgerrows.changes(row[2])]
        return row[0] == "create" or (bool(found) and all(before is None for before in found))

    def image_content(self, stored: str) -> Iterator[bytes]:
        """The pieces of a first image. Raises ResourceError."""
        return image.content(self.root, stored)

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
                "DELETE FROM images WHERE path = ?", [(to_sql(path),) for path in paths]
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
            Intent(id, ledgerrows.texts(notify), ledgerrows.texts(paths))
            for id, notify, paths in rows
        ]

    def runs(self, limit: int = 20) -> list[dict[str, object]]:
        """The last runs, newest first: as they were written down, since a clock may be set."""
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
            " FROM runs ORDER BY rowid DESC LIMIT ?",
            (limit,),
        )
        found: list[dict[str, object]] = [dict(zip(names, row)) for row in rows]
        for run in found:
            run["dirty"] = bool(run["dirty"])
            run["summary"] = ledgerrows.counts(run["summary"])
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
            "diff",
        )
        rows = self._database.execute(
            "SELECT c.run, c.at, c.resource, c.status, c.action, c.cause, c.changes, c.reason,"
            " c.file, c.line, r.commit_id, r.started, coalesce(d.text, '') FROM changes c"
            " LEFT JOIN runs r ON r.id = c.run LEFT JOIN diffs d ON d.digest = c.diff"
            " WHERE (?1 IS NULL OR c.resource = ?1) AND (?2 IS NULL OR c.cause = ?2)"
            " ORDER BY c.seq DESC LIMIT ?3",
            (resource, cause, limit),
        )
        found: list[dict[str, object]] = [dict(zip(names, row)) for row in rows]
        for change in found:
            change["changes"] = ledgerrows.changes(change["changes"])
        return found

    def check(self) -> str:
        """What SQLite's own check says, and ours of its rows: "ok", or what is wrong."""
        try:
            ledgerrows.check(self._database, ledgerrows.HISTORY)
            return str(self._database.execute("PRAGMA integrity_check(1)").fetchone()[0])
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

    def write_off(self, handlers: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Forget what is owed to others than these handlers: what that was."""
        lost = {one: because for one, because in self.owed().items() if one not in handlers}
        if lost:
            self.delivered(lost)
        return lost

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
            "INSERT INTO changes (run, at, resource, status, action, cause, changes, reason, file, line, diff)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (run, time.time(), result.id, result.status, result.action, result.cause, json.dumps(changes),
             result.reason, result.mark.file, result.mark.line, ledgerdiffs.keep(self._database, result)),
        )  # fmt: skip

    def finish(self, report: Report, owned: Mapping[str, Owning]) -> None:
        """The end of a run."""
        rows = self._database.execute(
            "SELECT id, wish, converged, claims, prune, undo, written FROM resources"
        )
        known = {id: tuple(rest) for id, *rest in rows}
        with self._database:
            for id, (declaration, claims, undo, converged) in owned.items():
                wish, claimed = wish_digest(declaration), json.dumps(sorted(claims))
                undoing = json.dumps(undo, sort_keys=True) if undo else ""
                end = (declaration.prune, undoing, declaration.declared_as)
                if known.get(id) != (wish, converged, claimed, *end):
                    self._database.execute(
                        ADD_RESOURCE,
                        (id, declaration.type, wish, claimed, declaration.mark.file,
                         declaration.mark.line, report.commit, report.run, time.time(), converged,
                         *end),
                    )  # fmt: skip
            status = "interrupted" if report.interrupted else "failed" if report.failed else "done"
            self._database.execute(
                ADD_RUN,
                (report.run, report.started, report.seconds, report.mode, report.host, report.commit,
                 report.dirty, status, json.dumps(report.counts())),
            )  # fmt: skip
            if self.lost and not report.interrupted:
                paths = paths_of(claim for one in owned.values() for claim in one.claims)
                self._keep(report.run, dict.fromkeys(paths, image.UNKNOWN))
                self._database.execute("DELETE FROM lost")
            self._forget_old_runs()
            self._forget_old_changes()
            ledgerdiffs.forget(self._database)

    def _forget_old_changes(self) -> None:
        newest, oldest = self._database.execute("SELECT max(seq), min(seq) FROM changes").fetchone()
        if newest is not None and newest - oldest >= KEEP_CHANGES + SLACK:
            forgotten = newest - KEEP_CHANGES
            self._database.execute(f"DELETE FROM changes WHERE seq <= ?{LATER}", (forgotten,))  # noqa: S608

    def _forget_old_runs(self) -> None:
        """Those that changed nothing go first: an agent makes many of them, and they say little."""
        count = self._database.execute("SELECT count(*) FROM runs").fetchone()[0]
        if count < KEEP_RUNS + SLACK:
            return
        self._database.execute(
            "DELETE FROM runs WHERE id IN (SELECT id FROM runs"
            " ORDER BY id IN (SELECT run FROM changes), rowid LIMIT ?)",
            (count - KEEP_RUNS,),
        )
        self._database.execute(
            f"DELETE FROM changes WHERE run NOT IN (SELECT id FROM runs){LATER}"  # noqa: S608
        )

    # -- first images --------------------------------------------------------------------

    def keep_images(
        self,
        run: str,
        host: Host,
        paths: Iterable[str],
        hidden: Collection[str],
        slight: Collection[str] = (),
    ) -> None:
        """Keep what these paths were, if we never touched them before.

        hidden: paths whose content may be secret; of these only the attributes are kept. slight:
        those of which only the attributes are changed; their content is somebody else's, and is
        kept as it is when we change that, too.
        Raises ResourceError for the first that cannot be kept; the others are.
        """
        if self._imaged is None:
            self._imaged = {path: Image(**one) for path, one in self.images().items()}  # type: ignore[arg-type]
        images: dict[str, Image] = {}
        failed: ResourceError | None = None
        for path in paths:
            known = self._imaged.get(path)
            if path in images or not (known is None or _more(known, path in slight)):
                continue
            try:
                images[path] = self._take(host, path, hidden, slight, known)
            except (OSError, ResourceError) as error:
                failed = failed or self._unkept(path, error)
        stored = [path for path, one in images.items() if one.stored]
        try:
            self._sync_images(stored)
        except OSError as error:
            failed = failed or self._unkept(stored[0], error)
            images = {path: one for path, one in images.items() if not one.stored}
        if images:
            with self._database:
                self._database.executemany(
                    "DELETE FROM images WHERE path = ?", [(to_sql(path),) for path in images]
                )
                self._keep(run, images)
            self._imaged.update(images)
        if failed is not None:
            raise failed

    def _take(
        self,
        host: Host,
        path: str,
        hidden: Collection[str],
        slight: Collection[str],
        known: Image | None,
    ) -> Image:
        """Raises OSError, ResourceError."""
        if self.lost:
            return image.UNKNOWN
        now = image.take(self.root, host, path, hidden=path in hidden or path in slight)
        if path in slight and now.kind == "file":
            return now._replace(kind="attributes")
        return now if known is None else image.completed(known, now)

    def _sync_images(self, stored: Sequence[str]) -> None:
        """Before a row says that they are there. What a failed sync has lost, no later one of the
        same run brings back, though it succeeds."""
        if not stored:
            return
        if self._unsynced is not None:
            raise self._unsynced
        try:
            image.sync(self.root)
        except OSError as error:
            self._unsynced = error
            raise

    def _unkept(self, path: str, error: Exception) -> ResourceError:
        return ResourceError(
            f"cannot keep what {path} was before its first change: "
            f"{_said(error, ledgerfile.images(self.root))}",
            hint="it is not changed without that",
        )

    def _keep(self, run: str, images: Mapping[str, Image]) -> None:
        now = time.time()
        self._database.executemany(
            ADD_IMAGE,
            [(to_sql(path), run, now, *one) for path, one in images.items()],
        )

    def images(self) -> dict[str, dict[str, object]]:
        """path -> what it was before it was first changed."""
        rows = self._database.execute(
            "SELECT path, kind, mode, uid, gid, size, sha256, link, stored FROM images"
        )
        found: dict[str, dict[str, object]] = {
            str(from_sql(row[0])): dict(zip(Image._fields, row[1:])) for row in rows
        }
        for one in found.values():
            one["link"] = from_sql(one["link"])
        return found


def _more(known: Image, slight: bool) -> bool:
    """Whether more must be kept than is, now that its content is changed."""
    return known.kind == "attributes" and not slight


def paths_of(claims: Iterable[str]) -> list[str]:
    """The paths among claims."""
    return [claim[len("path:") :] for claim in claims if claim.startswith("path:")]


def wish_digest(declaration: Declaration) -> str:
    """The digest of what a declaration wants; secrets enter as handles only."""
    return hashlib.sha256(
        dumps([declaration.type, declaration.key, declaration.params])
    ).hexdigest()


def _said(error: Exception, place: str) -> str:
    """What an error says that happened in this directory."""
    if isinstance(error, OSError):
        return reason(error, place)
    # SQLite only says that it cannot open what it would have to make.
    lacking = isinstance(error, sqlite3.Error) and has_no_inodes(place)
    return f"{error}: {NO_INODES}" if lacking else str(error)
