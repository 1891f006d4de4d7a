"""The table of a fleet run: what it draws from what it was told."""

from __future__ import annotations

import io

from rich.console import Console

from reconciler.cli.livetable import AT_WORK, LiveTable
from reconciler.errors import HostUnreachable
from reconciler.push.outcome import Outcome, of_error


def drawn(table: LiveTable) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(table._drawn())
    return out.getvalue()


def test_the_table_says_who_is_at_what_and_how_many_are_done() -> None:
    table = LiveTable("apply", 5, io.StringIO())
    try:
        for host in "abcd":
            table.began(host)
        table.at("a", {"id": "package:nginx\x1b[2J", "index": 3, "total": 12})
        table.ended(Outcome("b", "changed"))
        table.ended(of_error("c", HostUnreachable("no")))
        text = drawn(table)
    finally:
        table.close()
    assert "apply 2/5  1 changed  1 unreachable  2 at work" in text
    assert "hosts/s" in text
    assert "left" in text
    assert "3/12 package:nginx\\x1b[2J" in text
    assert "connecting" in text
    assert "\x1b" not in text


def test_only_those_that_are_at_it_for_the_longest_time_are_shown() -> None:
    table = LiveTable("plan", 100, io.StringIO())
    try:
        for number in range(50):
            table.began(f"host{number:02}")
        text = drawn(table)
    finally:
        table.close()
    assert "host00" in text
    assert text.count("connecting") == AT_WORK
    assert "50 at work" in text
