"""What `agent install` was asked for, checked before anything on the machine is changed."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.agent.config import Config, listed
from reconciler.agent.places import USER, Places
from reconciler.agent.units import HIDDEN
from reconciler.errors import ConfigError
from reconciler.source.remote import Remote
from reconciler.source.selftest import check_ssh_signatures
from reconciler.source.signature import public_keys

KNOWN_HOSTS = "/etc/reconciler/known_hosts"
KEYRING = "/etc/reconciler/keyring"
#: A line of a file of allowed signers: who, perhaps options, the kind of key, the key.
SIGNER = re.compile(r"\S+\s+(?:\S+\s+)?(?:ssh-|ecdsa-|sk-)\S+\s+[A-Za-z0-9+/=]{16,}(?:\s.*)?")
LARGEST = 1 << 20
#: Files that a remote is asked with.
KEYS = ("deploy_key", "credentials", "ca_file")


@dataclass(frozen=True)
class Wish:
    """settings: of agent.yml, only those that were given; `repo` is the address, or several in the
    order in which they are asked.

    Files are copied: allowed_signers, keyring, deploy_key, known_hosts, credentials, ca_file; ""
    for none. Keys are those of all the addresses that were given, else of the first that there is.
    """

    settings: Mapping[str, Any]
    timer: bool = False
    allowed_signers: str = ""
    keyring: str = ""
    deploy_key: str = ""
    known_hosts: str = ""
    credentials: str = ""
    ca_file: str = ""

    def merged(self, kept: Mapping[str, Any], places: Places) -> dict[str, Any]:
        """The settings that there are with those that were asked for; the rest stays."""
        settings = {**kept, **self.settings}
        settings.pop("repo", None)
        settings.pop("remotes", None)
        remotes = self._remotes(kept)
        for one in remotes[: self.keyed]:
            for name in KEYS:
                if getattr(self, name):
                    one[name] = getattr(places, name)
        if self.keyring:
            settings["keyring"] = KEYRING
        if (self.allowed_signers or self.keyring) and "trust" not in settings:
            settings["trust"] = "head"
        return {**({"remotes": remotes} if remotes else {}), **settings}

    @property
    def addresses(self) -> list[str]:
        """Those that were given."""
        return list(dict.fromkeys(map(str, listed(self.settings.get("repo") or []))))

    @property
    def keyed(self) -> int:
        """How many remotes, from the first on, the keys are for."""
        return max(1, len(self.addresses))

    def _remotes(self, kept: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Each address that was given in its place; what there is behind these stays.

        A place that there was keeps its keys, wherever in the list it is now; another one is
        another server, whose keys are others.
        """
        before = remotes_of(kept)
        known = {one.get("url"): one for one in before}
        given = [known.get(url, {"url": url}) for url in self.addresses]
        return [*given, *(one for one in before[len(given) :] if one not in given)]

    def check(self, config: Config, places: Places) -> None:
        """Refuse files that cannot be what they are given as, and a machine that lacks a program.

        Raises ConfigError.
        """
        for program, package in programs(config).items():
            if shutil.which(program) is None:
                raise ConfigError(
                    f"{program} is not installed, and the agent needs it",
                    hint=f"apt-get install {package}",
                )
        contents: Mapping[str, Callable[[str, str], None]] = {
            "allowed_signers": _check_signers,
            "deploy_key": _check_key,
            "known_hosts": lambda path, text: None,
            "credentials": lambda path, text: None,
            "ca_file": _check_certificates,
        }
        for name, check in contents.items():
            if path := getattr(self, name):
                check(path, _read(path))
        self._check_trust(config)
        for number, settings in enumerate(config.remotes):
            remote = Remote(**settings)
            if number < self.keyed:
                given = {
                    name: os.path.abspath(getattr(self, name))
                    for name in KEYS
                    if getattr(self, name)
                }
                remote = replace(remote, **given)
            remote.check_files()
            remote.password()
            check_place(remote, self.known_hosts or remote.known_hosts)

    def _check_trust(self, config: Config) -> None:
        signers = self.allowed_signers or config.allowed_signers
        if config.trust == "none":
            return
        if not config.keyring and not os.path.exists(signers):
            raise ConfigError(
                f"trust: {config.trust} asks for signatures, and nobody may sign: there is no {signers}",
                hint="give --allowed-signers FILE, lines as: alice@example.org ssh-ed25519 AAAA...",
            )
        if os.path.exists(signers):
            check_ssh_signatures()
        if config.keyring:
            _check_openpgp(self.keyring or config.keyring, config.fingerprints)


