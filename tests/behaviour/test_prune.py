"""What left Git leaves the host, if the policy says so: slowly, never too much, and back to before."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any, cast

import pytest

from behaviour.world import NOTE, WORDS, World
from reconciler.catalog import Catalog, Report
from reconciler.engine.ledger import Ledger, Owned
from reconciler.engine.limit import Boundary
from reconciler.engine.prune import Gone, Rules, _turn, survey
from reconciler.engine.prune import prune as act
from reconciler.host import Host
from reconciler.transport.engine import Engine


def prune(world: World, policy: dict[str, str], **more: Any) -> dict[str, Any]:
    """One prune for what the world declares now."""
    present = [one.id for one in world.resources]
    with Engine.local(str(world.root)) as engine:
        where = {"host": "h", "commit": "c" * 40, "modules": world.modules}
        return engine.prune(present=present, policy=policy, **where, **more)


def drop(world: World, *paths: str) -> None:
    """Declare these files no more."""
    gone = {f"file:{path}" for path in paths}
    world.resources = [one for one in world.resources if one.id not in gone]


def needless(catalog: Catalog) -> Report:
    """What has a path is undone without converging."""
    raise AssertionError(catalog)


def ids(found: dict[str, Any], name: str) -> list[str]:
    return [one["id"] for one in found[name]]


RESTORE = {"default": "restore"}


def test_by_default_everything_is_kept_and_listed(world: World) -> None:
    world.file("/etc/a", "ours")
    world.apply()
    drop(world, "/etc/a")
    found = [prune(world, {}) for _ in range(3)][-1]
    assert ids(found, "kept") == ["file:/etc/a"]
    assert world.path("/etc/a").read_text() == "ours"


def test_it_takes_two_steps_and_what_comes_back_in_between_is_safe(world: World) -> None:
    world.file("/etc/a", "ours")
    kept = list(world.resources)
    world.apply()
    drop(world, "/etc/a")
    assert ids(prune(world, RESTORE), "waiting") == ["file:/etc/a"]
    world.resources = kept
    assert prune(world, RESTORE)["waiting"] == []
    drop(world, "/etc/a")
    assert ids(prune(world, RESTORE), "waiting") == ["file:/etc/a"]
    assert world.path("/etc/a").exists()
    assert ids(prune(world, RESTORE), "pruned") == ["file:/etc/a"]
    assert not world.path("/etc/a").exists()
    assert prune(world, RESTORE)["ready"] == []


def test_what_was_there_before_us_is_put_back(world: World) -> None:
    world.path("/etc/a").write_text("theirs")
    world.path("/etc/a").chmod(0o604)
    world.path("/etc/link").symlink_to("/somewhere")
    world.file("/etc/a", "ours", mode="0600")
    world.file("/etc/link", state="link", src="/elsewhere")
    world.apply()
    drop(world, "/etc/a", "/etc/link")
    prune(world, RESTORE)
    prune(world, RESTORE)
    assert world.path("/etc/a").read_text() == "theirs"
    assert world.path("/etc/a").stat().st_mode & 0o777 == 0o604
    assert str(world.path("/etc/link").readlink()) == "/somewhere"


def test_delete_deletes_whatever_was_there_before(world: World) -> None:
    world.path("/etc/a").write_text("theirs")
    world.file("/etc/a", "ours")
    world.apply()
    drop(world, "/etc/a")
    prune(world, {"file": "delete"})
    prune(world, {"file": "delete"})
    assert not world.path("/etc/a").exists()


def test_a_directory_with_other_things_in_it_stays(world: World) -> None:
    world.file("/srv/app", state="directory")
    world.path("/srv").mkdir()
    world.apply()
    world.path("/srv/app/data").write_text("precious")
    drop(world, "/srv/app")
    prune(world, RESTORE)
    found = prune(world, RESTORE)
    assert "not empty" in found["pruned"][0]["done"]
    assert world.path("/srv/app/data").read_text() == "precious"


def test_the_resources_own_word_outlives_its_declaration(world: World) -> None:
    world.declare("file", "/etc/a", {"path": "/etc/a", "state": "touch"}, prune="delete")
    world.declare("file", "/etc/b", {"path": "/etc/b", "state": "touch"}, prune="keep")
    world.apply()
    drop(world, "/etc/a", "/etc/b")
    prune(world, {"default": "restore"})
    found = prune(world, {"default": "restore"})
    assert ids(found, "pruned") == ["file:/etc/a"]
    assert ids(found, "kept") == ["file:/etc/b"]
    assert world.path("/etc/b").exists()


def test_a_word_is_for_a_type_as_it_is_written_or_as_what_compile_makes_of_it(world: World) -> None:
    for name, written in (("a", "copy"), ("b", "template"), ("c", "")):
        params = {"path": f"/etc/{name}", "state": "touch"}
        world.declare("file", f"/etc/{name}", params, declared_as=written)
    world.apply()
    world.resources = []
    policy = {"copy": "keep", "file": "delete"}
    prune(world, policy)
    found = prune(world, policy)
    assert ids(found, "pruned") == ["file:/etc/b", "file:/etc/c"]
    assert [(one["id"], one["policy"]) for one in found["kept"]] == [("file:/etc/a", "keep")]


def test_more_than_the_budget_is_held_until_a_person_says_so(world: World) -> None:
    paths = [f"/etc/{n}" for n in range(40)]
    for path in paths:
        world.file(path, path)
    world.apply()
    drop(world, *paths[:6])
    for _ in range(3):
        found = prune(world, RESTORE)
        assert "6 resources" in found["held"]
        assert found["pruned"] == []
    assert all(world.path(path).exists() for path in paths)
    assert len(prune(world, RESTORE, over_budget=True)["pruned"]) == 6
    assert not any(world.path(path).exists() for path in paths[:6])


def test_a_dry_run_writes_nothing(world: World) -> None:
    world.file("/etc/a", "ours")
    world.apply()
    drop(world, "/etc/a")
    before = world.tree(times=True)
    found = prune(world, RESTORE, dry_run=True)
    assert ids(found, "waiting") == ["file:/etc/a"]
    assert world.tree(times=True) == before


def test_what_another_resource_has_taken_over_is_only_forgotten(world: World) -> None:
    world.file("/etc/a", "ours")
    world.apply()
    with sqlite3.connect(world.path("/var/lib/reconciler/ledger.db")) as database:
        database.execute(
            "INSERT INTO resources SELECT 'other:/etc/a', 'other', wish, claims, file, line,"
            " commit_id, run, since, converged, prune, undo, written FROM resources WHERE id = 'file:/etc/a'"
        )
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert found["kept"] == found["ready"] == found["waiting"] == []
    assert world.path("/etc/a").exists()


@pytest.mark.parametrize("damage", ["directory", "gone"])
def test_what_changed_meanwhile_fails_or_is_done_and_stops_nothing_else(
    world: World, damage: str
) -> None:
    world.path("/etc/a").write_text("theirs")
    world.file("/etc/a", "ours")
    world.file("/etc/b", "ours")
    world.apply()
    drop(world, "/etc/a", "/etc/b")
    prune(world, RESTORE)
    world.path("/etc/a").unlink()
    if damage == "directory":
        world.path("/etc/a").mkdir()
    found = prune(world, RESTORE)
    assert not world.path("/etc/b").exists()
    if damage == "directory":
        assert "is a directory now" in found["failed"][0]
        assert ids(found, "ready") == ["file:/etc/a"]
    else:
        assert world.path("/etc/a").read_text() == "theirs"


def lines(world: World, path: str) -> list[str]:
    return world.path(path).read_text().splitlines()


def test_at_the_boundary_it_stops_and_what_is_left_is_still_due(world: World) -> None:
    for name in ("a", "b", "c"):
        world.file(f"/etc/{name}", "ours")
    world.apply()
    drop(world, "/etc/a", "/etc/b", "/etc/c")
    prune(world, RESTORE)
    told = iter([False, True])
    with Ledger.open(str(world.root)) as ledger:
        due = survey(ledger, (), Rules(RESTORE), lambda name: True)
        where = (Host(str(world.root)), ledger, due, "run", "h", "c" * 40)
        done, failed = act(*where, needless, Boundary(lambda: next(told)))
    found = cast("dict[str, Any]", done)
    assert (len(found["pruned"]), len(found["ready"]), failed) == (1, 2, [])
    assert sum(world.path(f"/etc/{name}").exists() for name in ("a", "b", "c")) == 2
    assert len(prune(world, RESTORE)["pruned"]) == 2


def test_the_line_that_we_added_goes_and_the_rest_of_the_file_stays(world: World) -> None:
    world.path("/etc/conf").write_text("a=1\nb=old\n")
    world.declare("lineinfile", "/etc/conf#c=3", {"path": "/etc/conf", "line": "c=3"})
    replaced = {"path": "/etc/conf", "regexp": "^b=", "line": "b=new"}
    world.declare("lineinfile", "/etc/conf#^b=", replaced)
    world.apply()
    assert lines(world, "/etc/conf") == ["a=1", "b=new", "c=3"]
    world.path("/etc/conf").write_text("a=1\nb=new\nc=3\nlater=yes\n")
    world.resources = []
    prune(world, RESTORE)
    found = prune(world, RESTORE)
    assert ids(found, "pruned") == ["lineinfile:/etc/conf#c=3"]
    # What was replaced was somebody's: that one stays, and is listed.
    assert [(one["id"], one["why"]) for one in found["kept"]] == [
        ("lineinfile:/etc/conf#^b=", "it was there before us, or nobody knows")
    ]
    assert lines(world, "/etc/conf") == ["a=1", "b=new", "later=yes"]


def test_a_line_goes_as_it_was_last_declared(world: World) -> None:
    world.path("/etc/conf").write_text("")
    for text in ("c=3", "c=4"):
        world.resources = []
        world.declare(
            "lineinfile", "/etc/conf#^c=", {"path": "/etc/conf", "regexp": "^c=", "line": text}
        )
        world.apply()
    world.resources = []
    prune(world, RESTORE)
    assert ids(prune(world, RESTORE), "pruned") == ["lineinfile:/etc/conf#^c="]
    assert lines(world, "/etc/conf") == []


def cron(world: World, name: str, job: str = "/bin/true", **more: object) -> None:
    params = {"name": name, "job": job, "user": "root", "cron_file": "app", **more}
    world.declare("cron", f"{name}#{params['cron_file']}", params)


def test_the_job_that_we_added_goes_and_others_stay(world: World) -> None:
    world.path("/etc/cron.d").mkdir(parents=True)
    world.path("/etc/cron.d/app").write_text(
        "MAILTO=ops\n#Ansible: theirs\n1 1 * * * root /theirs\n"
    )
    cron(world, "ours", hour="2")
    cron(world, "theirs", job="/changed")
    world.apply()
    assert "/changed" in world.path("/etc/cron.d/app").read_text()
    world.resources = []
    prune(world, RESTORE)
    found = prune(world, RESTORE)
    assert ids(found, "pruned") == ["cron:ours#app"]
    assert ids(found, "kept") == ["cron:theirs#app"]
    left = world.path("/etc/cron.d/app").read_text()
    assert "ours" not in left
    assert "MAILTO=ops" in left
    assert "/changed" in left
    prune(world, {"cron": "delete"})
    assert lines(world, "/etc/cron.d/app") == ["MAILTO=ops"]


def test_a_file_of_jobs_goes_with_its_last_job(world: World) -> None:
    world.path("/etc/cron.d").mkdir(parents=True)
    cron(world, "ours")
    cron(world, "MAILTO", job="ops", env=True)
    world.apply()
    world.resources = []
    prune(world, RESTORE)
    assert len(ids(prune(world, RESTORE), "pruned")) == 2
    assert not world.path("/etc/cron.d/app").exists()


def test_the_attribute_that_we_added_goes_and_the_one_that_we_changed_stays(world: World) -> None:
    path = world.path("/etc/conf")
    path.write_text("theirs")
    try:
        os.setxattr(path, "user.changed", b"theirs")
    except OSError:
        pytest.skip("this file system has no user attributes")
    for name in ("added", "changed"):
        params = {"path": "/etc/conf", "name": name, "value": "ours"}
        world.declare("xattr", f"/etc/conf#{name}", params)
    world.apply()
    world.resources = []
    prune(world, RESTORE)
    found = prune(world, RESTORE)
    assert ids(found, "pruned") == ["xattr:/etc/conf#added"]
    assert [(one["id"], one["why"]) for one in found["kept"]] == [
        ("xattr:/etc/conf#changed", "it was there before us, or nobody knows")
    ]
    assert [one for one in os.listxattr(path) if one.startswith("user.")] == ["user.changed"]
    assert os.getxattr(path, "user.changed") == b"ours"
    prune(world, {"xattr": "delete"})
    assert not [one for one in os.listxattr(path) if one.startswith("user.")]
    assert path.read_text() == "theirs"


def test_what_only_names_an_absence_leaves_nothing_to_undo(world: World) -> None:
    world.path("/etc/conf").write_text("a\nb\n")
    world.declare(
        "lineinfile", "/etc/conf#b", {"path": "/etc/conf", "line": "b", "state": "absent"}
    )
    world.apply()
    world.resources = []
    found = [prune(world, {"default": "delete"}) for _ in range(2)][-1]
    assert [one["why"] for one in found["kept"]] == ["nobody knows how to undo this lineinfile"]
    assert lines(world, "/etc/conf") == ["a"]


def test_no_secret_is_kept_for_undoing(world: World) -> None:
    world.path("/etc/conf").write_text("")
    world.declare(
        "lineinfile", "/etc/conf#^k=", {"path": "/etc/conf", "regexp": "^k=", "line": "k=s3cr3t"},
        no_log=True,
    )  # fmt: skip
    world.apply()
    world.resources = []
    prune(world, {"default": "delete"})
    found = prune(world, {"default": "delete"})
    assert ids(found, "kept") == ["lineinfile:/etc/conf#^k="]
    ledger = world.path("/var/lib/reconciler")
    assert all(b"s3cr3t" not in one.read_bytes() for one in ledger.glob("ledger.db*"))


@pytest.mark.parametrize("params", [{"state": "touch"}, {"mode": "0600", "state": "file"}])
def test_a_path_that_another_resource_declares_is_not_pruned(
    world: World, params: dict[str, object]
) -> None:
    """The content is declared no more, the path still is, under another key."""
    world.file("/etc/a", "ours")
    world.apply()
    world.resources = []
    world.declare("file", "/etc/./a", {"path": "/etc/a", **params})
    world.apply()
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert found["pruned"] == found["kept"] == found["ready"] == []
    assert world.path("/etc/a").read_text() == "ours"


def by_a_link(world: World, under: str) -> None:
    """Directories as Debian has them, and a file by its path through the link."""
    for name in ("run", "var"):
        world.path(f"/{name}").mkdir()
    world.path("/var/run").symlink_to("/run")
    world.file(under, "ours")


@pytest.mark.parametrize("policy", ["restore", "delete"])
@pytest.mark.parametrize("old, new", [("/var/run/a", "/run/a"), ("/run/a", "/var/run/a")])
def test_a_file_that_is_declared_by_another_way_to_it_stays(
    world: World, old: str, new: str, policy: str
) -> None:
    by_a_link(world, old)
    world.apply()
    world.resources = []
    world.file(new, "ours")
    world.apply()
    found = [prune(world, {"default": policy}) for _ in range(3)][-1]
    assert found["pruned"] == found["kept"] == found["ready"] == []
    assert world.path("/run/a").read_text() == "ours"


def test_a_file_of_which_a_part_is_declared_by_another_way_to_it_stays(world: World) -> None:
    by_a_link(world, "/var/run/a")
    world.apply()
    world.resources = []
    world.declare("lineinfile", "/run/a#b", {"path": "/run/a", "line": "b"})
    world.apply()
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert kept(found) == {"file:/var/run/a": "lineinfile:/run/a#b declares a part of it"}
    assert lines(world, "/run/a") == ["ours", "b"]


def test_a_link_that_only_others_follow_takes_nothing_from_prune(world: World) -> None:
    by_a_link(world, "/var/run/a")
    world.file("/run/b", "ours")
    world.apply()
    world.resources = []
    found = [prune(world, {"default": "delete"}) for _ in range(2)][-1]
    assert ids(found, "pruned") == ["file:/var/run/a", "file:/run/b"]
    assert list(world.path("/run").iterdir()) == [world.path("/run/reconciler")]


def test_a_link_that_a_declared_path_goes_by_stays(world: World) -> None:
    world.path("/run").mkdir()
    world.path("/var").mkdir()
    world.file("/var/run", state="link", src="/run")
    world.file("/var/run/a", "ours")
    world.apply()
    drop(world, "/var/run")
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert kept(found) == {"file:/var/run": "what is below it is still declared"}


def test_a_line_of_a_file_that_is_declared_whole_by_now_is_left_to_that(world: World) -> None:
    world.path("/etc/conf").write_text("")
    world.declare("lineinfile", "/etc/conf#c=3", {"path": "/etc/conf", "line": "c=3"})
    world.apply()
    world.resources = []
    world.file("/etc/conf", "c=3\n")
    world.apply()
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert found["pruned"] == found["kept"] == []
    assert lines(world, "/etc/conf") == ["c=3"]


def test_what_uses_another_goes_before_what_is_used() -> None:
    ids = [
        "package:nginx",
        "group:web",
        "user:web",
        "file:/a",
        "file:/a/b",
        "service:nginx",
        "cron:x",
    ]
    found = [_gone(id) for id in ids]
    assert [one.id for one in sorted(found, key=_turn)] == [
        "service:nginx", "cron:x", "file:/a/b", "file:/a", "user:web", "group:web", "package:nginx",
    ]  # fmt: skip


def _gone(id: str) -> Gone:
    kind, _, key = id.partition(":")
    claims = (f"path:{key}",) if kind == "file" else (id,)
    return Gone(id, Owned(kind, claims, "site.yml", 1, "", None, ""), "delete", "delete")


def test_a_type_of_the_state_repos_own_goes_as_it_says_itself(world: World) -> None:
    world.modules.update(note=NOTE, _words=WORDS)
    world.declare("note", "/etc/a", {"path": "/etc/a"})
    world.apply()
    world.resources = []
    prune(world, RESTORE)
    assert ids(prune(world, RESTORE), "pruned") == ["note:/etc/a"]
    assert not world.path("/etc/a").exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_is_of_a_type_that_left_git_too_is_kept(world: World, dry_run: bool) -> None:
    world.modules.update(note=NOTE, _words=WORDS)
    world.declare("note", "/etc/a", {"path": "/etc/a"})
    world.apply()
    world.resources = []
    prune(world, RESTORE)
    world.modules.clear()
    found = prune(world, RESTORE, dry_run=dry_run)
    assert kept(found) == {"note:/etc/a": "the module of type 'note' left the state repo, too"}
    assert not found.get("failed")
    assert world.path("/etc/a").exists()


# -- what was never ours -----------------------------------------------------------------


def dropped(world: World, policy: dict[str, str], **now: str) -> dict[str, Any]:
    """Nothing is declared any more, and pruned in two steps; `now`: content of /etc/NAME in between."""
    world.resources = []
    prune(world, policy)
    for name, text in now.items():
        world.path(f"/etc/{name}").write_text(text)
    return prune(world, policy)


def kept(found: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["why"] for one in found["kept"]}


def test_of_what_only_had_its_mode_declared_only_the_mode_is_put_back(world: World) -> None:
    path = world.path("/etc/a")
    path.write_text("theirs")
    path.chmod(0o604)
    world.file("/etc/a", mode="0600")
    world.apply()
    path.write_text("theirs, a year later")
    os.chown(path, -1, 7)
    found = dropped(world, RESTORE)
    assert found["pruned"][0]["done"] == "restored, its mode only"
    assert path.read_text() == "theirs, a year later"
    assert (path.stat().st_mode & 0o777, path.stat().st_gid) == (0o604, 7)


def test_content_comes_back_as_it_was_when_it_was_changed_and_the_mode_as_that_was_before(
    world: World,
) -> None:
    """Its mode was ours for a year before its content was."""
    path = world.path("/etc/a")
    path.write_text("theirs")
    path.chmod(0o604)
    world.file("/etc/a", mode="0600")
    world.apply()
    path.write_text("theirs, a year later")
    world.resources = []
    world.file("/etc/a", "ours", mode="0640")
    world.apply()
    dropped(world, RESTORE)
    assert path.read_text() == "theirs, a year later"
    assert path.stat().st_mode & 0o777 == 0o604


def test_content_that_was_as_declared_from_the_start_is_not_put_back(world: World) -> None:
    path = world.path("/etc/a")
    path.write_text("the same")
    path.chmod(0o604)
    world.file("/etc/a", mode="0600")
    world.apply()
    world.resources = []
    world.file("/etc/a", "the same", mode="0600")
    world.apply()
    found = dropped(world, RESTORE)
    assert found["pruned"][0]["done"] == "restored, its mode only"
    assert path.read_text() == "the same"
    assert path.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("policy", ["restore", "delete"])
def test_content_that_was_let_go_before_is_not_taken_away(world: World, policy: str) -> None:
    """It was ours once; then only its mode was declared, and others went on writing it."""
    world.file("/etc/a", "ours", mode="0600")
    world.apply()
    world.resources = []
    world.file("/etc/a", mode="0600")
    world.apply()
    found = dropped(world, {"default": policy}, a="theirs by now")
    assert kept(found) == {"file:/etc/a": "only its attributes were declared"}
    assert world.path("/etc/a").read_text() == "theirs by now"


@pytest.mark.parametrize("policy", ["restore", "delete"])
@pytest.mark.parametrize("before", ["nothing", "ours", "theirs"])
def test_what_comes_to_be_where_something_was_to_be_absent_stays(
    world: World, policy: str, before: str
) -> None:
    if before == "theirs":
        world.path("/etc/a").write_text("theirs")
    if before == "ours":
        world.file("/etc/a", "ours")
        world.apply()
        world.resources = []
    world.file("/etc/a", state="absent")
    world.apply()
    assert not world.path("/etc/a").exists()
    found = dropped(world, {"default": policy}, a="somebody else, later")
    assert kept(found) == {"file:/etc/a": "nothing that is there was declared"}
    assert world.path("/etc/a").read_text() == "somebody else, later"


@pytest.mark.parametrize("policy", ["restore", "delete"])
def test_what_is_of_another_kind_by_now_is_not_what_we_put_there(world: World, policy: str) -> None:
    world.file("/etc/a", state="link", src="/elsewhere")
    world.file("/etc/b", state="directory")
    world.file("/etc/c", "ours")
    world.apply()
    world.path("/etc/a").unlink()
    world.path("/etc/b").rmdir()
    world.path("/etc/c").unlink()
    world.path("/etc/c").symlink_to("theirs")
    found = dropped(world, {"default": policy}, a="theirs", b="theirs")
    assert {one["id"]: one["done"] for one in found["pruned"]} == {
        "file:/etc/a": "kept, because it is a file now",
        "file:/etc/b": "kept, because it is a file now",
        "file:/etc/c": "kept, because it is a link now",
    }
    assert world.path("/etc/a").read_text() == world.path("/etc/b").read_text() == "theirs"
    assert world.path("/etc/c").is_symlink()


def test_what_a_link_leads_to_is_not_said_to_be_put_back(world: World) -> None:
    world.path("/etc/a").symlink_to("real")
    world.path("/etc/real").write_text("theirs")
    world.file("/etc/a", "ours", follow=True)
    world.apply()
    found = dropped(world, RESTORE)
    assert [one["done"] for one in found["pruned"]] == ["kept, because it is a link now"]
    assert world.path("/etc/a").is_symlink()


def test_a_file_that_is_a_link_or_a_pipe_by_now_stays_one(world: World) -> None:
    for name in ("a", "b"):
        world.path(f"/etc/{name}").write_text("theirs")
        world.file(f"/etc/{name}", "ours")
    world.apply()
    for name in ("a", "b"):
        world.path(f"/etc/{name}").unlink()
    world.path("/etc/a").symlink_to("elsewhere")
    os.mkfifo(world.path("/etc/b"))
    found = dropped(world, RESTORE)
    assert {one["id"]: one["done"] for one in found["pruned"]} == {
        "file:/etc/a": "kept, because it is a link now",
        "file:/etc/b": "kept, because it is a special now",
    }
    assert found["failed"] == []


def test_a_file_that_was_only_touched_keeps_what_others_wrote_into_it(world: World) -> None:
    world.path("/etc/a").write_text("theirs")
    world.path("/etc/a").chmod(0o604)
    world.path("/etc/b").write_text("theirs")
    world.file("/etc/a", state="touch", mode="0600")
    world.file("/etc/b", state="touch", modification_time="202001010000.00")
    world.apply()
    found = dropped(world, RESTORE, a="later", b="later")
    assert {one["id"]: one["done"] for one in found["pruned"]} == {
        "file:/etc/a": "restored, its mode only",
        "file:/etc/b": "kept, because its content is not ours",
    }
    assert world.path("/etc/a").read_text() == world.path("/etc/b").read_text() == "later"
    assert world.path("/etc/a").stat().st_mode & 0o777 == 0o604


# -- what others have taken over ---------------------------------------------------------


def a_line(world: World) -> None:
    world.declare("lineinfile", "/etc/a#b=2", {"path": "/etc/a", "line": "b=2"})


def a_job(world: World) -> None:
    cron(world, "job", cron_file="/etc/a")


def an_attribute(world: World) -> None:
    world.declare("xattr", "/etc/a#n", {"path": "/etc/a", "name": "n", "value": "x"})


def something_of_their_own(world: World) -> None:
    world.modules["ini"] = INI
    world.declare("ini", "/etc/a", {"path": "/etc/a"})


#: A type of a state repo's own, whose kind of claim nobody here knows.
INI = """\
from __future__ import annotations
from dataclasses import dataclass
from reconciler.resource import Resource

