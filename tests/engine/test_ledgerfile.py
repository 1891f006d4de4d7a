"""A ledger that is damaged, whatever the way: put aside, said, and it keeps no host from healing."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.toys import DONE, MACHINE, Bench, Toy, statuses, toy
from reconciler.engine import ledgerfile
from reconciler.engine.ledger import Ledger
from reconciler.engine.ledgerfile import KEEP_BAD, VERSION, images, place
from reconciler.engine.prune import Rules, survey
from reconciler.errors import ReconcilerError

KILLED = """\
import os, sys
from reconciler.engine.ledger import *
with Ledger.open(sys.argv[1]) as ledger:
    ledger.begin("r", "m", "h", "c", False, [Intent("toy:late", (), ())], Takeover({}, ()))
    os.kill(os.getpid(), 9)
"""


class Claiming(Toy):
    """A resource that is a file."""

    def claims(self) -> set[str]:
        return {f"path:/{self.name}"}


def ledger_of(root: Path) -> Path:
    return Path(place(str(root)))


def put_aside(root: Path) -> list[str]:
    found = ledger_of(root).parent.glob("ledger.db.bad-*")
    return sorted(one.name for one in found if not one.name.endswith(("-wal", "-shm")))


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for one in statements:
            database.execute(one)


def cut(share: float) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        os.truncate(path, int(path.stat().st_size * share))

    return damage


def overwrite(start: int, content: bytes) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(start)
            file.write(content)

    return damage


def flip(needle: bytes, bit: int) -> Callable[[Path], object]:
    """A bit of the first byte of this, which is within a value."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[content.index(needle)] ^= bit
        path.write_bytes(content)

    return damage


def damage_of_an_index(path: Path) -> None:
    """Where the same name stands twice, the second time among those that are looked up."""
    content = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as database:
        size, page = (
            database.execute(one).fetchone()[0]
            for one in (
                "PRAGMA page_size",
                "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_resources_1'",
            )
        )
    at = content.index(b"toy:", (page - 1) * size)
    content[at] ^= 0x01
    path.write_bytes(content)


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "cut within the header": lambda path: os.truncate(path, 50),
    "cut after a page": lambda path: os.truncate(path, 4096),
    "cut by a third": cut(0.66),
    "cut by a few bytes": lambda path: os.truncate(path, path.stat().st_size - 7),
    "another header": overwrite(0, b"\0" * 100),
    "another file": lambda path: path.write_text("hello\n" * 1000),
    "garbage within": overwrite(4096, os.urandom(1) * 20_000),
    "another database": lambda path: (path.unlink(), sql(path, "CREATE TABLE a (b)")),
    "a table is missing": lambda path: sql(path, "DROP TABLE resources"),
    "another table is missing": lambda path: sql(path, "DROP TABLE owed"),
    "a column is missing": lambda path: sql(path, "ALTER TABLE changes DROP COLUMN cause"),
    "a key is missing": lambda path: sql(
        path, "DROP TABLE intents", "CREATE TABLE intents (resource, run, notify, paths)"
    ),
    "from a future with other tables": lambda path: sql(
        path, "ALTER TABLE owed RENAME TO debts", f"PRAGMA user_version={VERSION + 1}"
    ),
    "before time": lambda path: sql(path, "PRAGMA user_version=-1"),
    "JSON that is none": flip(b'["toy:a"]', 0x08),
    "JSON that ends within": flip(b'"]', 0x08),
    "JSON in a value that is gone": lambda path: sql(path, "UPDATE resources SET claims = NULL"),
    "JSON in a value that is empty": lambda path: sql(path, "UPDATE resources SET claims = ''"),
    "another kind of JSON": lambda path: sql(path, "UPDATE resources SET claims = '{}'"),
    "another kind within JSON": lambda path: sql(path, "UPDATE resources SET claims = '[1]'"),
    "JSON that says how to undo": lambda path: sql(path, "UPDATE resources SET undo = '[\"a\"]'"),
    "JSON of an intent": lambda path: sql(
        path, "INSERT INTO intents VALUES ('toy:z', 'r', '[', '[]')"
    ),
    "paths of an intent": lambda path: sql(
        path, "INSERT INTO intents VALUES ('toy:z', 'r', '[]', '7')"
    ),
    "text that is no text": flip(b"site.yml", 0x80),
    "another name in an index": damage_of_an_index,
    "bytes where there must be text": lambda path: sql(path, "UPDATE resources SET wish = x'41'"),
    "a number where there must be text": lambda path: sql(
        path,
        "DROP TABLE owed",
        "CREATE TABLE owed (handler INTEGER, because TEXT, run TEXT, PRIMARY KEY (handler, because))",
        "INSERT INTO owed VALUES ('handler:x', 'toy:a', 'r')",
    ),
    "a format to come": overwrite(18, b"\3"),
    "a format to come, to read": overwrite(19, b"\3"),
    "a schema to come": overwrite(47, b"\5"),
    "a schema that is no text": flip(b"E diffs (", 0x80),
    "a directory": become_directory,
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.fixture
def settled(bench: Bench) -> Bench:
    """A host that an earlier run converged, with enough in its ledger to lose."""
    many = [toy(f"n{n}", line=n) for n in range(200)]
    assert not bench.apply(toy("a"), toy("b"), *many).failed
    return bench


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_ledger_is_put_aside_and_the_host_healed(settled: Bench, how: str) -> None:
    root = settled.root
    DAMAGE[how](ledger_of(root))
    MACHINE["a"] = "drifted"
    planned = settled.plan(toy("a"), toy("b"))
    assert {one.cause for one in planned.results if one.status == "pending"} == {"unknown"}
    report = settled.apply(toy("a"), toy("b"))
    assert statuses(report) == {"a": "changed", "b": "ok"}
    assert [one.cause for one in report.results] == ["unknown", ""]
    assert MACHINE["a"] == "v"
    (warning,) = report.warnings
    assert "a new one was begun" in warning
    assert len(put_aside(root)) == (how not in ("missing", "empty"))
    for name in put_aside(root):
        assert name in warning
    with Ledger.open(str(root)) as ledger:
        assert ledger.check() == "ok"
        assert set(ledger.known()) == {"toy:a", "toy:b"}


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_that_flipped_in_its_version_costs_nothing(settled: Bench, bit: int) -> None:
    """The version is no number that SQLite looks at; of the tables nothing is damaged."""
    overwrite(63, bytes([VERSION ^ 1 << bit]))(ledger_of(settled.root))
    MACHINE["a"] = "drifted"
    assert statuses(settled.plan(toy("a"), toy("b"))) == {"a": "pending", "b": "ok"}
    report = settled.apply(toy("a"), toy("b"))
    assert [one.cause for one in report.results] == ["corrective", ""]
    assert not report.warnings
    assert put_aside(settled.root) == []


