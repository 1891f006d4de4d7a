"""Signatures of OpenPGP, and key files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.errors import BadSignature, TrustError
from reconciler.source import signature
from reconciler.source.keyfile import check_key_file
from reconciler.source.signature import Keys, verify
from reconciler.source.signed import Signed, split_commit
from source.openpgp import Gpg
from source.signers import NOW, People, StateRepo

pytestmark = pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is not installed")


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    gpg = Gpg(tmp_path_factory.mktemp("gpg") / "home", NOW)
    gpg.make("ada")
    gpg.make("mallory")
    yield gpg
    gpg.close()


@pytest.fixture
def keys(gpg: Gpg, tmp_path: Path) -> Keys:
    """Ada is trusted. Mallory's key is in the ring, as a careless import would leave it."""
    ring = tmp_path / "keys.asc"
    ring.write_text(gpg.ring())
    return Keys(keyring=str(ring), fingerprints=(gpg.fingerprints["ada"],))


def test_a_signature_by_an_allowed_fingerprint(gpg: Gpg, keys: Keys) -> None:
    signer = verify("commit 1", gpg.sign("ada", b"payload"), keys, NOW)
    assert signer.who == gpg.fingerprints["ada"]


def test_a_keyring_without_armour(gpg: Gpg, keys: Keys, tmp_path: Path) -> None:
    ring = tmp_path / "keys.gpg"
    ring.write_bytes(gpg.run("--export"))
    assert verify("commit 1", gpg.sign("ada", b"x"), replace(keys, keyring=str(ring)), NOW)


def test_fingerprints_as_a_person_writes_them(gpg: Gpg, keys: Keys) -> None:
    text = gpg.fingerprints["ada"].lower()
    spaced = " ".join(text[n : n + 4] for n in range(0, 40, 4))
    assert verify("commit 1", gpg.sign("ada", b"x"), replace(keys, fingerprints=(spaced,)), NOW)


def test_a_short_key_id_is_no_fingerprint(gpg: Gpg, keys: Keys) -> None:
    short = gpg.fingerprints["ada"][-16:]
    with pytest.raises(TrustError, match="no whole fingerprint"):
        verify("commit 1", gpg.sign("ada", b"x"), replace(keys, fingerprints=(short,)), NOW)


def test_a_key_in_the_ring_that_is_not_allowed(gpg: Gpg, keys: Keys) -> None:
    with pytest.raises(BadSignature, match="not one of the fingerprints"):
        verify("commit 1", gpg.sign("mallory", b"x"), keys, NOW)


def test_a_key_that_is_not_in_the_ring(gpg: Gpg, keys: Keys, tmp_path: Path) -> None:
    ring = tmp_path / "ada.asc"
    ring.write_bytes(gpg.run("--armor", "--export", "ada@example.org"))
    only = replace(keys, keyring=str(ring), fingerprints=tuple(gpg.fingerprints.values()))
    with pytest.raises(BadSignature, match="not in the keyring"):
        verify("commit 1", gpg.sign("mallory", b"x"), only, NOW)


def test_another_content(gpg: Gpg, keys: Keys) -> None:
    signed = gpg.sign("ada", b"payload")._replace(payload=b"other")
    with pytest.raises(BadSignature, match="not a signature of this content"):
        verify("commit 1", signed, keys, NOW)


def test_a_key_that_has_expired_when_the_commit_is_received(gpg: Gpg, keys: Keys) -> None:
    """Whatever date the signature itself bears."""
    with pytest.raises(BadSignature, match="had expired when it was received"):
        verify("commit 1", gpg.sign("ada", b"x"), keys, NOW + timedelta(days=3))


def test_a_revoked_key(gpg: Gpg, keys: Keys, tmp_path: Path) -> None:
    certificate = gpg.home / "openpgp-revocs.d" / f"{gpg.fingerprints['ada']}.rev"
    text = certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
    with closing(Gpg(tmp_path / "other", NOW)) as other:
        other.run("--import", stdin=Path(keys.keyring).read_bytes())
        other.run("--import", stdin=text)
        Path(keys.keyring).write_text(other.ring())
    with pytest.raises(BadSignature, match="revoked"):
        verify("commit 1", gpg.sign("ada", b"x"), keys, NOW)


