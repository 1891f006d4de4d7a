"""What is read of a repository is what its ids say, whoever could once write into it."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, Damaged, ReconcilerError
from reconciler.source import GitTree, WorkTree
from reconciler.source import listing as listing_module
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror
from reconciler.source.objects import Objects
from reconciler.source.remote import Remote
from source.forging import forge
from source.signers import People, StateRepo

FORMATS = [(), ("--object-format=sha256",)]


@pytest.fixture(params=FORMATS, ids=["sha1", "sha256"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> StateRepo:
    repo = StateRepo(tmp_path / "state", People(tmp_path / "people"), *request.param)
    repo.commit(None, {"site.yml": "good: 1\n", "roles/base/files/f": "good\n"})
    return repo


@pytest.fixture
def mirror(repo: StateRepo, tmp_path: Path) -> Mirror:
    mirror = Mirror(str(tmp_path / "host" / "mirror.git"))
    fetch(mirror, [Remote(str(repo.path))], "main")
    return mirror


def test_a_content_that_was_put_in_the_place_of_another(repo: StateRepo, mirror: Mirror) -> None:
    forge(mirror.path, repo.git("rev-parse", "HEAD:site.yml"), b"evil: 1\n")
    tree = GitTree(mirror.path, repo.head)
    with pytest.raises(Damaged, match="not what its id says"):
        tree.read("site.yml")
    assert tree.read("roles/base/files/f") == b"good\n"
    tree.close()


def test_a_long_content_ends_with_an_error_and_is_never_whole(
    repo: StateRepo, mirror: Mirror
) -> None:
    """It streams, so that nobody can know before its end; then nobody has all of it."""
    evil = os.urandom(5 << 20)
    forge(mirror.path, repo.git("rev-parse", "HEAD:roles/base/files/f"), evil)
    tree, got = GitTree(mirror.path, repo.head), io.BytesIO()
    with pytest.raises(Damaged):
        got.writelines(tree.chunks("roles/base/files/f"))
    assert 0 < got.tell() < len(evil)
    assert tree.read("site.yml") == b"good: 1\n"
    tree.close()


@pytest.mark.parametrize("path", ["", "roles", "roles/base/files"])
def test_a_directory_that_was_put_in_the_place_of_another(
    repo: StateRepo, mirror: Mirror, path: str
) -> None:
    id_ = repo.git("rev-parse", f"HEAD:{path}")
    raw = repo.raw(id_, "tree")
    other = bytes.fromhex(repo.object(b"evil\n", "blob"))
    forge(mirror.path, id_, raw[: -len(other)] + other)
    with pytest.raises(Damaged, match="not what its id says"):
        GitTree(mirror.path, repo.head)


def test_a_commit_that_was_put_in_the_place_of_another(repo: StateRepo, mirror: Mirror) -> None:
    trusted = repo.head
    evil = repo.commit(None, {"site.yml": "evil: 1\n"})
    fetch(mirror, [Remote(str(repo.path))], "main")
    forge(mirror.path, trusted, repo.raw(evil))
    with pytest.raises(Damaged, match="not what its id says"):
        GitTree(mirror.path, trusted)


def test_a_tag_that_was_put_in_the_place_of_a_commit(repo: StateRepo, mirror: Mirror) -> None:
    """Nothing is read by way of it."""
    trusted = repo.head
    evil = repo.commit(None, {"site.yml": "evil: 1\n"})
    fetch(mirror, [Remote(str(repo.path))], "main")
    tag = f"object {evil}\ntype commit\ntag v1\ntagger A <a@b> 0 +0000\n\nx\n"
    forge(mirror.path, trusted, tag.encode(), "tag")
    with pytest.raises(Damaged, match="not what its id says"):
        GitTree(mirror.path, trusted)


def test_an_object_that_is_gone(repo: StateRepo) -> None:
    id_ = repo.git("rev-parse", "HEAD:roles/base")
    (repo.path / ".git/objects" / id_[:2] / id_[2:]).unlink()
    with pytest.raises(Damaged, match="is missing"):
        GitTree(str(repo.path), repo.head)


def test_a_full_id_of_a_tag_stands_for_its_commit(repo: StateRepo) -> None:
    repo.git("tag", "-a", "-m", "text", "v1")
    repo.git("tag", "-a", "-m", "text", "v1-again", "v1")
    for name in ("v1", "v1-again"):
        assert GitTree(str(repo.path), repo.git("rev-parse", name)).commit == repo.head


def test_objects_in_a_row_are_those_that_were_asked_for(repo: StateRepo) -> None:
    """However many there are, and whatever was left unread before."""
    contents = [b"%d\n" % n * (n + 1) for n in range(300)]
    ids = [repo.object(content, "blob") for content in contents]
    with closing(Objects(Mirror(str(repo.path / ".git")).git)) as objects:
        assert objects.find(ids[7]) is not None
        assert [content for _, content in objects.read_all(ids, 1 << 20)] == contents
        assert list(objects.read_all([], 1)) == []
        with pytest.raises(ConfigError, match="more than the limit"):
            list(objects.read_all(ids, 100))


def nested(repo: StateRepo, width: int, depth: int) -> str:
    """A commit of one file in directories that are each the same so many times over."""
    blob, mode = repo.git("rev-parse", "HEAD:site.yml"), b"100644"
    for _ in range(depth):
        names = (b"%s d%05d\0%s" % (mode, n, bytes.fromhex(blob)) for n in range(width))
        blob, mode = repo.object(b"".join(names), "tree"), b"40000"
    return repo.git("commit-tree", "-m", "nested", blob)


def test_directories_without_end_are_refused_before_they_are_listed(
    repo: StateRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MAX_NAMES", 2000)
    commit = nested(repo, 10, 12)
    with pytest.raises(ConfigError, match="more than 2000 files"):
        GitTree(str(repo.path), commit)
    repo.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(ConfigError, match="more than 2000 files"):
        WorkTree(str(repo.path)).entry("a")


def test_directories_below_each_other_have_an_end(repo: StateRepo) -> None:
    assert GitTree(str(repo.path), nested(repo, 1, 64)).entry("/".join(["d00000"] * 64))
    with pytest.raises(ConfigError, match="more than 64 directories below each other"):
        GitTree(str(repo.path), nested(repo, 1, 70))


def test_long_names_are_refused_before_there_are_many_of_them(repo: StateRepo) -> None:
    """One object with a giant's name, and one that names it often, would fill any memory."""
    blob = bytes.fromhex(repo.git("rev-parse", "HEAD:site.yml"))
    for length, fits in ((4096 - len("d000/"), True), (4096, False), (8 << 20, False)):
        inner = repo.object(b"100644 %s\0%s" % (b"a" * length, blob), "tree")
        names = (b"40000 d%03d\0%s" % (n, bytes.fromhex(inner)) for n in range(1000 - 900 * fits))
        commit = repo.git("commit-tree", "-m", "x", repo.object(b"".join(names), "tree"))
        if fits:
            assert len(GitTree(str(repo.path), commit).listdir("")) == 100
            continue
        with pytest.raises(ConfigError, match=r"^d000/a+\.\.\.: a path of more than 4096 bytes"):
            GitTree(str(repo.path), commit)


