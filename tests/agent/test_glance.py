"""A glance at a server that wants a password: git has it, and shows it to nobody."""

from __future__ import annotations

import base64
import os
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.agent import glance
from reconciler.agent.child import Child
from reconciler.agent.places import Places
from reconciler.errors import ConfigError, TrustError
from reconciler.source.network import Limits
from reconciler.source.remote import Remote
from source.conftest import Repo
from source.servers import Server, https_server, make_certificate, processes_with

SECRET = "ci:hunter2-token"


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user may enter."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def server(repo: Repo, directory: Path) -> Iterator[Server]:
    with https_server(repo.path.parent, make_certificate(directory)) as server:
        server.password = SECRET
        yield server


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "state.git")
    made.commit({"site.yml": "[]\n"})
    return made


@pytest.fixture
def remote(server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    monkeypatch.setattr(glance, "USER", "nobody")
    credentials, authority = directory / "credentials", directory / "server.crt"
    credentials.write_text(SECRET)
    credentials.chmod(0o600)
    authority.chmod(0o644)
    return Remote(f"{server.url}/state.git", credentials=str(credentials), ca_file=str(authority))


def seen_by(places: Places, remote: Remote) -> str:
    limits = Limits(poll=20)
    child = Child(
        lambda end: glance.start(places, remote, "refs/heads/main", limits, end), glance.MOST
    )
    while not child.ended():
        select.select([child.pipe], [], [], 0.05)
    return bytes(child.said).decode()


@pytest.mark.parametrize("root", ["/", "/elsewhere"])
def test_a_password_is_in_no_argument_and_in_no_environment(
    repo: Repo, server: Server, remote: Remote, root: str
) -> None:
    """Root gives up its rights for a glance at its own host; elsewhere nobody has any to give up."""
    seen: list[str] = []
    server.look = lambda: seen.extend(processes_with(server.url, environment=True))
    said = seen_by(Places(root), remote)
    assert said == f"{repo.git('rev-parse', 'HEAD')}\trefs/heads/main\n"
    for part in ("git-remote-https", "ls-remote"):
        assert any(part in one and "GIT_CONFIG_NOSYSTEM=1" in one for one in seen)
    for word in ("hunter2", "Authorization", base64.b64encode(SECRET.encode()).decode()):
        assert not any(word in one for one in seen)


def test_a_server_that_others_could_have_vouched_for_is_not_looked_at(
    server: Server, remote: Remote
) -> None:
    """The provider, which is asked then, says why."""
    Path(remote.ca_file).chmod(0o666)
    with pytest.raises(TrustError):
        seen_by(Places("/"), remote)
    assert server.seen == []


def test_a_password_that_others_can_read_is_not_sent(server: Server, remote: Remote) -> None:
    Path(remote.credentials).chmod(0o640)
    with pytest.raises(ConfigError, match="has mode 0640: others can read it"):
        seen_by(Places("/"), remote)
    assert server.seen == []
