"""Time limits, and the boundary at which a run stops."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from reconciler.engine import limit as module
from reconciler.engine.limit import Boundary, limit
from reconciler.errors import Interrupted, TimedOut
from reconciler.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(str(tmp_path))


def test_waiting_ends_with_the_limit_and_says_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.0)
    with pytest.raises(TimedOut, match=r"limit of 0\.05 s"), limit(host, 0.05):
        time.sleep(5)
    assert host.deadline is None


def test_handlers_and_alarms_of_others_are_put_back(host: Host) -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    outer, _ = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with limit(host, 5):
            time.sleep(0.1)
        assert rang == []
        time.sleep(0.2)
        assert rang == [1]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, outer)


def test_limits_nest(host: Host) -> None:
    with limit(host, 60):
        outer = host.deadline
        with limit(host, 5):
            assert host.deadline is not None
            assert outer is not None
            assert host.deadline < outer
        assert host.deadline == outer
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 60


def test_a_program_gets_what_is_left_of_the_limit(host: Host) -> None:
    assert host.remaining() == 900
    with limit(host, 3):
        assert 2 < host.remaining() <= 3
        assert host.remaining(1) == 1


def test_a_boundary_remembers_and_stops_nothing() -> None:
    boundary = Boundary()
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    }
    boundary.listen()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        assert boundary.reached
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_at_rest_being_told_to_stop_ends_the_waiting() -> None:
    boundary = Boundary()
    with pytest.raises(Interrupted), boundary.at_rest():
        boundary.stop(signal.SIGTERM, None)
    with pytest.raises(Interrupted), boundary.at_rest():
        pytest.fail("it was told before")
