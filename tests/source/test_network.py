"""A program that is not installed is told as that, and not as a fault of the server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reconciler.errors import SourceError
from reconciler.source import network
from reconciler.source.remote import Remote


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    key, known = tmp_path / "key", tmp_path / "known_hosts"
    for path in (key, known):
        path.touch(mode=0o600)
    return Remote("ssh://git@127.0.0.1/state.git", deploy_key=str(key), known_hosts=str(known))


@pytest.mark.parametrize(
    "there, said, hint",
    [
        (("prlimit", "git"), "ssh, which git needs for that address, is not", "openssh-client"),
        (("prlimit",), "git is not installed", "git"),
        ((), "cannot start git: prlimit: No such", "util-linux"),
    ],
)
def test_a_missing_program_is_told_with_its_package(
    remote: Remote,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
    said: str,
    hint: str,
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in there:
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setattr(network, "ENVIRONMENT", {**network.ENVIRONMENT, "PATH": str(programs)})
    with pytest.raises(SourceError) as caught:
        network.git(str(tmp_path), remote, ["ls-remote", remote.url], network.Limits(), 1 << 20)
    assert said in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(f"apt-get install {hint}")
