"""Who descends from whom is what the commits say, and not what somebody has written beside them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.errors import Damaged
from reconciler.source.ancestry import Ancestry
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror
from reconciler.source.objects import Objects
from reconciler.source.remote import Remote
from source.forging import forge
from source.signers import People, StateRepo, git_environment


@pytest.fixture
def repo(tmp_path: Path) -> StateRepo:
    repo = StateRepo(tmp_path / "state", People(tmp_path / "people"))
    for n in range(4):
        repo.commit(None, {"a": f"{n}\n"})
    return repo


@pytest.fixture
def mirror(repo: StateRepo, tmp_path: Path) -> Mirror:
    mirror = Mirror(str(tmp_path / "host" / "mirror.git"))
    fetch(mirror, [Remote(str(repo.path))], "main")
    return mirror


@pytest.fixture
def history(mirror: Mirror) -> Iterator[Ancestry]:
    with closing(Objects(mirror.git)) as objects:
        yield Ancestry(mirror.git, objects)


def fresh(mirror: Mirror) -> Ancestry:
    return Ancestry(mirror.git, Objects(mirror.git))


def aside(repo: StateRepo, mirror: Mirror) -> str:
    """A commit beside the branch, which the mirror has as well."""
    repo.git("checkout", "--quiet", "-b", "aside", "HEAD~2")
    stranger = repo.commit(None, {"stranger": "1\n"})
    fetch(mirror, [Remote(str(repo.path))], "aside")
    repo.git("checkout", "--quiet", "main")
    return stranger


def test_what_is_not_known_is_no_ancestor(history: Ancestry, repo: StateRepo) -> None:
    old = repo.git("rev-parse", "HEAD~2")
    assert history.is_ancestor(old, repo.head)
    assert history.is_ancestor(old, old)
    assert not history.is_ancestor(repo.head, old)
    assert not history.is_ancestor("f" * 40, repo.head)
    assert not history.is_ancestor(repo.head, "f" * 40)
    assert not history.is_ancestor("f" * 40, "f" * 40)
    assert not history.is_ancestor("main", repo.head)
    assert not history.is_ancestor("", repo.head)
    assert not history.is_ancestor(repo.git("rev-parse", "HEAD:a"), repo.head)


def test_what_lies_between_two_commits(history: Ancestry, repo: StateRepo) -> None:
    newest, third, second, first = repo.git("rev-list", "main").split()
    assert history.between(second, newest, 10) == [newest, third]
    assert history.between(newest, newest, 10) == []
    assert history.between("", newest, 10) == [newest, third, second, first]
    assert history.between("", newest, 2) == [newest, third]


@pytest.mark.parametrize("date", ["2020-01-01T00:00:00Z", "2036-01-01T00:00:00Z"])
def test_branches_that_were_merged_are_between_too_whatever_their_dates(
    repo: StateRepo, mirror: Mirror, date: str
) -> None:
    since = repo.head
    repo.git("checkout", "--quiet", "-b", "side", "HEAD~3")
    sides = [repo.commit(None, {f"s{n}": "x\n"}, date=date) for n in range(3)]
    repo.git("checkout", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "merge", "side", date=date)
    fetch(mirror, [Remote(str(repo.path))], "main")
    found = fresh(mirror).between(since, repo.head, 10)
    assert set(found) == {repo.head, *sides}
    assert found[0] == repo.head
    assert fresh(mirror).is_ancestor(sides[0], repo.head)


def test_a_parent_that_was_written_into_a_commit_is_none(repo: StateRepo, mirror: Mirror) -> None:
    """Git itself believes it."""
    stranger, newest, below = aside(repo, mirror), repo.head, repo.git("rev-parse", "HEAD~1")
    forge(
        mirror.path,
        stranger,
        repo.raw(stranger).replace(b"\nparent ", b"\nparent %s\nparent " % newest.encode()),
    )
    assert mirror.git.run("rev-list", "--ancestry-path", stranger, f"^{newest}")
    with pytest.raises(Damaged, match="somebody has written into it"):
        fresh(mirror).is_ancestor(newest, stranger)
    with pytest.raises(Damaged):
        fresh(mirror).is_ancestor(below, stranger)


def test_a_way_that_leads_through_a_forged_commit_is_none(repo: StateRepo, mirror: Mirror) -> None:
    newest, third, second, _ = repo.git("rev-list", "main").split()
    stranger = aside(repo, mirror)
    forge(mirror.path, third, repo.raw(third).replace(second.encode(), stranger.encode()))
    assert mirror.git.run("rev-list", "--ancestry-path", newest, f"^{stranger}")
    with pytest.raises(Damaged):
        fresh(mirror).is_ancestor(stranger, newest)


def test_no_commit_between_two_others_can_be_left_out(repo: StateRepo, mirror: Mirror) -> None:
    """The way past a commit that nobody has signed would lead through one that says so."""
    newest, third, second, _ = repo.git("rev-list", "main").split()
    forge(mirror.path, newest, repo.raw(newest).replace(third.encode(), second.encode()))
    assert mirror.git.run("rev-list", newest, f"^{second}").decode().split() == [newest]
    with pytest.raises(Damaged):
        fresh(mirror).between(second, newest, 10)


def test_no_commit_can_be_left_out_by_a_trusted_one_that_has_got_another_parent(
    repo: StateRepo, mirror: Mirror
) -> None:
    """What the trusted commit descends from need not be looked at again."""
    since, stranger = repo.head, aside(repo, mirror)
    repo.git("merge", "--quiet", "--no-ff", "-m", "merge", stranger)
    fetch(mirror, [Remote(str(repo.path))], "main")
    assert set(fresh(mirror).between(since, repo.head, 10)) == {repo.head, stranger}
    forged = repo.raw(since).replace(b"\nauthor ", b"\nparent %s\nauthor " % stranger.encode())
    forge(mirror.path, since, forged)
    assert mirror.git.run("rev-list", repo.head, f"^{since}").decode().split() == [repo.head]
    with pytest.raises(Damaged):
        fresh(mirror).between(since, repo.head, 10)


def test_no_commit_is_between_that_does_not_lie_there(repo: StateRepo, mirror: Mirror) -> None:
    """An approval counts only if it was merged."""
    newest, third, *_ = repo.git("rev-list", "main").split()
    stranger = aside(repo, mirror)
    forge(
        mirror.path,
        newest,
        repo.raw(newest).replace(b"\nparent ", b"\nparent %s\nparent " % stranger.encode()),
    )
    assert stranger in mirror.git.run("rev-list", newest).decode()
    with pytest.raises(Damaged):
        fresh(mirror).between(third, newest, 10)


def test_a_parent_counts_only_in_its_place(repo: StateRepo, mirror: Mirror) -> None:
    """As git reads it: a line further down is no parent."""
    raw = repo.raw().replace(b"\n\n", b"\nparent %s\n\n" % repo.head.encode(), 1)
    odd = repo.object(raw)
    repo.git("update-ref", "refs/heads/odd", odd)
    fetch(mirror, [Remote(str(repo.path))], "odd")
    assert fresh(mirror).parents(odd) == (repo.git("rev-parse", "HEAD~1"),)
    assert not fresh(mirror).is_ancestor(repo.head, odd)


@pytest.mark.parametrize("name", ["commit-graph", "commit-graphs"])
def test_a_commit_graph_that_lies_about_history_is_not_read(
    mirror: Mirror, repo: StateRepo, tmp_path: Path, name: str
) -> None:
    """Git takes such a file for a faster way to the same answers."""
    head, below, old, _ = repo.git("rev-list", "main").split()
    liar = shutil.copytree(mirror.path, tmp_path / "liar")
    forge(str(liar), head, repo.raw(head).replace(below.encode(), old.encode()))
    write = ["git", "commit-graph", "write", "--reachable"]
    split = ["--split"] if name == "commit-graphs" else []
    subprocess.run([*write, *split], cwd=liar, env=git_environment(), check=True)
    assert (liar / "objects/info" / name).exists()
    shutil.copytree(liar / "objects/info", f"{mirror.path}/objects/info", dirs_exist_ok=True)
    listed = subprocess.run(
        ["git", "rev-list", head],
        cwd=mirror.path,
        env=git_environment(),
        check=True,
        capture_output=True,
    )
    assert below not in listed.stdout.decode()
    assert fresh(mirror).between(old, head, 10) == [head, below]
    assert fresh(mirror).is_ancestor(below, head)
    assert fetch(mirror, [Remote(str(repo.path))], "main").rebuilt
