"""Who says that the agent is silent cannot be the agent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler.agent import deadman
from reconciler.agent.places import Places
from reconciler.agent.state import State
from reconciler.agent.status import Live, compose, publish

GOOD = "a" * 40


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    places = Places(str(tmp_path))
    monkeypatch.setattr(deadman, "Places", lambda: places)
    Path(places.config).parent.mkdir(parents=True)
    Path(places.config).write_text(
        f"repo: /srv/state.git\nnotify: {{command: [tee, -a, {tmp_path}/told]}}\n"
    )
    return places


def speak(places: Places, ago: float) -> None:
    document = compose(State(applied=GOOD), Live("idle"), None, now=time.time() - ago)
    publish(places, document, {})


def test_an_agent_that_speaks_is_alive(places: Places) -> None:
    speak(places, ago=10)
    assert deadman.main() == 0
    assert not Path(places.root, "told").exists()


def test_one_that_is_silent_fails_the_unit_and_people_are_told_at_the_second_look(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    speak(places, ago=3600)
    told = Path(places.root, "told")
    assert deadman.main() == 1
    assert "the agent is silent: the agent has said nothing for 3600 s" in capsys.readouterr().err
    assert not told.exists()
    assert deadman.main() == 1
    assert '"title": ' in told.read_text()
    assert "Agent is False (Silent)" in told.read_text()
    assert deadman.main() == 1
    assert told.read_text().count('"event": "problem"') == 1
    speak(places, ago=0)
    assert deadman.main() == 0
    assert '"event": "resolved"' in told.read_text()


def test_one_that_never_ran_is_silent_too(places: Places) -> None:
    condition, _ = deadman.look(places, time.time())
    assert (condition["status"], condition["reason"]) == ("False", "Silent")
    assert "since this host was booted" in condition["message"]


def test_settings_that_cannot_be_used_have_their_own_code(places: Places) -> None:
    speak(places, ago=10)
    Path(places.config).write_text("repo: ftp://x/y\n")
    assert deadman.main() == 3
