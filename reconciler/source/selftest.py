"""Whether the programs that judge signatures do here what is asked of them: tried, not guessed.

A version says little: distributions mend old ones. So a key is made, something is signed with
it, and the verdicts must be those that a commit would get.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from datetime import UTC, datetime

from reconciler.errors import BadSignature, ConfigError
from reconciler.source.signature import SSH_KEYGEN, Keys, verify
from reconciler.source.signed import Signed

PAYLOAD = b"reconciler looks whether signatures can be verified here\n"
WHO = "reconciler"
#: When the key of the test may sign, and a time within that, and one after it.
LIFETIME = 'valid-after="20200101",valid-before="20370101"'
WITHIN, AFTER = datetime(2025, 1, 1, tzinfo=UTC), datetime(2037, 7, 1, tzinfo=UTC)


def check_ssh_signatures() -> None:
    """Refuse an ssh-keygen that cannot verify what was signed for git, or knows no lifetimes.

    Raises ConfigError.
    """
    with tempfile.TemporaryDirectory(prefix="reconciler-") as directory:
        key, signers = os.path.join(directory, "key"), os.path.join(directory, "signers")
        _keygen("-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key)
        with open(f"{key}.pub", encoding="ascii") as file:
            line = f'{WHO} namespaces="git",{LIFETIME} {file.read()}'
        with open(signers, "w", encoding="ascii") as file:
            file.write(line)
        signed = Signed(PAYLOAD, _keygen("-q", "-Y", "sign", "-n", "git", "-f", key), "ssh")
        forged = Signed(b"x" + PAYLOAD, signed.signature, "ssh")
        keys = Keys(allowed_signers=signers)
        try:
            good = verify("a test", signed, keys, WITHIN).who == WHO
        except BadSignature as error:
            raise _unfit(error.message.partition(": ")[2]) from error
        for what, one, at in (("an expired key", signed, AFTER), ("a forgery", forged, WITHIN)):
            try:
                verify("a test", one, keys, at)
            except BadSignature:
                continue
            raise _unfit(f"it takes {what} for good")
        if not good:
            raise _unfit("it names another signer")


def _keygen(*args: str) -> bytes:
    """What it prints, given the payload. Raises ConfigError."""
    try:
        done = subprocess.run(
            [SSH_KEYGEN, *args], input=PAYLOAD, check=False, capture_output=True, timeout=30
        )
    except FileNotFoundError as error:
        raise ConfigError(
            "ssh-keygen, which verifies signatures, is not installed",
            hint="apt-get install openssh-client",
        ) from error
    if done.returncode:
        raise _unfit(done.stderr.decode("utf-8", "replace").strip().partition("\n")[0])
    return done.stdout


def _unfit(why: str) -> ConfigError:
    return ConfigError(
        f"the ssh-keygen of this machine cannot verify signatures as they must be: {why}",
        hint="OpenSSH 8.8 or newer can: ssh -V; or sign with OpenPGP: keyring and fingerprints",
    )
