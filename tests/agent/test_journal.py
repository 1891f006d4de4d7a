"""Where an entry goes: the journal with fields, else syslog, else stderr."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reconciler.agent import journal

MESSAGE = "trust: it is not signed\n  git commit --amend -S"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """A journal and a syslog of our own; they can be taken away by their files."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    with ExitStack() as stack:
        found: list[socket.socket] = []
        for name in ("JOURNAL", "SYSLOG"):
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            one.bind(str(tmp_path / name))
            one.settimeout(5)
            monkeypatch.setattr(journal, name, str(tmp_path / name))
            found.append(one)
        yield found


def test_an_entry_goes_to_the_journal_with_its_fields(logs: list[socket.socket]) -> None:
    journal.keep("err", MESSAGE, commit="abc", run="")
    rows = logs[0].recv(1 << 16)
    size = len(MESSAGE).to_bytes(8, "little")
    assert rows.startswith(b"MESSAGE\n" + size + MESSAGE.encode() + b"\nPRIORITY=3\n")
    assert b"RECONCILER_COMMIT=abc\n" in rows
    assert b"RUN" not in rows


def test_without_a_journal_it_is_one_line_for_syslog(
    logs: list[socket.socket], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "JOURNAL").unlink()
    journal.keep("err", MESSAGE, commit="abc")
    line = "trust: it is not signed; git commit --amend -S"
    assert logs[1].recv(1 << 16).decode() == f"<27>reconciler[{os.getpid()}]: {line}"
    assert capsys.readouterr().err == ""


def test_without_either_it_is_on_stderr_and_nothing_is_lost(
    logs: list[socket.socket], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("JOURNAL", "SYSLOG"):
        (tmp_path / name).unlink()
    assert not journal.record("err", MESSAGE)
    journal.keep("err", MESSAGE)
    assert capsys.readouterr().err == f"{MESSAGE}\n"


def test_who_reads_what_we_print_gets_it_there_and_nowhere_else(
    logs: list[socket.socket], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.log_all([{"priority": "info", "message": "done", "resource": "file:/a"}])
    assert capsys.readouterr().err == "done\n"
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    journal.log_all([{"priority": "info", "message": "done", "resource": "file:/a"}], commit="abc")
    assert capsys.readouterr().err == ""
    assert b"MESSAGE=done\nPRIORITY=6\n" in (rows := logs[0].recv(1 << 16))
    assert b"RECONCILER_COMMIT=abc\nRECONCILER_RESOURCE=file:/a\n" in rows


def test_a_reload_is_said_to_have_begun_and_to_be_over_whatever_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic_ns() // 1000
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        @journal.reloading()
        def fail() -> None:
            raise OSError("no memory")

        for _ in range(2):
            with pytest.raises(OSError, match="no memory"):
                fail()
            first, at = manager.recv(1024).decode().split("\n")
            assert first == "RELOADING=1"
            assert begun <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
            assert manager.recv(1024) == b"READY=1"
