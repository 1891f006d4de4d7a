"""A company signs the keys of its people: `cert-authority` in allowed_signers, with real certificates."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from reconciler.errors import BadSignature
from reconciler.source.signature import Keys, verify
from reconciler.source.signed import Signed, split_commit
from source.signers import NOW, People, StateRepo, later

#: Within which the certificates of these tests are valid, but for those that say otherwise.
YEAR = "20260101:20270101"


class Company:
    """An authority whose word counts, for whoever it calls something@example.org."""

    def __init__(self, directory: Path) -> None:
        self.people = People(directory / "keys")
        self.signers = directory / "allowed_signers"
        self.allow(f'*@example.org cert-authority,namespaces="git" {self.people.public("company")}')
        self.keys = Keys(allowed_signers=str(self.signers))

    def allow(self, line: str) -> None:
        self.signers.write_text(f"{line}\n")

    def certify(self, *names: str, by: str = "company", valid: str = YEAR, kind: str = "") -> Path:
        """A certificate for the key of Ada. kind: `-h` for that of a host."""
        key = self.people.key("ada")
        named = ["-n", ",".join(names)] if names else []
        sign = ["ssh-keygen", "-q", "-s", str(self.people.key(by)), "-I", "ada", "-V", valid]
        self.people.run(*sign, *filter(None, [kind]), *named, f"{key}.pub")
        return key.with_name("ada-cert.pub")

    def signed(self, file: Path, purpose: str = "git") -> Signed:
        argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", purpose, "-f", str(file)]
        return Signed(b"payload", self.people.run(*argv, stdin=b"payload"), "ssh")

    def revoke(self, *what: Path | str) -> Keys:
        """The same keys with a list of what is revoked: files, or a specification of certificates."""
        spec = self.signers.with_name("specification")
        spec.write_text("".join(f"{one}\n" for one in what if isinstance(one, str)))
        files = [str(one) for one in what if isinstance(one, Path)] or [str(spec)]
        authority = ["-s", f"{self.people.key('company')}.pub"]
        krl = str(self.signers.with_name("revoked"))
        self.people.run("ssh-keygen", "-q", "-k", "-f", krl, *authority, *files)
        return replace(self.keys, revoked=krl)


@pytest.fixture
def company(tmp_path: Path) -> Company:
    return Company(tmp_path)


def refused(signed: Signed, keys: Keys, at: datetime = NOW) -> str:
    with pytest.raises(BadSignature) as caught:
        verify("commit 1", signed, keys, at)
    assert caught.value.hint
    return caught.value.message


def test_a_key_that_the_authority_has_certified(company: Company) -> None:
    signed = company.signed(company.certify("ada@example.org"))
    signer = verify("commit 1", signed, company.keys, NOW)
    assert signer.who == "ada@example.org"
    assert signer.key.startswith("ED25519-CERT key SHA256:")


def test_a_commit_that_git_has_signed_with_a_certificate(company: Company, tmp_path: Path) -> None:
    repo = StateRepo(tmp_path / "repo", company.people)
    key = f"user.signingKey={company.certify('ada@example.org')}"
    how = ("-c", "gpg.format=ssh", "-c", key)
    repo.git(*how, "commit", "--quiet", "--allow-empty", "-S", "-m", "signed")
    signed = split_commit(repo.head, repo.raw())
    assert verify("commit 1", signed, company.keys, NOW).who == "ada@example.org"


@pytest.mark.parametrize("at", [later(days=-365), later(days=365)])
def test_a_certificate_counts_in_its_time_only(company: Company, at: datetime) -> None:
    """When the commit is received, whenever it was made."""
    signed = company.signed(company.certify("ada@example.org"))
    assert "its certificate was not valid when it was received" in refused(signed, company.keys, at)


@pytest.mark.parametrize("at, good", [(NOW, True), (later(days=60), False)])
def test_so_does_the_authority_itself(company: Company, at: datetime, good: bool) -> None:
    options = 'cert-authority,namespaces="git",valid-before="20260701"'
    company.allow(f"*@example.org {options} {company.people.public('company')}")
    signed = company.signed(company.certify("ada@example.org"))
    if good:
        assert verify("commit 1", signed, company.keys, at).who == "ada@example.org"
    else:
        assert refused(signed, company.keys, at)


@pytest.mark.parametrize(
    "names",
    [("ada@evil.example",), ("ada@example.org.evil",), ("example.org",), ("root",), ()],
)
def test_a_certificate_for_somebody_else(company: Company, names: tuple[str, ...]) -> None:
    assert refused(company.signed(company.certify(*names)), company.keys)


def test_of_several_names_the_one_counts_that_may_sign(company: Company) -> None:
    signed = company.signed(company.certify("root", "ada@example.org"))
    assert verify("commit 1", signed, company.keys, NOW).who == "ada@example.org"


def test_a_certificate_of_another_authority(company: Company) -> None:
    signed = company.signed(company.certify("ada@example.org", by="mallory"))
    assert "not one of the allowed signers" in refused(signed, company.keys)


def test_a_certificate_for_a_host(company: Company) -> None:
    assert refused(company.signed(company.certify("ada@example.org", kind="-h")), company.keys)


def test_the_key_alone_without_its_certificate(company: Company) -> None:
    company.certify("ada@example.org")
    plain = company.people.key("ada").rename(company.signers.with_name("plain"))
    assert refused(company.signed(plain), company.keys)


def test_the_authority_itself_signs_nothing(company: Company) -> None:
    assert refused(company.signed(company.people.key("company")), company.keys)


def test_a_key_that_is_listed_as_itself_certifies_nobody(company: Company) -> None:
    company.allow(f'*@example.org namespaces="git" {company.people.public("company")}')
    assert refused(company.signed(company.certify("ada@example.org")), company.keys)


def test_a_certificate_for_another_purpose(company: Company) -> None:
    signed = company.signed(company.certify("ada@example.org"), "file")
    assert refused(signed, company.keys)


@pytest.mark.parametrize("what", ["the certificate", "its name", "its key", "the authority"])
def test_what_was_revoked_signs_nothing(company: Company, what: str) -> None:
    certificate = company.certify("ada@example.org")
    signed = company.signed(certificate)
    how: dict[str, Path | str] = {
        "the certificate": certificate,
        "its name": "id: ada",
        "its key": company.people.key("ada").with_suffix(".pub"),
        "the authority": company.people.key("company").with_suffix(".pub"),
    }
    assert "its key is revoked" in refused(signed, company.revoke(how[what]))
    assert verify("commit 1", signed, company.keys, NOW)


def test_what_is_revoked_of_others_costs_nobody_his_certificate(company: Company) -> None:
    signed = company.signed(company.certify("ada@example.org"))
    assert verify("commit 1", signed, company.revoke("id: mallory"), NOW).who == "ada@example.org"
