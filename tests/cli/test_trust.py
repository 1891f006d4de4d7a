"""`reconciler trust`: what this host trusts, and a person's word on another commit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cli.conftest import Call
from reconciler.agent.places import Places
from reconciler.source.mark import NAMES, Mark, Marks

OLD, NEW = "a" * 40, "b" * 40
CONFIG = "repo: /srv/state.git\ntrust: every\nmax_age: 1h\n"


@pytest.fixture
def marks(root: Path, monkeypatch: pytest.MonkeyPatch) -> Marks:
    """A host that trusts OLD, signed by alice; we are root on it."""
    places = Places(str(root))
    monkeypatch.setattr("reconciler.cli.trust.Places", lambda: places)
    monkeypatch.setattr("reconciler.cli.trust.os.geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "bob")
    (root / "etc/reconciler").mkdir()
    Path(places.config).write_text(CONFIG)
    marks = Marks(places.trust)
    first = marks.enrol()
    now = time.time()
    signed = Mark(commit=OLD, ref="refs/heads/main", signers=("alice",), advanced_at=now)
    marks.advance(signed, before=first)
    marks.confirm()
    return marks


def test_it_shows_what_is_trusted_and_why(call: Call, marks: Marks) -> None:
    done = call("trust", "show")
    assert done.code == 0
    assert done.out.splitlines() == [
        "mode       every",
        "keys       allowed signers: /etc/reconciler/allowed_signers",
        f"commit     {OLD}",
        "ref        refs/heads/main",
        "signed by  alice",
        "confirmed  0 s ago",
    ]
    document = call("trust", "show", "--json").json()
    assert document["schema"] == ["reconciler/trust-show", 1]
    assert (document["commit"], document["signers"]) == (OLD, ["alice"])


def test_a_reset_without_a_name_is_by_the_number_of_who_made_it(
    call: Call, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SUDO_USER", "USER"):
        monkeypatch.delenv(name, raising=False)
    assert call("trust", "reset", "--to", NEW, "--reason", "x").code == 0
    assert marks.load().resets[-1].by == f"uid {os.getuid()}"


def test_a_reset_is_taken_at_its_word_and_stays_in_what_is_shown(call: Call, marks: Marks) -> None:
    done = call("trust", "reset", "--to", NEW, "--reason", "history was rewritten")
    assert done.code == 0
    assert f"{NEW} is trusted" in done.out
    assert marks.load().commit == NEW
    shown = call("trust", "show").out
    assert "signed by  reset by bob" in shown
    assert f"by bob, from {OLD[:12]} to {NEW[:12]}: history was rewritten" in shown
    document = call("trust", "reset", "--to", OLD, "--reason", "back", "--json").json()
    assert document["schema"] == ["reconciler/trust-reset", 1]
    assert (document["to"], document["before"], document["by"]) == (OLD, NEW, "bob")


@pytest.mark.parametrize(
    "words, said",
    [
        (("--to", NEW), "--reason"),
        (("--reason", "x"), "--to"),
        (("--to", NEW, "--reason", "  "), "needs a reason"),
        (("--to", NEW[:12], "--reason", "x"), "no full commit id"),
        (("--to", "main", "--reason", "x"), "no full commit id"),
    ],
)
def test_a_reset_that_says_too_little_changes_nothing(
    call: Call, marks: Marks, words: tuple[str, ...], said: str
) -> None:
    done = call("trust", "reset", *words)
    assert done.code == 3
    assert said in done.err
    assert marks.load().commit == OLD


def test_one_damaged_copy_is_said_and_two_are_a_loss(call: Call, marks: Marks) -> None:
    first, second = NAMES
    Path(marks.directory, first).write_text("garbage")
    done = call("trust", "show")
    assert done.code == 0
    assert f"damage     {first} is damaged" in done.out
    Path(marks.directory, second).write_text("garbage")
    done = call("trust", "show")
    assert done.code == 10
    assert "reconciler trust reset --to COMMIT" in done.out
    assert call("trust", "show", "--json").json()["error"]["kind"] == "StateLost"
    assert call("trust", "reset", "--to", NEW, "--reason", "state was lost").code == 0
    assert call("trust", "show").code == 0


def test_old_word_of_the_remotes_is_an_alarm(call: Call, marks: Marks) -> None:
    hours = time.time() - 5 * 3600
    os.utime(Path(marks.directory, "contact"), (hours, hours))
    done = call("trust", "show")
    assert done.code == 5
    assert "stale      no remote has confirmed the state repo for 5 hours" in done.out


def test_it_takes_root(call: Call, marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.cli.trust.os.geteuid", lambda: 1000)
    for words in (("show",), ("reset", "--to", NEW, "--reason", "x")):
        done = call("trust", *words)
        assert done.code == 3
        assert "takes root" in done.err
