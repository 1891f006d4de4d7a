"""Host certificates: is this one valid for this host, now, and who signed it?

The format is OpenSSH's PROTOCOL.certkeys. Only what a client must check is read.
"""

from __future__ import annotations

import fnmatch
import time

from reconciler.errors import HostKeyRefused
from reconciler.transport.known_hosts import Known, kind_of

SUFFIX = "-cert-v01@openssh.com"
HOST = 2
#: How many parts the public key has inside a certificate, by its type.
PARTS = {"ssh-ed25519": 1, "ecdsa-sha2-nistp": 2, "rsa-sha2-": 2, "ssh-rsa": 2}


class Parts:
    """Reads what SSH packs: numbers, and strings behind their length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise ValueError("it ends too early")
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        return self.take(self.number(4))

    def more(self) -> bool:
        return self.at < len(self._data)


def authority(blob: bytes, name: str, now: float | None = None) -> bytes:
    """The public key that signed the host certificate `blob`, which is valid for `name`.

    Raises HostKeyRefused with the reason why it is not.
    """
    try:
        return _authority(blob, name, time.time() if now is None else now)
    except ValueError as error:
        raise HostKeyRefused(
            f"the host certificate of {name} is not accepted: {error}",
            hint="see it with: ssh-keygen -L -f /etc/ssh/ssh_host_ed25519_key-cert.pub, on the host",
        ) from error


def _authority(blob: bytes, name: str, now: float) -> bytes:
    import paramiko

    parts = Parts(blob)
    kind = parts.string().decode("ascii", "replace")
    parts.string()  # the nonce
    for _ in range(next((n for start, n in PARTS.items() if kind.startswith(start)), 1)):
        parts.string()
    parts.number(8)  # the serial
    if parts.number(4) != HOST:
        raise ValueError("it is not a host's")
    parts.string()  # the key id
    _check_principals(Parts(parts.string()), name)
    after, before = parts.number(8), parts.number(8)
    if not after <= now < before:
        raise ValueError("it is not valid now")
    if parts.string():
        raise ValueError("it has critical options that we do not know")
    parts.string()  # extensions
    parts.string()  # reserved
    signer = parts.string()
    signed = blob[: parts.at]
    signature = parts.string()
    key = paramiko.PKey.from_type_string(kind_of(signer), signer)
    if not key.verify_ssh_sig(signed, paramiko.Message(signature)):
        raise ValueError("its signature is wrong")
    return signer


def _check_principals(parts: Parts, name: str) -> None:
    bare = name[1:].partition("]")[0] if name.startswith("[") else name
    allowed: list[str] = []
    while parts.more():
        allowed.append(parts.string().decode("utf-8", "replace"))
    # An empty list is refused, as OpenSSH does for hosts since 9.
    if not any(fnmatch.fnmatchcase(bare.lower(), one.lower()) for one in allowed):
        raise ValueError(f"it is for {', '.join(allowed)[:200] or 'nobody'}")


def check(known: Known, blob: bytes, certificate: bytes | None) -> None:
    """Check the key that a host has proved to own, and its certificate. Raises HostKeyRefused."""
    if certificate is None or not known.authorities:
        known.check(blob)
    else:
        known.check(blob, authority(certificate, known.name))
