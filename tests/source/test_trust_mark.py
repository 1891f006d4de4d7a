"""The mark is kept twice, wins over damage, and is never guessed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import LockBusy, SourceError, StateLost, UsageError
from reconciler.source import mark as mark_module
from reconciler.source.mark import CONTACT, NAMES, Mark, Marks

A, B = "a" * 40, "b" * 40


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    marks = Marks(str(tmp_path / "state"))
    marks.enrol()
    advance(marks, A)
    return marks


def advance(marks: Marks, commit: str) -> Mark:
    before = marks.load()
    return marks.advance(replace(before, commit=commit, ref="refs/heads/main"), before=before)


def file(marks: Marks, name: str) -> Path:
    return Path(marks.directory) / name


def test_what_was_written_is_read(marks: Marks) -> None:
    written = advance(marks, B)
    assert Marks(marks.directory).load() == written
    assert file(marks, NAMES[0]).read_bytes() == file(marks, NAMES[1]).read_bytes()


def test_nobody_else_can_read_or_write_it(marks: Marks) -> None:
    assert file(marks, "").stat().st_mode & 0o777 == 0o700
    assert all(file(marks, name).stat().st_mode & 0o777 == 0o600 for name in NAMES)


def test_nothing_else_is_left_behind(marks: Marks) -> None:
    assert sorted(os.listdir(marks.directory)) == sorted(NAMES)


DAMAGES = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "one letter": lambda data: data.replace(A.encode(), A[:-1].encode() + b"c"),
    "another number": lambda data: data.replace(b'"sequence": 2', b'"sequence": 9'),
    "not JSON": lambda data: b"{",
    "not an object": lambda data: b"[]",
    "deep": lambda data: b"[" * 100_000,
    "another schema": lambda data: data.replace(b"reconciler/trust", b"reconciler/other"),
    "not text": lambda data: b"\xff\xfe",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", DAMAGES)
def test_one_damaged_copy_is_mended_from_the_other(marks: Marks, name: str, how: str) -> None:
    path = file(marks, name)
    good = path.read_bytes()
    path.write_bytes(DAMAGES[how](good))
    assert marks.copies()[name] == "damaged"
    assert marks.load().commit == A
    marks.mend()
    assert path.read_bytes() == good


@pytest.mark.parametrize("how", DAMAGES)
def test_two_damaged_copies_are_trusted_no_more(marks: Marks, how: str) -> None:
    for name in NAMES:
        path = file(marks, name)
        path.write_bytes(DAMAGES[how](path.read_bytes()))
    with pytest.raises(StateLost, match="is damaged") as caught:
        marks.load()
    assert caught.value.exit_code == 10
    for act in (marks.mend, lambda: marks.advance(Mark(), before=Mark())):
        with pytest.raises(StateLost):
            act()


def test_the_newer_of_two_wins(marks: Marks) -> None:
    """Killed between the two writes, the host knows the newer mark."""
    old = file(marks, NAMES[1]).read_bytes()
    advance(marks, B)
    file(marks, NAMES[1]).write_bytes(old)
    assert marks.copies() == {NAMES[0]: "valid", NAMES[1]: "older"}
    assert marks.mend().commit == B
    assert set(marks.copies().values()) == {"valid"}


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("nth", range(4))
def test_a_failed_write_leaves_a_valid_mark(
    marks: Marks, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    real, calls = getattr(os, call), iter(range(100))

    def failing(*args: object) -> object:
        if next(calls) == nth:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(mark_module.os, call, failing)
    with contextlib.suppress(SourceError):
        advance(marks, B)
    monkeypatch.undo()
    assert marks.load().commit in (A, B)
    assert marks.mend().commit in (A, B)
    assert sorted(os.listdir(marks.directory)) == sorted(NAMES)


@pytest.mark.parametrize("nth", range(2))
def test_what_a_killed_writer_left_is_swept_by_the_next(
    marks: Marks, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    real, calls = os.rename, iter(range(100))

    def killed(*args: Any) -> None:
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(mark_module.os, "rename", killed)
            advance(marks, B)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(os.listdir(marks.directory)) == len(NAMES) + 1
    file(marks, ".trust.json.mine").touch()
    assert marks.mend().commit == (A if nth == 0 else B)
    assert sorted(os.listdir(marks.directory)) == sorted([*NAMES, ".trust.json.mine"])


def test_a_copy_that_others_could_have_written_counts_for_nothing(marks: Marks) -> None:
    for name in NAMES:
        file(marks, name).chmod(0o666)
    with pytest.raises(StateLost, match=r"trust\.json is not ours"):
        marks.load()


def link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "somebody's").touch()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("replace_by", [link, directory, pipe])
def test_what_is_no_file_is_not_waited_for_and_replaced(
    marks: Marks, replace_by: Callable[[Path], None]
) -> None:
    """Nobody writes to the pipe, so whoever opened it to read would wait for ever."""
    replace_by(file(marks, NAMES[0]))
    assert marks.copies() == {NAMES[0]: "not a file", NAMES[1]: "valid"}
    assert marks.mend().commit == A
    assert set(marks.copies().values()) == {"valid"}
    for name in NAMES:
        replace_by(file(marks, name))
    with pytest.raises(StateLost, match="is not a file"):
        marks.load()
    marks.reset(B, "it was lost", "root")
    assert marks.load().commit == B
    assert set(marks.copies().values()) == {"valid"}


def test_a_link_in_its_place_is_not_followed(marks: Marks, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in NAMES:
        file(marks, name).rename(elsewhere)
        file(marks, name).symlink_to(elsewhere)
    with pytest.raises(StateLost):
        marks.load()


def test_a_mark_that_was_changed_meanwhile_is_not_overwritten(marks: Marks) -> None:
    before = marks.load()
    marks.reset(B, "history was rewritten", "root")
    with pytest.raises(LockBusy):
        marks.advance(replace(before, commit="c" * 40), before=before)
    assert marks.load().commit == B


def test_a_reset_needs_a_whole_id_and_a_reason(marks: Marks) -> None:
    with pytest.raises(UsageError, match="full commit id"):
        marks.reset("abc123", "why", "root")
    with pytest.raises(UsageError, match="reason"):
        marks.reset(B, "  ", "root")
    assert marks.load().commit == A


def test_a_reset_after_a_loss_is_newer_than_a_copy_that_comes_back(marks: Marks) -> None:
    lost = [file(marks, name).read_bytes() for name in NAMES]
    for name in NAMES:
        file(marks, name).unlink()
    marks.reset(B, "state was lost", "root")
    file(marks, NAMES[1]).write_bytes(lost[1])
    assert marks.load().commit == B


def test_resets_are_remembered(marks: Marks) -> None:
    for n in range(60):
        marks.reset(f"{n:040x}", f"reason {n}", "root")
    resets = marks.load().resets
    assert [reset.reason for reset in resets] == [f"reason {n}" for n in range(10, 60)]


def test_the_file_can_be_read_by_a_person(marks: Marks) -> None:
    document = json.loads(file(marks, NAMES[0]).read_text())
    assert document["schema"] == ["reconciler/trust", 1]
    assert document["commit"] == A


def test_a_host_before_its_first_commit_knows_that_it_trusts_none(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path / "new"))
    with pytest.raises(StateLost, match="is missing"):
        marks.load()
    marks.enrol()
    assert marks.load().commit == ""


def test_a_contact_in_the_future_is_not_fresh(marks: Marks) -> None:
    marks.confirm(2_000_000_000)
    assert marks.freshness(max_age=3600, now=1_900_000_000).stale
    marks.confirm(1_900_000_000)
    assert not marks.freshness(max_age=3600, now=1_900_000_000).stale


def test_the_latest_contact_is_remembered_when_the_clock_goes_back(marks: Marks) -> None:
    """However often it does, and without a change of the mark itself."""
    before = file(marks, NAMES[0]).read_bytes()
    assert marks.load().heard_at == 0
    for now, latest in ((1000, 1000), (3000, 3000), (2000, 3000), (2500, 3000), (4000, 4000)):
        marks.confirm(now)
        assert marks.load().heard_at == latest
        assert marks.freshness(now=now).age == 0
    marks.confirm(500)
    assert Marks(marks.directory).load().heard_at == 4000
    assert file(marks, NAMES[0]).read_bytes() == before


def test_what_was_heard_goes_along_to_who_judges_and_is_no_part_of_the_mark(marks: Marks) -> None:
    mark = marks.load()
    marks.confirm(3000)
    assert marks.load() == mark
    assert Mark.from_json(marks.load().to_json()).heard_at == 3000
    assert marks.advance(replace(mark, commit=B), before=mark).commit == B
    assert "heard_at" not in json.loads(file(marks, NAMES[0]).read_text())


@pytest.mark.parametrize("damage", [b"garbage", b"\xff", b"nan", b"", b"9" * 200])
def test_a_contact_that_cannot_be_read_costs_nothing_but_itself(
    marks: Marks, damage: bytes
) -> None:
    file(marks, CONTACT).write_bytes(damage)
    assert 0 <= marks.load().heard_at <= time.time()
    marks.confirm(1000)
    assert 1000 <= marks.load().heard_at <= time.time()
