"""The host's memory: durable, readable without a trace, and never in the way."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.toys import toy
from reconciler.catalog import Report, Result
from reconciler.engine import image
from reconciler.engine import ledger as module
from reconciler.engine.ledger import Intent, Ledger, Owning, Takeover, wish_digest
from reconciler.errors import Mark, ReconcilerError, ResourceError
from reconciler.host import Host
from reconciler.resource import Change
from reconciler.safewrite import Attributes

NOTHING = Takeover({}, ())


def path(root: Path) -> Path:
    return root / "var/lib/reconciler/ledger.db"


def begin(ledger: Ledger, run: str, *intents: Intent, taken: Takeover = NOTHING) -> None:
    ledger.begin(run, "local", "h", "c", False, intents, taken)


def test_it_is_roots_alone(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)):
        pass
    assert path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert path(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var/lib").stat().st_mode & 0o755 == 0o755


def test_intents_and_debts_are_told_again(tmp_path: Path) -> None:
    intent = Intent("toy:a", ("handler:x",), ("/a",))
    with Ledger.open(str(tmp_path)) as ledger:
        begin(ledger, "r1", intent, taken=Takeover({"handler:y": ["toy:b"]}, ()))
    with Ledger.open(str(tmp_path)) as ledger:
        assert ledger.intents() == [intent]
        assert ledger.owed() == {"handler:y": ("toy:b",)}
        ledger.delivered(["handler:y"])
        begin(ledger, "r2", taken=Takeover({"handler:x": ["toy:a"]}, ("toy:a",)))
        assert ledger.intents() == []
        assert ledger.owed() == {"handler:x": ("toy:a",)}


def test_an_intent_that_nobody_answers_stays(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)) as ledger:
        begin(ledger, "r1", Intent("toy:a", (), ()), Intent("toy:b", (), ()))
        begin(ledger, "r2", Intent("toy:b", ("handler:x",), ()))
        assert {intent.resource: intent.notify for intent in ledger.intents()} == {
            "toy:a": (),
            "toy:b": ("handler:x",),
        }
        ledger.settle("r2", [], {}, ["toy:b"])
        assert [intent.resource for intent in ledger.intents()] == ["toy:a"]


def test_history_is_kept_newest_first(tmp_path: Path) -> None:
    result = Result(
        "toy:a", "changed", Mark("s.yml", 3), changes=(Change("v", None, [1]),), cause="corrective"
    )
    with Ledger.open(str(tmp_path)) as ledger:
        for n in (1, 2):
            begin(ledger, f"r{n}")
            ledger.settle(f"r{n}", [result], {}, [])
            ledger.finish(Report("h", (result,), commit="c", run=f"r{n}", started=n), {})
        assert [run["run"] for run in ledger.runs()] == ["r2", "r1"]
        assert ledger.runs()[0]["summary"] == {"ok": 0, "changed": 1, "failed": 0, "blocked": 0}
        (newest, _) = ledger.changes("toy:a")
        assert (newest["run"], newest["file"], newest["line"]) == ("r2", "s.yml", 3)
        assert newest["changes"] == [{"attribute": "v", "before": None, "after": [1]}]
        assert ledger.changes("toy:b") == ledger.changes(cause="intentional") == []


def test_old_runs_are_forgotten_those_that_changed_nothing_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_RUNS", 10)
    monkeypatch.setattr(module, "SLACK", 5)
    result = Result("toy:a", "changed", Mark("s.yml"))
    with Ledger.open(str(tmp_path)) as ledger:
        for n in range(40):
            if n < 3:
                ledger.settle(f"r{n}", [result], {}, [])
            ledger.finish(Report("h", (), run=f"r{n}", started=n), {})
        runs = [run["run"] for run in ledger.runs(100)]
        assert len(runs) <= 15
        assert runs[-3:] == ["r2", "r1", "r0"]
        assert len(ledger.changes()) == 3


def test_a_run_may_make_very_many_changes_and_not_all_of_them_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_CHANGES", 10)
    monkeypatch.setattr(module, "SLACK", 5)
    results = [Result(f"toy:{n}", "changed", Mark("s.yml")) for n in range(100)]
    with Ledger.open(str(tmp_path)) as ledger:
        for n in range(3):
            ledger.settle(f"r{n}", results, {}, [])
            ledger.finish(Report("h", (), run=f"r{n}"), {})
        newest_first = [f"toy:{n}" for n in range(99, 89, -1)]
        assert [change["resource"] for change in ledger.changes()] == newest_first


@pytest.mark.parametrize("most", ["KEEP_RUNS", "KEEP_CHANGES"])
def test_what_was_there_before_us_is_not_ours_however_long_ago_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    """Else prune would take away an account that somebody removed and a later commit made again."""
    monkeypatch.setattr(module, most, 3)
    monkeypatch.setattr(module, "SLACK", 1)
    node = toy("a")
    owned = {"toy:a": Owning(node.declaration, [], None, converged=True)}

    def change(run: str, id: str, action: str, before: str | None) -> None:
        changes = (Change("v", before, "x"),)
        result = Result(
            id, "changed", Mark("s"), action=action, cause="intentional", changes=changes
        )
        begin(ledger, run)
        ledger.settle(run, [result], {}, [])
        ledger.finish(Report("h", (result,), run=run), owned)

    with Ledger.open(str(tmp_path)) as ledger:
        change("first", "toy:a", "change", "theirs")
        for n in range(10):
            change(f"r{n}", "toy:b", "change", "x")
        change("last", "toy:a", "create", None)
        assert not ledger.is_ours("toy:a")
        assert len(ledger.changes()) <= 6


def test_a_clock_that_was_a_year_ahead_neither_leads_nor_outlives_what_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_RUNS", 10)
    monkeypatch.setattr(module, "SLACK", 5)
    result = Result("toy:a", "changed", Mark("s.yml"))
    with Ledger.open(str(tmp_path)) as ledger:
        for n in range(20):
            begin(ledger, f"r{n}")
            ledger.settle(f"r{n}", [result], {}, [])
            ahead = 31_536_000 if n < 5 else 0
            ledger.finish(Report("h", (), run=f"r{n}", started=n + ahead), {})
        newest_first = [f"r{n}" for n in range(19, 9, -1)]
        assert [run["run"] for run in ledger.runs(100)] == newest_first
        assert [change["run"] for change in ledger.changes()] == newest_first


def test_what_it_owns_is_written_once_and_again_when_the_wish_changes(tmp_path: Path) -> None:
    node = toy("a")
    with Ledger.open(str(tmp_path)) as ledger:
        for run in ("r1", "r2"):
            ledger.finish(
                Report("h", (), run=run), {"toy:a": Owning(node.declaration, ["toy:a"], None, True)}
            )
        assert ledger._database.execute("SELECT run FROM resources").fetchall() == [("r1",)]
        assert ledger.known()["toy:a"].wish == wish_digest(node.declaration)


# -- reading without a trace -------------------------------------------------------------


def test_there_is_nothing_to_read_before_the_first_run(tmp_path: Path) -> None:
    with Ledger.open_readonly(str(tmp_path)) as ledger:
        assert ledger is None
    assert list(tmp_path.iterdir()) == []


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)):
        pass
    with Ledger.open_readonly(str(tmp_path)) as ledger:
        assert ledger is not None
        with pytest.raises(sqlite3.OperationalError):
            ledger.delivered(["x"])


def test_a_reader_sees_what_a_killed_run_left_in_the_log(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom reconciler.engine.ledger import *\n"
        "with Ledger.open(sys.argv[1]) as l:\n"
        "    l.begin('r', 'm', 'h', 'c', False, [Intent('toy:a', (), ())], Takeover({}, ()))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert path(tmp_path).with_name("ledger.db-wal").stat().st_size > 0
    with Ledger.open_readonly(str(tmp_path)) as ledger:
        assert ledger is not None
        assert [intent.resource for intent in ledger.intents()] == ["toy:a"]


def test_a_reader_beside_a_writer_sees_what_is_committed(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)) as writer:
        begin(writer, "r", Intent("toy:a", (), ()))
        with Ledger.open_readonly(str(tmp_path)) as reader:
            assert reader is not None
            assert len(reader.intents()) == 1


def test_an_error_of_sqlite_within_a_run_is_one_of_ours(tmp_path: Path) -> None:
    with (
        pytest.raises(ReconcilerError, match="cannot write the ledger"),
        Ledger.open(str(tmp_path)),
    ):
        raise sqlite3.OperationalError("database or disk is full")


# -- first images ------------------------------------------------------------------------


def test_the_first_image_is_kept_and_never_a_later_one(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    file = tmp_path / "motd"
    file.write_text("first")
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r1", host, ["/motd", "/missing"], set())
        file.write_text("second")
        ledger.keep_images("r2", host, ["/motd", "/missing"], set())
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r3", host, ["/motd"], set())
        images = ledger.images()
    assert images["/missing"]["kind"] == "absent"
    stored = path(tmp_path).parent / "images" / str(images["/motd"]["stored"])
    assert stored.read_text() == "first"
    assert stored.stat().st_mode & 0o777 == 0o600


def meddle(host: Host, monkeypatch: pytest.MonkeyPatch, file: Path, content: str) -> None:
    """Have somebody write to a file each time that we have read it to its end."""
    read = host.files.chunks

    def chunks(name: str) -> Iterator[bytes]:
        yield from read(name)
        if name == f"/{file.name}":
            file.write_text(content)

    monkeypatch.setattr(host.files, "chunks", chunks)


def test_an_image_is_what_its_name_says_whoever_writes_to_the_file_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever owns a file with the same content as one of root's could change what that goes
    back to."""
    host = Host(str(tmp_path))
    (tmp_path / "theirs").write_text("PermitRootLogin no")
    (tmp_path / "roots").write_text("PermitRootLogin no")
    meddle(host, monkeypatch, tmp_path / "theirs", "PermitRootLogin yes")
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r", host, ["/theirs", "/roots"], set())
        stored = str(ledger.images()["/roots"]["stored"])
        assert b"".join(ledger.image_content(stored)) == b"PermitRootLogin no"
    for one in (path(tmp_path).parent / "images").iterdir():
        assert hashlib.sha256(one.read_bytes()).hexdigest() == one.name


