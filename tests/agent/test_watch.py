"""Events: quick, few threads, deaf to our own writes, honest about what was lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.agent.hints import hints, signature, watch_list
from reconciler.agent.watch import Watcher


class Alarm:
    """Counts the calls of a watcher."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self) -> None:
        self.event.set()


@pytest.fixture
def alarm() -> Alarm:
    return Alarm()


@pytest.fixture
def watcher(alarm: Alarm) -> Iterator[Watcher]:
    made = Watcher(alarm)
    yield made
    made.close()


def test_two_thousand_paths_are_watched_by_one_thread_and_told_of_at_once(
    tmp_path: Path, watcher: Watcher, alarm: Alarm
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
    assert threading.active_count() - before <= 0
    took: list[float] = []
    for n in range(0, 200, 4):
        alarm.event.clear()
        start = time.monotonic()
        (tmp_path / str(n) / "3").write_text("changed")
        assert alarm.event.wait(5)
        took.append(time.monotonic() - start)
        deadline = time.monotonic() + 5
        ids: set[str] = set()
        wanted = f"file:{tmp_path}/{n}/3"
        while wanted not in ids and time.monotonic() < deadline:
            ids |= watcher.take()[0]
        assert wanted in ids
    assert sorted(took)[int(len(took) * 0.95)] < 0.1


@pytest.mark.parametrize("how", ["edit", "chmod", "remove", "link", "rename over"])
def test_each_way_to_change_a_file_is_seen(
    tmp_path: Path, watcher: Watcher, alarm: Alarm, how: str
) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    if how == "edit":
        path.write_text("y")
    elif how == "chmod":
        path.chmod(0o600)
    elif how == "rename over":
        (tmp_path / "b").write_text("z")
        (tmp_path / "b").rename(path)
    else:
        path.unlink()
        if how == "link":
            path.symlink_to("/etc/passwd")
    assert alarm.event.wait(5)
    time.sleep(0.05)
    assert watcher.take() == ({"file:a"}, False)


def test_what_is_as_the_last_run_left_it_is_nothing(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    path.write_text("ours")
    time.sleep(0.1)
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    assert watcher.take() == (set(), False)


def test_a_change_before_the_watch_was_set_is_not_missed(tmp_path: Path, watcher: Watcher) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    watched = watch_list({"file:a": [f"path:{path}"]})
    path.write_text("y")
    watcher.set(watched)
    assert watcher.take()[0] == {"file:a"}


def test_a_directory_that_goes_away_means_a_sweep(
    tmp_path: Path, watcher: Watcher, alarm: Alarm
) -> None:
    (tmp_path / "d").mkdir()
    path = tmp_path / "d/a"
    path.write_text("x")
    watcher.set(watch_list({"file:a": [f"path:{path}"]}))
    (tmp_path / "d").rename(tmp_path / "e")
    assert alarm.event.wait(5)
    time.sleep(0.05)
    assert watcher.take()[1]


def test_lost_events_mean_a_sweep(watcher: Watcher) -> None:
    watcher.on_queue_overflow()
    assert watcher.take()[1]
    assert watcher.overflows == 1
    assert not watcher.take()[1]


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
    }
    found = hints(claims, str(tmp_path))
    assert found[str(wants / "nginx.service")] == ["service:nginx"]
    assert found[os.path.join(tmp_path, "run/systemd/units/invocation:nginx.service")]
    assert found[str(tmp_path / "var/lib/dpkg/status")] == ["package:nginx"]
    assert found[str(tmp_path / "etc/passwd")] == ["user:bob"]
    assert found[str(tmp_path / "etc/fstab")] == ["lineinfile:x"]
    assert signature(str(tmp_path / "nothing")) is None
