"""A repository that tries to make its reader run, follow or believe something."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ConfigError, ReconcilerError, SourceError, TrustError, UsageError
from reconciler.source import GitTree, WorkTree, open_tree
from reconciler.source import git as source_git
from reconciler.source.git import Git
from reconciler.source.history import last_touch

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
NOBODY = 65534


def read_everything(directory: object) -> None:
    """All that is ever done with a repository."""
    for ref in ("HEAD", None):
        tree = open_tree(str(directory), ref)
        assert tree.key
        assert isinstance(tree.dirty, bool)
        for entry in tree.listdir(""):
            if entry.kind == "file":
                tree.read(entry.path)
        last_touch(str(directory), ref, "a", 1)


def trap(tmp_path: Path) -> tuple[str, Path]:
    """A program, and the file that it makes when somebody runs it."""
    program, made = tmp_path / "trap", tmp_path / "sprung"
    program.write_text(f"#!/bin/sh\ntouch {made}\ncat\n")
    program.chmod(0o755)
    return str(program), made


@pytest.mark.parametrize(
    "key",
    [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "core.askPass",
        "core.gitProxy",
        "core.alternateRefsCommand",
        "gpg.program",
        "diff.external",
        "diff.x.textconv",
        "diff.x.command",
        "filter.x.clean",
        "filter.x.smudge",
        "filter.x.process",
        "credential.helper",
        "uploadpack.packObjectsHook",
        "trailer.x.command",
        "alias.ls-files",
        "alias.cat-file",
    ],
)
def test_nothing_that_the_repository_configures_is_run(repo: Any, tmp_path: Path, key: str) -> None:
    program, made = trap(tmp_path)
    repo.commit({"a": "1\n", ".gitattributes": "* filter=x diff=x\n"})
    repo.git("config", key, program)
    repo.git("config", "filter.x.required", "true")
    repo.git("config", "log.showSignature", "true")
    os.utime(repo.path / "a", (1, 1))
    repo.write({"b": "2\n"})
    read_everything(repo)
    assert not made.exists()


@pytest.mark.parametrize("key", ["core.fsmonitor", "filter.x.clean"])
def test_the_trap_works_on_a_git_that_is_not_careful(repo: Any, tmp_path: Path, key: str) -> None:
    program, made = trap(tmp_path)
    repo.commit({"a": "1\n", ".gitattributes": "* filter=x diff=x\n"})
    repo.git("config", key, program)
    os.utime(repo.path / "a", (1, 1))
    repo.git("status")
    assert made.exists()


def test_no_hook_is_run(repo: Any, tmp_path: Path) -> None:
    program, made = trap(tmp_path)
    repo.commit({"a": "1"})
    names = [
        "post-index-change",
        "post-checkout",
        "fsmonitor-watchman",
        "reference-transaction",
        "pre-auto-gc",
    ]
    for name in names:
        (repo.path / ".git/hooks").mkdir(exist_ok=True)
        (repo.path / ".git/hooks" / name).symlink_to(program)
    repo.git("config", "core.hooksPath", str(repo.path / ".git/hooks"))
    read_everything(repo)
    assert not made.exists()


def test_the_callers_git_variables_and_configuration_have_no_effect(
    repo: Any, make_repo: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, made = trap(tmp_path)
    commit = repo.commit({"a": "1"})
    other = make_repo("other")
    other.commit({"evil": "1"})
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text(
        f"[core]\n  fsmonitor = {program}\n  excludesFile = /dev/fd/0\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_DIR", f"{other}/.git")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nonexistent")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", program)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", program)
    for ref in ("HEAD", None):
        assert open_tree(str(repo), ref).commit == commit
        touch = last_touch(str(repo), ref, "a", 1)
        assert touch is not None
        assert touch.commit == commit
    assert not made.exists()
    assert os.environ["GIT_DIR"] == f"{other}/.git"


def test_a_partial_clone_fetches_nothing(repo: Any, tmp_path: Path) -> None:
    program, made = trap(tmp_path)
    repo.commit({"a": "1"})
    repo.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    repo.git(
        "clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{repo}", str(clone)
    )
    subprocess.run(
        ["git", "-C", str(clone), "config", "remote.origin.url", f"ext::{program}"], check=True
    )
    subprocess.run(["git", "-C", str(clone), "config", "protocol.ext.allow", "always"], check=True)
    with pytest.raises(SourceError):
        GitTree(str(clone), "HEAD").read("a")
    assert not made.exists()


def test_reading_writes_nothing_into_the_repository(repo: Any) -> None:
    def picture() -> dict[str, tuple[int, int]]:
        paths = [path for path in repo.path.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    repo.commit({"a": "1", "b": "2"})
    os.utime(repo.path / "a", (1, 1))
    before = picture()
    read_everything(repo)
    assert picture() == before


@pytest.mark.parametrize(
    "ref",
    [
        "--output=/tmp/x",
        "-x",
        "a..b",
        "main:a",
        ":/a change",
        "main^{/a}",
        "@{-1}",
        "a\nb",
        "",
        "a b",
        "x" * 300,
    ],
)
def test_what_is_no_plain_name_of_a_commit_is_refused(repo: Any, ref: str) -> None:
    repo.commit({"a": "1"})
    with pytest.raises(UsageError, match="no name of a commit"):
        GitTree(str(repo), ref)


def test_a_branch_that_looks_like_an_option_is_only_a_name(repo: Any, tmp_path: Path) -> None:
    commit = repo.commit({"a": "1"})
    out = tmp_path / "written"
    repo.git("update-ref", f"refs/heads/--output={out}", commit)
    tree = GitTree(str(repo), f"refs/heads/--output={out}")
    assert (tree.commit, tree.read("a")) == (commit, b"1")
    assert not out.exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "a", "link", "nosuch"])
def test_a_link_is_refused_by_name_wherever_it_points(repo: Any, target: str) -> None:
    (repo.path.parent / "outside").write_text("outside")
    repo.write({"a": "1"})
    (repo.path / "link").symlink_to(target)
    repo.commit({})
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        entry = tree.entry("link")
        assert entry is not None
        assert entry.kind == "link"
        with pytest.raises(ConfigError, match="link is a link") as caught:
            tree.read("link")
        assert caught.value.mark is not None


def test_nothing_is_read_through_a_link_to_a_directory(repo: Any) -> None:
    outside = repo.path.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (repo.path / "roles").symlink_to(outside)
    repo.commit({"a": "1"})
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        assert tree.listdir("roles") == []
        with pytest.raises(ConfigError, match="roles is a link"):
            tree.read("roles/secret")


def test_a_directory_that_becomes_a_link_after_the_look_is_not_followed(repo: Any) -> None:
    repo.commit({"roles/a": "1"})
    tree = WorkTree(str(repo))
    assert tree.key
    (repo.path / "roles").rename(repo.path / "moved")
    (repo.path / "roles").symlink_to("moved")
    with pytest.raises(ConfigError, match="cannot read roles/a"):
        tree.read("roles/a")


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "~/x", "a/../../x", "a\0b"])
def test_a_path_that_leaves_the_tree_is_refused_alike_there_or_not(repo: Any, path: str) -> None:
    repo.commit({"a": "1"})
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        for ask in (tree.read, tree.entry, tree.listdir):
            with pytest.raises(ConfigError, match="is outside of the state repo"):
                ask(path)


def test_a_submodule_is_refused_by_name(repo: Any, make_repo: Callable[..., Any]) -> None:
    inner = make_repo("inner")
    inner.commit({"x": "1"})
    repo.commit({"a": "1"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    repo.commit({})
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        for path in ("sub", "sub/x"):
            with pytest.raises(ConfigError, match="sub is another Git repository"):
                tree.read(path)
        assert not tree.dirty


def test_a_repository_inside_of_the_work_tree_is_refused_by_name(
    repo: Any, make_repo: Callable[..., Any]
) -> None:
    repo.commit({"a": "1"})
    make_repo("state/nested").commit({"x": "1"})
    with pytest.raises(ConfigError, match="nested is another Git repository"):
        WorkTree(str(repo)).read("nested/x")


def test_a_file_is_not_taken_for_a_directory_nor_the_reverse(repo: Any) -> None:
    repo.commit({"d/a": "1"})
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        with pytest.raises(ConfigError, match="d is a directory"):
            tree.read("d")
        with pytest.raises(ConfigError, match="d/a/b is not in the state repo"):
            tree.read("d/a/b")


def test_odd_names_are_only_names(repo: Any) -> None:
    odd = [
        "-rf",
        "--help",
        "new\nline",
        'quo"te',
        "tab\t",
        "*",
        ":(top)x",
        "back\\slash",
        "\udcff",
        "$(x)",
    ]
    repo.commit({name: str(number) for number, name in enumerate(odd)})
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        assert sorted(entry.path for entry in tree.listdir("")) == sorted(odd)
        assert [tree.read(name) for name in odd] == [
            str(number).encode() for number in range(len(odd))
        ]


def test_a_pipe_in_the_work_tree_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="neither a file nor a directory"):
        WorkTree(str(tmp_path)).entry("pipe")


def test_replacement_objects_do_not_replace(repo: Any) -> None:
    commit = repo.commit({"a": "true"})
    forged = repo.git("hash-object", "-w", "--stdin", stdin=b"forged")
    repo.git("replace", repo.git("rev-parse", "HEAD:a"), forged)
    tree = GitTree(str(repo), "HEAD")
    assert (tree.commit, tree.read("a")) == (commit, b"true")


def test_a_damaged_object_is_a_source_error(repo: Any) -> None:
    repo.commit({"a": "1"})
    blob = repo.git("rev-parse", "HEAD:a")
    path = repo.path / ".git/objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(b"")
    with pytest.raises(ReconcilerError) as caught:
        GitTree(str(repo), "HEAD").read("a")
    assert caught.value.exit_code == 5


def test_a_git_that_hangs_is_killed_with_what_it_started(
    repo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit({"a": "1"})
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/git"
    fake.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {tmp_path}/child\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setattr(
        source_git, "ENVIRONMENT", {**source_git.ENVIRONMENT, "PATH": f"{tmp_path}/bin:/bin"}
    )
    with pytest.raises(SourceError, match="took longer"):
        Git(str(repo)).run("ls-files", timeout=0.5)
    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        _wait_until_gone(child)


def _wait_until_gone(pid: int) -> None:
    """Ends by ProcessLookupError; an orphan is reaped by init a moment after its death."""
    import time

    for _ in range(100):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError
        time.sleep(0.02)


def test_a_missing_git_says_what_to_install(repo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_git, "ENVIRONMENT", {"PATH": "/nonexistent"})
    with pytest.raises(SourceError) as caught:
        WorkTree(str(repo)).entry("a")
    assert "git is not installed" in str(caught.value)


# -- somebody else's repository ----------------------------------------------------------------


def give_away(path: Path, uid: int) -> None:
    for parent in [path, *path.rglob("*")]:
        os.chown(parent, uid, uid, follow_symlinks=False)


def open_the_way(path: Path) -> None:
    """pytest makes its directories 0700; this lets others pass."""
    for parent in path.parents:
        if parent.name.startswith(("pytest-", "test_", "popen-")):
            parent.chmod(0o755)


@needs_root
def test_root_reads_a_foreign_repository_as_its_owner(
    repo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit({"a": "1"})
    give_away(repo.path, NOBODY)
    open_the_way(repo.path)
    started: list[object] = []
    popen = subprocess.Popen

    def spy(*args: Any, **kwargs: Any) -> Any:
        started.append((kwargs.get("user"), kwargs.get("group"), kwargs.get("extra_groups")))
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", spy)
    for ref in ("HEAD", None):
        tree = open_tree(str(repo), ref)
        assert (tree.commit, tree.dirty, tree.read("a")) == (commit, False, b"1")
    assert started == [(NOBODY, NOBODY, [])] * 4


@needs_root
def test_root_asks_the_history_of_a_foreign_repository_as_its_owner(repo: Any) -> None:
    commit = repo.commit({"a": "1"})
    give_away(repo.path, NOBODY)
    open_the_way(repo.path)
    touch = last_touch(str(repo), "HEAD", "a", 1)
    assert touch is not None
    assert touch.commit == commit


@needs_root
def test_a_repository_that_two_others_share_is_refused(repo: Any) -> None:
    repo.commit({"a": "1"})
    os.chown(repo.path, NOBODY, NOBODY)
    os.chown(repo.path / ".git", 1, 1)
    with pytest.raises(TrustError, match="belong to different users"):
        WorkTree(str(repo)).entry("a")


@needs_root
def test_a_user_reads_a_repository_of_somebody_else_when_told_to(repo: Any) -> None:
    commit = repo.commit({"a": "1"})
    open_the_way(repo.path)
    code = "import sys; from reconciler.source import open_tree; print(open_tree(sys.argv[1], 'HEAD').commit)"
    packages = Path(source_git.__file__).parents[2]
    pythons = [
        path for path in (sys.executable, "/usr/bin/python3") if _others_may_read(path, packages)
    ]
    if not pythons:
        pytest.skip("another user can run no Python here")
    done = subprocess.run(
        [pythons[0], "-c", code, str(repo)],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
        cwd="/",
    )
    assert done.stdout.decode().strip() == commit, done.stderr.decode()


def _others_may_read(*paths: str | Path) -> bool:
    real = [Path(path).resolve() for path in paths]
    everything = [parent for path in real for parent in (path, *path.parents)]
    return all(path.exists() and path.stat().st_mode & 0o005 == 0o005 for path in everything)
