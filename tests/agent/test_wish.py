"""What `agent install` makes of its options: the rest stays, and wrong files are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.agent.config import parse
from reconciler.agent.places import Places
from reconciler.agent.wish import Wish, _above
from reconciler.errors import ConfigError
from reconciler.source import selftest, signature
from source.openpgp import Gpg

URL = "ssh://git@git.example.org/state.git"
KEPT: dict[str, Any] = {
    "remotes": [{"url": URL, "deploy_key": "/etc/reconciler/deploy_key"}, "https://b/state.git"],
    "interval": "60s",
    "prune": "restore",
}


def merged(wish: Wish, kept: dict[str, Any]) -> dict[str, Any]:
    return wish.merged(kept, Places())


def test_what_is_not_named_stays() -> None:
    found = merged(Wish({"interval": "5s", "host": "web1"}), KEPT)
    assert found["interval"] == "5s"
    assert found["host"] == "web1"
    assert found["prune"] == "restore"
    assert [one["url"] for one in found["remotes"]] == [URL, "https://b/state.git"]
    assert merged(Wish({}), {"repo": URL, "trust": "head"}) == {
        "remotes": [{"url": URL}],
        "trust": "head",
    }


def test_another_address_takes_no_keys_along_and_the_same_keeps_them() -> None:
    assert merged(Wish({"repo": URL}), KEPT)["remotes"][0]["deploy_key"]
    assert merged(Wish({"repo": "/srv/x"}), KEPT)["remotes"][0] == {"url": "/srv/x"}


@pytest.mark.parametrize(
    "given, followed",
    [
        (["/srv/x"], ["/srv/x", "https://b/state.git"]),
        (["/srv/x", "/srv/y"], ["/srv/x", "/srv/y"]),
        (["https://b/state.git"], ["https://b/state.git"]),
        (["https://b/state.git", URL], ["https://b/state.git", URL]),
        ([URL, "/srv/x", "/srv/x", "/srv/y"], [URL, "/srv/x", "/srv/y"]),
    ],
)
def test_addresses_take_the_first_places_and_what_is_behind_these_stays(
    given: list[str], followed: list[str]
) -> None:
    found = merged(Wish({"repo": given}), KEPT)
    assert [one["url"] for one in found["remotes"]] == followed
    keys = [one.get("deploy_key") for one in found["remotes"] if one["url"] == URL]
    assert keys in ([], ["/etc/reconciler/deploy_key"])
    parse(found, "options")


def test_keys_are_those_of_all_addresses_that_are_given(key: Path, tmp_path: Path) -> None:
    other = "ssh://git@other.example.org/state.git"
    known, public = tmp_path / "known_hosts", key.with_suffix(".pub").read_text()
    known.write_text(f"git.example.org {public}")
    wish = Wish({"repo": [URL, other]}, deploy_key=str(key), known_hosts=str(known))
    found = merged(wish, {})
    ours = "/etc/reconciler/deploy_key"
    assert [one["deploy_key"] for one in found["remotes"]] == [ours, ours]
    with pytest.raises(ConfigError, match=r"the host key of other\.example\.org is not in"):
        wish.check(parse(found, "options"), Places())
    known.write_text(f"git.example.org {public}other.example.org {public}")
    wish.check(parse(found, "options"), Places())


def test_files_are_named_where_they_will_be() -> None:
    wish = Wish({"repo": URL}, deploy_key="./key", ca_file="./ca", credentials="./pw")
    assert merged(wish, {})["remotes"] == [
        {
            "url": URL,
            "deploy_key": "/etc/reconciler/deploy_key",
            "credentials": "/etc/reconciler/credentials",
            "ca_file": "/etc/reconciler/ca.pem",
        }
    ]


@pytest.mark.parametrize(
    "options, kept, trust",
    [
        ({}, {}, None),
        ({"trust": "every"}, {}, "every"),
        ({}, {"trust": "every"}, "every"),
        ({"trust": "none"}, {"trust": "every"}, "none"),
    ],
)
def test_who_may_sign_asks_for_signatures_unless_it_is_said_otherwise(
    options: dict[str, str], kept: dict[str, str], trust: str | None
) -> None:
    assert merged(Wish({"repo": URL, **options}), kept).get("trust") == trust
    signed = merged(Wish({"repo": URL, **options}, allowed_signers="./signers"), kept)
    assert signed["trust"] == (trust or "head")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def check(settings: dict[str, Any], **files: str) -> str:
    """What is said of a wish; "" if nothing."""
    wish = replace(Wish(settings), **files)
    try:
        wish.check(parse(wish.merged({}, Places()), "options"), Places())
    except ConfigError as error:
        return error.message
    return ""


def test_a_server_must_be_known_under_the_name_and_port_of_its_address(
    tmp_path: Path, key: Path
) -> None:
    public = key.with_suffix(".pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"git.example.org {public}[other.example.org]:2222 {public}")
    given = {"known_hosts": str(known), "deploy_key": str(key)}
    assert check({"repo": URL}, **given) == ""
    assert check({"repo": "git@git.example.org:state.git"}, **given) == ""
    assert check({"repo": "ssh://git@other.example.org:2222/state.git"}, **given) == ""
    said = check({"repo": "ssh://git@other.example.org/state.git"}, **given)
    assert "the host key of other.example.org is not in" in said


def test_signers_are_lines_that_name_people_and_keys(tmp_path: Path, key: Path) -> None:
    kind, blob, _ = key.with_suffix(".pub").read_text().split()
    signers, bare = tmp_path / "signers", tmp_path / "state"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    good = [
        f"alice {kind} {blob} a comment",
        f'grace@example.org namespaces="git",valid-before="20270101" {kind} {blob}',
        f'*@example.org cert-authority,namespaces="git" {kind} {blob}',
    ]
    signers.write_text("# who may sign\n\n" + "\n".join(good) + "\n")
    said = check({"repo": str(bare)}, allowed_signers=str(signers))
    assert said == "" or "sees nothing below" in said  # the test's own directory may be hidden
    for bad in ("alice", f"{kind} {blob}", "alice ssh-ed25519", "alice AAAA"):
        signers.write_text(f"{good[0]}\n{bad}\n")
        said = check({"repo": str(bare)}, allowed_signers=str(signers))
        assert f"{signers}:2 does not say" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="credentials of another user are refused")
def test_credentials_are_private_and_hold_a_user_and_a_password(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    for text, mode, said in (
        ("user:pw\n", 0o600, ""),
        ("user:pw\n", 0o640, "others can read it"),
        ("token\n", 0o600, "does not hold user:password"),
        ("", 0o600, "is empty"),
    ):
        file.write_text(text)
        file.chmod(mode)
        found = check({"repo": "https://h/x"}, credentials=str(file))
        assert said in found
        assert bool(said) == bool(found)
        assert "pw" not in found


def test_a_state_repo_on_this_machine_must_be_open_to_the_user_that_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.agent.wish.HIDDEN", ())
    # What it is in was made by pytest, and is closed to others.
    monkeypatch.setattr("reconciler.agent.wish._above", lambda path: [path])
    bare = tmp_path / "state.git"
    assert f"{bare} is no Git repository" in check({"repo": str(bare)})
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    bare.chmod(0o755)
    assert check({"repo": str(bare)}) == ""
    bare.chmod(0o700)
    assert f"who cannot enter {bare}" in check({"repo": str(bare)})


def test_all_that_a_directory_is_in_is_looked_at() -> None:
    assert _above("/srv/git/state.git") == ["/", "/srv", "/srv/git", "/srv/git/state.git"]


@pytest.mark.parametrize(
    "missing, settings, package",
    [
        ("git", {"repo": "https://h/x"}, "git"),
        ("prlimit", {"repo": "/srv/state.git"}, "util-linux"),
        ("ssh", {"repo": URL}, "openssh-client"),
        ("ssh-keygen", {"repo": URL}, "openssh-client"),
        ("ssh-keygen", {"repo": "https://h/x", "trust": "head"}, "openssh-client"),
        ("gpg", {"repo": "https://h/x", "trust": "head", "keyring": "/k"}, "gnupg"),
    ],
)
def test_a_program_that_is_not_installed_is_asked_for_before_it_is_needed(
    key: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    settings: dict[str, Any],
    package: str,
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else which(name))
    files = {"deploy_key": str(key)} if settings["repo"] == URL else {}
    wish = replace(Wish(settings), **files)
    with pytest.raises(ConfigError) as caught:
        wish.check(parse(wish.merged({}, Places()), "options"), Places())
    assert caught.value.message == f"{missing} is not installed, and the agent needs it"
    assert caught.value.hint == f"apt-get install {package}"


def test_trust_is_refused_where_signatures_cannot_be_verified(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, blob, _ = key.with_suffix(".pub").read_text().split()
    signers, old = tmp_path / "signers", tmp_path / "ssh-keygen"
    signers.write_text(f"alice {kind} {blob}\n")
    old.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2; exit 1\n")
    old.chmod(0o755)
    for module in (selftest, signature):
        monkeypatch.setattr(module, "SSH_KEYGEN", str(old))
    assert "unknown option" in check({"repo": "https://h/x"}, allowed_signers=str(signers))
    unsigned = check({"repo": "https://h/x", "trust": "none"}, allowed_signers=str(signers))
    assert unsigned == ""


# -- OpenPGP --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    gpg = Gpg(tmp_path_factory.mktemp("gpg") / "home")
    gpg.make("ada")
    yield gpg
    gpg.close()


@pytest.fixture
def keyring(gpg: Gpg, tmp_path: Path) -> Path:
    path = tmp_path / "keyring"
    path.write_text(gpg.ring())
    return path


def check_openpgp(keyring: Path, *fingerprints: str) -> dict[str, Any]:
    settings = {"repo": "https://git.example.org/x.git", "fingerprints": list(fingerprints)}
    wish = Wish(settings, keyring=str(keyring))
    found = merged(wish, {})
    wish.check(parse(found, "x"), Places())
    return found


def test_keys_of_openpgp_count_by_their_whole_fingerprint(gpg: Gpg, keyring: Path) -> None:
    ada = gpg.fingerprints["ada"]
    found = check_openpgp(keyring, ada)
    assert (found["trust"], found["keyring"]) == ("head", "/etc/reconciler/keyring")
    spaced = " ".join(ada.lower()[n : n + 4] for n in range(0, 40, 4))
    assert check_openpgp(keyring, spaced)["fingerprints"] == [spaced]
    with pytest.raises(ConfigError, match="only if its fingerprint is named") as caught:
        check_openpgp(keyring)
    assert f"--fingerprint {ada}" in caught.value.hint
    for wrong in (ada[-16:], "A" * 40):
        with pytest.raises(ConfigError, match="no key with the whole fingerprint") as caught:
            check_openpgp(keyring, ada, wrong)
        assert ada in caught.value.hint


def test_a_keyring_is_a_file_of_public_keys(gpg: Gpg, keyring: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        check_openpgp(keyring / "none", "A" * 40)
    for content in (b"", b"nonsense\n", gpg.run("--armor", "--export-secret-keys")):
        keyring.write_bytes(content)
        with pytest.raises(ConfigError, match=r"no file of public OpenPGP keys|is empty"):
            check_openpgp(keyring, gpg.fingerprints["ada"])
    keyring.write_bytes(gpg.run("--export"))
    check_openpgp(keyring, gpg.fingerprints["ada"])
