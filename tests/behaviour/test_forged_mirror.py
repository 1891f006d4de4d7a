"""Promise 8, where somebody could once write into the mirror: the user that fetches, for a moment.

Git believes what lies in a repository under an id. Here that is hashed, so what was put there is
damage: nothing is trusted by it, the mirror is made anew, and then the truth is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import BadSignature, Damaged, NotApproved, NotFastForward, TrustError
from reconciler.source.fetch import Fetched, fetch
from reconciler.source.remote import Remote
from reconciler.source.trust import Verdict, accept, review
from source.forging import forge
from source.signers import NOW, People, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A host that trusts Ada and Grace, and has accepted a few commits."""
    people = People(tmp_path / "keys")
    world = World(tmp_path / "world", people)
    world.allow(people.line("ada"), people.line("grace"))
    for n in range(3):
        world.repo.commit("ada", {"site.yml": f"[] # {n}\n", "reconciler.yml": "epoch: 3\n"})
    world.pull()
    return world


def with_parent(world: World, commit: str, parent: str) -> None:
    """Make it seem that a commit was made on top of another one as well."""
    raw = world.repo.raw(commit)
    forge(
        world.mirror.path,
        commit,
        raw.replace(b"\nauthor ", b"\nparent %s\nauthor " % parent.encode(), 1),
    )


def is_damage(world: World, fetched: Fetched) -> None:
    """Nothing is accepted, and the next fetch makes another mirror, without reading this one whole."""
    mark, trusted = world.marks.load(), world.trusted
    with pytest.raises(Damaged) as caught:
        accept(world.marks, world.mirror, fetched, world.policy)
    assert (world.marks.load(), world.trusted) == (mark, trusted)
    world.mirror.suspect(caught.value.message)
    assert world.fetch().rebuilt == caught.value.message[:200]


def test_a_history_beside_the_trusted_one(world: World) -> None:
    trusted = world.repo.head
    world.repo.git("reset", "--quiet", "--hard", "HEAD~2")
    head = world.repo.commit("ada", {"a": "2\n"})
    fetched = world.fetch()
    with_parent(world, head, trusted)
    is_damage(world, fetched)
    with pytest.raises(NotFastForward):
        world.pull()


def test_a_history_beside_the_trusted_one_deeper_down(world: World) -> None:
    trusted = world.repo.head
    world.repo.git("reset", "--quiet", "--hard", "HEAD~2")
    below = world.repo.commit("ada", {"a": "2\n"})
    world.repo.commit("ada", {"a": "3\n"})
    fetched = world.fetch()
    with_parent(world, below, trusted)
    is_damage(world, fetched)
    with pytest.raises(NotFastForward):
        world.pull()


def test_a_commit_that_nobody_signed_is_passed_over(world: World) -> None:
    world.change(mode="every")
    trusted = world.repo.head
    unsigned = world.repo.commit(None)
    below = world.repo.commit("ada")
    world.repo.commit("ada")
    fetched = world.fetch()
    raw = world.repo.raw(below)
    forge(world.mirror.path, below, raw.replace(unsigned.encode(), trusted.encode()))
    is_damage(world, fetched)
    with pytest.raises(BadSignature, match=unsigned[:12]):
        world.pull()


def test_an_approval_that_was_never_merged(world: World) -> None:
    world.change(protected=("secrets/",), approvals=2)
    change = world.repo.commit("ada", {"secrets/db": "x\n"})
    world.repo.git("checkout", "--quiet", "-b", "aside")
    approval = world.repo.commit("grace", message=f"approved\n\nApproves: {change}")
    fetch(world.mirror, [Remote(str(world.repo.path))], "aside")
    world.repo.git("checkout", "--quiet", "main")
    world.repo.commit("ada")
    fetched = world.fetch()
    with_parent(world, world.repo.head, approval)
    is_damage(world, fetched)
    with pytest.raises(NotApproved, match="1 of 2"):
        world.pull()


def other_content(world: World, name: str, content: bytes) -> None:
    forge(world.mirror.path, world.repo.git("rev-parse", f"HEAD:{name}"), content)


FORGERIES: dict[str, Callable[[World], None]] = {
    "the commit": lambda world: forge(
        world.mirror.path, world.repo.head, world.repo.raw().replace(b"a change", b"another")
    ),
    "its directory": lambda world: forge(
        world.mirror.path, world.repo.git("rev-parse", "HEAD^{tree}"), b""
    ),
    "its settings": lambda world: other_content(world, "reconciler.yml", b"epoch: 9\n"),
}


@pytest.mark.parametrize("what", FORGERIES)
@pytest.mark.parametrize("mode", ["none", "head", "every"])
def test_what_a_commit_is_judged_by(world: World, what: str, mode: str) -> None:
    world.change(mode=mode)
    world.repo.commit("ada", {"reconciler.yml": "epoch: 1\n"})
    fetched = world.fetch()
    FORGERIES[what](world)
    is_damage(world, fetched)
    with pytest.raises(TrustError, match="epoch 1; 3 was trusted before"):
        world.pull()


def test_what_the_protected_paths_hold(world: World) -> None:
    world.change(protected=("secrets/",), approvals=2)
    world.repo.commit("ada", {"secrets/db": "x\n"})
    fetched = world.fetch()
    forge(world.mirror.path, world.repo.git("rev-parse", "HEAD:secrets"), b"")
    is_damage(world, fetched)
    with pytest.raises(NotApproved):
        world.pull()


@pytest.mark.parametrize("mode", ["none", "head"])
def test_a_tag_that_names_another_commit(world: World, mode: str) -> None:
    world.change(mode=mode)
    repo = world.repo
    good, evil = repo.commit("ada"), repo.commit("ada", {"site.yml": "[] # evil\n"})
    repo.git(*repo.signing("ada"), "tag", "-s", "-m", "release", "v1", good)
    tag = repo.git("rev-parse", "v1")
    world.fetch()
    world.ref = "refs/tags/v1"
    assert world.fetch().commit == good
    forge(world.mirror.path, tag, repo.raw("v1", "tag").replace(good.encode(), evil.encode()))
    fetched = Fetched(evil, tag, world.ref, "origin", NOW)
    is_damage(world, fetched)
    assert world.pull().commit == good


def test_the_commit_that_was_trusted_is_reviewed_as_it_is(world: World) -> None:
    forge(world.mirror.path, world.repo.head, world.repo.raw().replace(b"a change", b"another"))
    with pytest.raises(Damaged):
        review(world.mirror, world.marks.load(), world.policy)


def test_without_a_forgery_all_of_this_is_accepted(world: World) -> None:
    """So none of the above is refused for another reason."""
    world.change(mode="every", protected=("secrets/",), approvals=2)
    change = world.repo.commit("ada", {"secrets/db": "x\n"})
    world.repo.commit("grace", message=f"approved\n\nApproves: {change}")
    verdict: Verdict = world.pull()
    assert verdict.advanced
    assert review(world.mirror, world.marks.load(), world.policy) is None
