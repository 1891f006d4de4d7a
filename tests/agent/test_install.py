"""Where an agent cannot be installed, and from where it must not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.agent import install
from reconciler.agent.install import Installer
from reconciler.agent.places import Places
from reconciler.agent.wish import Wish
from reconciler.errors import ConfigError, UsageError

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
def test_a_timer_takes_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "has_systemd", lambda: False)
    assert refusal(replace(WISH, timer=True)) == "a timer takes systemd, which does not run here"


@pytest.mark.usefixtures("root")
@pytest.mark.skipif(os.geteuid() != 0, reason="a place of root's is made")
def test_it_runs_nothing_as_root_that_others_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "venv"
    place.mkdir(mode=0o755)
    monkeypatch.setattr(install.sys, "prefix", str(place))
    for damage in (lambda: place.chmod(0o775), lambda: (place.chmod(0o755), os.chown(place, 1, 0))):
        damage()
        assert refusal() == (
            f"{place} can be changed by others than root, and the agent would run it as root"
        )


@pytest.mark.usefixtures("root")
@pytest.mark.skipif(os.geteuid() != 0, reason="a place of root's is made")
def test_it_runs_as_root_no_python_that_others_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    theirs.chmod(0o777)
    (theirs / "python3").touch(0o755)
    (tmp_path / "python").symlink_to(theirs / "python3")
    monkeypatch.setattr(install.sys, "prefix", "/")
    monkeypatch.setattr(install.sys, "executable", str(tmp_path / "python"))
    assert refusal().startswith(f"{theirs} can be changed by others than root")


@pytest.mark.usefixtures("root")
def test_a_file_that_holds_no_settings_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_check_owner", lambda path: None)
    places = Places(str(tmp_path))
    Path(places.config).parent.mkdir(parents=True)
    Path(places.config).write_text("- repo: /srv/state.git\n")
    with pytest.raises(ConfigError, match="holds no settings, and what it holds would be lost"):
        Installer(pytest.fail, places=places).install(WISH)


def test_whom_an_address_replaces_is_said_and_who_is_still_asked() -> None:
    kept = {"remotes": ["https://a/x", {"url": "https://b/x", "name": "b"}]}
    for given, said in (
        ([], []),
        (["https://a/x"], ["asked if those before it do not answer: https://b/x"]),
        (
            ["/srv/x"],
            [
                "no longer followed: https://a/x",
                "asked if those before it do not answer: https://b/x",
            ],
        ),
        (["https://b/x", "/srv/x"], ["no longer followed: https://a/x"]),
    ):
        heard: list[str] = []
        wish = Wish({"repo": given})
        Installer(heard.append)._say_remotes(wish, kept, wish.merged(kept, Places()))
        assert heard == said


@pytest.mark.skipif(os.geteuid() != 0, reason="files change hands")
def test_what_others_wrote_is_roots_alone_afterwards(tmp_path: Path) -> None:
    said: list[str] = []
    installer = Installer(said.append)
    path = tmp_path / "agent.yml"
    path.write_bytes(b"x")
    for damage in (lambda: os.chown(path, 1, 1), lambda: path.chmod(0o644)):
        damage()
        installer._close(str(path))
        found = path.stat()
        assert (found.st_uid, found.st_mode & 0o777) == (0, 0o600)
    installer._close(str(path))
    assert said == [f"closed {path} to others"] * 2
    os.chown(path, 1, 1)
    installer._put(str(path), b"x", 0o600)
    assert path.stat().st_uid == 0
