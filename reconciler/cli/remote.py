"""What `plan` and `apply` know of the hosts of an inventory: how they are reached, what they want."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.cli.desired import Choice, Desired
from reconciler.compile.cache import CatalogCache
from reconciler.errors import UsageError
from reconciler.transport.passwords import Keyring
from reconciler.transport.target import (
    BECOME,
    BECOME_BY,
    DIRECTORIES,
    LOGIN,
    NAMES,
    PASSPHRASE,
    Target,
)

#: Ways to a host that ask for none.
NO_PASSWORDS = ("local", *DIRECTORIES)
EMPTY = b'"resources":[]'


def is_local(desired: Desired, name: str) -> bool:
    """Whether a host of the inventory is this machine."""
    return desired.inventory.variables(name).get("ansible_connection") == "local"


class Selected:
    """The `Project` of a push: the state repo, as far as the tags select it."""

    def __init__(self, desired: Desired, cache: CatalogCache, args: argparse.Namespace) -> None:
        self._desired = desired
        self._cache = cache
        self._choice = Choice(tuple(args.tags), tuple(args.skip_tags))
        self._allow_empty: bool = args.allow_empty
        cache.make_room(len(desired.inventory.hosts()))
        self._keyring = Keyring() if args.keyring else None

    def variables(self, host: str) -> Mapping[str, Any]:
        """What says how the host is reached; templates cost the import of their engine."""
        known = self._desired.inventory.variables(host)
        found = {name: known[name] for name in NAMES if name in known}
        if any("{{" in str(value) or "{%" in str(value) for value in found.values()):
            rendered = self._desired.project(host).variables(host)
            found = {name: rendered[name] for name in found}
        return found

    def other(self, name: str) -> Mapping[str, Any] | None:
        """The same of a jump host, if it is one of the inventory."""
        return self.variables(name) if name in self._desired.inventory.hosts() else None

    def target(self, host: str, asked: Mapping[str, str], ssh_config: str | None) -> Target:
        """How the host is reached. asked: variables that win. Raises ConfigError."""
        variables = {**self.variables(host), **asked}
        return Target.of(host, {**variables, **self._kept(host, variables)}, ssh_config, self.other)

    def _kept(self, host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The passwords that the keyring has and that nobody gives."""
        if self._keyring is None or variables.get("ansible_connection") in NO_PASSWORDS:
            return {}
        found: dict[str, Any] = {}
        if not any(map(variables.get, LOGIN)) and variables.get("ansible_connection") != "openssh":
            found[LOGIN[0]] = self._keyring.password("login", host)
        if not any(map(variables.get, (*BECOME, *BECOME_BY))):
            found[BECOME[0]] = self._keyring.password("become", host)
        return found

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        """As `push.host.Project`."""
        catalog = self._desired.catalog(host, facts, self._choice)
        if EMPTY in catalog and not self._allow_empty:
            raise UsageError(
                f"nothing is selected for host {host}", hint="give --allow-empty if that is meant"
            )
        self._cache.keep_facts(host, facts)
        return catalog

    def content(self, host: str, facts: Mapping[str, Any], sha256: str) -> Iterable[bytes]:
        """As `push.host.Project`."""
        return self._desired.content(host, facts, sha256)

    def secrets(self, host: str, facts: Mapping[str, Any]) -> Mapping[str, str]:
        """As `push.host.Project`."""
        return self._desired.compiled(host, facts).secrets


def asked_for(args: argparse.Namespace) -> dict[str, str]:
    """What a person types at the start, or names a file with; it wins over the inventory."""
    wanted = {
        LOGIN[0]: ("login password: ", args.ask_pass),
        BECOME[0]: ("become password: ", args.ask_become_pass),
        PASSPHRASE[0]: ("passphrase of the private key: ", args.ask_key_pass),
    }
    if any(ask for _, ask in wanted.values()) and not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for a password on", hint="--become-password-file FILE"
        )
    files = {LOGIN[0]: args.connection_password_file, BECOME[0]: args.become_password_file}
    given = {name: _first_line(path) for name, path in files.items() if path is not None}
    return {**given, **{name: getpass.getpass(text) for name, (text, ask) in wanted.items() if ask}}


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            found = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the password file {path}: {error}") from error
    if not found:
        raise UsageError(f"the first line of the password file {path} is empty")
    return found
