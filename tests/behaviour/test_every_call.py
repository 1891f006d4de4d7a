"""Promise 3, at every system call: killed before it, or refused it by a full disk."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from behaviour import traced
from behaviour.traced import KILL, TAKE_SPACE
from behaviour.world import OWN, World

pytestmark = pytest.mark.skipif(bool(traced.OBSTACLE), reason=traced.OBSTACLE)

#: Lines of a file that is too large to be kept in memory: it streams.
LARGE = 40_000
#: A full disk as SQLite says it, as the kernel does, and where only we can guess.
FULL = ("disk is full", "No space left", "is there space")
OWNED = "SELECT id, wish, claims, converged FROM resources ORDER BY id"
IMAGES = "SELECT path, kind, mode, size, sha256, link, stored FROM images ORDER BY path"


def declare(world: World, version: int) -> None:
    """One of each way to change a file system; two handlers, told of different things."""
    world.resources.clear()
    world.file("/srv", state="directory", mode="0755" if version else "0700")
    world.file("/srv/ours", f"ours {version}\n", mode="0640", notify=("handler:restarted a",))
    world.file("/srv/theirs", f"theirs {version}\n" * LARGE, notify=("handler:restarted b",))
    world.file("/srv/mode", "same", mode="0600" if version else "0644")
    world.file("/srv/link", state="link", src=f"to{version}")
    if version:
        world.file("/srv/new", state="directory", mode="0750")
        world.file("/srv/new/hard", state="hard", src="/srv/ours")
        world.file("/srv/gone", state="absent")
    for name in "ab":
        world.bell(name, "restarted")


class Start:
    """A host that an earlier commit had converged, to be copied for each try."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        world = World(directory / "start")
        (world.root / "srv").mkdir()
        world.path("/srv/theirs").write_text("as it was before us\n")
        world.path("/srv/gone").write_text("to be removed\n")
        declare(world, 0)
        assert not world.apply().failed
        self.before = files(world)
        self.straight = self.copy("straight")
        self.calls = traced.run(self.straight, lambda index, name: 0).names
        self.after = files(self.straight)
        assert self.memory(self.straight)

    def copy(self, name: str) -> World:
        """A world in that state, whose wish is the next commit."""
        shutil.copytree(self.directory / "start", self.directory / name, symlinks=True)
        world = World(self.directory / name)
        declare(world, 1)
        return world

    def memory(self, world: World) -> dict[str, Any]:
        """What the ledger has to know, whatever happened on the way."""
        path = world.path("/var/lib/reconciler/ledger.db")
        with closing(sqlite3.connect(path)) as ledger:
            assert ledger.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert ledger.execute("SELECT * FROM intents").fetchall() == []
            assert ledger.execute("SELECT * FROM owed").fetchall() == []
            return {
                "owned": ledger.execute(OWNED).fetchall(),
                "images": ledger.execute(IMAGES).fetchall(),
            }

    def check(self, world: World, context: str) -> None:
        """The next run ends where a straight one does, and the one after it has nothing to do."""
        assert not world.apply().failed, context
        assert files(world) == self.after, context
        assert world.leftovers() == [], context
        assert self.memory(world) == self.memory(self.straight), context
        assert set(world.rung()) == {"restart a", "restart b"}, context
        assert not world.apply().changed, context


def files(world: World) -> dict[str, object]:
    return world.tree(without=OWN)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    return Start(tmp_path_factory.mktemp("every"))


def tries(start: Start, indices: Sequence[int]) -> Iterator[tuple[int, World, str]]:
    """Fresh worlds for these calls, gone when they are done with."""
    for index in indices:
        world = start.copy(f"try{index}")
        yield index, world, f"call {index} of {len(start.calls)}, {start.calls[index]}"
        shutil.rmtree(world.root)
        world.log.unlink(missing_ok=True)


def kill(start: Start, indices: Sequence[int]) -> None:
    for index, world, context in tries(start, indices):
        outcome = traced.run(world, lambda n, name, at=index: KILL if n == at else 0)
        assert outcome.answer is None, context
        assert outcome.names == start.calls[: index + 1], context
        assert whole(start, world), context
        start.check(world, context)


def whole(start: Start, world: World) -> bool:
    """Whether each file has its old content or its new one."""
    for path, what in files(world).items():
        if ".rec-" in path or not isinstance(what, list):
            continue
        content = what[4:5]
        known = [one[path][4:5] for one in (start.before, start.after) if path in one]  # type: ignore[index]
        if content not in known:
            return False
    return True


@pytest.mark.slow
def test_a_kill_at_every_commit_and_rename_ends_as_a_straight_run(start: Start) -> None:
    """Both sides of each: what makes a commit durable is SQLite's sync of its log."""
    at = [n for n, name in enumerate(start.calls) if name in ("fdatasync", "rename", "renameat")]
    kill(start, sorted({n for one in at for n in (one, one + 1) if n < len(start.calls)}))


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_kill_before_every_call_that_changes_something_ends_as_a_straight_run(
    start: Start,
) -> None:
    kill(start, range(len(start.calls)))


def fill(start: Start, indices: Sequence[int]) -> None:
    for index, world, context in tries(start, indices):

        def full(n: int, name: str, at: int = index) -> int:
            return errno.ENOSPC if n >= at and name in TAKE_SPACE else 0

        outcome = traced.run(world, full)
        assert outcome.answer is not None, context
        if not check_said(outcome.answer, context):
            # The last of it is in the log of the ledger, and not yet beside it.
            assert start.memory(world) == start.memory(start.straight), context
        assert whole(start, world), context
        assert world.leftovers() == [], context
        start.check(world, context)


def check_said(answer: dict[str, Any], context: str) -> bool:
    """Whether something went wrong; then a full disk is said as such, with the path."""
    if "error" in answer:
        said = [f"{answer['error']['message']} {answer['error']['hint']}"]
    else:
        report = answer["report"]
        said = [one["reason"] for one in report["results"] if one["status"] == "failed"]
        said += report["warnings"]
    for text in said:
        assert "bug" not in text, (context, text)
        assert any(words in text for words in FULL), (context, text)
        assert "/" in text, (context, text)
    return bool(said)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_disk_that_is_full_from_any_call_on_leaves_nothing_half(start: Start) -> None:
    fill(start, [n for n, name in enumerate(start.calls) if name in TAKE_SPACE])
