"""What `agent install` finds out before the agent does: the same words, and nothing recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.test_worker import BROKEN, SITE, Machine
from reconciler.agent.install import Installer
from reconciler.agent.trial import try_out
from reconciler.errors import BadSignature, ConfigError, ReconcilerError, SourceError, StateLost
from reconciler.source.mark import NAMES, Marks

#: Each starts a provider, which fetches and compiles.
pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return Machine(tmp_path)


def trouble(machine: Machine, **settings: Any) -> ReconcilerError:
    with pytest.raises(ReconcilerError) as caught:
        try_out(machine.places, replace(machine.config, **settings))
    return caught.value


def test_what_can_be_fetched_judged_and_compiled_is_no_trouble_and_is_not_trusted_yet(
    machine: Machine,
) -> None:
    machine.commit(SITE)
    before = Marks(machine.places.trust).load()
    try_out(machine.places, machine.config)
    assert Marks(machine.places.trust).load() == before
    kept = {path.name for path in Path(machine.places.trust).iterdir()}
    assert kept == set(NAMES)
    assert not (machine.root / "etc/motd").exists()


def test_a_state_repo_that_is_not_there_or_does_not_compile_is_said(machine: Machine) -> None:
    machine.commit(BROKEN)
    broken = trouble(machine)
    assert (broken.exit_code, "nonsense" in str(broken)) == (3, True)
    missing = trouble(machine, branch="lates")
    assert isinstance(missing, SourceError)
    assert "there is no refs/heads/lates" in missing.message


def test_a_host_or_an_inventory_that_is_not_there_is_said(machine: Machine) -> None:
    hosts = {"inventories/x/hosts.yml": "all: {hosts: {web1: {}}}\n", "site.yml": SITE}
    machine.repo.commit(hosts)
    where = "inventories/x/hosts.yml"
    try_out(machine.places, replace(machine.config, inventory=where, host="web1"))
    unknown = trouble(machine, inventory=where, host="web2")
    assert isinstance(unknown, ConfigError)
    assert "has no host web2" in unknown.message
    absent = trouble(machine, inventory="inventories/y/hosts.yml", host="web1")
    assert isinstance(absent, ConfigError)
    assert "inventories/y/hosts.yml" in str(absent)


def test_a_first_commit_that_must_be_signed_and_is_not_is_said_at_once(
    machine: Machine, tmp_path: Path
) -> None:
    signers = tmp_path / "signers"
    signers.write_text("")
    signers.chmod(0o644)
    machine.commit(SITE)
    refused = trouble(machine, trust="head", allowed_signers=str(signers))
    assert isinstance(refused, BadSignature)
    assert "is not signed" in refused.message


def test_a_host_that_lost_what_it_trusted_is_told_so(machine: Machine) -> None:
    machine.commit(SITE)
    for name in NAMES:
        (Path(machine.places.trust) / name).unlink()
    assert isinstance(trouble(machine), StateLost)


def test_installing_comes_to_that_trouble_once_all_is_in_place(machine: Machine) -> None:
    machine.commit(BROKEN)
    found = Installer(pytest.fail, places=machine.places)._try(machine.config)
    assert (found and found.exit_code) == 3
    machine.commit(SITE)
    assert Installer(pytest.fail, places=machine.places)._try(machine.config) is None
