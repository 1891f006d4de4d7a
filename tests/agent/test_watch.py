"""Events: quick, few threads, deaf to our own writes, honest about what was lost."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.agent.hints import hints, stamp, watch_list
from reconciler.agent.watch import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def told(watcher: Watcher, seconds: float = 5.0) -> bool:
    """Wait until the kernel tells of something; whether it did."""
    ready, _, _ = select.select([watcher], [], [], seconds)
    if ready:
        watcher.read()
    return bool(ready)


def taken(watcher: Watcher) -> tuple[set[str], bool]:
    """All that the kernel has to tell, taken together."""
    while told(watcher, 0.05):
        pass
    return watcher.take()


def test_two_thousand_paths_are_watched_without_a_thread_and_told_of_at_once(
    tmp_path: Path, watcher: Watcher
) -> None:
    claims: dict[str, list[str]] = {}
    for n in range(200):
        directory = tmp_path / str(n)
        directory.mkdir()
        for k in range(10):
            path = directory / str(k)
            path.write_text("x")
            claims[f"file:{path}"] = [f"path:{path}"]
    before = threading.active_count()
    watcher.set(watch_list(claims))
    assert threading.active_count() == before
    for n in range(0, 200, 4):
        (tmp_path / str(n) / "3").write_text("changed")
        # It is there by the time that the write has returned.
        assert told(watcher, 0.0)
        assert watcher.take() == ({f"file:{tmp_path}/{n}/3"}, False)
        while told(watcher, 0.0):
            pass


@pytest.mark.parametrize(
    "how", ["edit", "chmod", "remove", "link", "rename over", "attribute", "append"]
)
def test_each_way_to_change_a_file_is_seen(tmp_path: Path, watcher: Watcher, how: str) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    if how == "edit":
        path.write_text("y")
    elif how == "append":
        with path.open("a") as file:
            file.write("y")
    elif how == "chmod":
        path.chmod(0o600)
    elif how == "attribute":
        os.setxattr(path, "user.note", b"1")
    elif how == "rename over":
        (tmp_path / "b").write_text("z")
        (tmp_path / "b").rename(path)
    else:
        path.unlink()
        if how == "link":
            path.symlink_to("/etc/passwd")
    assert taken(watcher) == ({"file:a"}, False)


def test_what_is_as_the_last_run_left_it_is_nothing(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    path.write_text("ours")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    assert taken(watcher) == (set(), False)


def test_a_change_before_the_watch_was_set_is_not_missed(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watched = watch_list({"file:a": [f"path:{path}"]})
    path.write_text("y")
    watcher.set(watched)
    assert watcher.news
    assert watcher.take()[0] == {"file:a"}


def test_a_heal_renews_only_the_watches_that_it_is_about(tmp_path: Path, watcher: Watcher) -> None:
    claims: dict[str, list[str]] = {}
    for name in ("a", "b"):
        (tmp_path / name).write_text("x")
        claims[f"file:{name}"] = [f"path:{tmp_path / name}"]
    watcher.set(watch_list(claims))
    for name in ("a", "b"):
        (tmp_path / name).write_text("y")
    watcher.update(watch_list({"file:a": claims["file:a"]}))
    assert taken(watcher) == ({"file:b"}, False)
    (tmp_path / "a").write_text("z")
    assert watcher.count == 2
    assert taken(watcher) == ({"file:a"}, False)


def test_a_directory_that_goes_away_means_a_sweep(tmp_path: Path, watcher: Watcher) -> None:
    (tmp_path / "d").mkdir()
    path = tmp_path / "d/a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    (tmp_path / "d").rename(tmp_path / "e")
    assert taken(watcher)[1]


@pytest.mark.parametrize("how", ["moved away and made anew", "behind a link that was switched"])
@pytest.mark.parametrize("managed", [True, False])
def test_whatever_takes_the_place_of_a_directory_is_watched_from_the_next_sweep_on(
    tmp_path: Path, watcher: Watcher, how: str, managed: bool
) -> None:
    first, second, place = tmp_path / "app-1", tmp_path / "app-2", tmp_path / "app"
    for one in (first, second):
        one.mkdir()
        (one / "conf").write_text("1")
    linked = how.startswith("behind")
    place.symlink_to(first) if linked else first.rename(place)
    claims = {"file:conf": [f"path:{place}/conf"]}
    claims |= {"file:app": [f"path:{place}"]} if managed else {}
    watcher.set(watch_list(claims))
    if linked:
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").rename(place)
    else:
        place.rename(first)
        second.rename(place)
    _, lost = taken(watcher)
    assert lost or linked
    watcher.set(watch_list(claims))
    assert taken(watcher) == (set(), False)
    (place / "conf").write_text("drift")
    assert taken(watcher)[0] >= {"file:conf"}
    watcher.set(watch_list(claims))
    (first / "conf").write_text("nobody declared this")
    assert taken(watcher) == (set(), False)


def test_more_events_than_the_kernel_keeps_mean_a_sweep(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 100_000:
        pytest.skip(f"the kernel keeps {most} events here")
    other = tmp_path / "b"
    for n in range(most // 2 + 10):  # each pair of events differs from the one before
        other.touch()
        path.chmod(0o600 + n % 2)
    assert taken(watcher)[1]
    assert watcher.overflows == 1


def test_a_directory_with_two_names_tells_of_what_is_in_it_by_both(
    tmp_path: Path, watcher: Watcher
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("a", "b"):
        (tmp_path / "real" / name).write_text("x")
    claims = {"file:a": [f"path:{tmp_path}/real/a"], "file:b": [f"path:{tmp_path}/link/b"]}
    watcher.set(watch_list(claims))
    assert (watcher.mode, watcher.count) == ("inotify", 2)
    for name in ("a", "b"):
        (tmp_path / "real" / name).write_text("changed")
    assert taken(watcher) == ({"file:a", "file:b"}, False)
    watcher.set(watch_list({"file:b": claims["file:b"]}))
    (tmp_path / "real/b").write_text("changed again")
    assert taken(watcher) == ({"file:b"}, False)
    (tmp_path / "real/b").unlink()
    (tmp_path / "real/a").unlink()
    (tmp_path / "real").rmdir()
    assert taken(watcher)[1]
    assert watcher.count == 0


def test_lost_events_mean_a_sweep(watcher: Watcher) -> None:
    watcher.on_queue_overflow()
    assert watcher.take()[1]
    assert watcher.overflows == 1
    assert not watcher.take()[1]


#: Root of a user namespace of its own sets its own limits.
APART = ["unshare", "--user", "--map-root-user", sys.executable, "-c"]
PROLOGUE = """
import os, select, sys
from reconciler.agent.hints import watch_list
from reconciler.agent.watch import Watcher

