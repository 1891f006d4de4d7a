"""Two agents on one host: the second is told so, and the first is not disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.agent import supervisor
from reconciler.agent.alone import alone
from reconciler.agent.places import Places
from reconciler.errors import LockBusy

HOLD = """
import sys
from reconciler.agent.alone import alone
from reconciler.agent.places import Places
with alone(Places(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path))


def test_the_second_is_told_so_and_the_next_one_gets_in(places: Places) -> None:
    for _ in range(2):
        with alone(places):
            with pytest.raises(LockBusy, match="at work on this host already"), alone(places):
                pass
            with pytest.raises(LockBusy, match="at work on this host already"), alone(places):
                pass


def test_the_lock_of_one_that_was_killed_is_free(places: Places) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, places.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockBusy, match="at work on this host already"), alone(places):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        with alone(places):
            pass


def test_a_lock_that_somebody_planted_is_not_followed(places: Places, tmp_path: Path) -> None:
    Path(places.lock).parent.mkdir(parents=True)
    Path(places.lock).symlink_to(tmp_path / "elsewhere")
    assert supervisor.main(places.root) == 1
    assert not (tmp_path / "elsewhere").exists()
