"""A mirror that was damaged is made anew without a person, and nothing that matters is lost."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import reconciler
from reconciler.errors import SourceError, UsageError
from reconciler.source import GitTree
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror
from reconciler.source.refs import POINTERS
from reconciler.source.remote import Remote
from source.signers import People, StateRepo


@pytest.fixture
def repo(tmp_path: Path) -> StateRepo:
    repo = StateRepo(tmp_path / "state", People(tmp_path / "people"))
    for n in range(3):
        repo.commit(None, {"a": f"{n}\n", f"dir/{n}": "x\n"})
    return repo


@pytest.fixture
def remote(repo: StateRepo) -> Remote:
    return Remote(str(repo.path))


@pytest.fixture
def mirror(repo: StateRepo, remote: Remote, tmp_path: Path) -> Mirror:
    mirror = Mirror(str(tmp_path / "host" / "mirror.git"))
    fetch(mirror, [remote], "main")
    for name, commit in zip(POINTERS, repo.git("rev-list", "main").split() * 2, strict=False):
        mirror.point(name, commit)
    return mirror


def test_it_holds_packs_and_nothing_that_could_run(mirror: Mirror) -> None:
    names = {path.relative_to(mirror.path).as_posix() for path in Path(mirror.path).rglob("*")}
    assert not any("hook" in name or name.endswith((".lock", "FETCH_HEAD")) for name in names)
    assert mirror.fsck() == ""


def test_it_is_for_its_owner_only(mirror: Mirror) -> None:
    assert Path(mirror.path).stat().st_mode & 0o077 == 0


def test_the_files_of_a_pointer_can_be_read(mirror: Mirror, repo: StateRepo) -> None:
    tree = GitTree(mirror.path, "refs/agent/trusted")
    assert tree.commit == repo.head
    assert tree.read("a") == b"2\n"


def test_pointers_come_and_go(mirror: Mirror, repo: StateRepo) -> None:
    assert mirror.pointer("trusted") == repo.head
    mirror.point("candidate", "")
    assert mirror.pointer("candidate") == ""
    with pytest.raises(UsageError, match="no pointer"):
        mirror.point("../heads/main", repo.head)
    with pytest.raises(SourceError):
        mirror.point("good", "f" * 40)


def first(pattern: str) -> Callable[[Path], Path]:
    return lambda top: min(top.glob(pattern))


def emptied(path: Path) -> None:
    path.touch()
    path.chmod(0o600)
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.chmod(0o600)
    path.write_bytes(b"\0\xff garbage\n")


def loose_zero(top: Path) -> None:
    """What power loss leaves of a loose object."""
    path = top / "objects" / "ab" / ("c" * 38)
    path.parent.mkdir()
    path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "HEAD empty": lambda top: emptied(top / "HEAD"),
    "HEAD garbage": lambda top: garbage(top / "HEAD"),
    "HEAD gone": lambda top: (top / "HEAD").unlink(),
    "config empty": lambda top: emptied(top / "config"),
    "config gone": lambda top: (top / "config").unlink(),
    "packed-refs empty": lambda top: emptied(top / "packed-refs"),
    "packed-refs garbage": lambda top: garbage(top / "packed-refs"),
    "a ref empty": lambda top: emptied(top / "refs/remotes/origin/heads/main"),
    "a ref garbage": lambda top: garbage(top / "refs/agent/applied"),
    "a ref of zeros": lambda top: (top / "refs/agent/good").write_text("0" * 40 + "\n"),
    "a ref of nothing": lambda top: (top / "refs/agent/good").write_text("f" * 40 + "\n"),
    "a loose object zeroed": loose_zero,
    "a pack empty": lambda top: emptied(first("objects/pack/*.pack")(top)),
    "an index empty": lambda top: emptied(first("objects/pack/*.idx")(top)),
    "an index gone": lambda top: first("objects/pack/*.idx")(top).unlink(),
    "a pack gone": lambda top: first("objects/pack/*.pack")(top).unlink(),
    "objects gone": lambda top: shutil.rmtree(top / "objects"),
    "refs gone": lambda top: shutil.rmtree(top / "refs"),
    "a shallow file": lambda top: (top / "shallow").write_text("f" * 40 + "\n"),
    "grafts": lambda top: garbage(top / "info/grafts"),
    "alternates": lambda top: garbage(top / "objects/info/alternates"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a5_a6_damage_is_found_by_the_next_poll_and_mended(
    mirror: Mirror, repo: StateRepo, remote: Remote, how: str
) -> None:
    DAMAGES[how](Path(mirror.path))
    fetched = fetch(mirror, [remote], "main")
    assert fetched.rebuilt
    assert fetched.commit == repo.head
    assert mirror.fsck() == ""
    assert GitTree(mirror.path, fetched.commit).read("a") == b"2\n"
    assert not fetch(mirror, [remote], "main").rebuilt
    assert sorted(os.listdir(Path(mirror.path).parent)) == ["mirror.git", "mirror.git.lock"]


def test_pointers_move_to_the_new_mirror(mirror: Mirror, repo: StateRepo, remote: Remote) -> None:
    before = {name: mirror.pointer(name) for name in POINTERS}
    garbage(Path(mirror.path) / "HEAD")
    assert fetch(mirror, [remote], "main").lost == ()
    assert {name: mirror.pointer(name) for name in POINTERS} == before


def test_a_pointer_whose_commit_is_gone_is_told(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    """The branch was rewritten, and then the mirror was damaged."""
    repo.git("checkout", "--quiet", "--orphan", "other")
    repo.commit(None)
    repo.git("branch", "--quiet", "-f", "main", "other")
    garbage(Path(mirror.path) / "HEAD")
    assert set(fetch(mirror, [remote], "main").lost) == set(POINTERS)
    assert mirror.pointer("applied") == ""


def test_a_damaged_mirror_stays_while_no_remote_can_give_another(
    mirror: Mirror, repo: StateRepo, tmp_path: Path
) -> None:
    """Whatever can still be read of it may be what the host is healed with."""
    emptied(Path(mirror.path) / "packed-refs")
    with pytest.raises(SourceError):
        fetch(mirror, [Remote(str(tmp_path / "nothing"))], "main")
    assert mirror.has(repo.head)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_flipped_byte_in_a_pack_is_found_when_somebody_is_suspicious(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    flip(first("objects/pack/*.pack")(Path(mirror.path)))
    assert mirror.fsck()
    mirror.suspect()
    fetched = fetch(mirror, [remote], "main")
    assert fetched.rebuilt
    assert mirror.fsck() == ""
    assert not mirror.suspected


def test_a_suspicion_stays_until_the_mirror_was_read_or_made_anew(
    mirror: Mirror, remote: Remote, tmp_path: Path
) -> None:
    flip(first("objects/pack/*.pack")(Path(mirror.path)))
    mirror.suspect()
    with pytest.raises(SourceError):
        fetch(mirror, [Remote(str(tmp_path / "nothing"))], "main")
    assert mirror.suspected
    assert fetch(mirror, [remote], "main").rebuilt
    mirror.suspect()
    assert not fetch(mirror, [remote], "main").rebuilt
    assert not mirror.suspected


def test_a_flipped_byte_that_breaks_a_fetch_is_found_by_it(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    flip(first("objects/pack/*.idx")(Path(mirror.path)))
    repo.commit(None, {"a": "3\n"})
    fetch(mirror, [remote], "main")
    assert GitTree(mirror.path, repo.head).read("a") == b"3\n"


STALE = [
    "HEAD.lock",
    "config.lock",
    "packed-refs.lock",
    "shallow.lock",
    "index.lock",
    "refs/agent/trusted.lock",
    "refs/remotes/origin/heads/main.lock",
    "objects/pack/tmp_pack_abc",
    "objects/pack/tmp_idx_abc",
    "quarantine-0123/objects/pack/tmp_pack_x",
]


def test_a7_what_a_killed_fetch_left_behind_is_swept(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    for name in STALE:
        path = Path(mirror.path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    repo.commit(None)
    fetched = fetch(mirror, [remote], "main")
    assert (fetched.commit, fetched.rebuilt) == (repo.head, "")
    assert not any((Path(mirror.path) / name).exists() for name in STALE)


def test_a7_nothing_is_swept_while_another_fetch_works(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    lock = Path(mirror.path) / "HEAD.lock"
    lock.write_bytes(b"")
    with mirror.lock(), pytest.raises(Exception, match="another fetch"):
        fetch(mirror, [remote], "main")
    assert lock.exists()


def test_a7_what_somebody_locks_who_moves_a_pointer_meanwhile_is_not_swept(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    """A fetch is no reason to wait for it, and no reason to lose the pointer."""
    lock = Path(mirror.path) / "refs/agent/trusted.lock"
    moving = os.open(mirror.path, os.O_RDONLY)
    fcntl.flock(moving, fcntl.LOCK_EX)
    lock.write_bytes(b"")
    fetching = threading.Thread(target=fetch, args=(mirror, [remote], "main"))
    fetching.start()
    fetching.join(0.3)
    assert fetching.is_alive()
    assert lock.exists()
    os.close(moving)
    fetching.join(20)
    assert not lock.exists()


def test_pointers_move_while_a_fetch_holds_the_mirror(mirror: Mirror, repo: StateRepo) -> None:
    with mirror.lock():
        mirror.point("trusted", repo.git("rev-parse", "HEAD~1"))
        mirror.tidy()
        mirror.point("trusted", repo.head)
    assert mirror.pointer("trusted") == repo.head


def test_a_pointer_that_is_moved_while_the_mirror_is_made_anew_is_moved_in_the_new_one(
    mirror: Mirror, repo: StateRepo, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = repo.git("rev-parse", "HEAD~2")
    moving = threading.Thread(target=mirror.point, args=("good", old))
    has, begun = Mirror.has, threading.Event()

    def slow(other: Mirror, commit: str) -> bool:
        """Between the look at the old pointers and the swap."""
        if not begun.is_set():
            begun.set()
            moving.start()
            moving.join(0.3)
        return has(other, commit)

    garbage(Path(mirror.path) / "HEAD")
    fresh = Mirror(f"{mirror.path}.new")
    fetch(fresh, [remote], "main")
    monkeypatch.setattr(Mirror, "has", slow)
    mirror.replace_by(fresh)
    moving.join(20)
    assert mirror.pointer("good") == old


def test_a_swap_that_was_killed_half_way_is_finished(
    mirror: Mirror, repo: StateRepo, remote: Remote
) -> None:
    os.rename(mirror.path, f"{mirror.path}.old")
    fetched = fetch(mirror, [remote], "main")
    assert not fetched.changed
    assert mirror.pointer("trusted") == repo.head


FETCH = """
import sys
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror
from reconciler.source.remote import Remote
print("ready", flush=True)
fetch(Mirror(sys.argv[1]), [Remote(sys.argv[2])], "main")
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_a_fetch_that_is_killed_at_any_instant_costs_nothing(
    mirror: Mirror, repo: StateRepo, remote: Remote, damaged: bool
) -> None:
    root = Path(reconciler.__file__).parents[1]
    for n in range(12):
        repo.commit(None, {"a": f"killed {n}\n"})
        if damaged:
            garbage(Path(mirror.path) / "HEAD")
        process = subprocess.Popen(
            [sys.executable, "-c", FETCH, mirror.path, str(repo.path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(n * 0.005)
        process.kill()
        process.wait()
        process.stdout.close()
        time.sleep(0.02)
    assert fetch(mirror, [remote], "main").commit == repo.head
    assert mirror.fsck() == ""
    assert mirror.pointer("applied")
    assert sorted(os.listdir(Path(mirror.path).parent)) == ["mirror.git", "mirror.git.lock"]
