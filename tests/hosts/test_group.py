"""Groups on a booted host, checked by testinfra."""

from __future__ import annotations

from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared, failed


@pytest.fixture
def declared(host: BootedHost) -> Declared:
    return Declared(host)


def group(name: str, **params: Any) -> dict[str, Any]:
    return {"group": {"name": name, **params}}


def test_a_group_comes_changes_and_goes(declared: Declared) -> None:
    seen = declared.host.testinfra().group("crew")
    declared.converge(group("crew", gid=4001))
    assert seen.gid == 4001
    outcome = declared.converge(group("crew", gid=4002))
    assert outcome.changes("group:crew") == {"gid": (4001, 4002)}
    assert any("find / -xdev -gid 4001" in warning for warning in outcome.warnings)
    assert seen.gid == 4002
    declared.converge(group("crew", state="absent"))
    assert not seen.exists


def test_a_system_group_has_a_number_of_the_system(declared: Declared) -> None:
    declared.converge(group("daemons", system=True))
    assert declared.host.testinfra().group("daemons").gid < 1000


def test_the_primary_group_of_a_user_is_not_removed(declared: Declared) -> None:
    declared.converge({"user": {"name": "ann"}})
    planned, done = declared.attempt(group("ann", state="absent"))
    assert "primary group of ann" in failed(planned)["group:ann"]
    assert "primary group of ann" in failed(done)["group:ann"]
    assert declared.host.testinfra().group("ann").exists


def test_a_number_that_is_taken_is_a_clear_error(declared: Declared) -> None:
    _, done = declared.attempt(group("mine", gid=0))
    assert (
        "groupadd refuses to change group 'mine': GID '0' already exists"
        in failed(done)["group:mine"]
    )
    declared.converge(group("mine", gid=0, non_unique=True))
