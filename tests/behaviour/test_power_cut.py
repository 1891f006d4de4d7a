"""Promise 3 against a power cut: what a run has told the ledger, or anybody, is on the disk by then.

Nothing here cuts the power. The kernel keeps what was synced, in the order in which that was asked
for; so the order of the engine's own calls is what is looked at.
"""

from __future__ import annotations

import os

import pytest

from behaviour import traced
from behaviour.test_every_call import declare
from behaviour.world import World
from reconciler.engine.image import NEW

pytestmark = pytest.mark.skipif(bool(traced.OBSTACLE), reason=traced.OBSTACLE)

CHANGES = ("renameat", "rename", "mkdirat", "unlinkat", "linkat", "symlinkat")
TEMPORARY = (".rec-", NEW)
LOG = "/var/lib/reconciler/ledger.db-wal"


class Trace:
    """The calls of one run: what they were, and what they were about, below the root."""

    def __init__(self, world: World) -> None:
        outcome = traced.run(world, lambda index, name: 0)
        assert outcome.answer is not None
        assert not any(one["status"] == "failed" for one in outcome.answer["report"]["results"])  # type: ignore[index]
        root = str(world.root)
        paths = [path.removeprefix(root) for path in outcome.paths]
        self.calls = list(zip(outcome.names, paths, strict=True))

    def at(self, names: tuple[str, ...], *paths: str) -> list[int]:
        return [n for n, (name, path) in enumerate(self.calls) if name in names and path in paths]

    @property
    def commits(self) -> list[int]:
        """Where SQLite makes a commit durable."""
        return self.at(("fdatasync", "fsync"), LOG)

    @property
    def told(self) -> list[int]:
        """Where the ledger is told something."""
        return self.at(("pwrite64", "write"), LOG)

    def named(self, below: str) -> list[int]:
        """Changes of names that stay."""
        return [
            n
            for n, (name, path) in enumerate(self.calls)
            if name in CHANGES
            and path.startswith(below)
            and not any(mark in os.path.basename(path) for mark in TEMPORARY)
        ]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    world = World(tmp_path_factory.mktemp("cut") / "root")
    (world.root / "srv").mkdir()
    world.path("/srv/theirs").write_text("as it was before us\n")
    world.path("/srv/gone").write_text("to be removed\n")
    declare(world, 0)
    assert not world.apply().failed
    declare(world, 1)
    return Trace(world)


def test_what_is_intended_is_on_the_disk_before_the_first_change(trace: Trace) -> None:
    first = trace.named("/srv")[0]
    told = max(n for n in trace.told if n < first)
    assert any(told < n < first for n in trace.commits)


def test_what_came_of_a_run_is_on_the_disk_at_its_end(trace: Trace) -> None:
    assert trace.told[-1] < trace.commits[-1]


def test_a_change_is_on_the_disk_before_the_ledger_says_that_it_was_made(trace: Trace) -> None:
    changes = trace.named("/srv")
    assert len(changes) >= 6
    for change in changes:
        _, path = trace.calls[change]
        commit = min(n for n in trace.commits if n > change)
        synced = trace.at(("fsync",), os.path.dirname(path))
        assert any(change < n < commit for n in synced), path


def test_content_is_on_the_disk_before_it_has_its_name(trace: Trace) -> None:
    """Of the files, and of the images of what they were."""
    renames = [n for n in trace.named("/") if trace.calls[n][0] in ("renameat", "rename")]
    seen: set[str] = set()
    for rename in renames:
        _, path = trace.calls[rename]
        directory = os.path.dirname(path)
        written = [
            n
            for n, (name, of) in enumerate(trace.calls[:rename])
            if name == "write"
            and os.path.dirname(of) == directory
            and (os.path.basename(path) in os.path.basename(of) or of.endswith(NEW))
        ]
        if not written:
            continue  # a link
        _, temporary = trace.calls[written[-1]]
        assert any(written[-1] < n < rename for n in trace.at(("fsync",), temporary)), path
        seen.add(directory)
    assert seen == {"/srv", "/var/lib/reconciler/images"}


def test_an_image_is_on_the_disk_before_the_ledger_says_that_it_is_kept(trace: Trace) -> None:
    images = trace.named("/var/lib/reconciler/images/")
    assert images
    for image in images:
        commit = min(n for n in trace.commits if n > image)
        synced = trace.at(("fsync",), "/var/lib/reconciler/images")
        assert any(image < n < commit for n in synced)
    assert max(images) < trace.named("/srv")[0]