def test_two_signatures_in_one_armour(gpg: Gpg, keys: Keys) -> None:
    """A good one beside another would let each reader pick the one that it likes."""
    both = gpg.sign("ada", b"x", "--local-user", gpg.fingerprints["mallory"])
    with pytest.raises(BadSignature, match="not exactly one"):
        verify("commit 1", both, keys, NOW)


def test_a_hash_that_can_be_forged(gpg: Gpg, keys: Keys) -> None:
    weak = gpg.sign("ada", b"x", "--digest-algo", "RIPEMD160", "--allow-weak-digest-algos")
    with pytest.raises(BadSignature):
        verify("commit 1", weak, keys, NOW)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 0", id="says nothing"),
        pytest.param("kill -KILL $$", id="is killed"),
        pytest.param("exec sleep 60", id="hangs"),
        pytest.param('echo "gpg: Good signature from ada"', id="talks to people only"),
        pytest.param('echo "[GNUPG:] GOODSIG X ada"', id="has no fingerprint"),
        pytest.param('printf "[GNUPG:] GOODSIG X\\n%s\\n" "[GNUPG:] VALIDSIG"', id="has no fields"),
        pytest.param(
            'echo "[GNUPG:] GOODSIG X"; echo "[GNUPG:] VALIDSIG $FPR d 1 0 4 0 22 8 00 $FPR"; exit 2',
            id="praises, and fails",
        ),
    ],
)
def test_a_gpg_that_does_not_do_its_work_has_verified_nothing(
    gpg: Gpg, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    fake = tmp_path / "gpg"
    fake.write_text(f"#!/bin/sh\nFPR={gpg.fingerprints['ada']}\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(signature, "GPG", str(fake))
    monkeypatch.setattr(signature, "TIMEOUT", 0.5)
    with pytest.raises(BadSignature):
        verify("commit 1", Signed(b"x", b"y", "openpgp"), keys, NOW)


def test_without_gpg_nothing_is_verified(
    gpg: Gpg, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "GPG", "/nonexistent/gpg")
    with pytest.raises(TrustError, match="cannot start"):
        verify("commit 1", gpg.sign("ada", b"x"), keys, NOW)


def test_a_commit_that_git_signed_with_gpg(gpg: Gpg, keys: Keys, tmp_path: Path) -> None:
    repo = StateRepo(tmp_path / "repo", People(tmp_path / "people"))
    repo.git(*gpg.signing("ada"), "commit", "--quiet", "--allow-empty", "-S", "-m", "signed")
    signed = split_commit(repo.head, repo.raw())
    assert verify("commit 1", signed, keys, NOW).who == gpg.fingerprints["ada"]


def test_a_kind_without_keys_is_refused(gpg: Gpg) -> None:
    with pytest.raises(BadSignature, match="no such keys are trusted"):
        verify("commit 1", gpg.sign("ada", b"x"), Keys(), NOW)
    with pytest.raises(BadSignature, match="no such keys are trusted"):
        verify("commit 1", Signed(b"x", b"y", "ssh"), Keys(), NOW)


def test_key_files_that_others_can_change(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "keys"
    file.parent.mkdir(mode=0o755)
    file.write_text("")
    check_key_file(str(file))
    file.parent.chmod(0o777)
    with pytest.raises(TrustError, match="can be changed by others"):
        check_key_file(str(file))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("way", ["theirs/keys", "theirs/ours/keys", "link", "way/keys"])
def test_key_files_in_whose_place_others_can_put_another(tmp_path: Path, way: str) -> None:
    """The file is root's and closed, and so is the directory that it is named in."""
    (tmp_path / "theirs/ours").mkdir(parents=True)
    for name in ("theirs/keys", "theirs/ours/keys"):
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("theirs/keys")
    (tmp_path / "way").symlink_to("theirs/ours")
    check_key_file(str(tmp_path / way))
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(TrustError, match="/theirs can be changed by others"):
        check_key_file(str(tmp_path / way))