def limit(what, most):
    with open(f"/proc/sys/user/max_inotify_{what}", "w") as file:
        file.write(str(most))

def told(watcher):
    while select.select([watcher], [], [], 0.05)[0]:
        watcher.read()
    return watcher.take()

root = sys.argv[1]
for name in "abcd":
    os.mkdir(f"{root}/{name}")
    open(f"{root}/{name}/x", "w").close()
claims = {name: [f"path:{root}/{name}/x"] for name in "abcd"}
"""


def apart(tmp_path: Path, script: str) -> None:
    """Run this where limits of inotify can be set."""
    argv = [*APART, PROLOGUE + script, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_an_instance_nothing_is_watched_until_there_is_one(tmp_path: Path) -> None:
    apart(
        tmp_path,
        """
limit("instances", 0)
watcher = Watcher()
assert watcher.fileno() == -1
watcher.set(watch_list(claims))
watcher.update(watch_list(claims))
assert (watcher.mode, watcher.count) == ("none", 0)
assert "sysctl fs.inotify.max_user_instances" in watcher.trouble, watcher.trouble
assert watcher.take() == (set(), False)
open(f"{root}/a/x", "w").write("changed")
limit("instances", 1)
watcher.set(watch_list(claims))
assert (watcher.mode, watcher.count, watcher.trouble) == ("inotify", 4, "")
open(f"{root}/b/x", "w").write("changed")
assert told(watcher) == ({"b"}, False)
watcher.close()
""",
    )


def test_with_too_few_watches_what_is_watched_is_what_is_counted(tmp_path: Path) -> None:
    apart(
        tmp_path,
        """
