"""What may be fetched, from where, and what git is allowed to be told by others."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ConfigError, LockBusy, SourceError
from reconciler.source import network
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror, mirror_path
from reconciler.source.network import Limits
from reconciler.source.refs import full_ref
from reconciler.source.remote import Remote, parse, redact
from source.signers import People, StateRepo


@pytest.fixture
def repo(tmp_path: Path) -> StateRepo:
    repo = StateRepo(tmp_path / "state", People(tmp_path / "people"))
    repo.commit(None, {"a": "1\n"})
    return repo


@pytest.fixture
def remote(repo: StateRepo) -> Remote:
    return Remote(str(repo.path))


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return Mirror(str(tmp_path / "host" / "mirror.git"))


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[str]:
    """A program that must not run."""
    program, made = tmp_path / "trap", tmp_path / "sprung"
    program.write_text(f"#!/bin/sh\ntouch {made}\n")
    program.chmod(0o755)
    yield str(program)
    assert not made.exists()


# addresses and names, before git sees them


@pytest.mark.parametrize(
    "url, place",
    [
        ("https://git.example.org/ops/state.git", ("https", "git.example.org", 443)),
        ("https://git.example.org:8443/state", ("https", "git.example.org", 8443)),
        ("ssh://git@git.example.org:2222/ops/state.git", ("ssh", "git.example.org", 2222)),
        ("git@git.example.org:ops/state.git", ("ssh", "git.example.org", 22)),
        ("git.example.org:/srv/state.git", ("ssh", "git.example.org", 22)),
        ("git.example.org:~ops/state.git", ("ssh", "git.example.org", 22)),
        ("ssh://git@[2001:db8::1]/state", ("ssh", "[2001:db8::1]", 22)),
        ("/srv/git/state.git", ("file", "", 0)),
    ],
)
def test_addresses_that_are_understood(url: str, place: tuple[str, str, int]) -> None:
    assert parse(url)[:3] == place


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ext::sh -c 'touch /tmp/x'",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=touch:x",
        "ssh://-oProxyCommand=touch/x",
        "ssh://git@-oProxyCommand=x/y",
        "git@-oProxyCommand=x:y",
        "git.example.org:-x",
        "file:///srv/git/state.git",
        "git://git.example.org/state.git",
        "http://git.example.org/state.git",
        "ftp://git.example.org/state.git",
        "fd::17/x",
        "https://git.example.org",
        "https://git.example.org/a b",
        "https://git.example.org/a\nb",
        "https://git.example.org/x?service=y",
        "https://git.example.org/x#y",
        "https://git.example.org:99999/x",
        "https://git.example.org/../x",
        "https://git.example.org\\@evil.example.org/x",
        "https://g\u0456t.example.org/x",
        "relative/path",
        "../state",
        "/srv/../etc",
        "/srv/$(touch x)",
        "/srv/a;b",
        "/srv/a\0b",
        "https://git.example.org/" + "x" * 2000,
    ],
)
def test_a10_every_other_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Remote(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@git.example.org/x",
        "https://hunter2@git.example.org/x",
        "HTTPS://user:hunter2@git.example.org/x",
        "ssh://git:hunter2@git.example.org/x",
    ],
)
def test_a13_an_address_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Remote(url)
    assert "hunter2" not in str(caught.value)
    assert "mode 0600" in caught.value.hint
    assert "hunter2" not in redact(f"fatal: unable to access '{url}': no\x1b[31m")
    assert "\x1b" not in redact("\x1b[31m")


@pytest.mark.parametrize("field", ["deploy_key", "known_hosts", "credentials", "ca_file"])
@pytest.mark.parametrize("path", ["relative", "/a b", "/a%h", "/a$HOME", "/a'b", "/a\nb", "-oX=y"])
def test_files_that_ssh_would_read_another_way_are_refused(field: str, path: str) -> None:
    with pytest.raises(ConfigError):
        Remote("/srv/x", **{field: path})


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "--output=/etc/x",
        "-x",
        "refs/../../x",
        "refs/heads/../x",
        "refs/heads/",
        "refs/notes/x",
        "refs/agent/trusted",
        "a..b",
        "a b",
        "a\nb",
        "a\0b",
        "a:b",
        "+main",
        "main^",
        "main~1",
        "a@{1}",
        "a*",
        "a/.b",
        "a.lock",
        "a/b.lock/c",
        "a/",
        "/a",
        "a//b",
        "x" * 300,
    ],
)
def test_a11_names_that_are_more_than_a_branch_or_tag(ref: str) -> None:
    with pytest.raises(ConfigError):
        full_ref(ref)


def test_names_of_branches_and_tags() -> None:
    assert full_ref("main") == "refs/heads/main"
    assert full_ref("ops/fix-1.2") == "refs/heads/ops/fix-1.2"
    assert full_ref("refs/tags/v1.2") == "refs/tags/v1.2"


@given(st.text(alphabet="ab/.@{}~^:?*[\\-_+#=,lock\n é", min_size=1, max_size=20))
def test_a11_nothing_is_accepted_that_git_would_refuse(ref: str) -> None:
    try:
        full = full_ref(ref)
    except ConfigError:
        return
    assert subprocess.run(["git", "check-ref-format", full], check=False).returncode == 0


def test_a17_no_two_refs_or_repositories_share_a_mirror() -> None:
    """Whatever is taken for the end of one and the beginning of the other."""
    text = "https://h/a.git\nmain/\nx"
    pairs = {(text[:n], text[n:]) for n in range(len(text) + 1)}
    pairs |= {(f"https://h/{n}", f"b{n % 7}") for n in range(5000)}
    pairs |= {(url, ref) for url in ("/a", "/A", "/a/", "/a.git", "//a") for ref in ("m", "M")}
    assert len({mirror_path("/m", url, ref) for url, ref in pairs}) == len(pairs)


@given(
    st.lists(st.tuples(st.text("a/\n.:", max_size=4), st.text("a/\n.:", max_size=4)), unique=True)
)
def test_a17_however_they_are_spelled(pairs: list[tuple[str, str]]) -> None:
    assert len({mirror_path("/m", url, ref) for url, ref in pairs}) == len(pairs)


# git, and what others would like to tell it


def test_a14_configuration_of_users_and_of_the_system_has_no_effect(
    repo: StateRepo,
    remote: Remote,
    mirror: Mirror,
    trap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f"[core]\n fsmonitor = {trap}\n hooksPath = {tmp_path}/hooks\n sshCommand = {trap}\n"
        f' alternateRefsCommand = {trap}\n[url "/nonexistent"]\n insteadOf = {repo.path}\n'
        f"[uploadpack]\n packObjectsHook = {trap}\n[credential]\n helper = {trap}\n"
    )
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        hook = tmp_path / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.symlink_to(trap)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor'='{trap}'")
    monkeypatch.setenv("GIT_EXEC_PATH", str(tmp_path))
    monkeypatch.setenv("GIT_UPLOAD_PACK", trap)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path))
    assert fetch(mirror, [remote], "main").commit == repo.head


def test_a15_hooks_that_were_planted_in_the_mirror_do_not_run(
    repo: StateRepo, remote: Remote, mirror: Mirror, trap: str
) -> None:
    fetch(mirror, [remote], "main")
    hooks = Path(mirror.path) / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "pre-receive", "update"):
        (hooks / name).symlink_to(trap)
    repo.commit(None)
    assert fetch(mirror, [remote], "main").commit == repo.head
    mirror.point("applied", repo.head)


def test_a15_configuration_that_was_planted_in_the_mirror_means_a_new_mirror(
    repo: StateRepo, remote: Remote, mirror: Mirror, trap: str
) -> None:
    fetch(mirror, [remote], "main")
    config = Path(mirror.path) / "config"
    config.write_text(config.read_text() + f"\tfsmonitor = {trap}\n\tsshCommand = {trap}\n")
    assert "config" in fetch(mirror, [remote], "main").rebuilt
    assert "trap" not in config.read_text()


def test_a16_what_a_remote_has_beside_the_ref_is_not_taken(
    repo: StateRepo, remote: Remote, mirror: Mirror, tmp_path: Path
) -> None:
    """Other branches, tags, notes and submodules stay where they are."""
    other = StateRepo(tmp_path / "other", repo.people)
    other.commit(None)
    repo.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.path), "sub"
    )
    head = repo.commit(None)
    repo.git("tag", "-a", "-m", "text", "v1")
    repo.git("branch", "secret")
    repo.git("update-ref", "refs/agent/trusted", head)
    fetch(mirror, [remote], "main")
    assert list(mirror.refs()) == ["refs/remotes/origin/heads/main"]
    assert not (Path(mirror.path) / "modules").exists()


def test_a16_objects_that_a_remote_borrows_are_copied(
    repo: StateRepo, mirror: Mirror, tmp_path: Path
) -> None:
    borrower = tmp_path / "borrower"
    repo.git("clone", "--quiet", "--bare", "--shared", str(repo.path), str(borrower))
    fetch(mirror, [Remote(str(borrower))], "main")
    repo.path.rename(tmp_path / "gone")
    assert mirror.fsck() == ""


def test_git_is_told_to_use_one_protocol_only(tmp_path: Path) -> None:
    """Should an address ever get past the check, git itself refuses it."""
    local = Remote("/srv/x")
    for url in ("ext::touch /tmp/x", "https://127.0.0.1:1/x", "git://127.0.0.1:1/x"):
        with pytest.raises(SourceError, match="another protocol"):
            network.git(str(tmp_path), local, ["ls-remote", "--", url], Limits(), 1 << 20)


def test_a_broken_object_is_refused_before_it_reaches_the_mirror(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    fetch(mirror, [remote], "main")
    before = mirror.refs()
    tree = repo.git("rev-parse", "HEAD^{tree}")
    entry = b"100644 .git\0" + bytes.fromhex(repo.git("rev-parse", "HEAD:a"))
    evil = repo.object(entry, "tree")
    raw = repo.raw().replace(tree.encode(), evil.encode())
    repo.git("update-ref", "refs/heads/main", repo.object(raw))
    with pytest.raises(SourceError, match="damaged or malformed"):
        fetch(mirror, [remote], "main")
    assert mirror.refs() == before
    assert not mirror.has(repo.git("rev-parse", "main"))


# what a fetch gives


def test_a_branch_that_is_not_there(remote: Remote, mirror: Mirror) -> None:
    with pytest.raises(SourceError, match="there is no refs/heads/dev") as caught:
        fetch(mirror, [remote], "dev")
    assert "git ls-remote" in caught.value.hint


def test_a_branch_whose_name_ends_like_ours_is_another(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    repo.git("update-ref", "refs/heads/x/refs/heads/dev", repo.head)
    with pytest.raises(SourceError, match="there is no refs/heads/dev"):
        fetch(mirror, [remote], "dev")


def test_a_tag_that_is_no_commit(repo: StateRepo, remote: Remote, mirror: Mirror) -> None:
    repo.git("tag", "blob", repo.git("rev-parse", "HEAD:a"))
    with pytest.raises(SourceError, match="does not name a commit"):
        fetch(mirror, [remote], "refs/tags/blob")


def test_an_annotated_tag_is_kept_beside_its_commit(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    repo.git("tag", "-a", "-m", "text", "v1")
    for changed in (True, False):
        fetched = fetch(mirror, [remote], "refs/tags/v1")
        assert fetched.commit == repo.head
        assert fetched.object == repo.git("rev-parse", "v1") != repo.head
        assert fetched.changed is changed


def test_an_empty_repository(tmp_path: Path, mirror: Mirror) -> None:
    empty = StateRepo(tmp_path / "empty", People(tmp_path / "people"))
    with pytest.raises(SourceError, match="there is no refs/heads/main"):
        fetch(mirror, [Remote(str(empty.path))], "main")
    assert not mirror.exists


def test_a_place_without_a_repository(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(SourceError, match="no repository at that address"):
        fetch(mirror, [Remote(str(tmp_path / "nothing"))], "main")


def test_no_remote_at_all(mirror: Mirror) -> None:
    with pytest.raises(SourceError, match="no remote"):
        fetch(mirror, [], "main")


def test_a_second_fetch_at_the_same_time_is_told_so(remote: Remote, mirror: Mirror) -> None:
    with mirror.lock(), pytest.raises(LockBusy):
        fetch(mirror, [remote], "main")
    fetch(mirror, [remote], "main")


def test_a_second_fetch_waits_for_the_first_if_it_is_told_to(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    held = threading.Event()

    def hold() -> None:
        with mirror.lock():
            held.set()
            time.sleep(0.3)

    first = threading.Thread(target=hold)
    first.start()
    held.wait()
    try:
        assert fetch(mirror, [remote], "main", patience=20).commit == repo.head
    finally:
        first.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_runs_nothing_in_the_repository_of_another_user(
    repo: StateRepo, remote: Remote, mirror: Mirror, trap: str
) -> None:
    for key in ("core.fsmonitor", "uploadpack.packObjectsHook", "core.sshCommand"):
        repo.git("config", key, trap)
    subprocess.run(["chown", "-R", "65534:65534", str(repo.path)], check=True)
    with pytest.raises(SourceError, match="belongs to another user") as caught:
        fetch(mirror, [remote], "main")
    assert "chown -R" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_user_of_the_agent_can_fetch_from_the_repository_of_root(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    fetch(mirror, [remote], "main")  # imports what the other user may not be able to read
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        shared = Path(directory) / "state.git"
        repo.git("clone", "--quiet", "--bare", str(repo.path), str(shared))
        home = Path(directory) / "host"
        home.mkdir()
        os.chown(home, 65534, 65534)
        head = repo.head
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                fetched = fetch(Mirror(str(home / "mirror.git")), [Remote(str(shared))], "main")
                code = 0 if fetched.commit == head else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        # Root reads the mirror as its owner, and moves the pointers as well.
        mirror = Mirror(str(home / "mirror.git"))
        mirror.point("trusted", head)
        assert mirror.pointer("trusted") == head
        assert (home / "mirror.git/refs/agent/trusted").stat().st_uid == 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_does_not_write_into_the_mirror_of_another_user(
    remote: Remote, mirror: Mirror
) -> None:
    fetch(mirror, [remote], "main")
    os.chown(mirror.path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        fetch(mirror, [remote], "main")


def test_many_fetches_do_not_pile_up_packs(
    repo: StateRepo, remote: Remote, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.source.mirror.MANY_PACKS", 3)
    for n in range(8):
        repo.commit(None, {"a": f"{n}\n"})
        fetch(mirror, [remote], "main")
    packs = [name for name in os.listdir(f"{mirror.path}/objects/pack") if name.endswith(".pack")]
    assert len(packs) <= 4
    assert mirror.fsck() == ""
    assert len(mirror.git.run("rev-list", repo.head).split()) == 9


def test_only_what_is_new_is_fetched(repo: StateRepo, remote: Remote, mirror: Mirror) -> None:
    repo.commit(None, {"noise": os.urandom(200_000).hex()})
    fetch(mirror, [remote], "main")
    size = mirror.size()
    repo.commit(None, {"a": "2\n"})
    fetch(mirror, [remote], "main")
    assert mirror.size() - size < 10_000


def test_a8_a_fetch_may_not_take_all_memory(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    repo.commit(None, {"noise": os.urandom(6 << 20).hex()})
    with pytest.raises(SourceError, match="more memory than a fetch may use"):
        fetch(mirror, [remote], "main", Limits(memory=4 << 20))
    assert not mirror.exists


def test_a9_a_large_file_is_fetched_without_holding_it_in_memory(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    (repo.path / "large").write_bytes(os.urandom(1 << 20) * 40)
    repo.git("-c", "core.compression=0", "add", "--all")
    repo.commit(None)
    fetched = fetch(mirror, [remote], "main", Limits(memory=32 << 20))
    assert fetched.commit == repo.head


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], Path]]:
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    with tempfile.TemporaryDirectory() as directory:
        made: list[Path] = []

        def make(kilobytes: int) -> Path:
            options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", directory]
            if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
                pytest.skip("no file system can be mounted here")
            made.append(Path(directory))
            return made[0]

        yield make
        for path in made:
            subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("free", [0, 4, 8, 16, 40, 100, 120])
def test_a_full_disk_leaves_the_mirror_as_it_was(
    repo: StateRepo, remote: Remote, full_disk: Callable[[int], Path], free: int
) -> None:
    disk = full_disk(1024)
    mirror = Mirror(str(disk / "mirror.git"))
    fetch(mirror, [remote], "main")
    before = mirror.refs()
    repo.commit(None, {"noise": os.urandom(150_000).hex()})
    available = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    with (disk / "ballast").open("wb") as ballast:
        ballast.write(b"x" * (available - free * 1024))
    with pytest.raises(SourceError):
        fetch(mirror, [remote], "main")
    assert mirror.refs() == before
    assert mirror.fsck() == ""
    (disk / "ballast").unlink()
    assert fetch(mirror, [remote], "main").commit == repo.head


def test_a_poll_without_news_takes_at_most_30_ms_of_processor_time(
    repo: StateRepo, remote: Remote, mirror: Mirror
) -> None:
    def used() -> float:
        own, children = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

    for n in range(20):
        repo.commit(None, {"a": f"{n}\n"})
    fetch(mirror, [remote], "main")
    costs: list[float] = []
    for _ in range(10):
        before = used()
        assert not fetch(mirror, [remote], "main").changed
        costs.append(used() - before)
    assert sorted(costs)[len(costs) // 2] <= 0.030


def test_nothing_but_the_last_answer_counts_as_time_of_receipt(
    remote: Remote, mirror: Mirror
) -> None:
    before = time.time()
    received = fetch(mirror, [remote], "main").received_at.timestamp()
    assert before <= received <= time.time()
