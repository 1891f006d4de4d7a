"""Children that are forks: deaf to what was the parent's, and never mistaken for it."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from reconciler.agent import child as module
from reconciler.agent.child import Child, forked
from reconciler.agent.fork import Forked


def test_a_fork_ends_with_the_code_of_what_it_did() -> None:
    assert Forked(lambda: None).wait(10) == 0
    assert Forked(lambda: os._exit(7)).wait(10) == 7


def test_what_a_fork_raises_is_said_and_reaches_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("nobody would hear it")

    assert Forked(fail).wait(10) == 1
    assert "nobody would hear it" in capfd.readouterr().err


def test_a_fork_has_only_the_descriptors_that_it_was_given() -> None:
    given, other = os.pipe()

    def look() -> None:
        found = {int(name) for name in os.listdir("/proc/self/fd")}
        # One of them is the directory that was just read.
        os._exit(0 if other in found and given not in found else 1)

    child = Forked(look, keep=[other])
    os.close(given)
    os.close(other)
    assert child.wait(10) == 0


def test_a_signal_to_a_fork_is_not_for_the_handlers_of_its_parent() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        for _ in range(50):
            child = Forked(lambda: time.sleep(30))
            child.terminate()
            assert child.wait(10) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == []


def test_waiting_for_a_fork_has_an_end() -> None:
    child = Forked(lambda: time.sleep(30))
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    assert child.poll() is None
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    child.terminate()
    assert child.poll() == -signal.SIGKILL


def test_a_child_that_lives_on_after_its_last_word_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def linger(end: int) -> None:
        os.write(end, b"done")
        os.close(end)
        time.sleep(60)

    monkeypatch.setattr(module, "PATIENCE", 0.2)
    child = Child(forked(linger))
    while not child.ended():
        time.sleep(0.01)
    assert bytes(child.said) == b"done"
    assert child.process.poll() == -signal.SIGKILL


def test_who_asks_for_the_end_of_a_fork_in_the_middle_of_asking_gets_the_same_answer() -> None:
    """A signal handler of a parent that waits."""
    child = Forked(lambda: os._exit(3))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    wait = os.waitpid

    def interrupted(pid: int, options: int) -> tuple[int, int]:
        os.waitpid = wait
        assert child.poll() == 3
        return wait(pid, options)

    os.waitpid = interrupted
    try:
        assert child.poll() == 3
    finally:
        os.waitpid = wait
