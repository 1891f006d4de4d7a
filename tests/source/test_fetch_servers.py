"""Fetching over https and ssh from real servers, well behaved and not."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import (
    ConfigError,
    Damaged,
    ReconcilerError,
    SourceError,
    TrustError,
    UnknownServer,
)
from reconciler.source.fetch import DEFAULT, fetch
from reconciler.source.mirror import Mirror
from reconciler.source.network import Limits
from reconciler.source.remote import Remote
from source.servers import (
    Server,
    Sshd,
    Stalling,
    https_server,
    make_certificate,
    processes_with,
    sshd_binary,
)
from source.signers import People, StateRepo, git_environment

SECRET = "ci:hunter2-token"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> StateRepo:
    """A repository with content that does not compress, so that its pack has ten tenths."""
    root = tmp_path_factory.mktemp("published")
    repo = StateRepo(root / "state.git", People(root / "people"))
    repo.commit(None, {"noise": os.urandom(60_000).hex()})
    return repo


@pytest.fixture
def server(published: StateRepo, certificate: tuple[str, str]) -> Iterator[Server]:
    with https_server(published.path.parent, certificate) as server:
        yield server


@pytest.fixture
def remote(server: Server, certificate: tuple[str, str]) -> Remote:
    return Remote(f"{server.url}/state.git", ca_file=certificate[0])


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(str(tmp_path / "host" / "mirror.git"))


@pytest.fixture
def filled(mirror: Mirror, published: StateRepo) -> Mirror:
    """A mirror that has an older commit, which every failure must leave as it is."""
    other = StateRepo(published.path.parent / f"old-{time.monotonic_ns()}", published.people)
    other.commit(None, {"old": "1\n"})
    fetch(mirror, [Remote(str(other.path), name="older")], "main")
    mirror.point("trusted", other.head)
    return mirror


def files(mirror: Mirror) -> dict[str, bytes]:
    top = Path(mirror.path)
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def fails(mirror: Mirror, remote: Remote, limits: Limits = DEFAULT) -> ReconcilerError:
    """The fetch fails; the mirror is byte for byte what it was, and nothing still runs."""
    before = files(mirror)
    with pytest.raises(ReconcilerError) as caught:
        fetch(mirror, [remote], "main", limits)
    assert files(mirror) == before
    assert mirror.fsck() == ""
    assert processes_with(remote.url) == []
    return caught.value


# https


def test_https(mirror: Mirror, remote: Remote, published: StateRepo) -> None:
    fetched = fetch(mirror, [remote], "main")
    assert (fetched.commit, fetched.changed) == (published.head, True)
    assert not fetch(mirror, [remote], "main").changed


def test_a_certificate_that_nobody_vouches_for(filled: Mirror, remote: Remote) -> None:
    error = fails(filled, replace(remote, ca_file=""))
    assert "certificate" in error.message
    assert "ca_file" in error.hint


@pytest.mark.parametrize("tenth", range(10))
def test_a3_the_connection_breaks_at_each_tenth_of_a_pack(
    filled: Mirror, remote: Remote, server: Server, published: StateRepo, tenth: int
) -> None:
    server.fault = ("cut", tenth / 10)
    assert isinstance(fails(filled, remote), SourceError)
    server.fault = ("", 0)
    assert fetch(filled, [remote], "main").commit == published.head


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95, 0.9999])
def test_a4_a_flipped_byte(filled: Mirror, remote: Remote, server: Server, share: float) -> None:
    server.fault = ("flip", share)
    assert isinstance(fails(filled, remote), SourceError)


def test_a2_a_server_that_hangs_in_the_middle_of_a_pack(
    filled: Mirror, remote: Remote, server: Server
) -> None:
    server.fault = ("hang", 0.5)
    started = time.monotonic()
    error = fails(filled, remote, Limits(total=2))
    assert time.monotonic() - started < 10
    assert "longer than 2 s" in error.message


def test_a2_a_server_that_is_too_slow(filled: Mirror, remote: Remote, server: Server) -> None:
    server.fault = ("hang", 0.5)
    assert "too slow" in fails(filled, remote, Limits(total=25, stall=1)).message


def asked_for_bundles(server: Server) -> bool:
    return any("bundle" in one["path"] + one["asked"] for one in server.seen)


def test_a16_a_bundle_that_a_server_advertises_is_not_fetched(
    mirror: Mirror,
    remote: Remote,
    server: Server,
    published: StateRepo,
    certificate: tuple[str, str],
    tmp_path: Path,
) -> None:
    """Its address is the server's to choose, and what is in it nobody has asked for."""
    server.bundles = f"{server.url}/all.bundle"
    assert fetch(mirror, [remote], "main").commit == published.head
    told = [one for one in server.seen if "info/refs" in one["path"]]
    assert all("version=2" in one["Git-Protocol"] for one in told)
    assert not asked_for_bundles(server)
    version = subprocess.run(["git", "version"], capture_output=True, check=True, text=True).stdout
    if tuple(map(int, version.split()[2].split(".")[:2])) < (2, 40):
        pytest.skip(
            f"{version.strip()} knows of no bundles: whether ours are told off nobody can see"
        )
    # Without our word to the contrary it is fetched, so this test can fail.
    clone = ["git", "-c", "transfer.bundleURI=true", "-c", f"http.sslCAInfo={certificate[0]}"]
    subprocess.run(
        [*clone, "clone", "--quiet", "--bare", remote.url, str(tmp_path / "clone")],
        env={**git_environment(), "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        check=False,
    )
    assert asked_for_bundles(server)


def test_a8_a_pack_without_end_is_not_taken_beyond_the_limit_of_the_mirror(
    filled: Mirror, remote: Remote, server: Server
) -> None:
    """Each object of it is sound, and the next one always follows."""
    server.fault = ("endless", 1)
    error = fails(filled, remote, Limits(mirror=4 << 20))
    assert "the state repo is larger than its mirror" in error.message
    assert "4194304 bytes" in error.message


def test_a8_nor_beyond_the_limit_of_time(filled: Mirror, remote: Remote, server: Server) -> None:
    server.fault = ("endless", 1)
    assert "longer than 2 s" in fails(filled, remote, Limits(total=2, mirror=1 << 40)).message


def test_a8_more_names_of_refs_than_anybody_has(
    filled: Mirror, remote: Remote, server: Server
) -> None:
    server.fault = ("refs", 200_000)
    error = fails(filled, remote)
    assert "it sends names of refs without end" in error.message
    assert not isinstance(error, Damaged)


def test_a8_names_of_refs_without_end(filled: Mirror, remote: Remote, server: Server) -> None:
    """git keeps all of them until the last."""
    server.fault = ("refs", 0)
    error = fails(filled, remote, Limits(memory=32 << 20))
    assert "it needs more memory than a fetch may use" in error.message


def test_a8_a_pack_that_is_larger_than_the_mirror_may_be(filled: Mirror, remote: Remote) -> None:
    error = fails(filled, remote, Limits(mirror=50_000))
    assert "larger than its mirror" in error.message


def test_a8_more_objects_than_allowed(filled: Mirror, remote: Remote) -> None:
    assert "more than the limit of 2" in fails(filled, remote, Limits(objects=2)).message


def test_a12_a_password_is_not_taken_along_to_another_host(
    filled: Mirror,
    remote: Remote,
    server: Server,
    published: StateRepo,
    certificate: tuple[str, str],
    tmp_path: Path,
) -> None:
    with https_server(published.path.parent, certificate) as other:
        server.redirect = other.url
        error = fails(filled, replace(remote, credentials=secret(tmp_path)))
        assert "elsewhere" in error.message
        assert other.seen == []
        assert fetch(filled, [remote], "main").commit == published.head


def test_a12_no_redirect_leads_out_of_https(filled: Mirror, remote: Remote, server: Server) -> None:
    server.redirect = f"http://127.0.0.1:{server.server_address[1]}"
    fails(filled, remote)


# passwords


def secret(tmp_path: Path, text: str = SECRET) -> str:
    file = tmp_path / "credentials"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return str(file)


def test_a13_credentials_come_from_a_file(
    filled: Mirror, remote: Remote, server: Server, published: StateRepo, tmp_path: Path
) -> None:
    server.password = SECRET
    with_password = replace(remote, credentials=secret(tmp_path))
    assert fetch(filled, [with_password], "main").commit == published.head
    assert not any(b"hunter2" in content for content in files(filled).values())


def test_a13_a_wrong_password_is_told_but_not_shown(
    filled: Mirror, remote: Remote, server: Server, tmp_path: Path
) -> None:
    server.password = "ci:other"
    error = fails(filled, replace(remote, credentials=secret(tmp_path)))
    assert "credentials" in error.message
    assert "hunter2" not in str(error)
    assert "credentials" in fails(filled, remote).message


def test_a13_a_password_is_in_no_argument_and_in_no_environment(
    mirror: Mirror, remote: Remote, server: Server, published: StateRepo, tmp_path: Path
) -> None:
    """Of no part of git, whatever it does: neither as it is nor as it is sent."""
    seen: list[str] = []
    server.look = lambda: seen.extend(processes_with(server.url, environment=True))
    server.password = SECRET
    fetched = fetch(mirror, [replace(remote, credentials=secret(tmp_path))], "main")
    assert fetched.commit == published.head
    for part in ("git-remote-https", "ls-remote", "fetch --quiet"):
        assert any(part in one and "GIT_CONFIG_NOSYSTEM=1" in one for one in seen)
    encoded = base64.b64encode(SECRET.encode()).decode()
    for word in ("hunter2", "Authorization", encoded):
        assert not any(word in one for one in seen)


# the environment


def test_a20_proxies_and_authorities_of_the_caller_are_not_used(
    mirror: Mirror, remote: Remote, published: StateRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "ALL_PROXY", "GIT_PROXY_COMMAND"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert fetch(mirror, [remote], "main").commit == published.head
    with pytest.raises(SourceError, match="certificate"):
        fetch(Mirror(mirror.path + "2"), [replace(remote, ca_file="")], "main")


def test_a20_a_configured_proxy_is_used(mirror: Mirror, remote: Remote) -> None:
    with pytest.raises(SourceError):
        fetch(mirror, [replace(remote, proxy="http://127.0.0.1:9")], "main")


# servers that are not there


def test_a1_a_server_that_is_down(filled: Mirror, remote: Remote, server: Server) -> None:
    server.stop()
    error = fails(filled, remote)
    assert isinstance(error, SourceError)
    assert "cannot reach 127.0.0.1" in error.message


def test_a1_a_name_that_nobody_knows(filled: Mirror) -> None:
    error = fails(filled, Remote("https://no-such-host.invalid/x.git"))
    assert "cannot reach no-such-host.invalid" in error.message


def test_a1_a_server_that_accepts_and_says_nothing(filled: Mirror) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/x.git"
        assert "longer than 1 s" in fails(filled, Remote(url), Limits(poll=1)).message


def test_the_next_remote_is_asked(
    filled: Mirror, remote: Remote, server: Server, published: StateRepo
) -> None:
    down = Remote("https://127.0.0.1:1/state.git", name="first")
    fetched = fetch(filled, [down, replace(remote, name="second")], "main")
    assert (fetched.commit, fetched.remote) == (published.head, "second")
    assert [(one.remote, one.error is None) for one in fetched.tried] == [
        ("first", False),
        ("second", True),
    ]


def test_files_that_one_remote_lacks_stop_no_other(
    mirror: Mirror, remote: Remote, published: StateRepo, tmp_path: Path
) -> None:
    """They are looked at when it is that remote's turn."""
    lacking = replace(remote, name="lacking", ca_file=str(tmp_path / "none.pem"))
    wordless = replace(remote, name="wordless", credentials=secret(tmp_path, "no password"))
    fetched = fetch(mirror, [remote, lacking], "main")
    assert [one.remote for one in fetched.tried] == ["origin"]
    fetched = fetch(mirror, [lacking, wordless, remote], "main")
    assert (fetched.commit, fetched.remote) == (published.head, "origin")
    said = [str(one.error) for one in fetched.tried]
    assert "there are no certificates at" in said[0]
    assert "does not hold user:password" in said[1]


def test_when_all_remotes_lack_files_trying_again_does_not_help(
    mirror: Mirror, remote: Remote, tmp_path: Path
) -> None:
    names = [str(tmp_path / f"{n}.pem") for n in range(2)]
    remotes = [replace(remote, name=f"r{n}", ca_file=name) for n, name in enumerate(names)]
    with pytest.raises(ConfigError) as caught:
        fetch(mirror, remotes, "main")
    assert all(name in caught.value.message for name in names)


def test_when_all_remotes_fail_each_reason_is_told(filled: Mirror) -> None:
    remotes = [Remote(f"https://127.0.0.1:{n}/x.git", name=f"r{n}") for n in (1, 2)]
    with pytest.raises(SourceError) as caught:
        fetch(filled, remotes, "main")
    assert "port 1:" in caught.value.message
    assert "port 2:" in caught.value.message


# ssh


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not sshd_binary():
        pytest.skip("there is no sshd: apt-get install openssh-server, or boot a host once")
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    yield sshd
    sshd.stop()


@pytest.fixture
def by_ssh(sshd: Sshd, published: StateRepo) -> Remote:
    sshd.knows("host")
    return Remote(
        f"{sshd.url}{published.path}", deploy_key=sshd.key, known_hosts=str(sshd.known_hosts)
    )


def test_ssh(mirror: Mirror, by_ssh: Remote, published: StateRepo) -> None:
    assert fetch(mirror, [by_ssh], "main").commit == published.head
    assert not fetch(mirror, [by_ssh], "main").changed


def test_a2_a_server_that_hangs_leaves_no_ssh_behind(
    filled: Mirror, by_ssh: Remote, sshd: Sshd, published: StateRepo
) -> None:
    with closing(Stalling(sshd.port, 30_000)) as way:
        ways = (f"[127.0.0.1]:{sshd.port}", f"[127.0.0.1]:{way.port}")
        sshd.known_hosts.write_text(sshd.known_hosts.read_text().replace(*ways))
        hanging = replace(by_ssh, url=by_ssh.url.replace(f":{sshd.port}/", f":{way.port}/"))
        error = fails(filled, hanging, Limits(total=3))
        assert "longer than 3 s" in error.message
        end = time.monotonic() + 5
        while (left := processes_with(str(way.port))) and time.monotonic() < end:
            time.sleep(0.02)
        assert left == []


def test_a18_an_unknown_host_key(filled: Mirror, by_ssh: Remote, sshd: Sshd) -> None:
    sshd.known_hosts.write_text("")
    error = fails(filled, by_ssh)
    assert isinstance(error, UnknownServer)
    assert error.exit_code == 10
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in error.hint
    assert f">> {sshd.known_hosts}" in error.hint
    assert sshd.known_hosts.read_text() == ""


def test_a18_what_the_hint_says_works(
    mirror: Mirror, by_ssh: Remote, sshd: Sshd, published: StateRepo
) -> None:
    scan = ["ssh-keyscan", "-p", str(sshd.port), "127.0.0.1"]
    keys = subprocess.run(scan, capture_output=True, check=True, text=True).stdout
    sshd.known_hosts.write_text(keys)
    assert fetch(mirror, [by_ssh], "main").commit == published.head


def test_a18_a_changed_host_key(filled: Mirror, by_ssh: Remote, sshd: Sshd) -> None:
    sshd.knows("other-host")
    error = fails(filled, by_ssh)
    assert isinstance(error, UnknownServer)
    assert "another key" in error.message
    assert f"ssh-keygen -f {sshd.known_hosts} -R '[127.0.0.1]:{sshd.port}'" in error.hint


def test_a18_an_unknown_server_does_not_hide_one_that_works(
    filled: Mirror, by_ssh: Remote, sshd: Sshd, published: StateRepo
) -> None:
    sshd.known_hosts.write_text("")
    fetched = fetch(filled, [by_ssh, Remote(str(published.path), name="local")], "main")
    assert fetched.commit == published.head
    assert isinstance(fetched.tried[0].error, UnknownServer)


def test_a19_a_deploy_key_that_others_can_read(filled: Mirror, by_ssh: Remote, sshd: Sshd) -> None:
    key = Path(sshd.key)
    key.chmod(0o644)
    try:
        error = fails(filled, by_ssh)
    finally:
        key.chmod(0o600)
    assert isinstance(error, ConfigError)
    assert f"chmod 0600 {key}" in error.hint


def opened(path: Path, what: str) -> Path:
    """Let others write to a file, or put another in its place."""
    one = path if what == "file" else path.parent
    one.chmod(one.stat().st_mode | 0o022)
    return one


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a18_servers_that_others_could_have_made_known_are_not_asked(
    filled: Mirror, by_ssh: Remote, sshd: Sshd, tmp_path: Path, what: str
) -> None:
    known = tmp_path / "etc" / "known_hosts"
    known.parent.mkdir()
    known.write_text(sshd.known_hosts.read_text())
    mine, before = replace(by_ssh, known_hosts=str(known)), sshd.log.read_text()
    one = opened(known, what)
    error = fails(filled, mine)
    assert isinstance(error, TrustError)
    assert error.hint == f"chown root {one}; chmod go-w {one}"
    assert sshd.log.read_text() == before
    one.chmod(0o700)
    assert fetch(filled, [mine], "main").changed


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a18_authorities_that_others_could_have_named_vouch_for_nobody(
    filled: Mirror, remote: Remote, server: Server, tmp_path: Path, what: str
) -> None:
    ca_file = tmp_path / "etc" / "ca.pem"
    ca_file.parent.mkdir()
    ca_file.write_text(Path(remote.ca_file).read_text())
    mine = replace(remote, ca_file=str(ca_file), credentials=secret(tmp_path))
    one = opened(ca_file, what)
    assert isinstance(fails(filled, mine), TrustError)
    assert server.seen == []
    one.chmod(0o700)
    assert fetch(filled, [mine], "main").changed


def test_a_key_that_the_server_does_not_accept(filled: Mirror, by_ssh: Remote, sshd: Sshd) -> None:
    other = str(sshd.directory / "other-host")
    error = fails(filled, replace(by_ssh, deploy_key=other))
    assert "does not accept the deploy key" in error.message
    assert f"ssh-keygen -yf {other}" in error.hint


def test_configuration_and_agents_of_the_user_are_not_used(
    filled: Mirror,
    by_ssh: Remote,
    sshd: Sshd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the deploy key nobody gets in, whatever lies around in the home directory."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    made = tmp_path / "made"
    (home / ".ssh" / "config").write_text(
        f"Host *\n IdentityFile {sshd.key}\n ProxyCommand touch {made}\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {made}")
    error = fails(filled, replace(by_ssh, deploy_key=""))
    assert "deploy key" in error.message
    assert not made.exists()
