"""Differences for people: hostile bytes made harmless, secrets never."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.catalog import HIDDEN, Result
from reconciler.engine.diff import Veil, harmless, shown, unified
from reconciler.errors import Mark
from reconciler.resource import Change, Diff, Secret


@given(st.text())
def test_harmless_text_has_no_control_and_can_be_printed(text: str) -> None:
    clean = harmless(text)
    assert all(code >= " " or code in "\t\n" for code in clean)
    assert not set(clean) & set("\x7f\x9b\u202e\u2066\u200b\ufeff\u2028")
    clean.encode("utf-8")


def test_harmless_shows_what_it_takes_away() -> None:
    assert harmless("\x1b[31m\u202e\udc80ä") == r"\x1b[31m\u202e\udc80ä"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_diff_of_any_bytes_is_harmless_text(before: bytes, after: bytes) -> None:
    text = unified(before, after, "/x")
    assert text == harmless(text)
    assert (text == "") == (before == after and b"\0" not in before)


def test_a_unified_diff_names_both_sides_and_the_missing_newline() -> None:
    assert unified(b"a\nb\n", b"a\nc", "/etc/x") == (
        "--- /etc/x (actual)\n+++ /etc/x (desired)\n@@ -1,2 +1,2 @@\n"
        " a\n-b\n+c\n\\ no newline at the end\n"
    )


def test_a_carriage_return_is_shown_and_starts_no_line() -> None:
    assert "-a\\x0db\n" in unified(b"a\rb\n", b"a\n", "x")


def test_binary_and_long_texts_are_counted_and_not_compared() -> None:
    assert unified(b"\0" * 9, b"", "x") == "binary content: 9 bytes before, 0 after\n"
    begun = time.monotonic()
    assert "too many to compare" in unified(b"a\n" * 3_000_000, b"b\n" * 3_000_000, "x")
    assert time.monotonic() - begun < 10


def test_secrets_are_in_no_change_before_or_after() -> None:
    secret = Secret("hunter2")
    assert shown(Diff({"p": "old"}, {"p": secret}), False) == (Change("p", HIDDEN, HIDDEN),)
    assert shown(Diff(None, {"p": secret}), False) == (Change("p", None, HIDDEN),)
    assert shown(Diff({"p": secret}, None), False) == (Change("p", HIDDEN, None),)
    assert shown(Diff({"p": "a"}, {"p": "b"}), True) == (Change("p", HIDDEN, HIDDEN),)


def test_values_that_are_shown_are_harmless() -> None:
    diff = Diff({"a": "\x1b", "b": ["\x1b"], "c": {"d": "\x1b"}}, {"a": 1, "b": [], "c": {}})
    assert [change.before for change in shown(diff, False)] == ["\\x1b", ["\\x1b"], {"d": "\\x1b"}]


@pytest.mark.parametrize("where", ["reason", "hint", "diff"])
def test_a_veil_hides_secrets_wherever_they_turn_up(where: str) -> None:
    result = replace(
        Result("toy:a", "failed", Mark("s")),
        **{where: "it said hunter2 and ---KEY--- and hun"},
    )
    veiled = Veil(["hunter2", "begin\n---KEY---\nend", "hun"]).over(result)
    assert getattr(veiled, where) == f"it said {HIDDEN} and {HIDDEN} and hun"


def test_a_veil_covers_values_of_any_shape() -> None:
    change = Change("a", ["x hunter2"], {"k": "hunter2"})
    result = Result("toy:a", "changed", Mark("s"), changes=(change,))
    (veiled,) = Veil(["hunter2"]).over(result).changes
    assert veiled == Change("a", [f"x {HIDDEN}"], {"k": HIDDEN})
    assert Veil().over(result) is result


def test_a_value_is_cut_where_it_is_longer_than_anybody_reads() -> None:
    """A line of a file of theirs is as long as they like, and each time that it is put right the ledger
    would have it."""
    diff = Diff({"a": "x" * 100_000, "b": ["\x1b" * 100_000]}, {"a": "y", "b": []})
    first, second = shown(diff, no_log=False)
    assert first == Change("a", "x" * 16_384 + "...", "y")
    assert second.before == ["\\x1b" * 16_384 + "..."]
