"""What is written has the mode that was asked for, and so have the directories made for it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.agent import motd
from reconciler.agent.alone import alone
from reconciler.agent.places import Places, make_directory, write


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """The mask of the agent's unit."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_what_all_may_read_is_in_directories_that_all_may_enter(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "file"
    write(str(file), b"x", 0o644)
    assert [mode(path) for path in (file, file.parent, file.parent.parent)] == [0o644, 0o755, 0o755]
    secret = tmp_path / "c" / "secret"
    write(str(secret), b"x")
    assert [mode(path) for path in (secret, secret.parent)] == [0o600, 0o700]


def test_who_logs_in_can_read_of_a_suspension_and_ask_for_the_status(tmp_path: Path) -> None:
    places = Places(str(tmp_path))
    motd.tell(places, [{"until": 1.0, "by": "alice", "reason": "TICKET-7"}])
    run = tmp_path / "run"
    assert [mode(path) for path in (run, run / "motd.d")] == [0o755, 0o755]
    assert mode(places.motd) == 0o644
    with alone(places):
        assert mode(run / "reconciler") == 0o755


def test_a_directory_that_is_there_stays_as_it_is_and_a_file_in_its_place_is_an_error(
    tmp_path: Path,
) -> None:
    made = tmp_path / "made"
    made.mkdir(mode=0o700)
    make_directory(str(made), 0o755)
    assert mode(made) == 0o700
    (made / "file").touch()
    with pytest.raises(OSError, match=str(made)):
        write(str(made / "file" / "below"), b"x")
    assert mode(made / "file") == 0o600
