"""Words that messages are made of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reconciler.words import MOST, counted, did_you_mean


@pytest.mark.parametrize(
    "number, text", [(0, "0 hosts"), (1, "1 host"), (2, "2 hosts"), (21, "21 hosts")]
)
def test_one_of_a_thing_is_said_as_one(number: int, text: str) -> None:
    assert counted(number, "host") == text


@pytest.mark.parametrize(
    "word, known, hint",
    [
        ("aply", ["plan", "apply"], "did you mean 'apply'?"),
        ("wbe1", {"web2": 0, "web1": 1, "db": 2}, "did you mean 'web1'?"),
        ("web", ["web1", "web2", "web3", "web4"], "did you mean 'web4' or 'web3' or 'web2'?"),
        ("web", [], ""),
        ("web", ["database"], ""),
        ("1", [1, None, ("1",)], ""),
        ("nme", ["n\x1bme"], "did you mean 'n\\x1bme'?"),
    ],
)
def test_what_was_probably_meant_is_asked(word: str, known: list[object], hint: str) -> None:
    assert did_you_mean(word, known) == hint


def test_how_like_a_name_must_be_is_for_who_asks() -> None:
    assert did_you_mean("aply", ["apply"], likeness=0.95) == ""


def test_of_very_many_names_only_some_are_looked_at() -> None:
    names = [*(f"host{number}" for number in range(MOST)), "web"]
    assert did_you_mean("wbe", names) == ""
    assert did_you_mean("wbe", names, most=len(names)) == "did you mean 'web'?"


def test_who_means_what_is_there_does_not_pay_for_the_search() -> None:
    """It would take milliseconds of every call."""
    code = (
        "import sys, reconciler.cli.main, reconciler.cli.inventory; print('difflib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