def remotes_of(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The remotes of settings as they are written, each with its address as `url`."""
    written = listed(settings.get("remotes") or settings.get("repo") or [])
    return [dict(one) if isinstance(one, Mapping) else {"url": str(one)} for one in written]


def programs(config: Config) -> dict[str, str]:
    """What the agent runs with these settings: each program with its package."""
    needed = {"git": "git", "prlimit": "util-linux", "setpriv": "util-linux"}
    if any("deploy_key" in one or Remote(**one).place.protocol == "ssh" for one in config.remotes):
        needed |= dict.fromkeys(("ssh", "ssh-keygen"), "openssh-client")
    if config.trust != "none":
        needed |= {"gpg": "gnupg"} if config.keyring else {"ssh-keygen": "openssh-client"}
    return needed


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise ConfigError(f"{path} is empty")
    return content.decode("utf-8", "replace")


def _check_signers(path: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#") and not SIGNER.fullmatch(line.strip()):
            raise ConfigError(
                f"{path}:{number} does not say who may sign with which key",
                hint="alice@example.org ssh-ed25519 AAAA...; see: man ssh-keygen, ALLOWED SIGNERS",
            )


def _check_openpgp(keyring: str, fingerprints: Sequence[str]) -> None:
    """A key counts by its fingerprint, and only if it is there."""
    known = public_keys(keyring)
    if not fingerprints:
        raise ConfigError(
            f"a key of {keyring} counts only if its fingerprint is named",
            hint=f"compare it with its owner, then: --fingerprint {known[0]}",
        )
    for text in fingerprints:
        if text.replace(" ", "").upper() not in known:
            raise ConfigError(
                f"{keyring} has no key with the whole fingerprint {text!r}",
                hint=f"it has {', '.join(known[:5])}",
            )


def _check_key(path: str, text: str) -> None:
    if re.match(r"(ssh|ecdsa|sk)-\S+ ", text):
        raise ConfigError(
            f"{path} is a public key", hint="the deploy key is the file without .pub beside it"
        )
    if "PRIVATE KEY-----" not in text:
        raise ConfigError(f"{path} is no private key", hint="ssh-keygen -t ed25519 -N '' makes one")
    mode = os.stat(path).st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(
            f"the deploy key {path} has mode {mode:04o}: others can read it",
            hint=f"chmod 0600 {path}; if others were on this machine, make a new one",
        )
    done = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", path], check=False, capture_output=True, timeout=30
    )
    if done.returncode:
        raise ConfigError(
            f"the deploy key {path} cannot be used: it has a passphrase, or is damaged",
            hint="a service cannot type one: ssh-keygen -t ed25519 -N '' -f deploy_key",
        )


def _check_certificates(path: str, text: str) -> None:
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ConfigError(f"{path} holds no certificate", hint="a file in PEM form is wanted")


def check_place(remote: Remote, known_hosts: str) -> None:
    """Refuse a server that is not known, and a path that is of no use. Raises ConfigError."""
    place = remote.place
    if place.protocol == "file":
        _check_directory(place.path)
    elif place.protocol == "ssh":
        name = place.host if place.port == 22 else f"[{place.host.strip('[]')}]:{place.port}"
        look = ["ssh-keygen", "-F", name, "-f", known_hosts]
        if subprocess.run(look, check=False, capture_output=True, timeout=30).returncode:
            raise ConfigError(
                f"the host key of {name} is not in {known_hosts}, and an unknown server is never trusted",
                hint=f"ssh-keyscan -p {place.port} {place.host} > server-keys\n"
                "ssh-keygen -lf server-keys     # compare with what its owner publishes\n"
                "reconciler agent install ... --known-hosts server-keys",
            )


def _check_directory(path: str) -> None:
    hidden = next((one for one in HIDDEN if f"{path}/".startswith(one)), None)
    if hidden:
        raise ConfigError(
            f"the part that fetches sees nothing below {hidden}, and so not {path}",
            hint="move the state repo to a place such as /srv/state.git",
        )
    if not any(os.path.exists(os.path.join(path, one)) for one in ("HEAD", ".git")):
        raise ConfigError(
            f"{path} is no Git repository", hint=f"git init --bare {path}, or another address"
        )
    closed = next((one for one in _above(path) if not _is_open(one)), None)
    if closed:
        raise ConfigError(
            f"the state repo is fetched as the user {USER}, who cannot enter {closed}",
            hint=f"chmod o+rx {closed}",
        )


def _above(path: str) -> list[str]:
    """A directory and those that it is in, from the top."""
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:end]) for end in range(len(parts) + 1)]


def _is_open(path: str) -> bool:
    """Whether the user that fetches may enter; as one of all the others, unless it is its own."""
    found = os.stat(path)
    try:
        own = found.st_uid == pwd.getpwnam(USER).pw_uid
    except KeyError:
        own = False
    return own or bool(found.st_mode & 0o001)