#: Where only history is concerned: a plan does not look that far.
HISTORY = {
    "JSON that is none": flip(b'[{"attribute', 0x08),
    "another word within JSON": flip(b"attribute", 0x08),
    "another kind within JSON": lambda path: sql(path, "UPDATE changes SET changes = '[1]'"),
    "another kind of JSON": lambda path: sql(path, "UPDATE changes SET changes = '7'"),
    "JSON of a summary": flip(b'{"ok"', 0x08),
    "another kind of summary": lambda path: sql(path, "UPDATE runs SET summary = '{\"ok\": \"x\"}'"),
    "text that is no text": lambda path: sql(path, "UPDATE changes SET reason = CAST(x'ff' AS TEXT)"),
}  # fmt: skip


def read_history(root: Path) -> None:
    with Ledger.open_readonly(str(root)) as ledger:
        assert ledger is not None
        ledger.runs()
        ledger.changes(limit=1000)


@pytest.mark.parametrize("how", HISTORY)
def test_damage_of_the_history_is_damage_to_the_next_run(settled: Bench, how: str) -> None:
    root = settled.root
    HISTORY[how](ledger_of(root))
    with Ledger.open_readonly(str(root)) as ledger:
        assert ledger is not None
        assert ledger.check() != "ok"
    with pytest.raises(ReconcilerError, match="cannot read the ledger") as caught:
        read_history(root)
    assert "keeps a damaged one aside" in caught.value.hint
    MACHINE["a"] = "drifted"
    report = settled.apply(toy("a"), toy("b"))
    assert statuses(report) == {"a": "changed", "b": "ok"}
    assert MACHINE["a"] == "v"
    (name,) = put_aside(root)
    assert name in report.warnings[0]
    with Ledger.open(str(root)) as ledger:
        assert ledger.check() == "ok"