def test_paths_that_are_too_long_all_together_are_refused_before_they_are_listed(
    repo: StateRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "MAX_PATHS", 20_000)
    assert GitTree(str(repo.path), nested(repo, 5, 4)).commit
    commit = nested(repo, 10, 4)
    with pytest.raises(ConfigError, match="more than 20000 characters together"):
        GitTree(str(repo.path), commit)
    monkeypatch.setattr(listing_module, "MAX_PATHS", 65)
    with pytest.raises(ConfigError, match="more than 65 characters together"):
        GitTree(str(repo.path), commit)


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b""])
def test_a_name_that_is_a_path_makes_a_directory_malformed(repo: StateRepo, name: bytes) -> None:
    blob = bytes.fromhex(repo.git("rev-parse", "HEAD:site.yml"))
    tree = repo.object(b"100644 %s\0%s" % (name, blob), "tree")
    commit = repo.git("commit-tree", "-m", "odd", tree)
    with pytest.raises(ReconcilerError, match="malformed"):
        GitTree(str(repo.path), commit)


def test_the_digest_of_a_content_is_of_what_was_read(repo: StateRepo, mirror: Mirror) -> None:
    with closing(Objects(mirror.git)) as objects:
        found = objects.read(f"{repo.head}:site.yml", 100)
        assert found is not None
        name = "sha1" if len(found[0].id) == 40 else "sha256"
        assert hashlib.new(name, b"blob 8\0" + found[1]).hexdigest() == found[0].id