@dataclass(frozen=True)
class Ini(Resource):
    path: str
    def claims(self): return {f"ini:{self.path}#section"}
    def desired(self): return {}
    def actual(self, host): return {}
"""


@pytest.mark.parametrize("policy", ["restore", "delete"])
@pytest.mark.parametrize("take", [a_line, a_job, an_attribute, something_of_their_own])
def test_a_file_of_which_others_declare_a_part_waits_until_they_are_gone_too(
    world: World, take: Callable[[World], None], policy: str
) -> None:
    path, rules = world.path("/etc/a"), {"default": policy}
    path.write_text("theirs\n")
    world.file("/etc/a", "ours\n")
    world.apply()
    world.resources = []
    take(world)
    if world.apply().failed:
        pytest.skip("this file system has no user attributes")
    text = path.read_text()
    found = [prune(world, rules) for _ in range(3)][-1]
    assert found["pruned"] == found["ready"] == found["waiting"] == []
    assert kept(found) == {"file:/etc/a": f"{world.resources[0].id} declares a part of it"}
    assert path.read_text() == text
    # Two steps, counted from when nobody had a part of it any more.
    world.resources = []
    assert "file:/etc/a" in ids(prune(world, rules), "waiting")
    assert path.read_text() == text
    prune(world, rules)
    assert not path.exists() if policy == "delete" else path.read_text() == "theirs\n"


def test_a_job_in_a_file_that_is_declared_whole_by_now_is_left_to_that(world: World) -> None:
    world.path("/etc/cron.d").mkdir(parents=True)
    cron(world, "ours")
    world.apply()
    text = world.path("/etc/cron.d/app").read_text()
    world.resources = []
    world.file("/etc/cron.d/app", text)
    world.apply()
    found = [prune(world, {"default": "delete"}) for _ in range(3)][-1]
    assert found["pruned"] == found["kept"] == []
    assert world.path("/etc/cron.d/app").read_text() == text


def test_a_line_of_a_file_of_which_only_the_mode_is_declared_goes(world: World) -> None:
    world.path("/etc/conf").write_text("a\n")
    world.declare("lineinfile", "/etc/conf#b", {"path": "/etc/conf", "line": "b"})
    world.apply()
    world.resources = []
    world.file("/etc/conf", mode="0600")
    world.apply()
    prune(world, RESTORE)
    assert ids(prune(world, RESTORE), "pruned") == ["lineinfile:/etc/conf#b"]
    assert lines(world, "/etc/conf") == ["a"]


def test_what_an_older_ledger_says_too_little_of_is_kept(world: World) -> None:
    """It knew of a path and perhaps its content, not of a link or that it was to be absent."""
    world.file("/etc/a", "ours")
    world.file("/etc/b", state="touch", mode="0600")
    world.apply()
    with sqlite3.connect(world.path("/var/lib/reconciler/ledger.db")) as database:
        for name, claims in (("a", '["content:/etc/a", "path:/etc/a"]'), ("b", '["path:/etc/b"]')):
            database.execute(
                "UPDATE resources SET claims = ? WHERE id = ?", (claims, f"file:/etc/{name}")
            )
    found = dropped(world, {"default": "delete"})
    assert ids(found, "pruned") == ["file:/etc/a"]
    assert kept(found) == {"file:/etc/b": "nothing that is there was declared"}


def test_what_is_still_declared_learns_its_claims_anew(world: World) -> None:
    world.file("/etc/a", state="touch")
    world.apply()
    with sqlite3.connect(world.path("/var/lib/reconciler/ledger.db")) as database:
        database.execute("UPDATE resources SET claims = '[\"path:/etc/a\"]'")
    world.apply()
    assert ids(dropped(world, {"default": "delete"}), "pruned") == ["file:/etc/a"]
