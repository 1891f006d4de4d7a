"""Where the state repo is fetched from: an address, checked before git sees it, and its keys.

Three kinds of address and no other: `https://host/path`, `ssh://user@host/path` (or
`user@host:path`), and an absolute path on this machine. An address never holds a password.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reconciler.errors import ConfigError
from reconciler.source.keyfile import check_key_file

Protocol = Literal["https", "ssh", "file"]

_HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
_PORT = r"(?::(?P<port>[0-9]{1,5}))?"
_USER = r"(?:(?P<user>[A-Za-z_][A-Za-z0-9_.-]{0,31})@)?"
_PATH = r"(?P<path>/[A-Za-z0-9._~+@%/-]+)"
_HTTPS = re.compile(rf"https://{_HOST}{_PORT}{_PATH}")
_SSH = re.compile(rf"ssh://{_USER}{_HOST}{_PORT}{_PATH}")
_SCP = re.compile(rf"{_USER}{_HOST}:(?P<path>/?[A-Za-z0-9._~][A-Za-z0-9._~+@%/-]*)")
_LOCAL = re.compile(r"(?P<path>/[\w. +=,~@/-]+)")
_PROXY = re.compile(rf"(?:https?|socks5h?)://{_HOST}{_PORT}/?")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
#: A file name that ssh takes as it is: no space, quote, percent sign or variable.
_PLAIN_FILE = re.compile(r"/[A-Za-z0-9._/+@-]+")
#: Of its files, those that hold secrets.
_SECRET = ("deploy_key", "credentials")
_PASSWORD = re.compile(r"(?i)(\b(?:https?|ftp)://)[^/\s@]*@|(\bssh://[^/\s@:]*):[^/\s@]*@")


class Place(NamedTuple):
    """An address in its parts; host and port are for messages and for a first connection."""

    protocol: Protocol
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class Remote:
    """One place of the state repo. Raises ConfigError for what could be anything else.

    name: short, for messages and refs. deploy_key, known_hosts: files for ssh. credentials: a
    file with `user:password` for https. ca_file: certificates that are trusted instead of the
    system's. proxy: for https. Files are absolute paths; "" is none.
    """

    url: str
    name: str = "origin"
    deploy_key: str = ""
    known_hosts: str = "/etc/reconciler/known_hosts"
    credentials: str = ""
    ca_file: str = ""
    proxy: str = ""

    def __post_init__(self) -> None:
        parse(self.url)
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name[:40]!r} is no name of a remote",
                hint="lower case letters, digits, - and _",
            )
        for key in ("deploy_key", "known_hosts", "credentials", "ca_file"):
            file: str = getattr(self, key)
            if file and not _PLAIN_FILE.fullmatch(file):
                # Somebody may have written the secret itself.
                shown = key if key in _SECRET else repr(file[:80])
                raise ConfigError(
                    f"{shown} cannot be the file of a remote",
                    hint="an absolute path of letters, digits and . _ + @ -",
                )
        if self.proxy and not _PROXY.fullmatch(self.proxy):
            raise ConfigError(
                f"{redact(self.proxy)[:80]!r} is no address of a proxy",
                hint="http://host:port or socks5h://host:port, without a password",
            )

    @property
    def place(self) -> Place:
        """The address in its parts."""
        return parse(self.url)

    def check_files(self) -> None:
        """Refuse keys and passwords that others can read, and files that are not there.

        Raises ConfigError.
        """
        protocol = self.place.protocol
        if protocol == "ssh":
            if self.deploy_key:
                _check_private(self.deploy_key, "the deploy key")
        elif protocol == "https":
            if self.credentials:
                _check_private(self.credentials, "the file of credentials")
            if self.ca_file and not os.path.isfile(self.ca_file):
                raise ConfigError(f"there are no certificates at {self.ca_file}")

    def check_trusted(self) -> None:
        """Refuse files that say which server is the right one, if others can write to them.

        One that is not there says that none is. Raises TrustError.
        """
        files = {"ssh": self.known_hosts, "https": self.ca_file}
        file = files.get(self.place.protocol, "")
        if file and os.path.exists(file):
            check_key_file(file)

    def password(self) -> str:
        """`user:password` from the file of credentials, "" without one. Raises ConfigError."""
        if not self.credentials:
            return ""
        try:
            with open(self.credentials, encoding="ascii") as file:
                text = file.read(4096).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {self.credentials}: {error}") from error
        if not re.fullmatch(r"[!-9;-~]+:[!-~]+", text):
            raise ConfigError(
                f"{self.credentials} does not hold user:password on one line",
                hint="for a token, the user that its forge names: oauth2:TOKEN, x-access-token:TOKEN",
            )
        return text


def in_order(remotes: Iterable[Remote], resting: Collection[str]) -> list[Remote]:
    """As they are tried: in the order of the list, but last of all those named in `resting`."""
    return sorted(remotes, key=lambda one: one.name in resting)


def parse(url: str) -> Place:
    """An address in its parts. Raises ConfigError for anything that is not one of three kinds."""
    if _PASSWORD.search(url):
        raise ConfigError(
            f"the address {redact(url)[:120]!r} holds a user or password",
            hint="put user:password into a file of mode 0600 and name it as credentials",
        )
    kinds: tuple[tuple[Protocol, re.Pattern[str], int], ...] = (
        ("https", _HTTPS, 443),
        ("ssh", _SSH, 22),
        ("ssh", _SCP, 22),
        ("file", _LOCAL, 0),
    )
    for protocol, pattern, port in kinds:
        found = pattern.fullmatch(url)
        if found and ".." not in found["path"].split("/") and len(url) <= 1024:
            parts = found.groupdict()
            number = int(parts.get("port") or port)
            if number <= 65535:
                return Place(protocol, parts.get("host") or "", number, found["path"])
    raise ConfigError(
        f"{redact(url)[:120]!r} is no address of a state repo",
        hint="https://host/path, ssh://user@host/path, user@host:path or an absolute path",
    )


def redact(text: str) -> str:
    """`text` without the passwords in its addresses, and without what a terminal would obey."""
    shown = _PASSWORD.sub(lambda found: f"{found[1] or found[2] + ':'}***@", text)
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in shown)


def _check_private(path: str, what: str) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{what} {path} is not a regular file")
    if found.st_mode & 0o077:
        raise ConfigError(
            f"{what} {path} has mode {found.st_mode & 0o7777:04o}: others can read it",
            hint=f"chmod 0600 {path}; if others were on this machine, make a new one",
        )
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{what} {path} belongs to another user", hint=f"chown root {path}")