@pytest.mark.parametrize("how", ["missing", "another header"])
def test_the_cause_is_unknown_for_one_run(settled: Bench, how: str) -> None:
    DAMAGE[how](ledger_of(settled.root))
    settled.apply(toy("a"), toy("b"))
    MACHINE["a"] = "drifted"
    report = settled.apply(toy("a"), toy("b"), toy("c"))
    assert report.warnings == ()
    assert {one.id: one.cause for one in report.results} == {
        "toy:a": "corrective",
        "toy:b": "",
        "toy:c": "intentional",
    }


def test_a_run_that_was_stopped_has_not_rebuilt_it(settled: Bench) -> None:
    ledger_of(settled.root).unlink()
    MACHINE["a"] = "drifted"
    settled.boundary.reach()
    assert settled.apply(toy("a"), toy("b")).interrupted
    settled.boundary = type(settled.boundary)()
    report = settled.apply(toy("a"), toy("b"))
    assert report.warnings
    assert report.results[0].cause == "unknown"


def test_a_new_host_has_lost_nothing(bench: Bench) -> None:
    assert {one.cause for one in bench.plan(toy("a")).results} == {"intentional"}
    report = bench.apply(toy("a"))
    assert [one.cause for one in report.results] == ["intentional"]
    assert report.warnings == ()


def test_a_first_run_that_was_killed_while_it_made_the_ledger_has_lost_nothing(
    bench: Bench,
) -> None:
    path = ledger_of(bench.root)
    path.parent.mkdir(parents=True)
    path.touch()
    assert bench.apply(toy("a")).warnings == ()


def test_what_a_lost_ledger_owned_is_never_pruned_nor_put_back(settled: Bench) -> None:
    """What is there now may be our own: it is not what was there before us."""
    rules = Rules({"default": "restore"})
    ledger_of(settled.root).unlink()
    (settled.root / "f").write_text("ours")
    file = toy("f", kind=Claiming)
    settled.apply(file)
    with Ledger.open(str(settled.root)) as ledger:
        assert list(ledger.owned()) == ["toy:f"]
        assert ledger.images()["/f"]["kind"] == "unknown"
        assert not ledger.is_ours("toy:f")
        plan = survey(ledger, [], rules, lambda name: True)
        assert (plan.ready, plan.waiting) == ([], [])
    assert not list(Path(images(str(settled.root))).iterdir())


def test_few_of_the_damaged_are_kept(tmp_path: Path) -> None:
    for n in range(KEEP_BAD + 3):
        with Ledger.open(str(tmp_path)):
            pass
        ledger_of(tmp_path).write_text(f"damage {n}")
    with Ledger.open(str(tmp_path)):
        pass
    kept = [(ledger_of(tmp_path).parent / name).read_text() for name in put_aside(tmp_path)]
    assert kept == [f"damage {n}" for n in range(3, KEEP_BAD + 3)]


# -- its log -----------------------------------------------------------------------------


@pytest.fixture
def killed(settled: Bench) -> Bench:
    """The same, with a log that a killed run left."""
    subprocess.run([sys.executable, "-c", KILLED, str(settled.root)], check=False)
    assert ledger_of(settled.root).with_name("ledger.db-wal").stat().st_size > 0
    DONE.clear()
    return settled


def test_a_log_that_was_cut_off_is_taken_up_to_its_last_commit(killed: Bench) -> None:
    log = ledger_of(killed.root).with_name("ledger.db-wal")
    for size in range(log.stat().st_size, 0, -509):
        os.truncate(log, size)
        with Ledger.open_readonly(str(killed.root)) as ledger:
            assert ledger is not None, size
            assert "toy:a" in ledger.known(), size
    assert not killed.apply(toy("a"), toy("b")).warnings


def test_a_log_of_garbage_is_put_aside_and_said(killed: Bench) -> None:
    path = ledger_of(killed.root)
    log = path.with_name("ledger.db-wal")
    log.write_bytes(b"garbage!" * 1000)
    (warning,) = killed.apply(toy("a"), toy("b")).warnings
    assert "the log of the ledger was damaged" in warning
    assert [one.name for one in path.parent.glob("*bad*-wal")]
    with Ledger.open(str(killed.root)) as ledger:
        # What was written before is all there.
        assert "toy:n199" in ledger.known()


