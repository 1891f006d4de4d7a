"""Comparison with ansible-core, which only `make test-compat` has: everywhere else this is skipped."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from compat.oracle import Ansible

# Before anything imports Ansible: no configuration of the machine or the user counts.
os.environ["ANSIBLE_CONFIG"] = str(Path(__file__).with_name("ansible.cfg"))
os.environ.setdefault("TMPDIR", tempfile.gettempdir())

collect_ignore_glob = [] if find_spec("ansible") else ["test_*.py"]


@pytest.fixture(scope="session")
def ansible() -> Ansible:
    return Ansible()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-compat ARGS="--cases 100"` for a quick look."""
    parser.addoption("--cases", type=int, default=10_000, help="inventories that are compared")
