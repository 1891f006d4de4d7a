"""Passwords from the operator's keyring, through the `keyring` library, which is optional.

An inventory cannot name an entry: it comes out of Git, and a host must not get whatever password it
asks for. What may be sent is what the operator has put under these services, under the name of the
host, or under `default` for all hosts:

    keyring set reconciler-login web1
    keyring set reconciler-become default
"""

from __future__ import annotations

import functools
import importlib
import threading
from typing import Any, Literal

from reconciler.errors import ConfigError

Kind = Literal["login", "become"]
DEFAULT = "default"


class Keyring:
    """The keyring of who calls. Raises ConfigError where there is none. Safe to use from threads."""

    def __init__(self) -> None:
        try:
            library: Any = importlib.import_module("keyring")
            errors: Any = importlib.import_module("keyring.errors")
        except ImportError as error:
            raise ConfigError(
                "--keyring needs the Python package keyring, which is not installed",
                hint="pip install 'reconciler[keyring]'",
            ) from error
        self._get = functools.cache(library.get_password)
        self._failed = errors.KeyringError
        self._lock = threading.Lock()

    def password(self, kind: Kind, host: str) -> str | None:
        """The password for a host; None where neither it nor `default` has an entry."""
        service = f"reconciler-{kind}"
        try:
            with self._lock:
                return self._get(service, host) or self._get(service, DEFAULT)
        except self._failed as error:
            raise ConfigError(
                f"the keyring does not give the passwords of {service}: "
                f"{str(error) or type(error).__name__}",
                hint="unlock it, or see which there are: keyring --list-backends",
            ) from error
