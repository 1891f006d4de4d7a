"""Which host keys are known: known_hosts files as OpenSSH reads them, and keys from the inventory.

Markers (`@cert-authority`, `@revoked`), hashed names, patterns with `*`, `?` and `!`, and ports
(`[host]:port`) mean what they mean to OpenSSH. Key material is compared as bytes, so no key
library is needed here.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fnmatch
import functools
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.errors import ConfigError, HostKeyRefused

DEFAULT_PORT = 22
USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
PINNED = "host_keys of the inventory"
_BRACES = re.compile(r"[\[\]]")


@dataclass(frozen=True)
class Entry:
    """One line. marker: "", `cert-authority` or `revoked`; blob: the public key's bytes."""

    marker: str
    names: str
    kind: str
    blob: bytes
    place: str


def read(paths: Iterable[str]) -> list[Entry]:
    """The entries of these files; what is not there or no entry is passed over, as OpenSSH does."""
    found: list[Entry] = []
    for path in map(os.path.expanduser, paths):
        with contextlib.suppress(OSError):
            state = os.stat(path)
            found += _read(path, state.st_mtime_ns, state.st_size)
    return found


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int, size: int) -> list[Entry]:
    """Kept while the file stays the same: a fleet run reads it for every host."""
    with open(path, encoding="utf-8", errors="replace") as file:
        entries = [_entry(line, f"{path}:{number}") for number, line in enumerate(file, 1)]
    return [entry for entry in entries if entry is not None]


def pinned(keys: Sequence[str]) -> list[Entry]:
    """The keys that the inventory gives a host, `TYPE BASE64 [comment]`. Raises ConfigError."""
    found: list[Entry] = []
    for key in keys:
        marker = "@cert-authority " if key.startswith("@cert-authority ") else ""
        entry = _entry(f"{marker}* {key.removeprefix(marker)}", PINNED)
        if entry is None:
            raise ConfigError(
                f"host_keys: {key[:60]!r} is not a public key",
                hint="as ssh-keyscan prints it, without the name: ssh-ed25519 AAAA...",
            )
        found.append(entry)
    return found


def _entry(line: str, place: str) -> Entry | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0)[1:] if words[0].startswith("@") else ""
    if len(words) < 3 or marker not in ("", "cert-authority", "revoked"):
        return None
    names, kind, text = words[:3]
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    # The key says its own type; a line that says another is damaged.
    if kind_of(blob) != kind:
        return None
    return Entry(marker, names, kind, blob, place)


def kind_of(blob: bytes) -> str:
    """The type that a public key or certificate says it is; "" for neither."""
    size = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + size].decode("ascii", "replace") if size <= 64 else ""


def lookup_name(host: str, port: int) -> str:
    """The name under which a host's key is kept."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def matches(names: str, name: str) -> bool:
    """Whether the names field of an entry means this host."""
    if names.startswith("|1|"):
        return _matches_hash(names, name)
    found, name = False, name.lower()
    for pattern in names.lower().split(","):
        wanted = pattern.removeprefix("!")
        if _means(wanted, name):
            if wanted != pattern:
                return False
            found = True
    return found


def _means(pattern: str, name: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    # The brackets of [host]:port are not special.
    return fnmatch.fnmatchcase(name, _BRACES.sub(lambda m: f"[{m[0]}]", pattern))


def _matches_hash(names: str, name: str) -> bool:
    try:
        _, _, salt, digest = names.split("|")
        mine = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(mine, base64.b64decode(digest))
    except (ValueError, binascii.Error):
        return False


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class Known:
    """What is known of one host. entries: all that could concern it; name: as it is looked up."""

    def __init__(self, name: str, entries: Iterable[Entry]) -> None:
        self.name = name
        mine = [entry for entry in entries if matches(entry.names, name)]
        self.revoked = [entry for entry in mine if entry.marker == "revoked"]
        self.authorities = [entry for entry in mine if entry.marker == "cert-authority"]
        self.keys = [entry for entry in mine if not entry.marker]

    @property
    def kinds(self) -> list[str]:
        """The types of the known keys, for asking the host for one that can be checked."""
        return list(dict.fromkeys(entry.kind for entry in self.keys))

    def check(self, blob: bytes, authority: bytes | None = None) -> None:
        """A key that the host has proved to own. authority: the key that signed its certificate,
        where that is valid for this host and time. Raises HostKeyRefused."""
        for entry in self.revoked:
            if entry.blob in (blob, authority):
                raise HostKeyRefused(
                    f"the host key {fingerprint(blob)} of {self.name} is revoked ({entry.place})",
                    hint="whoever answers there must not be trusted",
                )
        if authority is not None and any(one.blob == authority for one in self.authorities):
            return
        if any(entry.blob == blob for entry in self.keys):
            return
        if self.keys:
            raise self._changed(blob)
        raise self._unknown(blob)

    def _changed(self, blob: bytes) -> HostKeyRefused:
        same = [entry for entry in self.keys if entry.kind == kind_of(blob)] or self.keys
        hint = (
            "was it installed anew? then remove the old key:\n"
            f"ssh-keygen -R '{self.name}'\nand add the new one, if it is the right one:\n"
            + commands(self.name)
        )
        if same[0].place == PINNED:
            hint = (
                f"if the new key is the right one, change host_keys of {self.name} in the inventory"
            )
        return HostKeyRefused(
            f"THE HOST KEY OF {self.name} HAS CHANGED: it has {kind_of(blob)} {fingerprint(blob)}, "
            f"known is {same[0].kind} {fingerprint(same[0].blob)} ({same[0].place}). "
            "Somebody may be posing as this host",
            hint=hint,
        )

    def _unknown(self, blob: bytes) -> HostKeyRefused:
        return HostKeyRefused(
            f"the host key of {self.name} is unknown: {kind_of(blob)} {fingerprint(blob)}",
            hint="compare it with what the host's console says, then add it:\n"
            + commands(self.name),
        )


def commands(name: str) -> str:
    """What shows a host's key, and what adds it to known_hosts."""
    bracketed = re.fullmatch(r"\[(.*)\]:(\d+)", name)
    where = f"-p {bracketed[2]} {bracketed[1]}" if bracketed else name
    return f"ssh-keyscan {where} | ssh-keygen -lf -\nssh-keyscan -H {where} >> ~/.ssh/known_hosts"
