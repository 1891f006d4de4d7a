"""Servers that are no Git servers: they show files, and git fetches these one by one, unchecked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import SourceError
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror
from reconciler.source.network import Limits
from reconciler.source.remote import Remote
from source.servers import Files, make_certificate
from source.signers import People, StateRepo


class Published:
    """A state repo, and the directory in which a web server shows a copy of it."""

    def __init__(self, directory: Path) -> None:
        self.repo = StateRepo(directory / "state", People(directory / "people"))
        self.path = directory / "www" / "state.git"
        self.path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare")

    def git(self, *args: str) -> str:
        return self.repo.git("-C", str(self.path), *args)

    def publish(self, *, packed: bool = True) -> str:
        self.git("fetch", "--quiet", str(self.repo.path), "+main:main")
        if packed:
            self.git("repack", "-a", "-d", "-q")
        self.git("update-server-info")
        return self.repo.git("rev-parse", "main")


@pytest.fixture
def published(tmp_path: Path) -> Published:
    published = Published(tmp_path)
    published.repo.commit(None, {"a": "1\n"})
    published.publish()
    return published


@pytest.fixture
def server(published: Published, tmp_path: Path) -> Iterator[Files]:
    server = Files(published.path.parent, make_certificate(tmp_path))
    yield server
    server.stop()


@pytest.fixture
def remote(server: Files, tmp_path: Path) -> Remote:
    return Remote(f"{server.url}/state.git", ca_file=str(tmp_path / "server.crt"))


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(str(tmp_path / "host" / "mirror.git"))


def test_what_is_sound_is_fetched(published: Published, remote: Remote, mirror: Mirror) -> None:
    for n in range(3):
        published.repo.commit(None, {"a": f"{n} new\n"})
        head = published.publish()
        assert fetch(mirror, [remote], "main").commit == head
    assert not fetch(mirror, [remote], "main").changed
    assert mirror.fsck() == ""


def test_a_malformed_object_does_not_get_into_the_mirror(
    published: Published, remote: Remote, mirror: Mirror
) -> None:
    """From a Git server it would not either, but there git looks by itself."""
    repo = published.repo
    fetch(mirror, [remote], "main")
    before = mirror.refs()
    blob, tree = repo.git("rev-parse", "HEAD:a"), repo.git("rev-parse", "HEAD^{tree}")
    evil = repo.object(b"100644 .git\0" + bytes.fromhex(blob), "tree")
    bad = repo.object(repo.raw().replace(tree.encode(), evil.encode()))
    repo.git("update-ref", "refs/heads/main", bad)
    published.publish()
    with pytest.raises(SourceError, match="damaged or malformed"):
        fetch(mirror, [remote], "main")
    assert mirror.refs() == before
    assert not mirror.has(bad)
    assert mirror.fsck() == ""


def test_objects_in_no_pack_are_refused_with_what_to_do_there(
    published: Published, remote: Remote, mirror: Mirror
) -> None:
    fetch(mirror, [remote], "main")
    before = mirror.refs()
    published.repo.commit(None, {"a": "2\n"})
    head = published.publish(packed=False)
    assert list((published.path / "objects").glob("[0-9a-f][0-9a-f]"))
    with pytest.raises(SourceError, match="the server hands out files") as caught:
        fetch(mirror, [remote], "main")
    assert "git repack -a -d; git update-server-info" in caught.value.hint
    assert mirror.refs() == before
    published.publish()
    assert fetch(mirror, [remote], "main").commit == head


def lone_pack(published: Published, since: str, name: str) -> str:
    """Show what is new since a commit in one pack, as `name`, and nothing else; the new commit."""
    head = published.repo.git("rev-parse", "main")
    packs = published.path / "objects/pack"
    for one in packs.iterdir():
        one.unlink()
    with (packs / f"{name}.pack").open("wb") as pack:
        subprocess.run(
            ["git", "-C", str(published.repo.path), "pack-objects", "-q", "--stdout", "--revs"],
            input=f"{head}\n^{since}\n".encode(),
            stdout=pack,
            check=True,
        )
    published.git("index-pack", str(packs / f"{name}.pack"))
    (published.path / "objects/info/packs").write_text(f"P {name}.pack\n\n")
    (published.path / "info/refs").write_text(f"{head}\trefs/heads/main\n")
    return head


def test_a_pack_that_is_called_like_one_of_ours_does_not_take_its_place(
    published: Published, remote: Remote, mirror: Mirror
) -> None:
    """Nobody has judged it yet, and what is trusted must be there for healing whatever comes."""
    first = fetch(mirror, [remote], "main").commit
    mirror.point("trusted", first)
    packs = Path(mirror.path, "objects/pack")
    before = {one.name: one.read_bytes() for one in packs.iterdir()}
    (ours,) = {one.stem for one in packs.iterdir()}
    published.repo.commit(None, {"a": "2\n"})
    head = lone_pack(published, first, ours)
    assert fetch(mirror, [remote], "main").commit == head
    assert before.items() <= {one.name: one.read_bytes() for one in packs.iterdir()}.items()
    assert mirror.damage() == mirror.fsck() == ""
    assert mirror.pointer("trusted") == first


def test_an_index_whose_pack_was_not_needed_is_no_damage(
    published: Published, remote: Remote, mirror: Mirror
) -> None:
    """git asks such a server for the index of every pack: of those of other branches, too."""
    repo = published.repo
    fetch(mirror, [remote], "main")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    for branch in ("other", "main"):
        new = repo.git("commit-tree", "-p", "HEAD", "-m", branch, tree)
        repo.git("update-ref", f"refs/heads/{branch}", new)
        keep = f"+{branch}:{branch}"
        published.git("-c", "fetch.unpackLimit=1", "fetch", "-q", str(repo.path), keep)
    published.git("update-server-info")
    assert len(list((published.path / "objects/pack").glob("*.pack"))) == 3
    found = fetch(mirror, [remote], "main")
    assert (found.commit, found.rebuilt) == (new, "")
    assert mirror.damage() == mirror.fsck() == ""


def test_a16_other_places_that_it_names_are_not_asked(
    published: Published, server: Files, remote: Remote, mirror: Mirror, tmp_path: Path
) -> None:
    """Objects that are there no more, and a file that says where they could be."""
    (tmp_path / "elsewhere").mkdir()
    other = Files(tmp_path / "elsewhere", (remote.ca_file, str(tmp_path / "server.key")))
    try:
        info = published.path / "objects/info"
        for name in ("http-alternates", "alternates"):
            (info / name).write_text(f"{other.url}/state.git/objects\n")
        packs = published.path / "objects/pack"
        packs.rename(tmp_path / "packs")
        (info / "packs").write_text("\n")
        with pytest.raises(SourceError):
            fetch(mirror, [remote], "main")
        assert any("http-alternates" in path for path in server.seen)
        assert other.seen == []
        (tmp_path / "packs").rename(packs)
        head = published.publish()
        assert fetch(mirror, [remote], "main").commit == head
        assert other.seen == []
    finally:
        other.stop()


def test_a8_packs_that_are_more_together_than_the_mirror_may_be(
    published: Published, remote: Remote, mirror: Mirror
) -> None:
    """Each of them alone is within its limit."""
    published.git("config", "transfer.unpackLimit", "1")
    for n in range(4):
        published.repo.commit(None, {f"noise{n}": os.urandom(40_000).hex()})
        published.publish(packed=False)
    assert len(list((published.path / "objects/pack").glob("*.pack"))) >= 4
    with pytest.raises(SourceError, match="larger than its mirror"):
        fetch(mirror, [remote], "main", Limits(mirror=100_000))
    assert not mirror.exists
