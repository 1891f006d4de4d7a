"""Whether a mirror is damaged is not found out at any price, and not taken for known before it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import reconciler.source.fetch as fetching
from reconciler.errors import Damaged, SourceError
from reconciler.source import network
from reconciler.source.fetch import fetch
from reconciler.source.git import Git
from reconciler.source.mirror import AGAIN, Mirror
from reconciler.source.network import Limits
from reconciler.source.process import Ended
from reconciler.source.remote import Remote
from source.servers import Server, https_server, make_certificate
from source.signers import People, StateRepo


@pytest.fixture
def repo(tmp_path: Path) -> StateRepo:
    repo = StateRepo(tmp_path / "srv" / "state.git", People(tmp_path / "people"))
    repo.commit(None, {"a": "1\n"})
    return repo


@pytest.fixture
def remote(repo: StateRepo) -> Remote:
    return Remote(str(repo.path))


@pytest.fixture
def mirror(remote: Remote, tmp_path: Path) -> Mirror:
    mirror = Mirror(str(tmp_path / "host" / "mirror.git"))
    fetch(mirror, [remote], "main")
    return mirror


class Examinations:
    """How often a mirror was read whole, and how that ended; None: as it does."""

    def __init__(self) -> None:
        self.count = 0
        self.end: Ended | None = None
        self.seconds = 0.0


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examinations:
    seen, real = Examinations(), Git.ask

    def ask(git: Git, *args: str, seconds: float = 60.0, feed: bytes = b"") -> Ended:
        if args[0] == "fsck":
            seen.count += 1
            seen.seconds = seconds
            if seen.end is not None:
                return seen.end
        return real(git, *args, seconds=seconds, feed=feed)

    monkeypatch.setattr(Git, "ask", ask)
    return seen


def an_hour_passes(mirror: Mirror) -> None:
    stamp = f"{mirror.path}.examined"
    before = os.stat(stamp).st_mtime - AGAIN - 1
    os.utime(stamp, (before, before))


UNENDED = {
    "it took too long": Ended(-9, b"", b"", "time"),
    "it said too much": Ended(-9, b"x" * 100, b"", "output"),
    "the kernel killed it": Ended(-9, b"", b""),
    "it had too little memory": Ended(128, b"", b"fatal: Out of memory, malloc failed\n"),
}


@pytest.mark.parametrize("how", UNENDED)
def test_a_mirror_that_cannot_be_read_whole_in_time_is_neither_sound_nor_damaged(
    mirror: Mirror, repo: StateRepo, remote: Remote, examined: Examinations, how: str
) -> None:
    """It stays in use: what is large or on a slow disk is not fetched again for that."""
    mirror.suspect()
    examined.end = UNENDED[how]
    for _ in range(3):
        repo.commit(None, {"a": f"{how}\n"})
        fetched = fetch(mirror, [remote], "main", Limits(total=200))
        assert (fetched.commit, fetched.rebuilt) == (repo.head, "")
        assert mirror.suspected
    assert (examined.count, examined.seconds) == (1, 200)
    an_hour_passes(mirror)
    examined.end = None
    fetch(mirror, [remote], "main")
    assert (examined.count, mirror.suspected) == (2, False)


def test_damage_of_which_fsck_says_nothing_is_damage_all_the_same(
    mirror: Mirror, remote: Remote, examined: Examinations
) -> None:
    mirror.suspect()
    examined.end = Ended(4, b"", b"notice: HEAD points to an unborn branch (none)\n")
    assert fetch(mirror, [remote], "main").rebuilt == "git fsck failed"


def test_damage_is_told_in_the_words_that_name_it(
    mirror: Mirror, remote: Remote, examined: Examinations
) -> None:
    mirror.suspect()
    notice = b"notice: HEAD points to an unborn branch (none)\n"
    examined.end = Ended(2, b"missing blob 1234\n", notice)
    assert fetch(mirror, [remote], "main").rebuilt == "missing blob 1234"


def test_what_was_found_for_certain_needs_no_examination(
    mirror: Mirror, remote: Remote, examined: Examinations
) -> None:
    """Even one that could not be read whole within the last hour."""
    examined.end = UNENDED["it took too long"]
    mirror.suspect()
    assert not fetch(mirror, [remote], "main").rebuilt
    mirror.suspect("the object 1234 is not what its id says")
    mirror.suspect()
    fetched = fetch(mirror, [remote], "main")
    assert fetched.rebuilt == "the object 1234 is not what its id says"
    assert not mirror.suspected
    assert examined.count == 1


@pytest.fixture
def server(repo: StateRepo, tmp_path: Path) -> Iterator[Server]:
    with https_server(repo.path.parent, make_certificate(tmp_path)) as server:
        yield server


def fails(mirror: Mirror, server: Server, tmp_path: Path) -> SourceError:
    remote = Remote(f"{server.url}/state.git", ca_file=str(tmp_path / "server.crt"))
    with pytest.raises(SourceError) as caught:
        fetch(mirror, [remote], "main")
    return caught.value


def test_a_connection_that_breaks_off_makes_nobody_read_the_mirror(
    mirror: Mirror, repo: StateRepo, server: Server, examined: Examinations, tmp_path: Path
) -> None:
    repo.commit(None, {"noise": os.urandom(60_000).hex()})
    for share in (0.2, 0.9):
        server.fault = ("cut", share)
        assert not isinstance(fails(mirror, server, tmp_path), Damaged)
    assert not mirror.suspected
    assert examined.count == 0


def test_a_server_that_sends_rubbish_costs_one_examination_an_hour(
    mirror: Mirror, repo: StateRepo, server: Server, examined: Examinations, tmp_path: Path
) -> None:
    repo.commit(None, {"noise": os.urandom(60_000).hex()})
    server.fault = ("flip", 0.5)
    for _ in range(4):
        assert isinstance(fails(mirror, server, tmp_path), Damaged)
        assert mirror.suspected
    assert examined.count == 1
    an_hour_passes(mirror)
    fails(mirror, server, tmp_path)
    assert examined.count == 2


def flip(path: Path, at: Callable[[int], int]) -> None:
    data = bytearray(path.read_bytes())
    data[at(len(data))] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_flipped_byte_that_breaks_a_fetch_is_found_by_the_next(
    mirror: Mirror, repo: StateRepo, remote: Remote, tenth: int
) -> None:
    """What a pack of the server builds on is here, and damaged."""
    text = "".join(f"line {n} {os.urandom(6).hex()}\n" for n in range(400))
    repo.commit(None, {"a": text})
    fetch(mirror, [remote], "main")
    for pack in Path(mirror.path, "objects/pack").glob("*.pack"):
        flip(pack, lambda size: size * tenth // 10)
    repo.commit(None, {"a": text + "and one more\n"})
    try:
        fetched = fetch(mirror, [remote], "main")
    except Damaged:
        fetched = fetch(mirror, [remote], "main")
        assert fetched.rebuilt
    assert fetched.commit == repo.head


def test_all_that_one_remote_does_has_one_limit(
    mirror: Mirror, repo: StateRepo, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asking has taken is not there for fetching; the next remote has all of it again."""
    now, given, real = [1000.0], [], network.run

    def slow(argv: list[str], *args: object, seconds: float, **options: object) -> Ended:
        given.append(seconds)
        now[0] += 90
        if len(given) == 2:
            return Ended(-9, b"", b"", "time")
        return real(argv, *args, seconds=seconds, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "run", slow)
    for module in (network, fetching):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    repo.commit(None)
    both = [remote, Remote(str(repo.path), name="second")]
    fetched = fetch(mirror, both, "main", Limits(total=150, poll=100))
    assert given == [100, 60, 100, 60]
    assert fetched.remote == "second"
    assert "longer than 150 s" in str(fetched.tried[0].error)
