"""Promise 3 against a power cut: no sync is missing, and none comes too early or too late."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from durable import recorded
from reconciler.agent import places
from reconciler.safewrite import Attributes, Tree
from reconciler.source.mark import NAMES, Marks

#: Each way to change a name; the first argument is a directory with a `file` in it.
ACTS: dict[str, Callable[[Tree, Path], None]] = {
    "a new file": lambda tree, d: tree.write(f"{d}/name", [b"a", b"b"], Attributes()),
    "new content": lambda tree, d: tree.write(f"{d}/file", [b"new"], Attributes(mode=0o600)),
    "a directory": lambda tree, d: tree.mkdir(f"{d}/name", Attributes()),
    "a link": lambda tree, d: tree.symlink(f"{d}/name", "x"),
    "a second name": lambda tree, d: tree.hardlink(f"{d}/name", f"{d}/file"),
    "a file that goes": lambda tree, d: tree.remove(f"{d}/file"),
    "a directory that goes": lambda tree, d: tree.remove(f"{d}/empty"),
    "a tree that goes": lambda tree, d: tree.remove(f"{d}/full", recurse=True),
}


#: What is gone after some of them.
GONE = {"a file that goes": "file", "a directory that goes": "empty", "a tree that goes": "full"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "srv"
    (made / "full").mkdir(parents=True)
    (made / "empty").mkdir()
    (made / "file").write_text("old")
    (made / "full/inner").write_text("old")
    return made


@pytest.mark.parametrize("durability", ["full", "batch", "none"])
@pytest.mark.parametrize("how", ACTS)
def test_a_change_of_a_name_is_durable_with_what_it_stands_for(
    directory: Path, how: str, durability: str
) -> None:
    tree = Tree("/", durability)
    with recorded() as record:
        ACTS[how](tree, directory)
        at_once = ("fsync", str(directory)) in {one[:2] for one in record.events}
        assert at_once == (durability == "full")
        tree.flush()
    tree.close()
    name = GONE.get(how, "file" if how == "new content" else "name")
    assert os.path.lexists(directory / name) == (how not in GONE)
    if durability == "none":
        assert not [one for one in record.events if one.call == "fsync"]
    else:
        record.check(directory / name, content=how != "a second name")


def test_many_directories_are_all_durable_after_a_flush(tmp_path: Path) -> None:
    """There are more of them than are kept open."""
    tree = Tree("/", "batch")
    for n in range(100):
        (tmp_path / f"{n}").mkdir()
    with recorded() as record:
        for n in range(100):
            tree.write(f"{tmp_path}/{n}/file", [b"x"], Attributes())
        tree.flush()
    tree.close()
    for n in range(100):
        record.check(tmp_path / f"{n}/file")


def test_the_first_copy_of_the_mark_is_durable_before_the_second_is_touched(tmp_path: Path) -> None:
    """Cut off in between, one of them is whole."""
    marks = Marks(str(tmp_path))
    with recorded() as record:
        marks.enrol()
    first, second = (record.check(tmp_path / name) for name in NAMES)
    assert first < second
    between = record.events[first:second]
    assert ("fsync", str(tmp_path)) in {one[:2] for one in between}


def test_what_the_agent_remembers_is_durable(tmp_path: Path) -> None:
    for text in (b"first", b"second"):
        with recorded() as record:
            places.write(str(tmp_path / "state/agent.json"), text)
        record.check(tmp_path / "state/agent.json")
    with recorded() as record:
        places.write(str(tmp_path / "state/status.json"), b"{}", durable=False)
    assert not [one for one in record.events if one.call == "fsync"]
    assert sorted(os.listdir(tmp_path / "state")) == ["agent.json", "status.json"]