def test_a_file_that_grows_while_it_is_copied_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "CAP", 10)
    host = Host(str(tmp_path))
    (tmp_path / "log").write_text("x")
    monkeypatch.setattr(host.files, "chunks", lambda name: iter([b"x" * 5] * 3))
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r", host, ["/log"], set())
        assert ledger.images()["/log"]["kind"] == "file"
        assert ledger.images()["/log"]["stored"] is None
    assert list((path(tmp_path).parent / "images").iterdir()) == []


@pytest.mark.parametrize("damage", [lambda one: one.write_text("garbage"), Path.unlink])
def test_an_image_that_is_damaged_or_gone_is_not_put_back(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    host = Host(str(tmp_path))
    (tmp_path / "file").write_text("first")
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r", host, ["/file"], set())
        (stored,) = (path(tmp_path).parent / "images").iterdir()
        damage(stored)
        with pytest.raises(ResourceError, match="cannot be put back") as caught:
            host.files.write("/file", ledger.image_content(stored.name), Attributes())
        assert "put it there again" in caught.value.hint
    assert (tmp_path / "file").read_text() == "first"


def test_links_directories_secrets_and_large_files_keep_no_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "CAP", 10)
    (tmp_path / "link").symlink_to("to")
    (tmp_path / "dir").mkdir()
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "large").write_text("x" * 11)
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images(
            "r", Host(str(tmp_path)), ["/link", "/dir", "/secret", "/large"], {"/secret"}
        )
        kinds = {
            name: (image["kind"], image["link"], image["stored"])
            for name, image in ledger.images().items()
        }
    assert kinds == {
        "/link": ("link", "to", None),
        "/dir": ("directory", None, None),
        "/secret": ("file", None, None),
        "/large": ("file", None, None),
    }
    assert list((path(tmp_path).parent / "images").iterdir()) == []


