"""A ledger of another version: an older one is brought up to date whole, a newer one is used."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from engine.toys import toy
from reconciler.catalog import Report, Result
from reconciler.engine import ledgerfile
from reconciler.engine.ledger import Intent, Ledger, Owning, Takeover, wish_digest
from reconciler.engine.ledgerfile import TABLES, VERSION
from reconciler.errors import Mark
from reconciler.resource import Change

#: What each version added; taken away again, that is how older ledgers were.
LATER = (
    (
        2,
        "CREATE TABLE IF NOT EXISTS tombstones (resource TEXT PRIMARY KEY, run TEXT, since REAL);\n",
    ),
    (2, ", prune TEXT DEFAULT ''"),
    (3, ",\n    undo TEXT DEFAULT ''"),
    (5, ", written TEXT DEFAULT ''"),
    (5, ",\n    diff TEXT DEFAULT ''"),
    (5, "CREATE TABLE IF NOT EXISTS diffs (digest TEXT PRIMARY KEY, size INTEGER, text TEXT);\n"),
)
RESOURCE = (
    "INSERT INTO resources (id, type, wish, claims, file, line, commit_id, run, since, converged)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)


def path(root: Path) -> Path:
    return root / "var/lib/reconciler/ledger.db"


def old(root: Path, version: int) -> None:
    """A ledger as that version left it: one resource, one change, one intent, one debt."""
    tables = TABLES
    for since, text in LATER:
        if version < since:
            assert text in tables
            tables = tables.replace(text, "")
    path(root).parent.mkdir(parents=True)
    with sqlite3.connect(path(root)) as database:
        database.executescript(tables)
        wish = wish_digest(toy("a").declaration)
        database.execute(
            RESOURCE,
            ("toy:a", "toy", wish, '["toy:a"]', "site.yml", 3, "c", "r1", 1.0, 1),
        )
        database.execute(
            "INSERT INTO changes (run, at, resource, status, action, cause, changes)"
            " VALUES ('r1', 1.0, 'toy:a', 'changed', 'create', 'intentional', '[]')"
        )
        database.execute("INSERT INTO runs (id, started, status) VALUES ('r1', 1.0, 'done')")
        database.execute("INSERT INTO intents VALUES ('toy:b', 'r1', '[]', '[]')")
        database.execute("INSERT INTO owed VALUES ('handler:x', 'toy:a', 'r1')")
        database.execute(f"PRAGMA user_version={version}")
    database.close()


def version(root: Path) -> int:
    with sqlite3.connect(path(root)) as database:
        found = database.execute("PRAGMA user_version").fetchone()[0]
    database.close()
    return found


def check(ledger: Ledger) -> None:
    """All that was known is still known."""
    assert ledger.warnings == []
    assert ledger.known()["toy:a"].converged
    assert ledger.claims() == {"toy:a": ("toy:a",)}
    assert ledger.owed() == {"handler:x": ("toy:a",)}
    assert [one.resource for one in ledger.intents()] == ["toy:b"]
    assert [one["run"] for one in ledger.changes("toy:a")] == ["r1"]
    assert ledger.is_ours("toy:a")
    owned = ledger.owned()["toy:a"]
    assert (owned.prune, owned.undo, owned.tombstone, owned.written) == ("", None, "", "")


@pytest.mark.parametrize("since", [1, 2, 4])
def test_an_older_ledger_keeps_all_that_it_knows(tmp_path: Path, since: int) -> None:
    old(tmp_path, since)
    with Ledger.open(str(tmp_path)) as ledger:
        check(ledger)
    assert version(tmp_path) == VERSION
    with Ledger.open(str(tmp_path)) as ledger:
        check(ledger)


@pytest.mark.parametrize("since", [1, 2, 4])
def test_what_is_still_declared_learns_how_it_is_undone(tmp_path: Path, since: int) -> None:
    old(tmp_path, since)
    owning = Owning(toy("a").declaration, ["toy:a"], {"name": "a", "state": "absent"}, True)
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.begin("r2", "local", "h", "c", False, [], Takeover({}, ()))
        ledger.finish(Report("h", (), run="r2"), {"toy:a": owning})
        assert ledger.owned()["toy:a"].undo == {"name": "a", "state": "absent"}


@pytest.mark.parametrize("since", [1, 2, 4])
def test_looking_at_an_older_ledger_does_not_touch_it(tmp_path: Path, since: int) -> None:
    old(tmp_path, since)
    before = path(tmp_path).read_bytes()
    with Ledger.open_readonly(str(tmp_path)) as ledger:
        assert ledger is not None
        check(ledger)
    assert path(tmp_path).read_bytes() == before


@pytest.mark.parametrize("since", [1, 2, 4])
def test_a_migration_that_breaks_off_leaves_the_old_one(
    tmp_path: Path, since: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(tmp_path, since)
    monkeypatch.setattr(ledgerfile, "TABLES", TABLES + "CREATE TABLE broken (;")
    with pytest.raises(Exception, match="cannot write the ledger"), Ledger.open(str(tmp_path)):
        pass
    monkeypatch.undo()
    assert version(tmp_path) == since
    with Ledger.open(str(tmp_path)) as ledger:
        check(ledger)


def test_a_newer_ledger_is_used_and_stays_a_newer_one(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)):
        pass
    with sqlite3.connect(path(tmp_path)) as database:
        for table in ("runs", "resources", "tombstones", "intents", "owed", "images"):
            database.execute(f"ALTER TABLE {table} ADD COLUMN later TEXT DEFAULT 'x'")
        database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    result = Result("toy:a", "changed", Mark("s.yml", 3), changes=(Change("v", None, 1),))
    with Ledger.open(str(tmp_path)) as ledger:
        assert ledger.warnings == []
        debts = Takeover({"handler:x": ["toy:a"]}, ())
        ledger.begin("r1", "local", "h", "c", False, [Intent("toy:a", (), ())], debts)
        ledger.settle("r1", [result], {}, ["toy:a"])
        owning = Owning(toy("a").declaration, ["toy:a"], None, True)
        ledger.finish(Report("h", (result,), run="r1"), {"toy:a": owning})
        ledger.bury("r1", ["toy:a"], [])
        assert ledger.owned()["toy:a"].tombstone == "r1"
        assert ledger.is_ours("toy:a")
    assert version(tmp_path) == VERSION + 1
