"""The journal of a fleet run: what is on the disk when, and what a resumed run finds there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, HostUnreachable, LockBusy, UsageError
from reconciler.push import journal as journals
from reconciler.push.journal import Head, Journal
from reconciler.push.outcome import Outcome, of_error
from reconciler.push.rollout import Batch

BATCHES = (Batch(("c",), canary=True), Batch(("a", "b")), Batch(("d",)))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "reconciler" / "runs"


def head(run: str | None = None) -> Head:
    return Head(
        run or journals.new_run(), "apply", "t1", "c0ffee", False, (("web",), ()), BATCHES, 1.5
    )


def begun() -> tuple[Head, Journal]:
    about = head()
    return about, Journal.begin(about)


def test_a_journal_is_for_its_owner_only(home: Path) -> None:
    about, journal = begun()
    journal.close()
    assert (home / f"{about.run}.jsonl").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


def test_what_was_written_is_read_again() -> None:
    about, journal = begun()
    for host in "cab":
        journal.began(host)
    journal.ended(Outcome("c", "changed", counts={"changed": 2}, seconds=1.0))
    journal.ended(Outcome("a", "ok"))
    journal.ended(of_error("b", HostUnreachable("no"), 2.0, 3))
    journal.end("", 5)
    record = journals.read(about.run)
    assert record.head == about
    assert record.states == {"c": "changed", "a": "ok", "b": "unreachable"}
    assert record.left == [Batch(("b",)), Batch(("d",))]
    assert record.failed == ["b"]


def test_a_host_that_had_begun_when_the_controller_died_is_left() -> None:
    about, journal = begun()
    journal.began("c")
    journal.settle()
    journal.close()
    record = journals.read(about.run)
    assert record.failed == ["c"]
    assert record.left == list(BATCHES)


def test_what_is_settled_is_on_the_disk_before_the_next_host_begins(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, journal = begun()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal.began("c")
    journal.ended(Outcome("c", "ok"))
    journal.settle()
    assert len(synced) == 1
    assert b'"ended"' in (home / f"{about.run}.jsonl").read_bytes()
    journal.settle()
    assert len(synced) == 1, "nothing new was written"
    journal.close()


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_line_that_a_power_cut_left_half_costs_its_host_only(home: Path, cut: int) -> None:
    about, journal = begun()
    for host in "ca":
        journal.began(host)
        journal.ended(Outcome(host, "ok"))
    journal.settle()
    journal.close()
    path = home / f"{about.run}.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert journals.read(about.run).states == {"c": "ok"}
    resumed = Journal.resume(about.run)
    resumed.ended(Outcome("a", "ok"))
    resumed.end("", 0)
    assert journals.read(about.run).states == {"c": "ok", "a": "ok"}


def test_nobody_resumes_a_run_that_goes_on() -> None:
    about, journal = begun()
    with pytest.raises(LockBusy):
        Journal.resume(about.run)
    journal.close()
    Journal.resume(about.run).close()


def test_last_is_the_newest_run() -> None:
    with pytest.raises(UsageError, match="no run yet"):
        journals.read("last")
    for run in ("20260101T000000-aaaaaa", "20260201T000000-000000"):
        Journal.begin(head(run)).close()
    assert journals.read("last").head.run == "20260201T000000-000000"


@pytest.mark.parametrize("run", ["", "nosuch", "../../etc/passwd", "20260101T000000-zzzzzz"])
def test_a_run_that_is_not_there_is_an_error_that_names_the_newest(run: str) -> None:
    Journal.begin(head("20260101T000000-aaaaaa")).close()
    with pytest.raises(UsageError) as failure:
        journals.read(run)
    assert "20260101T000000-aaaaaa" in failure.value.hint


@pytest.mark.parametrize("text", [b"", b"{}\n", b"[1]\n", b"\xff\n", b'{"schema":["x",1]}\n'])
def test_a_damaged_journal_is_an_error(home: Path, text: bytes) -> None:
    Journal.begin(head("20260101T000000-aaaaaa")).close()
    (home / "20260101T000000-aaaaaa.jsonl").write_bytes(text)
    with pytest.raises(ConfigError, match="is damaged"):
        journals.read("last")


def test_a_directory_that_others_can_write_to_is_not_used(home: Path) -> None:
    home.mkdir(parents=True)
    home.chmod(0o777)
    with pytest.raises(ConfigError, match="cannot be used"):
        Journal.begin(head())


def test_old_runs_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "KEEP", 2)
    for number in range(4):
        Journal.begin(head(f"2026010{number + 1}T000000-aaaaaa")).close()
        moment = 1_000_000 + number
        os.utime(home / f"2026010{number + 1}T000000-aaaaaa.jsonl", (moment, moment))
    assert len(list(home.iterdir())) <= 3
    assert not (home / "20260101T000000-aaaaaa.jsonl").exists()


def test_ids_sort_by_time_also_within_a_second() -> None:
    ids: list[str] = []
    for _ in range(20):
        ids.append(journals.new_run())
        time.sleep(0.001)
    assert ids == sorted(set(ids))
