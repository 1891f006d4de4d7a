"""What texts were before they were changed: enough to look it up, and never too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.catalog import Report, Result
from reconciler.engine import ledgerdiffs
from reconciler.engine.ledger import Ledger
from reconciler.errors import Mark


def changed(diff: str, name: str = "a", action: str = "change") -> Result:
    return Result(f"toy:{name}", "changed", Mark("s.yml"), action=action, diff=diff)


def write(ledger: Ledger, *results: Result, run: str = "r") -> None:
    """A run that made these changes."""
    ledger.settle(run, results, {}, [])
    ledger.finish(Report("h", results, run=run), {})


def diffs(ledger: Ledger) -> list[object]:
    """Newest first."""
    return [one["diff"] for one in ledger.changes()]


def kept(ledger: Ledger) -> int:
    return ledger._database.execute("SELECT count(*) FROM diffs").fetchone()[0]


def test_what_was_created_is_in_git_and_not_kept(tmp_path: Path) -> None:
    with Ledger.open(str(tmp_path)) as ledger:
        write(
            ledger, changed("+x\n", action="create"), changed("-x\n", action="remove"), changed("")
        )
        assert diffs(ledger) == ["", "-x\n", ""]
        assert kept(ledger) == 1


@pytest.mark.parametrize("text", ["-\u00ef\n" * 9000, "-" + "\u00ef" * 9000 + "\n"])
def test_of_a_long_one_the_head_is_kept_and_how_much_is_missing(tmp_path: Path, text: str) -> None:
    with Ledger.open(str(tmp_path)) as ledger:
        write(ledger, changed(text))
        (found,) = map(str, diffs(ledger))
    head, _, last = found.rpartition("\n... ")
    assert text.startswith(head)
    assert ledgerdiffs.KEEP - 1 <= len(head.encode()) <= ledgerdiffs.KEEP
    assert last == f"{len(text.encode()) - ledgerdiffs.KEEP} more bytes not kept\n"


def test_one_that_is_made_ever_again_is_kept_once_and_as_long_as_any_change_has_it(
    tmp_path: Path,
) -> None:
    with Ledger.open(str(tmp_path)) as ledger:
        for n in range(10):
            write(ledger, changed("-theirs\n"), run=f"r{n}")
        assert diffs(ledger) == ["-theirs\n"] * 10
        assert kept(ledger) == 1
        with ledger._database:
            ledger._database.execute("DELETE FROM changes WHERE run <> 'r9'")
        write(ledger, run="r10")
        assert diffs(ledger) == ["-theirs\n"]
        with ledger._database:
            ledger._database.execute("DELETE FROM changes")
        write(ledger, run="r11")
        assert kept(ledger) == 0


def test_of_too_many_those_that_were_made_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgerdiffs, "KEEP_ALL", 5000)
    monkeypatch.setattr(ledgerdiffs, "SLACK", 1000)
    with Ledger.open(str(tmp_path)) as ledger:
        for n in range(20):
            write(ledger, changed(f"-{n:0998}\n"), changed("-a fight\n", "b"), run=f"r{n}")
        found = [str(one) for one in diffs(ledger)]
        fights, others = found[::2], found[1::2]
        assert set(fights) == {"-a fight\n"}
        count = sum(text != "" for text in others)
        assert 4 <= count <= 5
        assert all(others[:count])
        assert len(ledger.changes(limit=1000)) == 40