limit("watches", 3)
watcher = Watcher()
watcher.set(watch_list(claims))
assert (watcher.mode, watcher.count) == ("partial", 3)
assert "sysctl fs.inotify.max_user_watches" in watcher.trouble, watcher.trouble
for name in "abcd":
    open(f"{root}/{name}/x", "w").write("changed")
seen, lost = told(watcher)
assert len(seen) == 3 and not lost, (seen, lost)
limit("watches", 4)
watcher.set(watch_list(claims))
assert (watcher.mode, watcher.count, watcher.trouble) == ("inotify", 4, "")
""",
    )


def test_what_is_not_watched_any_more_makes_room(tmp_path: Path) -> None:
    apart(
        tmp_path,
        """
limit("watches", 2)
watcher = Watcher()
for some in ("ab", "cd"):
    watcher.set(watch_list({name: claims[name] for name in some}))
    assert (watcher.mode, watcher.count) == ("inotify", 2)
""",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_that_may_not_be_watched_is_not_counted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for name in ("theirs", "hers"):
        (tmp_path / name).mkdir(mode=0o700)
        os.chown(tmp_path / name, 65534, 65534)
    apart(
        tmp_path,
        """
more = {name: [f"path:{root}/{name}/x"] for name in ("theirs", "hers")}
watcher = Watcher()
for _ in range(2):
    watcher.set(watch_list({**claims, **more}))
    assert (watcher.mode, watcher.count) == ("partial", 4)
    assert watcher.trouble == "Permission denied"
""",
    )


def test_a_directory_that_is_not_there_is_no_trouble(tmp_path: Path, watcher: Watcher) -> None:
    (tmp_path / "file").write_text("")
    paths = [f"path:{tmp_path}/gone/x", f"path:{tmp_path}/file/x"]
    watcher.set(watch_list({"file:x": paths}))
    assert (watcher.mode, watcher.count, watcher.trouble) == ("inotify", 0, "")


def test_hints_of_units_packages_and_accounts(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text("")
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "nginx.service").symlink_to("/dev/null")
    claims = {
        "service:nginx": ["unit:nginx.service"],
        "package:nginx": ["package:nginx"],
        "user:bob": ["user:bob"],
        "lineinfile:x": ["line:/etc/fstab#x"],
        "xattr:x": ["xattr:/srv/file#user.note"],
        "cron:root:backup": ["cron:root:backup"],
        "cron:jobs": ["cron:/etc/jobs:env:PATH"],
        "service:theirs": ["unit:bob/theirs.service"],
    }
    found = hints(claims, str(tmp_path))
    assert found[str(wants / "nginx.service")] == ["service:nginx"]
    assert found[os.path.join(tmp_path, "run/systemd/units/invocation:nginx.service")]
    assert found[str(tmp_path / "var/lib/dpkg/status")] == ["package:nginx"]
    assert found[str(tmp_path / "etc/passwd")] == ["user:bob"]
    assert found[str(tmp_path / "etc/fstab")] == ["lineinfile:x"]
    assert found[str(tmp_path / "srv/file")] == ["xattr:x"]
    assert found[str(tmp_path / "var/spool/cron/crontabs/root")] == ["cron:root:backup"]
    assert found[str(tmp_path / "etc/cron.d/root")] == ["cron:root:backup"]
    assert found[str(tmp_path / "etc/jobs")] == ["cron:jobs"]
    assert not any("theirs" in path for path in found)
    assert stamp(str(tmp_path / "nothing")) is None