def test_logs_that_are_put_aside_within_one_second_are_all_kept_but_not_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(ledgerfile.time, "time", lambda: 1e9 + next(ticks) / 1e5)
    log = ledger_of(tmp_path).with_name("ledger.db-wal")
    contents = [f"garbage {n} ".encode() * 10 for n in range(KEEP_BAD + 1)]
    for count, content in enumerate(contents, 1):
        with Ledger.open(str(tmp_path)):
            pass
        log.write_bytes(content)
        with Ledger.open(str(tmp_path)) as ledger:
            assert "the log of the ledger was damaged" in ledger.lost
        kept = sorted(log.parent.glob("ledger.db.bad-*-wal"))
        assert [one.read_bytes() for one in kept] == contents[:count][-KEEP_BAD:]
        assert str(kept[-1]) in ledger.lost


def test_a_log_that_is_gone_takes_along_only_what_was_in_it(killed: Bench) -> None:
    ledger_of(killed.root).with_name("ledger.db-wal").unlink()
    assert not killed.apply(toy("a"), toy("b")).warnings
    with Ledger.open(str(killed.root)) as ledger:
        assert "toy:n199" in ledger.known()


@pytest.mark.parametrize("how", ["garbled", "missing", "empty", "cut"])
def test_the_index_of_the_log_is_made_again(killed: Bench, how: str) -> None:
    index = ledger_of(killed.root).with_name("ledger.db-shm")
    if how == "missing":
        index.unlink()
    else:
        index.write_bytes({"garbled": os.urandom(32768), "empty": b"", "cut": b"x" * 100}[how])
    before = index.read_bytes() if how != "missing" else None
    with Ledger.open_readonly(str(killed.root)) as ledger:
        if how != "missing":  # without one SQLite would have to write
            assert ledger is not None
            assert [one.resource for one in ledger.intents()] == ["toy:late"]
    assert (index.read_bytes() if index.exists() else None) == before
    with Ledger.open(str(killed.root)) as ledger:
        assert [one.resource for one in ledger.intents()] == ["toy:late"]
        assert ledger.lost == ""


# -- what is no damage -------------------------------------------------------------------


def test_a_ledger_that_others_could_read_is_ours_alone_again(settled: Bench) -> None:
    path = ledger_of(settled.root)
    path.chmod(0o666)
    path.parent.chmod(0o777)
    assert not settled.apply(toy("a"), toy("b")).warnings
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_ledger_is_neither_followed_nor_put_aside(tmp_path: Path) -> None:
    path = ledger_of(tmp_path)
    path.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(ReconcilerError, match="cannot write the ledger") as refused,
        Ledger.open(str(tmp_path)),
    ):
        pass
    assert refused.value.hint
    assert path.is_symlink()
    assert not put_aside(tmp_path)
    assert (tmp_path / "elsewhere").stat().st_size == 0


def test_a_file_in_place_of_the_directory_is_said(tmp_path: Path) -> None:
    directory = ledger_of(tmp_path).parent
    directory.parent.mkdir(parents=True)
    directory.touch()
    with (
        pytest.raises(ReconcilerError, match="cannot write the ledger"),
        Ledger.open(str(tmp_path)),
    ):
        pass


def test_one_that_is_locked_is_not_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(str(tmp_path)):
        pass
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, timeout=0, **more: real(*a, timeout=0, **more)
    )
    with closing(real(ledger_of(tmp_path))) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ReconcilerError, match="locked"), Ledger.open(str(tmp_path)):
            pass
    assert not put_aside(tmp_path)


def test_an_older_ledger_is_brought_up_to_date(settled: Bench) -> None:
    sql(
        ledger_of(settled.root),
        "DROP TABLE lost",
        "DROP TABLE diffs",
        "ALTER TABLE resources DROP COLUMN written",
        "ALTER TABLE changes DROP COLUMN diff",
        "PRAGMA user_version=3",
    )
    with Ledger.open_readonly(str(settled.root)) as ledger:
        assert ledger is not None
        assert ledger.lost == ""
    assert not settled.apply(toy("a"), toy("b")).warnings
    with Ledger.open(str(settled.root)) as ledger:
        assert "toy:n199" in ledger.known()
