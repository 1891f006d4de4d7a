"""People with OpenPGP keys, in a home of gpg that belongs to the test."""

from __future__ import annotations

import subprocess
from datetime import datetime
from pathlib import Path

from reconciler.source.signed import Signed


class Gpg:
    """A home of gpg. at: the time that gpg takes it to be; None: that of the clock."""

    def __init__(self, home: Path, at: datetime | None = None) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.fingerprints: dict[str, str] = {}
        frozen = [f"--faked-system-time={at:%Y%m%dT%H%M%S}!"] if at else []
        self._options = [f"--homedir={home}", "--batch", "--quiet", *frozen]

    def run(self, *args: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            ["gpg", *self._options, "--passphrase", "", *args],
            input=stdin,
            capture_output=True,
            check=True,
        ).stdout

    def make(self, name: str, lasts: str = "2d") -> str:
        self.run("--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", lasts)
        listing = self.run("--with-colons", "--list-keys", f"{name}@example.org").decode()
        found = next(line for line in listing.splitlines() if line.startswith("fpr:"))
        self.fingerprints[name] = found.split(":")[9]
        return self.fingerprints[name]

    def ring(self) -> str:
        """The public keys of all, as one would hand them over."""
        return self.run("--armor", "--export").decode()

    def sign(self, name: str, payload: bytes, *more: str) -> Signed:
        arguments = ["--armor", "--detach-sign", "--local-user", self.fingerprints[name], *more]
        return Signed(payload, self.run(*arguments, stdin=payload), "openpgp")

    def signing(self, name: str) -> list[str]:
        """Options of git, with which it has this one sign."""
        program = self.home / "gpg-of-git"
        program.write_text(f'#!/bin/sh\nexec gpg {" ".join(self._options)} "$@"\n')
        program.chmod(0o755)
        key = f"user.signingKey={self.fingerprints[name]}"
        return ["-c", "gpg.format=openpgp", "-c", f"gpg.program={program}", "-c", key]

    def close(self) -> None:
        """End the daemons that gpg has started."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)
