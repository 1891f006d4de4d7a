"""`why` names the commit that touched a line last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.source.history import SHALLOW, UNCOMMITTED, Touch, last_touch


def test_the_commit_author_date_and_subject_of_a_line(repo: Any) -> None:
    first = repo.commit({"site.yml": "one\ntwo\n"}, "Add the site")
    second = repo.commit({"site.yml": "one\n2\n"}, "Count on")
    about = {"author": "Ada <ada@example.org>", "date": "2026-01-02T03:04:05+02:00"}
    assert last_touch(str(repo), "main", "site.yml", 1) == Touch(
        first, subject="Add the site", **about
    )
    assert last_touch(str(repo), "main", "site.yml", 2) == Touch(
        second, subject="Count on", **about
    )
    assert last_touch(str(repo), "main~1", "site.yml", 2) == Touch(
        first, subject="Add the site", **about
    )


def test_a_line_that_is_not_committed_says_so_and_the_others_move_along(repo: Any) -> None:
    first = repo.commit({"site.yml": "one\ntwo\n"})
    repo.write({"site.yml": "zero\none\ntwo\n"})
    touches = [last_touch(str(repo), None, "site.yml", line) for line in (1, 2, 3)]
    assert touches[0] == Touch("", note=UNCOMMITTED)
    assert [touch and touch.commit for touch in touches[1:]] == [first, first]


def test_a_new_file_is_not_committed(repo: Any) -> None:
    repo.commit({"a": "1"})
    repo.write({"new.yml": "x\n"})
    assert last_touch(str(repo), None, "new.yml", 1) == Touch("", note=UNCOMMITTED)


@pytest.mark.parametrize("ref", [None, "HEAD"])
@pytest.mark.parametrize("file, line", [("nosuch", 1), ("a", 9), ("a", 0), ("d", 1)])
def test_what_is_not_there_has_no_history(repo: Any, ref: str | None, file: str, line: int) -> None:
    repo.commit({"a": "1\n", "d/b": "1\n"})
    assert last_touch(str(repo), ref, file, line) is None


def test_a_directory_without_git_has_no_history(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n")
    assert last_touch(str(tmp_path), None, "a", 1) is None


def test_a_state_repo_below_the_top_is_asked_by_its_own_paths(repo: Any) -> None:
    commit = repo.commit({"ops/site.yml": "one\n"})
    for ref in (None, "HEAD"):
        touch = last_touch(f"{repo}/ops", ref, "site.yml", 1)
        assert touch is not None
        assert touch.commit == commit


def test_a_shallow_clone_says_that_the_line_may_be_older(repo: Any, tmp_path: Path) -> None:
    repo.commit({"a": "1\n", "b": "1\n"})
    middle = repo.commit({"c": "1\n"})
    last = repo.commit({"b": "2\n"})
    repo.git("clone", "--quiet", "--depth=2", f"file://{repo}", str(tmp_path / "shallow"))
    older = last_touch(str(tmp_path / "shallow"), "HEAD", "a", 1)
    newer = last_touch(str(tmp_path / "shallow"), None, "b", 1)
    assert older is not None
    assert newer is not None
    assert (older.commit, older.note) == (middle, SHALLOW)
    assert (newer.commit, newer.note) == (last, "")


def test_reading_trees_does_not_import_gitpython() -> None:
    code = "import sys, reconciler.source; print(any(n in sys.modules for n in ('git', 'gitdb', 'difflib')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"
