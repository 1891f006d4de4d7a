"""Nothing that a terminal would act on gets through."""

import sys

import pytest

from reconciler.cli.visible import visible


@pytest.mark.parametrize(
    "hostile, shown",
    [
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("a\rb", "a\\rb"),
        ("a\nb", "a\\nb"),
        ("\x9b31m", "\\x9b31m"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("line\u2028separator", "line\\u2028separator"),
        ("\ufeffbom", "\\ufeffbom"),
        ("no\u00a0break", "no\\xa0break"),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), "\\xff\\xfe"),
        ("\U000e0041tag", "\\U000e0041tag"),
        ("\x00\x08\x7f", "\\x00\\x08\\x7f"),
    ],
)
def test_what_cannot_be_seen_is_written_out(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


@pytest.mark.parametrize(
    "text", ["", "plain", "Grüße, 世界", "a\tb", "C:\\temp", "\N{PARTY POPPER}"]
)
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_no_character_of_unicode_gets_through_unless_it_is_printable_or_a_tab() -> None:
    for code in range(sys.maxunicode + 1):
        assert all(c.isprintable() or c == "\t" for c in visible(chr(code)))
