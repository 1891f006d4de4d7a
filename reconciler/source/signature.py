"""Who signed a commit or tag, by the keys that this host trusts.

The keys are files of the host, never of the state repo: a commit cannot add its own signer.
What counts is the time at which it was received; the date in a commit is only what its author
says. A verifier that fails, crashes or hangs has verified nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from reconciler.errors import BadSignature, ConfigError, TrustError
from reconciler.source.keyfile import check_key_file
from reconciler.source.process import Ended, memory_file, run
from reconciler.source.signed import Signed

SSH_KEYGEN = "/usr/bin/ssh-keygen"
GPG = "/usr/bin/gpg"
#: Seconds that one call of a verifier may take.
TIMEOUT = 20.0
#: gpg with no home, no settings, no network and no opinion of its own.
_ALONE = (
    *("--batch", "--no-options", "--no-tty", "--homedir", "/nonexistent"),
    *("--no-default-keyring", "--lock-never", "--trust-model", "always"),
    *("--no-auto-key-retrieve", "--no-auto-key-locate", "--no-auto-check-trustdb"),
)
#: Hashes of OpenPGP that can be forged: MD5, SHA-1, RIPEMD-160.
_WEAK_HASHES = {"1", "2", "3"}

#: UTC, so that `valid-after` and `valid-before` mean the same on every host.
_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
}
_GOOD = re.compile(r'Good "git" signature for (?P<who>\S.*) with (?P<key>\S+ key \S+)')


@dataclass(frozen=True)
class Keys:
    """The files that say who is trusted; absolute paths on this host, "" for none.

    allowed_signers: as ssh-keygen reads it. revoked: a key revocation list for ssh (or a file of
    public keys). keyring: public OpenPGP keys, armoured or not. fingerprints: which of them are
    trusted, in full.
    """

    allowed_signers: str = ""
    revoked: str = ""
    keyring: str = ""
    fingerprints: tuple[str, ...] = ()


class Signer(NamedTuple):
    """A principal of `allowed_signers`, or an OpenPGP fingerprint; key: for the eye."""

    who: str
    key: str

    def __str__(self) -> str:
        return f"{self.who} ({self.key})"


def verify(what: str, signed: Signed, keys: Keys, at: datetime) -> Signer:
    """Who signed this, valid at the time `at`.

    what: names the object in messages, `commit 1234abcd5678`. Raises BadSignature, and
    TrustError for key files that are missing or that others can change.
    """
    if signed.kind == "ssh":
        return _verify_ssh(what, signed, keys, at)
    if signed.kind == "openpgp":
        return _verify_openpgp(what, signed, keys, at)
    raise BadSignature(
        f"{what} is not signed",
        hint="sign it: git config gpg.format ssh; git config user.signingKey KEY.pub; "
        "git commit --amend -S",
    )


def _verify_ssh(what: str, signed: Signed, keys: Keys, at: datetime) -> Signer:
    if not keys.allowed_signers:
        raise _not_configured(what, "an SSH", "allowed_signers")
    check_key_file(keys.allowed_signers)
    revoked = ["-r", keys.revoked] if keys.revoked else []
    if keys.revoked:
        check_key_file(keys.revoked)
    time = f"-Overify-time={at.astimezone(UTC):%Y%m%d%H%M%S}"
    with memory_file(signed.signature) as fd:
        common = ["-f", keys.allowed_signers, "-s", f"/proc/self/fd/{fd}", time]
        found = _run([SSH_KEYGEN, "-Y", "find-principals", *common], b"", [fd])
        if not found.ok:
            raise _refused_ssh(what, found, keys)
        last = found
        for who in _principals(found.out):
            asked = [SSH_KEYGEN, "-Y", "verify", "-n", "git", "-I", who, *common]
            last = _run([*asked, *revoked], signed.payload, [fd])
            key = _good(last, who)
            if key:
                return Signer(who, key)
            # Only to say why: the answer stays no.
            if revoked and _good(_run(asked, signed.payload, [fd]), who):
                raise _refused(
                    what,
                    "its key is revoked",
                    f"sign it with another key; the list is {keys.revoked}",
                )
    raise _refused_ssh(what, last, keys)


def _good(ended: Ended, who: str) -> str:
    """The key, if the whole answer is that `who` signed this for git, and the exit code agrees."""
    good = _GOOD.fullmatch(ended.out.decode("utf-8", "replace").strip())
    return good["key"] if ended.ok and good and good["who"] == who else ""


def _principals(found: bytes) -> list[str]:
    """The names in what find-principals prints: lines, each a list of patterns."""
    names = [
        name for line in found.decode("utf-8", "replace").splitlines() for name in line.split(",")
    ]
    return [
        name for name in dict.fromkeys(names) if name and name.isprintable() and name[0] not in "!-"
    ]


def _refused_ssh(what: str, ended: Ended, keys: Keys) -> BadSignature:
    said = ended.said.replace(keys.allowed_signers, "allowed_signers")
    if ended.stopped or ended.code < 0:
        return _no_verdict(what, "ssh-keygen", ended)
    if "expired" in said or "not yet valid" in said:
        line = next(line for line in said.splitlines() if "expired" in line or "not yet" in line)
        why = f"the key was not valid when it was received: {line}"
        hint = f"sign it with a valid key, or extend valid-before in {keys.allowed_signers}"
    elif "namespace" in said:
        why = "it was signed for another purpose than git"
        hint = f"sign it with git; or see namespaces= in {keys.allowed_signers}"
    elif "no valid principals" in said:
        why = "its certificate was not valid when it was received, or is for nobody who may sign"
        hint = f"look at it with: ssh-keygen -L -f CERTIFICATE; who may sign is in {keys.allowed_signers}"
    elif "No principal matched" in said or not said:
        why = "its key is not one of the allowed signers"
        hint = f"if the signer is to be trusted, add the public key to {keys.allowed_signers}"
    elif "incorrect signature" in said:
        why = "the content was changed after it was signed"
        hint = "somebody made it from another commit: find out who pushed it"
    else:
        why = said.splitlines()[0][:200]
        hint = f"look at it with: git log --show-signature; the keys are in {keys.allowed_signers}"
    return _refused(what, why, hint)


def _refused(what: str, why: str, hint: str) -> BadSignature:
    return BadSignature(f"the signature of {what} is refused: {why}", hint=hint)


def _verify_openpgp(what: str, signed: Signed, keys: Keys, at: datetime) -> Signer:
    if not keys.keyring or not keys.fingerprints:
        raise _not_configured(what, "an OpenPGP", "keyring and fingerprints")
    check_key_file(keys.keyring)
    with ExitStack() as stack:
        ring = stack.enter_context(memory_file(_keyring(keys.keyring)))
        signature = stack.enter_context(memory_file(signed.signature))
        options = [
            *("--faked-system-time", f"{at.astimezone(UTC):%Y%m%dT%H%M%S}!"),
            *("--keyring", f"/proc/self/fd/{ring}", "--status-fd", "1"),
        ]
        ended = _run(
            [GPG, *_ALONE, *options, "--verify", f"/proc/self/fd/{signature}", "-"],
            signed.payload,
            [ring, signature],
        )
    return _judge_openpgp(what, ended, keys)


def _judge_openpgp(what: str, ended: Ended, keys: Keys) -> Signer:
    """One good signature by an allowed key, said by gpg itself; never its exit code alone."""
    if ended.stopped or ended.code < 0:
        raise _no_verdict(what, "gpg", ended)
    said: dict[str, list[list[str]]] = {}
    for line in ended.out.decode("utf-8", "replace").splitlines():
        if line.startswith("[GNUPG:] "):
            word, *rest = line.removeprefix("[GNUPG:] ").split(" ")
            said.setdefault(word, []).append(rest)
    reasons = {
        "REVKEYSIG": "its key is revoked",
        "EXPKEYSIG": "its key had expired when it was received",
        "EXPSIG": "the signature itself had expired when it was received",
        "BADSIG": "it is not a signature of this content",
        "NO_PUBKEY": "its key is not in the keyring",
        "ERRSIG": "it could not be checked",
    }
    why = next((reason for word, reason in reasons.items() if word in said), "")
    valid = said.get("VALIDSIG", [])
    if not why and (
        len(valid) != 1 or len(said.get("GOODSIG", [])) != 1 or len(said.get("NEWSIG", [])) > 1
    ):
        why = "there is not exactly one good signature"
    if not why and ended.code != 0:
        why = f"gpg ended with code {ended.code}"
    if not why and len(valid[0]) < 10:
        why = "gpg did not name its key"
    if why:
        raise _refused_openpgp(what, why, keys)
    fields = valid[0]
    allowed = {_fingerprint(text) for text in keys.fingerprints}
    if not {fields[0], fields[9]} & allowed:
        raise _refused_openpgp(what, f"the key {fields[0]} is not one of the fingerprints", keys)
    if fields[7] in _WEAK_HASHES or fields[8] != "00":
        raise _refused_openpgp(
            what, "it uses a hash that can be forged, or is of another class", keys
        )
    return Signer(fields[9], f"OpenPGP key {fields[0]}")


def _refused_openpgp(what: str, why: str, keys: Keys) -> BadSignature:
    return _refused(
        what, why, f"who is trusted: {keys.keyring} and the fingerprints in the configuration"
    )


def public_keys(path: str) -> list[str]:
    """The fingerprints of the OpenPGP keys in a file, armoured or not, and of their subkeys.

    Raises ConfigError for a file that has none, TrustError.
    """
    try:
        content = _keyring(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    with memory_file(content) as ring:
        options = ["--keyring", f"/proc/self/fd/{ring}", "--with-colons"]
        listed = _run([GPG, *_ALONE, *options, "--list-keys"], b"", [ring])
    lines = listed.out.decode("utf-8", "replace").splitlines()
    found = [line.split(":")[9] for line in lines if line.startswith("fpr:")]
    if not found or not listed.ok:
        raise ConfigError(
            f"{path} is no file of public OpenPGP keys",
            hint=f"gpg --armor --export alice@example.org > {path}",
        )
    return found


def _fingerprint(text: str) -> str:
    plain = text.replace(" ", "").upper()
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", plain):
        raise TrustError(
            f"{text[:80]!r} is no whole fingerprint of an OpenPGP key",
            hint="gpg --show-keys KEYRING shows them: 40 or 64 hexadecimal digits",
        )
    return plain


def _keyring(path: str) -> bytes:
    """The public keys of a file, out of their armour. Raises TrustError."""
    with open(path, "rb") as file:
        content = file.read(16 << 20)
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" not in content:
        return content
    blocks = re.findall(
        rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[^\n]+\n)*\n(.*?)(?:\n=[^\n]{4})?\n-----END",
        content.replace(b"\r\n", b"\n"),
        re.DOTALL,
    )
    try:
        return b"".join(base64.b64decode(block) for block in blocks)
    except binascii.Error as error:
        raise TrustError(f"{path} is not a file of OpenPGP keys: {error}") from error


def _run(argv: Sequence[str], payload: bytes, fds: Sequence[int]) -> Ended:
    try:
        return run(argv, _ENVIRONMENT, seconds=TIMEOUT, feed=payload, pass_fds=fds)
    except OSError as error:
        package = "gnupg" if argv[0] == GPG else "openssh-client"
        raise TrustError(
            f"cannot start {argv[0]}: {error.strerror}", hint=f"apt-get install {package}"
        ) from error


def _no_verdict(what: str, program: str, ended: Ended) -> BadSignature:
    how = "took too long" if ended.stopped == "time" else "printed too much"
    how = f"was killed by signal {-ended.code}" if not ended.stopped else how
    return BadSignature(
        f"the signature of {what} is not verified: {program} {how}",
        hint=f"does {program} work on this host? the commit is refused until it does",
    )


def _not_configured(what: str, kind: str, names: str) -> BadSignature:
    return BadSignature(
        f"{what} has {kind} signature, and no such keys are trusted",
        hint=f"configure {names}, or sign with a kind of key that is configured",
    )
