"""Both kinds of trees say the same about the same files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ConfigError, UsageError
from reconciler.source import GitTree, WorkTree, init, lint, listing, open_tree
from reconciler.tree import Entry, Tree

FILES = {
    "site.yml": "- hosts: all\n",
    "roles/web/main.yml": "[]\n",
    "roles/web/files/a b.conf": "x\n",
    "files/empty": "",
}


def both(repo: Any) -> list[Tree]:
    return [open_tree(str(repo), "HEAD"), open_tree(str(repo), None)]


def names(tree: Tree, path: str) -> list[tuple[str, str]]:
    return [(entry.path, entry.kind) for entry in tree.listdir(path)]


@pytest.mark.parametrize("format_", ["sha1", "sha256"])
def test_both_trees_read_what_was_committed(make_repo: Callable[..., Any], format_: str) -> None:
    repo = make_repo("state", f"--object-format={format_}")
    commit = repo.commit(FILES)
    for tree in both(repo):
        assert tree.commit == commit
        assert len(tree.commit) == {"sha1": 40, "sha256": 64}[format_]
        assert tree.dirty is False
        assert names(tree, "") == [
            ("files", "directory"),
            ("roles", "directory"),
            ("site.yml", "file"),
        ]
        assert names(tree, "roles/web/files") == [("roles/web/files/a b.conf", "file")]
        assert tree.listdir("nosuch") == []
        assert {path: tree.read(path).decode() for path in FILES} == FILES
        entry = tree.entry("./roles//web/main.yml")
        assert entry is not None
        assert (entry.path, entry.kind, entry.size, entry.executable) == (
            "roles/web/main.yml",
            "file",
            3,
            False,
        )
        assert tree.entry("nosuch") is None
        assert tree.entry("") == Entry("", "directory")


def test_an_executable_file_is_one_in_both(repo: Any) -> None:
    repo.write({"run": "#!/bin/sh\n"})
    (repo.path / "run").chmod(0o755)
    repo.commit({})
    for tree in both(repo):
        entry = tree.entry("run")
        assert entry is not None
        assert entry.executable
        assert not tree.dirty


def test_equal_content_has_an_equal_blob_and_other_content_another(repo: Any) -> None:
    repo.commit({"a": "1", "b": "1", "c": "2"})
    for tree in both(repo):
        a, b, c = (tree.entry(name) for name in "abc")
        assert a is not None
        assert b is not None
        assert c is not None
        assert a.blob == b.blob != c.blob


def test_the_key_of_a_commit_is_that_of_its_files(repo: Any) -> None:
    first = repo.commit({"a": "1"})
    repo.commit({"a": "2"})
    repo.commit({"a": "1"})
    keys = [GitTree(str(repo), ref).key for ref in (first, "main~1", "main")]
    assert keys[0] == keys[2] != keys[1]


def test_the_key_of_a_work_tree_sees_content_name_and_mode(repo: Any) -> None:
    repo.commit({"a": "1", "b": "1"})
    seen = [WorkTree(str(repo)).key]
    (repo.path / "a").write_text("2")
    seen.append(WorkTree(str(repo)).key)
    (repo.path / "a").rename(repo.path / "c")
    seen.append(WorkTree(str(repo)).key)
    (repo.path / "c").chmod(0o755)
    seen.append(WorkTree(str(repo)).key)
    assert len(set(seen)) == 4
    (repo.path / "c").chmod(0o644)
    (repo.path / "c").rename(repo.path / "a")
    (repo.path / "a").write_text("1")
    assert WorkTree(str(repo)).key == seen[0]


def test_a_change_of_the_same_size_and_time_is_seen(repo: Any) -> None:
    import os

    repo.commit({"a": "111"})
    found = (repo.path / "a").stat()
    (repo.path / "a").write_text("222")
    os.utime(repo.path / "a", ns=(found.st_atime_ns, found.st_mtime_ns))
    tree = WorkTree(str(repo))
    assert tree.read("a") == b"222"
    assert tree.dirty


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "a").write_text("2"),
        lambda path: (path / "a").unlink(),
        lambda path: (path / "new").write_text(""),
        lambda path: (path / "a").chmod(0o755),
        lambda path: ((path / "a").unlink(), (path / "a").symlink_to("b")),
    ],
    ids=["content", "removed", "untracked", "mode", "link"],
)
def test_whatever_differs_from_head_makes_a_work_tree_dirty(
    repo: Any, change: Callable[[Path], object]
) -> None:
    repo.commit({"a": "1", "b": "1"})
    assert not WorkTree(str(repo)).dirty
    change(repo.path)
    assert WorkTree(str(repo)).dirty


def test_ignored_files_do_not_count_and_untracked_ones_do(repo: Any) -> None:
    repo.commit({".gitignore": "*.tmp\n", "a": "1", "kept.tmp": ""})
    repo.git("add", "-f", "kept.tmp")
    repo.commit({})
    repo.write({"x.tmp": "", "untracked": "u", "deep/er/y": "y"})
    tree = WorkTree(str(repo))
    assert [path for path, _ in names(tree, "")] == [
        ".gitignore",
        "a",
        "deep",
        "kept.tmp",
        "untracked",
    ]
    assert tree.read("deep/er/y") == b"y"


def test_a_file_that_was_removed_without_git_is_gone(repo: Any) -> None:
    repo.commit({"a": "1", "d/b": "1"})
    (repo.path / "d/b").unlink()
    assert names(WorkTree(str(repo)), "") == [("a", "file")]


def test_a_directory_without_git_is_a_tree_too(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles/x").write_text("1")
    tree = WorkTree(str(tmp_path))
    assert (tree.commit, tree.dirty) == ("", True)
    assert tree.read("roles/x") == b"1"
    assert tree.key == WorkTree(str(tmp_path)).key


def test_a_repository_without_a_commit_is_dirty_and_has_no_commit(repo: Any) -> None:
    repo.write({"a": "1"})
    tree = WorkTree(str(repo))
    assert (tree.commit, tree.dirty, tree.read("a")) == ("", True, b"1")


def test_a_state_repo_may_be_a_directory_of_a_larger_repository(repo: Any) -> None:
    commit = repo.commit({"ops/site.yml": "s", "app/main.c": "c"})
    for tree in both(f"{repo}/ops"):
        assert names(tree, "") == [("site.yml", "file")]
        assert (tree.commit, tree.dirty) == (commit, False)
    repo.write({"app/main.c": "changed"})
    assert not WorkTree(f"{repo}/ops").dirty


def test_a_directory_that_a_larger_repository_ignores_is_read_all_the_same(repo: Any) -> None:
    repo.commit({".gitignore": "build/\n"})
    repo.write({"build/site.yml": "s"})
    tree = WorkTree(f"{repo}/build")
    assert tree.read("site.yml") == b"s"
    assert tree.commit == ""


def test_a_bare_repository_is_read_by_ref_only(repo: Any, tmp_path: Path) -> None:
    repo.commit(FILES)
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    assert GitTree(str(tmp_path / "bare.git"), "main").read("site.yml") == b"- hosts: all\n"
    with pytest.raises(ConfigError, match="bare repository"):
        WorkTree(str(tmp_path / "bare.git")).entry("site.yml")


def test_a_linked_work_tree_is_a_repository(repo: Any, tmp_path: Path) -> None:
    commit = repo.commit(FILES)
    repo.git("worktree", "add", "--quiet", str(tmp_path / "second"))
    for tree in both(tmp_path / "second"):
        assert (tree.commit, tree.dirty) == (commit, False)


def test_a_ref_can_be_a_branch_a_tag_a_short_id_or_an_ancestor(repo: Any) -> None:
    first = repo.commit({"a": "1"})
    repo.commit({"a": "2"})
    repo.git("tag", "-a", "v1.0", "-m", "x", first)
    repo.git("branch", "feature/x", first)
    for ref in ("v1.0", "feature/x", first[:10], "main~1", "HEAD^", "refs/tags/v1.0"):
        assert GitTree(str(repo), ref).commit == first


def test_an_unknown_ref_suggests_the_nearest(repo: Any) -> None:
    repo.commit({"a": "1"})
    repo.git("branch", "production")
    with pytest.raises(UsageError) as caught:
        GitTree(str(repo), "prodution")
    assert caught.value.hint == "did you mean 'production'?"


def test_what_is_no_repository_or_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a Git repository"):
        GitTree(str(tmp_path), "main")
    with pytest.raises(UsageError, match="cannot read"):
        open_tree(str(tmp_path / "nosuch"), None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a directory"):
        open_tree(str(tmp_path / "file"), None)


def test_a_file_above_the_cap_is_streamed_but_not_read(
    repo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit({"big": "x" * 5000, "small": "s"})
    monkeypatch.setattr(listing, "MAX_FILE", 4096)
    for tree in (GitTree(str(repo), "HEAD"), WorkTree(str(repo))):
        with pytest.raises(ConfigError, match="more than the limit"):
            tree.read("big")
        assert b"".join(tree.chunks("big")) == b"x" * 5000
        assert tree.read("small") == b"s"


def test_a_stream_that_is_left_early_does_not_disturb_the_next_read(repo: Any) -> None:
    repo.commit({"big": "x" * (3 << 20), "small": "s"})
    tree = GitTree(str(repo), "HEAD")
    next(tree.chunks("big"))
    assert tree.read("small") == b"s"


def test_a_file_that_changes_under_a_work_tree_is_not_read_as_something_else(repo: Any) -> None:
    repo.commit({"a": "1"})
    tree = WorkTree(str(repo))
    assert tree.key
    (repo.path / "a").write_text("2")
    with pytest.raises(ConfigError, match="changed while it was read"):
        tree.read("a")


def test_names_that_some_file_systems_confuse_are_found(repo: Any) -> None:
    repo.commit({"README": "", "files/readme": "", "Readme": "", "caf\u00e9": "", "cafe\u0301": ""})
    messages = [error.message for error in lint(WorkTree(str(repo)))]
    assert len(messages) == 2
    assert "'Readme' and 'README' are one name" in messages[0]


def test_invisible_characters_links_and_odd_bytes_are_found(repo: Any) -> None:
    repo.commit({"a\u202eb": "", "bell\x07": ""})
    (repo.path / "link").symlink_to("a")
    (repo.path / b"\xff".decode("utf-8", "surrogateescape")).write_text("")
    messages = [error.message for error in lint(WorkTree(str(repo)))]
    for part in ("U+202E", "U+0007", "link is a link", "is not UTF-8"):
        assert sum(part in message for message in messages) == 1


def test_init_makes_a_repository_once(tmp_path: Path) -> None:
    init(str(tmp_path / "new"))
    head = tmp_path / "new/.git/HEAD"
    assert head.read_text() == "ref: refs/heads/main\n"
    assert not (tmp_path / "new/.git/hooks").exists()
    head.write_text("ref: refs/heads/other\n")
    init(str(tmp_path / "new"))
    assert head.read_text() == "ref: refs/heads/other\n"


def test_two_thousand_files_have_their_key_quickly(repo: Any) -> None:
    repo.commit({f"roles/r{n % 100}/f{n}": f"{n}\n" * 50 for n in range(2000)})
    start = time.process_time()
    assert not WorkTree(str(repo)).dirty
    assert time.process_time() - start < 0.5  # 0.04 s on an idle machine
