"""An empty toy machine for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import toys


@pytest.fixture
def bench(tmp_path: Path) -> toys.Bench:
    toys.MACHINE.clear()
    toys.DONE.clear()
    toys.TROUBLE.clear()
    return toys.Bench(tmp_path)
