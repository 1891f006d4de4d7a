"""Contents that root keeps: asked for once, never believed, never secret."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from reconciler.agent.contents import LARGEST, Contents
from reconciler.errors import SourceError

TEXT = b"hello\n"
DIGEST = hashlib.sha256(TEXT).hexdigest()


class Asked:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, sha256: str) -> Iterable[bytes]:
        self.count += 1
        return [TEXT]


def test_a_content_is_asked_for_once(tmp_path: Path) -> None:
    asked = Asked()
    for _ in range(3):
        assert b"".join(Contents(str(tmp_path / "c")).get(DIGEST, asked)) == TEXT
    assert asked.count == 1
    assert (tmp_path / "c" / DIGEST).stat().st_mode & 0o777 == 0o600


def test_a_damaged_content_is_asked_for_again(tmp_path: Path) -> None:
    asked = Asked()
    contents = Contents(str(tmp_path))
    assert b"".join(contents.get(DIGEST, asked)) == TEXT
    (tmp_path / DIGEST).write_bytes(b"other")
    assert b"".join(contents.get(DIGEST, asked)) == TEXT
    assert asked.count == 2


def test_a_secret_is_not_kept(tmp_path: Path) -> None:
    asked = Asked()
    contents = Contents(str(tmp_path), [DIGEST])
    assert b"".join(contents.get(DIGEST, asked)) == TEXT
    assert list(tmp_path.iterdir()) == []
    (tmp_path / DIGEST).write_bytes(TEXT)
    contents.keep_only([DIGEST])
    assert list(tmp_path.iterdir()) == []


def test_what_no_catalog_names_is_forgotten(tmp_path: Path) -> None:
    contents = Contents(str(tmp_path))
    assert b"".join(contents.get(DIGEST, Asked())) == TEXT
    contents.keep_only([DIGEST])
    assert (tmp_path / DIGEST).exists()
    contents.keep_only([])
    assert not (tmp_path / DIGEST).exists()


def test_a_large_content_passes_by_in_pieces_and_is_not_kept(tmp_path: Path) -> None:
    pieces = [bytes([n]) * (LARGEST // 4) for n in range(5)]
    given: list[int] = []

    def fetch(_: str) -> Iterable[bytes]:
        for piece in pieces:
            given.append(len(given))
            yield piece

    passing = iter(Contents(str(tmp_path)).get("0" * 64, fetch))
    assert next(passing) == pieces[0]
    assert given == [0]
    assert list(passing) == pieces[1:]
    assert list(tmp_path.iterdir()) == []


def test_a_content_that_breaks_off_is_not_kept(tmp_path: Path) -> None:
    def fetch(_: str) -> Iterable[bytes]:
        yield TEXT
        raise SourceError("the provider is gone")

    with pytest.raises(SourceError):
        list(Contents(str(tmp_path)).get(DIGEST, fetch))
    assert list(tmp_path.iterdir()) == []
