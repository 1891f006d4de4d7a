"""What `doctor` says where an agent was installed: each line with what to do."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.agent.config import load
from reconciler.agent.places import Places
from reconciler.cli import agentcheck
from reconciler.cli.agentcheck import agent
from reconciler.cli.finding import Finding, Patient
from reconciler.errors import ConfigError
from reconciler.source.mark import Marks
from reconciler.source.mirror import mirror_path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of root's are looked at")

SETTINGS = "repo: https://git.example.org/state.git\n"
KNOWN = pwd.getpwnam


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """As `agent install` leaves them, and a first fetch."""
    found = Places(str(tmp_path))
    for path in (found.config, found.status):
        Path(path).parent.mkdir(parents=True)
    Path(found.config).write_text(SETTINGS)
    Path(found.config).chmod(0o600)
    for path in (found.trust, found.mirrors):
        Path(path).mkdir(parents=True, mode=0o700)
    os.chown(found.mirrors, 1, 1)
    monkeypatch.setattr(agentcheck.pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=1))
    Marks(found.trust).enrol()
    settings = load(found.config)
    Path(mirror_path(found.mirrors, settings.remotes[0]["url"], settings.branch)).mkdir()
    return found


def look(places: Places) -> dict[str, Finding]:
    return {one.check: one for one in agent(Patient(places.root, ".", None))}


def wrong(places: Places, check: str) -> Finding:
    """The one finding that is not well."""
    found = [one for one in look(places).values() if one.status != "ok"]
    assert [one.check for one in found] == [f"agent {check}"]
    return found[0]


def test_where_no_agent_is_nothing_is_said(tmp_path: Path) -> None:
    assert look(Places(str(tmp_path))) == {}


def test_an_agent_that_is_well(places: Places) -> None:
    found = look(places)
    assert {one.status for one in found.values()} == {"ok"}
    assert found["agent"].message == "follows https://git.example.org/state.git, branch main"
    assert list(found) == ["agent", *(f"agent {name}" for name in agentcheck.CHECKS)]


def test_settings_that_cannot_be_used(places: Places) -> None:
    Path(places.config).write_text("repo: [\n")
    with pytest.raises(ConfigError):
        look(places)


def test_files_that_others_can_read(places: Places) -> None:
    Path(places.config).chmod(0o644)
    said = wrong(places, "keys")
    assert said.status == "fail"
    assert f"chmod 0600 {places.config}" in said.todo


def test_a_key_that_is_not_there(places: Places) -> None:
    Path(places.config).write_text(
        f"remotes: [{{url: 'https://h/x', credentials: {places.root}/no}}]"
    )
    shutil.rmtree(places.mirrors)
    found = look(places)
    assert found["agent keys"].message == f"there is no {places.root}/no, which the settings name"
    assert found["agent user"].message == f"there is no directory {places.mirrors}"
    assert found["agent user"].todo == "reconciler agent install does it"
    assert found["agent mirror"].status == "warn"


def test_a_directory_that_was_opened(places: Places) -> None:
    Path(places.trust).chmod(0o755)
    assert wrong(places, "user").todo == f"chown 0 {places.trust}; chmod 0700 {places.trust}"


def test_a_user_that_is_gone(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agentcheck.pwd, "getpwnam", KNOWN)
    monkeypatch.setattr(agentcheck, "USER", "nobody-of-that-name")
    assert wrong(places, "user").message == "there is no user nobody-of-that-name"


def test_a_program_that_is_missing(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    which: Any = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "git" else which(name))
    assert wrong(places, "programs").todo == "apt-get install git"


def test_a_server_that_is_not_known(places: Places) -> None:
    (Path(places.root) / "known").touch()
    Path(places.config).write_text(
        f"remotes: [{{url: 'ssh://git@h.example.org/x', known_hosts: {places.root}/known}}]"
    )
    found = look(places)["agent servers"]
    assert "the host key of h.example.org is not in" in found.message
    assert "ssh-keyscan" in found.todo


def test_servers_that_anybody_could_have_made_known(places: Places) -> None:
    known = Path(places.root) / "known"
    known.touch()
    known.chmod(0o666)
    Path(places.config).write_text(
        f"remotes: [{{url: 'ssh://git@h.example.org/x', known_hosts: {known}}}]"
    )
    found = look(places)["agent servers"]
    assert (found.status, found.todo) == ("fail", f"chown root {known}; chmod go-w {known}")


def test_trust_without_keys_or_memory(places: Places) -> None:
    Path(places.config).write_text(
        f"{SETTINGS}trust: head\nallowed_signers: /nonexistent/signers\n"
    )
    assert "cannot read the trusted keys" in look(places)["agent trust"].message
    for name in os.listdir(places.trust):
        (Path(places.trust) / name).unlink()
    said = look(places)["agent trust"]
    assert said.status == "fail"
    assert "what was trusted last is not known" in said.message


def test_too_little_inotify(places: Places) -> None:
    trouble = "Too many open files: sysctl fs.inotify.max_user_instances"
    Path(places.status).write_text(json.dumps({"watch": {"paths": 0, "trouble": trouble}}))
    said = wrong(places, "watching")
    assert said.status == "warn"
    assert trouble in said.message
