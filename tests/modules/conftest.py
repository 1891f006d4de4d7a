"""Converges one resource on a machine in a directory, the way the engine does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.resource import Content, Diff, Resource
from reconciler.testing.fake import FakeHost

Converge = Callable[[Resource], Diff]


class Machine(FakeHost):
    """A FakeHost that also serves contents, and remembers what programs were told on stdin."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.contents: dict[str, bytes] = {}
        self.told: list[bytes | None] = []
        self._fetch = lambda sha256, size: iter([self.contents[sha256]])

    def content(self, *given: object) -> Iterator[bytes] | Content:  # type: ignore[override]
        """Called with a text: makes it available. Called by a module: gives its bytes."""
        if len(given) == 1:
            data = given[0] if isinstance(given[0], bytes) else str(given[0]).encode()
            made = Content(hashlib.sha256(data).hexdigest(), len(data))
            self.contents[made.sha256] = data
            return made
        return super().content(*given)  # type: ignore[arg-type]

    def path(self, path: str) -> Path:
        """Where a path of the machine really is."""
        return self.directory / path.lstrip("/")

    def text(self, path: str) -> str:
        return self.path(path).read_bytes().decode("utf-8", "surrogateescape")

    def names(self, path: str) -> list[str]:
        return sorted(one.name for one in self.path(path).iterdir())

    def _execute(self, argv, input, *rest):  # type: ignore[no-untyped-def]
        self.told.append(input)
        return super()._execute(argv, input, *rest)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "etc").mkdir()
    machine = Machine(tmp_path)
    yield machine
    machine.files.close()


@pytest.fixture
def plan(machine: Machine) -> Converge:
    """Looks at a resource and proves that looking changes nothing; the difference."""

    def plan(resource: Resource) -> Diff:
        machine.forget()
        before = _snapshot(machine.directory)
        machine.readonly = True
        try:
            diff = Diff(resource.actual(machine), resource.desired())
            if diff:
                resource.preview(machine, diff)
        finally:
            machine.readonly = False
        assert _snapshot(machine.directory) == before
        json.dumps([diff.before, diff.after])
        return diff

    return plan


@pytest.fixture
def converge(machine: Machine, plan: Converge) -> Converge:
    """Carries a resource out and proves that nothing is left; the difference that there was."""

    def converge(resource: Resource) -> Diff:
        diff = plan(resource)
        if diff:
            resource.apply(machine, diff)
            assert not (left := plan(resource)), left.changes
        return diff

    return converge


def _snapshot(directory: Path) -> dict[str, tuple[int, ...]]:
    return {
        str(path): (found.st_ino, found.st_mtime_ns, found.st_mode, found.st_uid, found.st_gid)
        for path in directory.rglob("*")
        for found in [path.lstat()]
    }
