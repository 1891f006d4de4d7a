"""`make demo` tells its story to the end, on a host and on a directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "scripts/demo.py"


def tell(*args: str) -> str:
    """Run the demo; everything that it said, with a failure's reason."""
    argv = [sys.executable, "-P", str(DEMO), *args]
    told = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert told.returncode == 0, told.stdout
    return told.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("lab")
def test_the_demo_on_a_booted_host() -> None:
    """It checks itself that plan names the three broken things; here: that it says so."""
    story = tell()
    assert "200, nginx" in story
    assert "0 changes" in story.rpartition("twice is once")[2]


def test_the_demo_where_no_host_can_be_booted() -> None:
    story = tell("--directory")
    assert "a directory will do" in story
    assert "0 changes" in story.rpartition("twice is once")[2]
