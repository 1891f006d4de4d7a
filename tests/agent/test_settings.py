"""Settings that cannot be used: what holds in their place, and until when."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from reconciler.agent import settings
from reconciler.agent.places import Places
from reconciler.agent.settings import key_stamps, load, usable
from reconciler.errors import ConfigError

GOOD = "repo: /srv/state.git\nbranch: stable\nnotify: {webhook: 'https://example.org/s3cret'}\n"
BROKEN = GOOD + "intervall: 5s\n"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Places(str(tmp_path))
    Path(made.config).parent.mkdir(parents=True)
    return made


def say(places: Places, text: str) -> None:
    Path(places.config).write_text(text)


def test_settings_that_are_broken_leave_the_last_that_were_not(places: Places) -> None:
    say(places, GOOD)
    good, unread = usable(places)
    assert (good.branch, unread) == ("stable", "")
    say(places, BROKEN)
    kept, unread = usable(places)
    assert kept == good
    assert "agent.yml:4:1" in unread
    assert "interval" in unread
    say(places, GOOD.replace("stable", "main"))
    assert usable(places)[0].branch == "main"


@pytest.mark.skipif(os.geteuid() != 0, reason="anybody else may read what is not root's")
def test_settings_that_others_could_have_written_are_broken_ones(places: Places) -> None:
    say(places, GOOD)
    good, _ = usable(places)
    say(places, GOOD.replace("stable", "theirs"))
    Path(places.config).chmod(0o666)
    kept, unread = usable(places)
    assert kept == good
    assert "can be changed by others than root (uid 0, mode 0666)" in unread
    assert "chmod 0600" in unread
    Path(places.config).chmod(0o600)
    assert usable(places)[0].branch == "theirs"


def test_only_root_can_read_what_is_remembered(places: Places) -> None:
    say(places, GOOD)
    load(places)
    assert stat.S_IMODE(Path(places.settings).stat().st_mode) == 0o600


def test_broken_from_the_beginning_they_are_an_error(places: Places) -> None:
    say(places, BROKEN)
    with pytest.raises(ConfigError, match="intervall"):
        usable(places)


def test_a_file_that_was_taken_away_is_an_error_whatever_is_remembered(places: Places) -> None:
    say(places, GOOD)
    usable(places)
    Path(places.config).unlink()
    with pytest.raises(ConfigError, match="agent install"):
        usable(places)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"remotes": 5}', '{"nonsense": 1}'])
def test_what_is_remembered_and_damaged_is_none(places: Places, damage: str) -> None:
    say(places, GOOD)
    usable(places)
    Path(places.settings).write_text(damage)
    say(places, BROKEN)
    with pytest.raises(ConfigError, match="intervall"):
        usable(places)


def test_a_full_disk_keeps_nobody_from_reading(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    say(places, GOOD)
    Path(places.settings).mkdir(parents=True)
    assert load(places).branch == "stable"
    assert "cannot remember the settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, said",
    [
        (["/nonexistent"], "cannot start what reads"),
        (["/bin/sleep", "60"], "took longer than"),
        (["/bin/echo", "{}"], "another version"),
        (["/bin/echo", "["], "another version"),
        (["/bin/false"], "ended with code 1"),
    ],
)
def test_whatever_reading_comes_to_is_an_error_of_the_settings(
    places: Places, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    say(places, GOOD)
    good, _ = usable(places)
    monkeypatch.setattr(settings, "python", lambda *_: argv)
    monkeypatch.setattr(settings, "PATIENCE", 0.2)
    with pytest.raises(ConfigError, match=said):
        load(places)
    assert usable(places)[0] == good


def test_keys_are_others_when_a_file_of_them_is_another_also_behind_a_link(
    places: Places, tmp_path: Path
) -> None:
    real, link = tmp_path / "real", tmp_path / "signers"
    real.write_text("alice\n")
    link.symlink_to(real)
    say(places, GOOD + f"allowed_signers: {link}\nrevoked: {tmp_path}/revoked\n")
    config = load(places)
    before = key_stamps(config)
    assert key_stamps(config) == before
    real.write_text("alice\nbob\n")
    after = key_stamps(config)
    assert after != before
    (tmp_path / "revoked").write_text("")
    assert key_stamps(config) != after
