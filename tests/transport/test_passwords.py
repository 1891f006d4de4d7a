"""Passwords from a keyring: by host, then the default; what is wrong with it is an error of ours."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest

from reconciler.errors import ConfigError
from reconciler.transport.passwords import Keyring


class KeyringError(Exception):
    """The root of the library's errors."""


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """What a keyring holds; it is locked once it holds nothing."""
    found: dict[tuple[str, str], str] = {}

    def get_password(service: str, name: str) -> str | None:
        if not found:
            raise KeyringError("it is locked")
        return found.get((service, name))

    library, errors = ModuleType("keyring"), ModuleType("keyring.errors")
    vars(library).update(get_password=get_password)
    vars(errors).update(KeyringError=KeyringError)
    monkeypatch.setitem(sys.modules, "keyring", library)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    return found


def test_the_entry_of_the_host_wins_over_the_default(kept: dict[tuple[str, str], str]) -> None:
    kept[("reconciler-become", "web1")] = "of web1"
    kept[("reconciler-become", "default")] = "of all"
    keyring = Keyring()
    assert keyring.password("become", "web1") == "of web1"
    assert keyring.password("become", "web2") == "of all"
    assert keyring.password("login", "web1") is None


def test_no_entry_of_anything_else_is_ever_asked_for(kept: dict[tuple[str, str], str]) -> None:
    kept[("github.com", "token")] = "not for hosts"
    for host in ("github.com", "token", "../github.com/token", "github.com:token"):
        assert Keyring().password("login", host) is None


def test_it_is_asked_once_for_each_entry_whoever_wants_it(
    kept: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept[("reconciler-login", "default")] = "of all"
    asked: list[str] = []
    whole = vars(sys.modules["keyring"])["get_password"]

    def counted(service: str, name: str) -> str | None:
        asked.append(name)
        found: str | None = whole(service, name)
        return found

    monkeypatch.setattr(sys.modules["keyring"], "get_password", counted)
    keyring = Keyring()
    threads = [threading.Thread(target=keyring.password, args=("login", "web")) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["web", "default"]


def test_a_keyring_that_is_locked_is_said(kept: dict[tuple[str, str], str]) -> None:
    with pytest.raises(ConfigError, match="reconciler-become: it is locked"):
        Keyring().password("become", "web1")


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="not installed") as failure:
        Keyring()
    assert "reconciler[keyring]" in failure.value.hint