def test_of_a_file_whose_attributes_alone_are_changed_the_content_is_kept_when_that_is_changed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f"
    path.write_text("theirs")
    path.chmod(0o604)
    host = Host(str(tmp_path))
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r1", host, ["/f"], set(), {"/f"})
        assert (ledger.images()["/f"]["kind"], ledger.images()["/f"]["stored"]) == (
            "attributes",
            None,
        )
        path.chmod(0o600)
        path.write_text("theirs, later")
        ledger.keep_images("r2", host, ["/f"], set(), {"/f"})
    with Ledger.open(str(tmp_path)) as ledger:
        for _ in range(2):  # the first time counts
            ledger.keep_images("r3", host, ["/f"], set())
            path.write_text("ours")
        found = ledger.images()["/f"]
        assert (found["kind"], found["mode"]) == ("file", 0o604)
        assert b"".join(ledger.image_content(str(found["stored"]))) == b"theirs, later"


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    name = b"/caf\xe9".decode("utf-8", "surrogateescape")
    os.symlink(b"\xff\xfe", os.fsencode(str(tmp_path) + name))
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r", Host(str(tmp_path)), [name], set())
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r", Host(str(tmp_path)), [name], set())
        assert os.fsencode(str(ledger.images()[name]["link"])) == b"\xff\xfe"


def test_one_image_that_cannot_be_kept_does_not_cost_the_others(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("x")
    with Ledger.open(str(tmp_path)) as ledger:
        with pytest.raises(ResourceError, match=r"cannot keep what /\.\./bad was"):
            ledger.keep_images("r", Host(str(tmp_path)), ["/../bad", "/good"], set())
        assert list(ledger.images()) == ["/good"]


def test_images_whose_names_may_be_lost_are_not_said_to_be_kept_in_that_run_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a failed write once; the sync after that knows nothing of it."""

    def broken(root: str) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "f").write_text("theirs")
    host = Host(str(tmp_path))
    with Ledger.open(str(tmp_path)) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(image, "sync", broken)
            with pytest.raises(ResourceError, match="cannot keep what /f was"):
                ledger.keep_images("r", host, ["/f", "/nothing"], set())
        with pytest.raises(ResourceError, match="Input/output"):
            ledger.keep_images("r", host, ["/f"], set())
        assert list(ledger.images()) == ["/nothing"]
    with Ledger.open(str(tmp_path)) as ledger:
        ledger.keep_images("r", host, ["/f"], set())
        assert ledger.images()["/f"]["kind"] == "file"


def test_an_image_that_was_cut_off_is_swept(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)) as ledger:
        half = path(tmp_path).parent / "images" / "0123.new"
        half.write_text("ha")
        image.sweep(ledger.root)
        assert not half.exists()
