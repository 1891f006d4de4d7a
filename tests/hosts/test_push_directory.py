"""Directories that hold a root file system: converged from outside, and from inside a container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import program
from hosts import image, pushing, snapshot
from hosts import session as sessions
from hosts.booted import overlay
from hosts.lab import OURS, Lab
from reconciler.errors import ConfigError, HostUnfit
from reconciler.transport.target import Target

WAYS = pytest.mark.parametrize("way", ["chroot", "nspawn"])
SITE = """\
- hosts: all
  resources:
    - file: {path: /srv/site, state: directory, mode: "0750", owner: daemon}
    - copy: {dest: /srv/site/index, content: "{{ inventory_hostname }} {{ facts.os_family }}\\n"}
      notify: say so
    - user: {name: deploy, shell: /bin/sh}
    - package: {name: hello}
    - lineinfile: {path: /etc/login.defs, regexp: "^UMASK", line: "UMASK 077"}
    - service: {name: cron, enabled: false}
  handlers:
    - name: say so
      command: touch /srv/notified
"""


class Directory:
    """A directory root over the base image. upper: what differs from that."""

    def __init__(self, disk: Path, base: image.Image) -> None:
        self.root = disk / "root"
        self.upper = disk / "upper"
        self.base = base

    def target(self, way: str) -> Target:
        return Target.of("box", {"ansible_connection": way, "ansible_host": str(self.root)})

    def snapshot(self) -> snapshot.Snapshot:
        return snapshot.take(self.root, self.upper, self.base)


@pytest.fixture
def directory(lab: Lab) -> Iterator[Directory]:
    disk = lab.session.overlays / "directory"
    with image.hold(OURS) as base:
        for name in ("upper", "work", "root"):
            (disk / name).mkdir(parents=True)
        subprocess.run(overlay(base.root, disk), check=True)
        yield Directory(disk, base)
        sessions.unmount(disk / "root")
        subprocess.run(["rm", "-rf", str(disk)], check=True)


def call(directory: Directory, tmp_path: Path, way: str, *words: str) -> tuple[int, str]:
    """A call of the program, by way of an inventory."""
    (tmp_path / "site.yml").write_text(SITE)
    variables = {"ansible_connection": way, "ansible_host": str(directory.root)}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"box": variables}}}))
    code, out, err = program.ended(program.start(tmp_path, *words, "-i", "hosts.yml"), 300)
    return code, out + err


@WAYS
def test_a_root_file_system_is_converged_and_then_in_sync(
    directory: Directory, tmp_path: Path, way: str
) -> None:
    before = directory.snapshot()
    code, said = call(directory, tmp_path, way, "plan", "--detailed-exitcode")
    assert code == 2, said
    assert directory.snapshot() == before, "a plan writes nothing"
    code, said = call(directory, tmp_path, way, "apply")
    assert code == 0, said
    root = directory.root
    assert (root / "srv/site/index").read_text() == "box Debian\n"
    assert (root / "srv/site").stat().st_uid == 1
    assert (root / "srv/notified").exists()
    assert "deploy:x:" in (root / "etc/passwd").read_text()
    assert "UMASK 077\n" in (root / "etc/login.defs").read_text()
    assert (root / "usr/bin/hello").exists()
    assert not (root / "etc/systemd/system/multi-user.target.wants/cron.service").is_symlink()
    assert (root / "var/lib/reconciler/ledger.db").exists(), "the memory is the directory's own"
    code, said = call(directory, tmp_path, way, "apply", "--detailed-exitcode")
    assert (code, "0 changes" in said) == (0, True), said


def test_in_a_container_the_engine_is_inside(directory: Directory, tmp_path: Path) -> None:
    looks = "readlink /proc/1/exe; hostname; ls /proc | grep -c '^[0-9]'"
    script = f"{{ {looks}; }} >/srv/seen"
    (directory.root / "srv").chmod(0o755)
    assert pushing.apply(directory.target("nspawn"), pushing.Wish({}, script)).changed
    seen = (directory.root / "srv/seen").read_text().splitlines()
    assert seen[1] == "box"
    assert int(seen[2]) < 12, "its own processes, and none of this machine"


def test_a_directory_that_cannot_run_anything_is_told_apart(tmp_path: Path) -> None:
    def target(root: Path) -> Target:
        return Target.of("box", {"ansible_connection": "nspawn", "ansible_host": str(root)})

    with pytest.raises(ConfigError, match="there is no directory"):
        pushing.plan(target(tmp_path / "nowhere"), pushing.Wish({}))
    with pytest.raises(HostUnfit, match=r"nothing can be run in the directory.*OS tree"):
        pushing.plan(target(tmp_path), pushing.Wish({}))


def test_a_directory_without_python_is_told_apart(directory: Directory) -> None:
    for path in (directory.root / "usr/bin").glob("python3*"):
        path.unlink()
    with pytest.raises(HostUnfit, match="there is no python3"):
        pushing.plan(directory.target("nspawn"), pushing.Wish({}))
    # From outside none is needed.
    assert pushing.plan(directory.target("chroot"), pushing.Wish({"/srv/x": b"x"})).differs
