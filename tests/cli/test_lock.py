"""Another run at work on this machine: it is waited for, said whose it is, and nothing is overrun."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

import program
from cli.conftest import Call, Repo
from reconciler.engine.lock import lock

SITE = "- hosts: all\n  resources:\n    - copy: {dest: /etc/motd, content: hello}\n"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of root's need root")


@pytest.fixture
def words(repo: Repo, root: Path) -> list[str]:
    repo.write("site.yml", SITE)
    return ["apply", "-C", str(repo.path), "--root", str(root)]


def waiting(words: list[str], directory: Path) -> subprocess.Popen[str]:
    """A call that has said that it waits."""
    started = program.start(directory, *words)
    assert started.stderr is not None
    said = started.stderr.readline()
    assert said.startswith("waiting for another run, at most 60 s: agent run r1, pid ")
    assert "(reconciler agent), for " in said
    return started


def test_apply_waits_for_another_run_and_says_whose_it_is(
    words: list[str], root: Path, tmp_path: Path
) -> None:
    with lock(str(root), "r1", "agent", command="reconciler agent"):
        started = waiting(words, tmp_path)
        assert not (root / "etc/motd").exists()
    code, out, err = program.ended(started, 60)
    assert (code, err) == (0, "")
    assert "1 changed" in out
    assert (root / "etc/motd").read_text() == "hello"


def test_who_does_not_want_to_wait_is_told_at_once(
    call: Call, words: list[str], root: Path
) -> None:
    with lock(str(root), "r1", "agent", command="reconciler agent"):
        done = call(*words, "--lock-timeout", "0")
    assert done.code == 9
    assert done.err.startswith("error: another run holds the lock: agent run r1, pid ")
    assert "waiting" not in done.err


def test_an_interrupt_ends_the_waiting(words: list[str], root: Path, tmp_path: Path) -> None:
    with lock(str(root), "r1", "agent", command="reconciler agent"):
        started = waiting(words, tmp_path)
        started.send_signal(signal.SIGINT)
        code, _, err = program.ended(started, 60)
    assert code == 130
    assert err.startswith("error: ")
    assert not (root / "etc/motd").exists()
