"""Fixtures that boot hosts. Asking for one of them is all that a test does.

| fixture | a host of | lives for |
|---|---|---|
| `host` | bookworm | the test module |
| `fresh_host` | bookworm | one test |
| `bullseye_host`, `trixie_host` | Python 3.9, 3.13 | the test module |
| `lab` | none: boot your own | the test session |

`forge` is a Git server over https for the hosts of one test module.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hosts.booted import BootedHost
from hosts.forge import Forge
from hosts.image import Suite
from hosts.lab import OURS, Lab, obstacle


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The network and the images; fails in CI, and skips elsewhere, where hosts cannot boot."""
    if reason := obstacle():
        told = f"hosts cannot be booted here: {reason}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(told)
    with Lab() as lab:
        yield lab


def _booted(lab: Lab, name: str, suite: Suite) -> Iterator[BootedHost]:
    with lab.lend(name, suite=suite) as (host,):
        yield host


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[BootedHost]:
    """A bookworm host that the tests of one module share."""
    yield from _booted(lab, "host", OURS)


@pytest.fixture
def fresh_host(lab: Lab) -> Iterator[BootedHost]:
    """A bookworm host that nobody has touched."""
    yield from _booted(lab, "fresh", OURS)


@pytest.fixture(scope="module")
def bullseye_host(lab: Lab) -> Iterator[BootedHost]:
    """A host with Python 3.9."""
    yield from _booted(lab, "bullseye", "bullseye")


@pytest.fixture(scope="module")
def trixie_host(lab: Lab) -> Iterator[BootedHost]:
    """A host with Python 3.13."""
    yield from _booted(lab, "trixie", "trixie")


@pytest.fixture(scope="module")
def forge(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """A Git server over https, in this process, that misbehaves on demand."""
    made = Forge(lab, tmp_path_factory.mktemp("forge"))
    yield made
    made.close()
