"""Promise 8 with whole agents: each attack is refused, said with what to do, and healing goes on.

The attacks are the B cases of the threat model, made as real repositories with real keys. What
`tests/behaviour/test_trust.py` holds for the code holds here for the host: exit code 10, the last
trusted commit stays, drift is put right meanwhile, and when the attack is over the host follows
again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hosts.agents import conditions, in_sync_at, status, wait_for
from hosts.forge import MIRROR, SITE, STATE, Follower, Forge, configure, put, shell, sync
from hosts.lab import Lab
from source.openpgp import Gpg
from source.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIGNERS = "/etc/reconciler/allowed_signers"
REVOKED = "/etc/reconciler/revoked"
KEYGEN = "/usr/bin/ssh-keygen"
#: A verifier that is content with everything, and tells that it was asked.
FAKE = """#!/bin/sh
touch /tmp/asked
echo ada@example.org
echo 'Good "git" signature for ada@example.org with ED25519 key SHA256:x'
"""


class Guarded(Follower):
    """A host that trusts Ada and Grace, and asks for every commit to be signed."""

    def allow(self, *lines: str) -> None:
        put(self.host, SIGNERS, "".join(lines), "0644")

    def line(self, name: str, options: str = 'namespaces="git"') -> str:
        return self.repo.people.line(name, options)

    def signed(self) -> str:
        """A commit that is as it should be."""
        return self.commit("ada")

    def back_to(self, commit: str) -> None:
        """Have the branch and the work tree there."""
        self.repo.git("reset", "--quiet", "--hard", commit)

    def normal(self) -> None:
        """The keys and settings that the tests begin with."""
        self.allow(self.line("ada"), self.line("grace"))
        script = f"test ! -e {KEYGEN}.kept || mv {KEYGEN}.kept {KEYGEN}"
        shell(self.host, f"{script}; rm -f /usr/local/bin/ssh-keygen {REVOKED}")

    def verifier(self, script: str) -> None:
        """Put another program in the place of ssh-keygen; "" for none."""
        shell(self.host, f"mv {KEYGEN} {KEYGEN}.kept")
        if script:
            put(self.host, KEYGEN, f"#!/bin/sh\n{script}\n", "0755")


@pytest.fixture(scope="module")
def server(forge: Forge) -> Server:
    return forge.serve()


@pytest.fixture(scope="module")
def subject(lab: Lab, forge: Forge, server: Server) -> Iterator[Guarded]:
    with lab.lend("guarded") as (host,):
        guarded = Guarded(host, forge.repo(), server)
        guarded.signed()
        put(host, "/root/signers", guarded.line("ada") + guarded.line("grace"))
        forge.install(host, server, "--trust", "every", "--allowed-signers", "/root/signers")
        guarded.settled()
        yield guarded


@dataclass(frozen=True)
class Attack:
    """make: what is done to the branch or to the host. said: what the status must name."""

    make: Callable[[Guarded], object]
    said: str


def b3(one: Guarded) -> None:
    one.allow(one.line("ada", 'namespaces="file"'))
    one.commit("ada")


def b4(one: Guarded) -> None:
    one.allow(one.line("ada", 'namespaces="git",valid-before="20200101"'))
    one.commit("ada")


def b4_not_yet(one: Guarded) -> None:
    one.allow(one.line("ada", 'namespaces="git",valid-after="20990101"'))
    one.commit("ada")


def b5(one: Guarded) -> None:
    one.allow(one.line("ada"), one.line("mallory", 'namespaces="git",valid-before="20200101"'))
    one.commit("mallory", date="2019-06-01T12:00:00+00:00")


def b7_readable(one: Guarded) -> None:
    shell(one.host, f"chmod 0666 {SIGNERS}")
    one.commit("ada")


def b8(change: Callable[[bytes], bytes]) -> Callable[[Guarded], None]:
    def forge(one: Guarded) -> None:
        one.commit("ada")
        raw = one.repo.raw()
        assert change(raw) != raw
        one.back_to(one.repo.object(change(raw)))

    return forge


def b8_in_the_message(raw: bytes) -> bytes:
    lines = [line for line in raw.split(b"\n") if not line.startswith((b"gpgsig", b" "))]
    return b"\n".join(lines) + raw[raw.index(b"gpgsig") :]


def b9(script: str) -> Callable[[Guarded], None]:
    def replace(one: Guarded) -> None:
        one.verifier(script)
        one.commit("ada")

    return replace


def b10(one: Guarded) -> None:
    put(one.host, "/usr/local/bin/ssh-keygen", FAKE, "0755")
    one.commit("mallory")


def b11(one: Guarded) -> None:
    one.back_to("HEAD~1")


def b12(one: Guarded) -> None:
    one.back_to("HEAD~1")
    one.commit("ada")


def b13(one: Guarded) -> None:
    shell(one.host, f"rm -rf {MIRROR}/mirror-*.git")
    one.back_to("HEAD~1")


def b17(one: Guarded) -> None:
    one.commit(None)
    one.commit("ada")


def gone(one: Guarded) -> None:
    shell(one.host, f"rm {SIGNERS}")
    one.commit("ada")


ATTACKS = {
    "b1 unsigned": Attack(lambda one: one.commit(None), "is not signed"),
    "b2 by a stranger": Attack(lambda one: one.commit("mallory"), "not one of the allowed signers"),
    "b3 by a key for another purpose": Attack(b3, "for another purpose"),
    "b4 by an expired key": Attack(b4, "not valid when it was received"),
    "b4 by a key of the future": Attack(b4_not_yet, "not valid when it was received"),
    "b5 by an expired key, dated back": Attack(b5, "not valid when it was received"),
    "b7 adds its own signer": Attack(
        lambda one: one.commit("mallory", {"allowed_signers": one.line("mallory")}),
        "not one of the allowed signers",
    ),
    "b7 keys that others can change": Attack(b7_readable, "can be changed by others"),
    "b7 keys that are gone": Attack(gone, "cannot read the trusted keys"),
    "b8 another subject": Attack(
        b8(lambda raw: raw.replace(b"a change", b"a chance")), "content was changed"
    ),
    "b8 a second signature": Attack(
        b8(lambda raw: raw.replace(b"\ngpgsig ", b"\ngpgsig x\ngpgsig ", 1)), "malformed"
    ),
    "b8 a signature in the message": Attack(b8(b8_in_the_message), "is not signed"),
    "b9 a verifier that says nothing": Attack(b9("exit 0"), "signature of commit"),
    "b9 a verifier that crashes": Attack(b9("kill -SEGV $$"), "was killed by signal 11"),
    "b9 no verifier": Attack(b9(""), "apt-get install openssh-client"),
    "b10 a verifier on the path": Attack(b10, "not one of the allowed signers"),
    "b11 set back to an older commit": Attack(b11, "is older than"),
    "b12 a history beside the trusted one": Attack(b12, "is not on top of"),
    "b13 an older commit, and no mirror": Attack(b13, "is not on top of"),
    "b17 an unsigned commit below a signed one": Attack(b17, "is not signed"),
}


def refused(one: Guarded, trusted: str, *said: str) -> None:
    """The attack is refused, with something to do; the host stays where it was, and is healed."""
    code, told = sync(one.host)
    assert code == 10, told
    for words in said:
        assert words in told, told
    [trust] = [c for c in status(one.host)["conditions"] if c["type"] == "Trusted"]
    assert trust["status"] == "False"
    assert len(trust["message"].splitlines()) > 1, "there is no word of what to do"
    source = status(one.host)["source"]
    assert (source["trusted"]["commit"], source["applied"]["commit"]) == (trusted, trusted)
    one.heals()


#: One of each kind is in every run of the tests; the others take minutes.
QUICK = ("b1 unsigned", "b2 by a stranger", "b11", "b12 a history beside", "b17 an unsigned")


def attacks() -> Iterator[object]:
    for name in ATTACKS:
        yield pytest.param(name, marks=() if name.startswith(QUICK) else pytest.mark.soak)


@pytest.mark.parametrize("name", list(attacks()))
def test_an_attack_is_refused_and_healing_goes_on(subject: Guarded, name: str) -> None:
    attack = ATTACKS[name]
    good, content = subject.signed(), subject.text
    subject.settled()
    try:
        attack.make(subject)
        refused(subject, good, attack.said)
        assert subject.content == content
        assert subject.host.run(["test", "-e", "/tmp/asked"], check=False).returncode == 1
    finally:
        subject.normal()
        subject.back_to(good)
    code, said = sync(subject.host)
    assert code == 0, said


def test_b6_a_revoked_key_signs_nothing_new_and_what_it_signed_before_is_an_alarm(
    subject: Guarded,
) -> None:
    good = subject.signed()
    subject.settled()
    configure(subject.host, revoked=REVOKED)
    put(subject.host, REVOKED, subject.repo.people.public("ada") + "\n", "0644")
    try:
        refused(subject, good, "its key is revoked")
        subject.commit("ada")
        refused(subject, good, "its key is revoked", "sign it with another key")
        subject.back_to(good)
        subject.converges(subject.commit("grace"))
    finally:
        configure(subject.host, revoked=None)
        subject.normal()
    subject.settled()


def test_b12_a_person_can_accept_a_rewritten_history(subject: Guarded) -> None:
    good = subject.settled()
    subject.back_to("HEAD~1")
    head = subject.commit("ada")
    refused(subject, good, f"reconciler trust reset --to {head}")
    subject.host.reconciler("trust", "reset", "--to", head, "--reason", "a secret was in it")
    wait_for(in_sync_at(subject.host, head), "taking it up without another word", subject.host)
    assert "a secret was in it" in subject.host.reconciler("trust", "show").stdout


def test_b13_a_host_that_lost_both_copies_trusts_nothing_until_a_person_says_what(
    subject: Guarded,
) -> None:
    good = subject.settled()
    shell(subject.host, f"cd {STATE}; echo garbage | tee trust.json > trust.json.bak")
    newer = subject.signed()
    refused(subject, good, "what was trusted last is not known", "reconciler trust reset --to")
    subject.host.reconciler("trust", "reset", "--to", good, "--reason", "the disk was damaged")
    wait_for(in_sync_at(subject.host, newer), "following again", subject.host)


def test_who_asks_what_a_refused_commit_would_do_does_not_run_it(subject: Guarded) -> None:
    """Its guards would be evaluated by a plan, as root."""
    host, good = subject.host, subject.settled()
    guard = "    - command: {cmd: 'true', unless: 'touch /tmp/asked'}\n"
    head = subject.commit("mallory", {"site.yml": SITE % "evil" + guard})
    refused(subject, good, "not one of the allowed signers")
    try:
        plan = host.reconciler("plan", "--ref", "origin/main", check=False)
        assert plan.returncode == 10
        assert f"this host does not trust commit {head[:12]}" in plan.stderr
        diff = host.reconciler("diff", "applied", head).stdout
        assert "+ command:true" in diff
        assert 'unless: ["touch /tmp/asked"]' in diff
        why = host.reconciler("why", "file:/etc/followed", "--ref", head).stdout
        assert f"{head[:12]}  2026-06-01  Ada" in why
        assert good[:12] in host.reconciler("plan").stdout
        touched = "/tmp/asked"
        assert host.run(["test", "-e", touched], check=False).returncode == 1
        host.reconciler("plan", "--ref", head, "--allow-untrusted")
        host.run(["rm", touched])
    finally:
        subject.back_to(good)
    subject.settled()


@pytest.mark.soak
def test_what_is_refused_is_told_by_the_next_poll_without_a_person(subject: Guarded) -> None:
    good = subject.settled()
    subject.commit(None)
    wait_for(lambda: conditions(subject.host)["Trusted"] == "False", "refusing it", subject.host)
    subject.back_to(good)
    subject.settled()


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    """Ada and Mallory, whose keys are both in the keyring."""
    gpg = Gpg(tmp_path_factory.mktemp("gpg") / "home")
    gpg.make("ada")
    gpg.make("mallory")
    yield gpg
    gpg.close()


def test_signatures_of_openpgp_count_by_their_fingerprint(subject: Guarded, gpg: Gpg) -> None:
    """gpg runs where the part without privileges runs: what that sandbox forbids, it cannot use."""

    def signed(by: str) -> str:
        subject.commit(None)
        subject.repo.git(*gpg.signing(by), "commit", "--quiet", "--amend", "--no-edit", "-S")
        return subject.repo.head

    host, before = subject.host, subject.settled()
    host.run(["apt-get", "install", "-qy", "--no-install-recommends", "gpg"], timeout=300)
    put(host, "/root/keyring", gpg.ring())
    ada = gpg.fingerprints["ada"]
    host.reconciler("agent", "install", "--keyring", "/root/keyring", "--fingerprint", ada)
    try:
        good = signed("ada")
        subject.converges(good)
        assert ada in host.reconciler("trust", "show").stdout
        signed("mallory")
        refused(subject, good, f"the key {gpg.fingerprints['mallory']} is not one of")
        subject.back_to(good)
        subject.converges(signed("ada"))
    finally:
        configure(host, keyring=None, fingerprints=None)
        subject.back_to(before)
        host.reconciler("trust", "reset", "--to", before, "--reason", "back to keys of ssh")
    subject.settled()


@pytest.mark.soak
def test_b14_a_server_that_is_silent_for_too_long_is_an_alarm_and_state_is_enforced(
    forge: Forge, subject: Guarded
) -> None:
    host = subject.host
    subject.settled()
    configure(host, max_age="11s")
    port = int(subject.server.server_address[1])
    subject.server.stop()
    try:

        def stale() -> bool:
            return any(one["reason"] == "Stale" for one in status(host)["conditions"])

        wait_for(stale, "saying that it is stale", host, 60)
        assert host.reconciler("agent", "status", check=False).returncode == 5
        metrics = host.run(["cat", "/run/reconciler/metrics.prom"]).stdout
        assert 'reconciler_condition{type="SourceFresh",status="False"} 1' in metrics
        [age] = re.findall(r"^reconciler_source_age_seconds ([0-9.]+)$", metrics, re.MULTILINE)
        assert float(age) > 6
        subject.heals()
    finally:
        subject.server = forge.serve(port)
        configure(host, max_age=0)
    subject.settled()


@pytest.mark.soak
def test_b15_a_signed_tag_stands_for_its_commit_and_must_not_move(subject: Guarded) -> None:
    repo, good = subject.repo, subject.settled()
    configure(subject.host, branch="refs/tags/v1", trust="head")
    try:
        first = subject.commit(None)
        repo.git(*repo.signing("ada"), "tag", "-s", "-m", "first", "v1")
        subject.converges(first)
        subject.commit(None)
        repo.git(*repo.signing("ada"), "tag", "-s", "-f", "-m", "moved", "v1")
        refused(subject, first, "was moved", "release under a new name")
    finally:
        repo.git("tag", "-d", "v1")
        configure(subject.host, branch="main", trust="every")
        subject.back_to(good)
    subject.host.reconciler("trust", "reset", "--to", good, "--reason", "back to the branch")
    subject.settled()


@pytest.mark.soak
def test_b16_a_protected_path_waits_for_a_second_person(subject: Guarded) -> None:
    configure(subject.host, protected=["secrets/"], approvals=2)
    try:
        good = subject.settled()
        change = subject.commit("ada", {"secrets/db": "x\n"})
        refused(subject, good, "secrets/db", "1 of 2", f"Approves: {change}")
        subject.repo.commit("ada", message=f"approved\n\nApproves: {change}")
        refused(subject, good, "1 of 2")
        subject.converges(subject.repo.commit("grace", message=f"ok\n\nApproves: {change}"))
    finally:
        configure(subject.host, protected=None, approvals=2)


@pytest.mark.soak
def test_b17_head_asks_for_the_last_commit_only(subject: Guarded) -> None:
    configure(subject.host, trust="head")
    try:
        subject.commit(None)
        subject.converges(subject.commit("ada"))
    finally:
        configure(subject.host, trust="every")


@pytest.mark.soak
def test_another_state_repo_and_an_older_epoch_are_refused(subject: Guarded) -> None:
    configure(subject.host, repository="production")
    try:
        named = subject.commit("ada", {"reconciler.yml": "name: production\nepoch: 2\n"})
        subject.converges(named)
        subject.commit("ada", {"reconciler.yml": "name: staging\nepoch: 2\n"})
        refused(subject, named, "'staging', not of 'production'")
        subject.back_to(named)
        subject.commit("ada", {"reconciler.yml": "name: production\nepoch: 1\n"})
        refused(subject, named, "has epoch 1")
        subject.back_to(named)
    finally:
        configure(subject.host, repository=None)
    subject.settled()


@pytest.mark.soak
def test_b18_a_history_that_is_cut_off_is_not_assumed_to_be_right(
    subject: Guarded, tmp_path: Path
) -> None:
    """The server has the newest commits only, so nobody can see that they are on top."""
    trusted, content = subject.settled(), subject.content
    newer = subject.commit("ada")
    (subject.repo.path / ".git" / "shallow").write_text(f"{newer}\n")
    try:
        code, said = sync(subject.host)
        assert code in (5, 10), said
        assert "whole history" in said
        assert subject.trusted == trusted
        assert subject.content == content
        subject.heals()
    finally:
        (subject.repo.path / ".git" / "shallow").unlink()
    subject.converges(newer)


@pytest.mark.soak
def test_b18_a_repository_of_sha256_is_followed_and_guarded_as_well(
    lab: Lab, forge: Forge, server: Server
) -> None:
    with lab.lend("new") as (host,):
        guarded = Guarded(host, forge.repo("new.git", "--object-format=sha256"), server)
        first = guarded.signed()
        assert len(first) == 64
        put(host, "/root/signers", guarded.line("ada"))
        signed = ("--trust", "every", "--allowed-signers", "/root/signers")
        forge.install(host, server, *signed, repo="new.git")
        guarded.settled()
        guarded.commit(None)
        refused(guarded, first, "is not signed")
        guarded.back_to(first)
        guarded.converges(guarded.signed())
