"""An ssh-keygen that cannot verify, or verifies too much, is found out before it has to judge."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reconciler.errors import ConfigError
from reconciler.source import selftest, signature
from reconciler.source.selftest import check_ssh_signatures

REAL = shutil.which("ssh-keygen")
#: Stand-ins for programs that we have not: what they do with some of the arguments.
OLD = """case "$*" in *verify-time*) echo 'Unsupported option "verify-time"' >&2; exit 255;; esac"""
TIMELESS = 'for a; do shift; case "$a" in -Overify-time=*) ;; *) set -- "$@" "$a";; esac; done'
OLDEST = """case "$*" in *-Y*) echo 'unknown option -- Y' >&2; exit 1;; esac"""
CREDULOUS = """case "$*" in *"-Y verify"*)
echo 'Good "git" signature for reconciler with ED25519 key SHA256:x'; exit 0;; esac"""


def test_the_one_that_is_here_can() -> None:
    check_ssh_signatures()


@pytest.mark.parametrize(
    "does, said",
    [
        (OLD, 'Unsupported option "verify-time"'),
        (OLDEST, "unknown option -- Y"),
        (CREDULOUS, "it takes a forgery for good"),
        (TIMELESS, "it takes an expired key for good"),
    ],
    ids=["8.2", "7.4", "credulous", "timeless"],
)
def test_one_that_does_not_do_as_it_must_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    program = tmp_path / "ssh-keygen"
    program.write_text(f'#!/bin/sh\n{does}\nexec {REAL} "$@"\n')
    program.chmod(0o755)
    # What the stand-in does not pass on says the time by the clock: within the key's lifetime.
    for module in (selftest, signature):
        monkeypatch.setattr(module, "SSH_KEYGEN", str(program))
    with pytest.raises(ConfigError) as caught:
        check_ssh_signatures()
    assert said in caught.value.message
    assert "8.8" in str(caught.value.hint)


def test_none_at_all_is_told_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "SSH_KEYGEN", "/nonexistent/ssh-keygen")
    with pytest.raises(ConfigError) as caught:
        check_ssh_signatures()
    assert caught.value.hint == "apt-get install openssh-client"
