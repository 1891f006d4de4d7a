"""Where an agent cannot be installed, and from where it must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.agent import install
from reconciler.agent.install import Installer
from reconciler.agent.wish import Wish
from reconciler.errors import UsageError

WISH = Wish({"repo": "/srv/state.git"})


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.os, "geteuid", lambda: 0)


def refusal(wish: Wish = WISH) -> str:
    said: list[str] = []
    with pytest.raises(UsageError) as caught:
        Installer(said.append).install(wish)
    assert said == []
    return caught.value.message


def test_it_takes_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.os, "geteuid", lambda: 1000)
    assert refusal() == "this takes root"


@pytest.mark.usefixtures("root")
def test_it_takes_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install.os.path, "isdir", lambda path: path != "/run/systemd/system")
    assert refusal() == "this machine does not run systemd"


@pytest.mark.usefixtures("root")
@pytest.mark.skipif(os.geteuid() != 0, reason="a place of root's is made")
def test_it_runs_nothing_as_root_that_others_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.os.path, "isdir", lambda path: True)
    place = tmp_path / "venv"
    place.mkdir(mode=0o755)
    monkeypatch.setattr(install.sys, "prefix", str(place))
    for damage in (lambda: place.chmod(0o775), lambda: (place.chmod(0o755), os.chown(place, 1, 0))):
        damage()
        assert refusal() == (
            f"{place} can be changed by others than root, and the agent would run it as root"
        )
