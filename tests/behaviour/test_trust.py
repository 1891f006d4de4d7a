"""Promise 8: an untrusted commit is refused, and the host is held to the last trusted one.

Each test is an attack, or an accident that looks like one, made as a real repository with real
keys. Whatever is refused, exit code 10 and a hint come with it, and nothing has moved.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import (
    BadSignature,
    NotApproved,
    NotFastForward,
    SourceError,
    Stale,
    StateLost,
    TrustError,
    UsageError,
    WrongRepository,
)
from reconciler.source import signature
from reconciler.source.fetch import fetch
from reconciler.source.mark import Marks
from reconciler.source.remote import Remote
from reconciler.source.signature import Keys
from reconciler.source.trust import accept, review, show
from source.signers import NOW, People, StateRepo, World, later


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def first_world(tmp_path_factory: pytest.TempPathFactory, people: People) -> World:
    world = World(tmp_path_factory.mktemp("first") / "world", people)
    world.repo.commit("ada", {"site.yml": "[]\n"})
    world.pull()
    return world


@pytest.fixture
def world(tmp_path: Path, first_world: World) -> World:
    """A host that trusts Ada, and has accepted her first commit."""
    return first_world.copy(tmp_path / "world")


@contextmanager
def refused(world: World, kind: type[TrustError], *words: str) -> Iterator[None]:
    """The attack is refused in this way, with something to do; the host stays where it was."""
    before, mark = world.trusted, world.marks.load()
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.exit_code == 10
    assert caught.value.hint
    for word in words:
        assert word in f"{caught.value}", f"{caught.value}"
    assert world.trusted == before
    assert world.marks.load() == mark


def test_a_signed_commit_on_top_is_accepted(world: World) -> None:
    head = world.repo.commit("ada")
    verdict = world.pull()
    assert (verdict.commit, verdict.advanced, verdict.checked) == (head, True, 1)
    assert world.trusted == head
    assert "ada@example.org" in world.marks.load().signers[0]


def test_the_same_commit_again_is_no_news(world: World) -> None:
    before = world.marks.load()
    verdict = world.pull(later(hours=1))
    assert not verdict.advanced
    assert verdict.mark == before


# B1 - B5: who signed


def test_b1_an_unsigned_commit(world: World) -> None:
    world.repo.commit(None)
    with refused(world, BadSignature, "not signed", "commit --amend -S"):
        world.pull()


def test_b2_a_valid_signature_by_an_unknown_key(world: World) -> None:
    world.repo.commit("mallory")
    with refused(world, BadSignature, "not one of the allowed signers", str(world.signers)):
        world.pull()


def test_b2_a_known_name_with_another_key(world: World, people: People) -> None:
    world.allow(f'ada@example.org namespaces="git" {people.public("other")}\n')
    world.repo.commit("ada")
    with refused(world, BadSignature, "allowed signers"):
        world.pull()


def test_b3_a_key_for_another_purpose(world: World, people: People) -> None:
    world.allow(people.line("ada", 'namespaces="file"'))
    world.repo.commit("ada")
    with refused(world, BadSignature):
        world.pull()


def test_b3_a_signature_that_was_made_for_another_purpose(world: World, people: People) -> None:
    """Ada signed these bytes as a file; that does not make them a commit of hers."""
    world.repo.commit(None)
    payload = world.repo.raw()
    armour = people.run(
        "ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(people.key("ada")), stdin=payload
    )
    world.repo.git("reset", "--quiet", "--hard", forged(world.repo, payload, armour))
    with refused(world, BadSignature):
        world.pull()


def test_b4_a_key_that_has_expired(world: World, people: People) -> None:
    world.allow(people.line("ada", 'namespaces="git",valid-before="20260601"'))
    world.repo.commit("ada")
    with refused(world, BadSignature, "not valid when it was received", "expired"):
        world.pull()


def test_b4_a_key_that_is_not_valid_yet(world: World, people: People) -> None:
    world.allow(people.line("ada", 'namespaces="git",valid-after="20260602"'))
    world.repo.commit("ada")
    with refused(world, BadSignature, "not yet valid"):
        world.pull()
    assert world.pull(later(days=1)).advanced


def test_b5_an_expired_key_and_a_date_from_before(world: World, people: People) -> None:
    """git itself accepts this one: it verifies at the date that the commit claims."""
    world.allow(people.line("ada", 'namespaces="git",valid-before="20260501"'))
    world.repo.commit("ada", date="2026-01-01T00:00:00+00:00")
    by_git = f"gpg.ssh.allowedSignersFile={world.signers}"
    world.repo.git("-c", by_git, "verify-commit", "HEAD")
    with refused(world, BadSignature, "expired"):
        world.pull()


def test_b5_a_clock_that_was_set_back_brings_no_key_to_life(world: World, people: People) -> None:
    world.allow(people.line("ada", 'namespaces="git",valid-before="20260601"'))
    world.repo.commit("ada")
    with refused(world, BadSignature, "expired"):
        world.pull(later(days=-90))


def test_b5_nor_where_the_branch_was_quiet_since_the_key_expired(
    world: World, people: People
) -> None:
    """Nothing new came when the clock was right; but the remote was heard."""
    world.allow(
        people.line("ada", 'namespaces="git",valid-before="20260601"'), people.line("grace")
    )
    world.repo.commit("grace")
    world.pull(later(days=-90))
    world.pull()
    for days in (-60, -30, -50):
        assert not world.pull(later(days=days)).advanced
    world.repo.commit("ada")
    with refused(world, BadSignature, "expired", "a remote was heard"):
        world.pull(later(days=-40))
    world.repo.commit("grace")
    assert world.pull(later(days=-40)).advanced


@pytest.mark.parametrize("news", [True, False])
def test_a_clock_that_was_wrong_is_named_and_a_person_can_say_so(
    world: World, people: People, monkeypatch: pytest.MonkeyPatch, news: bool
) -> None:
    """Once a year ahead: from then on the key counts as expired, until somebody takes that back."""
    options = f'namespaces="git",valid-before="{NOW.year + 1}0101"'
    world.allow(people.line("ada", options), people.line("grace"))
    trusted = world.repo.commit("grace")
    if not news:
        world.pull()
    assert world.pull(at=later(days=365)).commit == trusted
    head = world.repo.commit("ada")
    with refused(world, BadSignature, "was wrong", f"trust reset --to {trusted}"):
        world.pull()
    monkeypatch.setattr("reconciler.source.mark.time.time", NOW.timestamp)
    world.marks.reset(trusted, "the clock was wrong", "root")
    assert world.pull().commit == head


def test_i1_a_clock_before_the_key_puts_a_commit_off_and_refuses_it_for_no_longer(
    tmp_path: Path, people: People
) -> None:
    """A board without a clock of its own boots ten years ago, before it ever trusted anything."""
    world = World(tmp_path / "world", people)
    world.allow(people.line("ada", 'namespaces="git",valid-after="20260101"'))
    head = world.repo.commit("ada")
    begun = world.marks.load()
    for _ in range(2):
        with pytest.raises(BadSignature, match="not yet valid") as caught:
            world.pull(later(days=-3650))
        assert caught.value.hint
        assert world.marks.load() == begun
    assert world.pull().advanced
    assert world.trusted == head


@pytest.mark.parametrize("mode", ["none", "head", "every"])
def test_i4_dates_of_commits_say_nothing_about_their_order(world: World, mode: str) -> None:
    world.change(mode=mode)
    dates = ["2099-12-31T23:59:59+00:00", "1970-01-01T00:00:00+00:00", "2001-01-01T00:00:00+14:00"]
    commits = [world.repo.commit("ada", date=date) for date in dates]
    verdict = world.pull()
    assert (verdict.commit, verdict.advanced) == (commits[-1], True)
    assert verdict.checked == {"none": 0, "head": 1, "every": 3}[mode]
    assert world.marks.load().received_at == NOW.timestamp()
    world.repo.git("reset", "--quiet", "--hard", commits[0])
    with refused(world, NotFastForward, "older"):
        world.pull()
    world.repo.commit("ada", date=dates[0])
    with refused(world, NotFastForward, "not on top of"):
        world.pull()


# revocation, case B6


def revoke(world: World, people: People, name: str) -> None:
    krl = world.signers.parent / "revoked"
    people.run("ssh-keygen", "-q", "-k", "-f", str(krl), str(people.key(name)) + ".pub")
    world.change(keys=replace(world.policy.keys, revoked=str(krl)))


def test_b6_a_revoked_key_signs_nothing_new(world: World, people: People) -> None:
    revoke(world, people, "ada")
    world.repo.commit("ada")
    with refused(world, BadSignature, "revoked"):
        world.pull()


def test_b6_a_key_that_is_revoked_later_is_an_alarm_for_what_it_signed(
    world: World, people: People
) -> None:
    mark = world.marks.load()
    assert review(world.mirror, mark, world.policy) is None
    revoke(world, people, "ada")
    assert not world.pull().advanced
    alarm = review(world.mirror, mark, world.policy)
    assert alarm is not None
    assert "revoked" in alarm.message


def test_b6_a_key_that_expires_later_is_none(world: World, people: People) -> None:
    world.allow(people.line("ada", 'namespaces="git",valid-before="20260602"'))
    assert review(world.mirror, world.marks.load(), world.policy) is None


# B7: the state repo says nothing about whom to trust


def test_b7_a_commit_cannot_add_its_own_signer(world: World, people: People) -> None:
    world.repo.commit("mallory", {"allowed_signers": people.line("mallory")})
    world.repo.git("config", "gpg.ssh.allowedSignersFile", "allowed_signers")
    with refused(world, BadSignature, "allowed signers"):
        world.pull()


def test_b7_keys_that_others_can_change_say_nothing(world: World) -> None:
    world.signers.chmod(0o666)
    world.repo.commit("ada")
    with refused(world, TrustError, "can be changed by others", "chmod"):
        world.pull()


def test_keys_that_are_gone_trust_nobody(world: World) -> None:
    world.signers.unlink()
    world.repo.commit("ada")
    with refused(world, TrustError, "cannot read the trusted keys"):
        world.pull()


# bytes, case B8


def forged(repo: StateRepo, payload: bytes, armour: bytes) -> str:
    head, body = payload.split(b"\n\n", 1)
    header = b"gpgsig " + armour.rstrip(b"\n").replace(b"\n", b"\n ")
    return repo.object(head + b"\n" + header + b"\n\n" + body)


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "another subject": lambda raw: raw.replace(b"a change", b"a chance"),
    "another tree": lambda raw: raw.replace(
        raw[:45], b"tree " + b"4b825dc642cb6eb9a060e54bf8d69288fbee4904"
    ),
    "a second signature": lambda raw: raw.replace(b"\ngpgsig ", b"\ngpgsig x\ngpgsig ", 1),
    "a header behind it": lambda raw: raw.replace(b"\n\n", b"\nmergetag object x\n\n", 1),
    "a signature in the message": lambda raw: (
        b"\n".join(line for line in raw.split(b"\n") if not line.startswith((b"gpgsig", b" ")))
        + raw[raw.index(b"gpgsig") :]
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_b8_a_commit_around_the_signature_of_another(world: World, how: str) -> None:
    world.repo.commit("ada")
    raw = FORGERIES[how](world.repo.raw())
    assert raw != world.repo.raw()
    world.repo.git("reset", "--quiet", "--hard", world.repo.object(raw))
    with refused(world, BadSignature):
        world.pull()


@pytest.mark.parametrize("mode", ["none", "head", "every"])
def test_b8_a_commit_that_is_too_large_to_be_looked_at(world: World, mode: str) -> None:
    """It is refused, and not taken for trouble that goes away."""
    world.change(mode=mode)
    head = world.repo.object(world.repo.raw(world.repo.commit("ada")) + b"x" * (1 << 21))
    world.repo.git("update-ref", "refs/heads/main", head)
    with refused(world, TrustError, "more than the limit"):
        world.pull()


def test_b8_a_signed_merge_of_a_signed_tag_is_accepted(world: World) -> None:
    repo = world.repo
    repo.git("checkout", "--quiet", "-b", "side")
    repo.commit("ada", {"side": "1\n"})
    repo.git(*repo.signing("ada"), "tag", "-s", "-m", "text", "v1")
    repo.git("checkout", "--quiet", "main")
    repo.commit("ada", {"main": "1\n"})
    repo.git(*repo.signing("ada"), "merge", "--quiet", "--no-ff", "-m", "merge", "v1")
    assert b"\nmergetag " in repo.raw()
    world.change(mode="every")
    assert world.pull().checked == 3


# B9, B10: the verifier


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 0", id="says nothing"),
        pytest.param("kill -SEGV $$", id="crashes"),
        pytest.param("echo ada@example.org; exec sleep 60", id="hangs"),
        pytest.param("cat /dev/zero", id="never stops to talk"),
        pytest.param('echo ada@example.org; [ "$2" = find-principals ]', id="finds, and fails"),
        pytest.param(
            'echo ada@example.org; [ "$2" = verify ] && echo "no Good \\"git\\" signature"',
            id="says something else",
        ),
        pytest.param(
            '[ "$2" = verify ] && echo \'Good "git" signature for eve with X key Y\' || echo ada@example.org',
            id="names another",
        ),
        pytest.param(
            'echo ada@example.org\n[ "$2" = find-principals ] || '
            "{ echo 'Good \"git\" signature for ada@example.org with X key Y'; exit 1; }",
            id="praises, and fails",
        ),
    ],
)
def test_b9_a_verifier_that_does_not_do_its_work_has_verified_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    world.repo.commit("ada")
    fake = tmp_path / "verifier"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(signature, "SSH_KEYGEN", str(fake))
    monkeypatch.setattr(signature, "TIMEOUT", 0.5)
    with refused(world, BadSignature):
        world.pull()


def test_b9_without_a_verifier_nothing_is_verified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.repo.commit("ada")
    monkeypatch.setattr(signature, "SSH_KEYGEN", "/nonexistent/ssh-keygen")
    with refused(world, TrustError, "apt-get install openssh-client"):
        world.pull()


def test_b10_programs_on_the_path_and_in_configuration_are_not_asked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ssh-keygen", "gpg", "gpgv"):
        fake = tmp_path / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(
            f"#!/bin/sh\ntouch {tmp_path}/asked\necho ada@example.org\n"
            "echo 'Good \"git\" signature for ada@example.org with X key Y'\n"
        )
        fake.chmod(0o755)
    world.repo.commit("mallory")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    world.repo.git("config", "gpg.ssh.program", f"{tmp_path}/bin/ssh-keygen")
    world.repo.git("config", "gpg.program", f"{tmp_path}/bin/gpg")
    (tmp_path / "asked").unlink(missing_ok=True)
    with refused(world, BadSignature, "allowed signers"):
        world.pull()
    assert not (tmp_path / "asked").exists()


# B11 - B13: history


def test_b11_a_branch_that_was_set_back_to_an_older_signed_commit(world: World) -> None:
    old = world.repo.head
    world.repo.commit("ada")
    world.pull()
    world.repo.git("reset", "--quiet", "--hard", old)
    with refused(world, NotFastForward, "older than", f"trust reset --to {old}"):
        world.pull()


def test_b11_an_older_commit_of_the_same_history_is_told_apart(world: World) -> None:
    """A remote that lags behind is no attack, and must not look like one."""
    world.repo.commit("ada")
    world.pull()
    world.repo.git("reset", "--quiet", "--hard", "HEAD~1")
    with pytest.raises(NotFastForward) as behind:
        world.pull()
    world.repo.commit("ada", {"other": "1\n"})
    with pytest.raises(NotFastForward) as diverged:
        world.pull()
    assert (behind.value.behind, diverged.value.behind) == (True, False)


@pytest.mark.parametrize("mode", ["none", "head", "every"])
def test_b12_a_newer_signed_history_beside_the_trusted_one(world: World, mode: str) -> None:
    world.change(mode=mode)
    world.repo.commit("ada", {"a": "1\n"})
    world.pull()
    world.repo.git("reset", "--quiet", "--hard", "HEAD~1")
    head = world.repo.commit("ada", {"a": "2\n"})
    with refused(world, NotFastForward, "not on top of", f"trust reset --to {head}"):
        world.pull()


def test_b12_a_person_can_accept_a_rewritten_history(world: World) -> None:
    world.repo.commit("ada", {"a": "1\n"})
    world.pull()
    world.repo.git("reset", "--quiet", "--hard", "HEAD~1")
    head = world.repo.commit("ada", {"a": "2\n"})
    world.marks.reset(head, "the key of a customer was in it", "root")
    assert not world.pull().advanced
    assert world.trusted == head
    world.repo.commit("ada")
    assert world.pull().advanced
    [reset] = world.marks.load().resets
    assert (reset.to, reset.reason, reset.by) == (head, "the key of a customer was in it", "root")


def test_b13_the_mark_outlives_the_mirror(world: World) -> None:
    old = world.repo.head
    world.repo.commit("ada")
    newest = world.pull().commit
    shutil.rmtree(world.mirror.path)
    world.repo.git("reset", "--quiet", "--hard", old)
    with pytest.raises(NotFastForward, match="not on top of") as caught:
        world.pull()
    assert caught.value.exit_code == 10
    assert world.marks.load().commit == newest


def test_b13_a_fresh_mirror_of_the_right_history_is_taken_up_again(world: World) -> None:
    shutil.rmtree(world.mirror.path)
    head = world.repo.commit("ada")
    assert world.pull().commit == head == world.trusted


def test_b13_installing_again_does_not_forget(world: World) -> None:
    with pytest.raises(UsageError, match="has a trust file already"):
        world.marks.enrol()


def test_b13_a_host_that_lost_both_copies_trusts_nothing(world: World) -> None:
    for name in ("trust.json", "trust.json.bak"):
        Path(world.marks.directory, name).unlink()
    with pytest.raises(StateLost) as caught:
        world.pull()
    assert caught.value.exit_code == 10
    assert "trust reset --to" in caught.value.hint
    head = world.repo.head
    world.marks.reset(head, "state was lost", "root")
    assert world.pull().commit == head


# B14: a server that shows the same for ever


def test_b14_a_server_that_is_not_reached_for_too_long(world: World) -> None:
    fresh = world.marks.freshness(max_age=3600, now=later(minutes=59).timestamp())
    assert not fresh.stale
    fresh.require()
    old = world.marks.freshness(max_age=3600, now=later(hours=3).timestamp())
    with pytest.raises(Stale, match="for 3 hours"):
        old.require()


def test_b14_a_confirmation_makes_it_fresh_again(world: World) -> None:
    world.pull(later(hours=3))
    assert not world.marks.freshness(max_age=3600, now=later(hours=3).timestamp()).stale


def test_b14_a_branch_that_never_advances_is_an_alarm_where_it_should(world: World) -> None:
    """A server that replays an old branch confirms it each time; only silence gives it away."""
    world.pull(later(days=3))
    fresh = world.marks.freshness(max_age=3600, max_quiet=86400, now=later(days=3).timestamp())
    assert "not advanced for 3 days" in fresh.stale


def test_b14_a_refused_commit_confirms_nothing(world: World) -> None:
    world.repo.commit("mallory")
    with pytest.raises(BadSignature):
        world.pull(later(hours=3))
    assert world.marks.freshness(max_age=3600, now=later(hours=3).timestamp()).stale


# tags, case B15


def tag(world: World, name: str, by: str | None = "ada", *more: str) -> None:
    signed = ["-s", "-m", name] if by else []
    world.repo.git(*world.repo.signing(by), "tag", *signed, *more, name)
    world.ref = f"refs/tags/{name}"


def test_b15_a_signed_tag_stands_for_its_unsigned_commit(world: World) -> None:
    head = world.repo.commit(None)
    tag(world, "v2")
    assert world.pull().commit == head == world.trusted


def test_b15_a_tag_without_a_signature_does_not(world: World) -> None:
    world.repo.commit("ada")
    world.repo.git("tag", "-a", "-m", "text", "v2")
    world.ref = "refs/tags/v2"
    with refused(world, BadSignature, "tag v2", "not signed"):
        world.pull()


def test_b15_a_light_tag_is_as_good_as_its_commit(world: World) -> None:
    head = world.repo.commit("ada")
    tag(world, "v2", None)
    assert world.pull().commit == head


@pytest.mark.parametrize("by", ["ada", None])
def test_b15_a_tag_that_moves(world: World, by: str | None) -> None:
    world.repo.commit("ada")
    tag(world, "v2", by)
    world.pull()
    world.repo.commit("ada")
    tag(world, "v2", by, "--force")
    with refused(world, NotFastForward, "refs/tags/v2 was moved"):
        world.pull()


def test_b15_the_next_tag_is_accepted(world: World) -> None:
    world.repo.commit("ada")
    tag(world, "v2")
    world.pull()
    head = world.repo.commit("ada")
    tag(world, "v3")
    assert world.pull().commit == head


def test_b15_a_signed_tag_under_another_name(world: World) -> None:
    """Whoever can write refs could offer the release of yesterday as that of tomorrow."""
    world.repo.commit("ada")
    tag(world, "v2")
    world.repo.git("update-ref", "refs/tags/v9", "refs/tags/v2")
    world.ref = "refs/tags/v9"
    with refused(world, BadSignature, "made as v2, not as v9"):
        world.pull()


@pytest.mark.parametrize("mode", ["head", "every"])
def test_b15_a_branch_that_names_a_tag_object(world: World, mode: str) -> None:
    """Only a tag is signed under its name; whoever can push could name any of them as a branch."""
    world.change(mode=mode)
    world.repo.commit("ada")
    tag(world, "v1")
    object_ = world.repo.git("rev-parse", "v1")
    world.ref = "main"
    (world.repo.path / ".git/refs/heads/main").write_text(f"{object_}\n")
    with refused(world, BadSignature, f"names the tag object {object_[:12]}", "git update-ref"):
        world.pull()


def test_b15_a_tag_of_a_tag(world: World) -> None:
    world.repo.commit("ada")
    tag(world, "v1")
    repo, mark = world.repo, world.marks.load()
    repo.git(*repo.signing("ada"), "tag", "-s", "-m", "text", "v2", "v1")
    world.ref = "refs/tags/v2"
    with pytest.raises(SourceError, match="does not name a commit"):
        world.pull()
    assert world.marks.load() == mark


@pytest.mark.parametrize("mode", ["none", "head", "every"])
def test_b15_a_tag_that_does_not_name_the_commit_which_is_offered_with_it(
    world: World, mode: str
) -> None:
    world.change(mode=mode)
    world.repo.commit("ada")
    tag(world, "v1")
    fetched = world.fetch()
    other = world.repo.commit("ada")
    world.ref = "main"
    world.fetch()
    with refused(world, BadSignature, "does not name", other[:12]):
        accept(world.marks, world.mirror, replace(fetched, commit=other), world.policy)


# B16: several people


@pytest.fixture
def guarded(world: World, people: People) -> World:
    world.allow(people.line("ada"), people.line("grace"))
    world.change(protected=("secrets/", "*.key"), approvals=2)
    return world


def test_b16_one_signature_is_too_few_for_a_protected_path(guarded: World) -> None:
    head = guarded.repo.commit("ada", {"secrets/db": "x\n"})
    with refused(guarded, NotApproved, "secrets/db", "1 of 2", "ada@", f"Approves: {head}"):
        guarded.pull()


def test_b16_a_second_person_approves(guarded: World) -> None:
    change = guarded.repo.commit("ada", {"secrets/db": "x\n"})
    head = guarded.repo.commit("grace", message=f"approved\n\nApproves: {change}")
    assert guarded.pull().commit == head


def test_b16_other_paths_need_nobody_else(guarded: World) -> None:
    guarded.repo.commit("ada", {"site.yml": "[] # new\n"})
    assert guarded.pull().advanced


@pytest.mark.parametrize("by", ["ada", "mallory", None])
def test_b16_nobody_approves_twice_and_no_stranger_at_all(guarded: World, by: str | None) -> None:
    change = guarded.repo.commit("ada", {"secrets/db": "x\n"})
    guarded.repo.commit(by, message=f"approved\n\nApproves: {change}")
    if by != "ada":
        guarded.repo.commit("ada")
    with refused(guarded, NotApproved, "1 of 2"):
        guarded.pull()


def test_b16_a_signature_on_top_is_no_approval(guarded: World) -> None:
    guarded.repo.commit("ada", {"secrets/db": "x\n"})
    guarded.repo.commit("grace", {"site.yml": "[] # mine\n"})
    with refused(guarded, NotApproved, "1 of 2"):
        guarded.pull()


def test_b16_a_change_after_the_approval_is_not_approved(guarded: World) -> None:
    change = guarded.repo.commit("ada", {"secrets/db": "x\n"})
    guarded.repo.commit("grace", message=f"approved\n\nApproves: {change}")
    guarded.repo.commit("ada", {"secrets/db": "worse\n"})
    with refused(guarded, NotApproved, "1 of 2"):
        guarded.pull()


def test_b16_a_merge_that_brings_old_content_back(guarded: World) -> None:
    """A side branch from before a change, merged so that its side wins, rolls the change back."""
    repo = guarded.repo
    start = repo.head
    change = repo.commit("ada", {"secrets/db": "new\n"})
    repo.commit("grace", message=f"approved\n\nApproves: {change}")
    trusted = guarded.pull().commit
    repo.git("checkout", "--quiet", "-B", "main", start)
    repo.commit("ada", {"other": "1\n"})
    repo.git(*repo.signing("ada"), "merge", "--quiet", "-s", "ours", "-m", "merge", trusted)
    with refused(guarded, NotApproved, "secrets/db", "0 of 2"):
        guarded.pull()


def test_b16_a_path_that_is_removed_is_a_change(guarded: World) -> None:
    change = guarded.repo.commit("ada", {"tls.key": "x\n"})
    guarded.repo.commit("grace", message=f"approved\n\nApproves: {change}")
    guarded.pull()
    (guarded.repo.path / "tls.key").unlink()
    guarded.repo.commit("grace")
    with refused(guarded, NotApproved, "tls.key", "grace@"):
        guarded.pull()


# B17, B18: what lies between, and other kinds of repositories


def test_b17_head_asks_for_the_last_commit_only(world: World) -> None:
    world.repo.commit(None)
    head = world.repo.commit("ada")
    assert world.pull().commit == head


def test_b17_every_asks_for_all_of_them(world: World) -> None:
    world.change(mode="every")
    unsigned = world.repo.commit(None)
    world.repo.commit("ada")
    with refused(world, BadSignature, unsigned[:12], "not signed"):
        world.pull()


def test_b17_every_asks_for_the_commits_of_merged_branches(world: World) -> None:
    world.change(mode="every")
    repo = world.repo
    repo.git("checkout", "--quiet", "-b", "side")
    unsigned = repo.commit(None, {"side": "1\n"})
    repo.git("checkout", "--quiet", "main")
    repo.commit("ada", {"main": "1\n"})
    repo.git(*repo.signing("ada"), "merge", "--quiet", "--no-ff", "-m", "merge", "side")
    with refused(world, BadSignature, unsigned[:12]):
        world.pull()


def test_b17_more_commits_than_are_looked_at_in_one_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.source.judgement.MAX_COMMITS", 3)
    world.change(mode="every")
    trusted = world.repo.head
    *_, allowed = (world.repo.commit("ada") for _ in range(3))
    head = world.repo.commit("ada")
    with refused(world, TrustError, f"more than 3 commits since {trusted[:12]}", head):
        world.pull()
    world.repo.git("reset", "--quiet", "--hard", allowed)
    assert world.pull().checked == 3
    world.change(mode="head")
    for _ in range(5):
        world.repo.commit("ada")
    assert world.pull().advanced


def test_b17_every_takes_the_first_commit_of_all_as_its_anchor(
    tmp_path: Path, people: People
) -> None:
    world = World(tmp_path, people)
    world.change(mode="every")
    world.repo.commit(None)
    head = world.repo.commit("ada")
    assert world.pull().commit == head


def test_b17_none_asks_for_order_only(world: World) -> None:
    world.change(mode="none", keys=Keys())
    head = world.repo.commit(None)
    assert world.pull().commit == head == world.trusted


def test_b18_a_repository_of_sha256(tmp_path: Path, people: People) -> None:
    world = World(tmp_path, people, "--object-format=sha256")
    head = world.repo.commit("ada")
    assert len(head) == 64
    assert world.pull().commit == head == world.trusted
    world.repo.commit("ada")
    assert world.pull().advanced
    world.repo.commit("mallory")
    with refused(world, BadSignature, "allowed signers"):
        world.pull()


def test_b18_a_history_that_is_cut_off_is_not_assumed_to_be_right(
    world: World, tmp_path: Path
) -> None:
    """A remote without the trusted commit cannot show that its own is on top of it."""
    world.repo.commit("ada")
    world.repo.commit("ada")
    whole = f"file://{world.repo.path}"
    world.repo.git("clone", "--quiet", "--bare", "--depth=1", whole, str(tmp_path / "shallow"))
    mark = world.marks.load()
    with pytest.raises(SourceError, match="no whole history"):
        fetch(world.mirror, [Remote(str(tmp_path / "shallow"))], "main")
    assert world.marks.load() == mark


# the right repository


def test_another_state_repo_is_refused(world: World) -> None:
    world.change(repository="production")
    world.repo.commit("ada", {"reconciler.yml": "name: staging\n"})
    with refused(world, WrongRepository, "'staging', not of 'production'"):
        world.pull()


def test_the_right_state_repo_is_not(world: World) -> None:
    world.change(repository="production")
    world.repo.commit("ada", {"reconciler.yml": "name: production\n"})
    assert world.pull().advanced


def test_an_epoch_that_goes_back_is_refused(world: World) -> None:
    world.repo.commit("ada", {"reconciler.yml": "epoch: 3\n"})
    assert world.pull().mark.epoch == 3
    world.repo.commit("ada", {"reconciler.yml": "epoch: 2\n"})
    with refused(world, WrongRepository, "epoch 2; 3 was trusted before"):
        world.pull()


#: What nobody can read a name or an epoch from, and the place that is told.
UNREADABLE = {
    "no YAML": ("epoch: [\n", "reconciler.yml:2:1: "),
    "no number": ("name: production\nepoch: two\n", "reconciler.yml:2:8: epoch is 'two'"),
    "below zero": ("name: production\nepoch: -1\n", "reconciler.yml:2:8: epoch is -1"),
    "true": ("name: production\nepoch: true\n", "reconciler.yml:2:8: epoch is True"),
    "no text": ("name: [production]\nepoch: 3\n", "reconciler.yml:1:7: name is ['production']"),
    "a list": ("- name: production\n", "reconciler.yml: reconciler.yml must be a mapping"),
    "too large": ("#" * (3 << 20), "reconciler.yml: the file has 3145728 bytes"),
    "twice": ("epoch: 3\nepoch: 4\n", "reconciler.yml:2:1: "),
}


@pytest.mark.parametrize("how", UNREADABLE)
@pytest.mark.parametrize("asks", ["for a name", "for an epoch"])
def test_a_state_repo_that_does_not_say_which_it_is_is_refused_where_that_is_asked(
    world: World, how: str, asks: str
) -> None:
    if asks == "for a name":
        world.change(repository="production")
    world.repo.commit("ada", {"reconciler.yml": "name: production\nepoch: 3\n"})
    world.pull()
    if asks == "for a name":
        world.marks.reset(world.repo.head, "as if there had never been an epoch", "root")
    text, place = UNREADABLE[how]
    head = world.repo.commit("ada", {"reconciler.yml": text})
    with refused(world, WrongRepository, f"commit {head[:12]} does not say which", place):
        world.pull()
    world.repo.commit("ada", {"reconciler.yml": "name: production\nepoch: 3\n"})
    assert world.pull().advanced


@pytest.mark.parametrize("how", UNREADABLE)
def test_it_is_not_where_nobody_asks(world: World, how: str) -> None:
    """Compile tells what is wrong with it."""
    head = world.repo.commit("ada", {"reconciler.yml": UNREADABLE[how][0]})
    verdict = world.pull()
    assert (verdict.commit, verdict.mark.epoch) == (head, 0)


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_nor_does_one_say_it_whose_settings_are_no_file(world: World, kind: str) -> None:
    world.repo.commit("ada", {"reconciler.yml": "epoch: 3\n", "elsewhere": "epoch: 9\n"})
    world.pull()
    path = world.repo.path / "reconciler.yml"
    path.unlink()
    if kind == "link":
        path.symlink_to("elsewhere")
    else:
        path.mkdir()
        (path / "x").touch()
    world.repo.commit("ada")
    with refused(world, WrongRepository, "reconciler.yml is no regular file"):
        world.pull()


# what a person sees


def test_show_tells_what_is_trusted_and_why(world: World) -> None:
    shown = show(world.marks, world.policy, now=NOW.timestamp())
    assert shown["commit"] == world.repo.head
    assert shown["mode"] == "head"
    assert shown["copies"] == {"trust.json": "valid", "trust.json.bak": "valid"}
    assert shown["stale"] == ""


def test_show_tells_of_lost_state_as_well(tmp_path: Path, world: World) -> None:
    shown = show(Marks(str(tmp_path / "nowhere")), world.policy)
    assert shown["error"]["kind"] == "StateLost"
