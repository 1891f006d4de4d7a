"""Nothing that another user puts in the way makes root write, read or remove somewhere else."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler import safewrite
from reconciler.errors import Moved, ReconcilerError, ResourceError, UnsafePath, Unsupported
from reconciler.safewrite import Attributes, Tree

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plays root against a user, so it needs root"
)

USER = 12345
OTHER = 12346
RACE_SECONDS = 2.0


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = Tree()
    yield tree
    tree.close()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """What an attacker would like root to touch."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "shadow").write_text("secret\n")
    (victim / "shadow").chmod(0o600)
    return victim


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory that belongs to a user."""
    tmp_path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, USER, USER)
    return home


def as_user(path: Path, uid: int = USER) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def link(path: Path, target: Path | str, uid: int = USER) -> Path:
    path.symlink_to(target)
    return as_user(path, uid)


def write(tree: Tree, path: Path | str, text: str = "new\n", **attributes: int) -> None:
    tree.write(str(path), [text.encode()], Attributes(**attributes))


def bear(path: Path, *names: str) -> None:
    """Give a file these attributes, or skip the test where it cannot have them."""
    for name in names:
        try:
            os.setxattr(path, name, b"kept")
        except OSError as error:
            pytest.skip(f"there is no {name} on this file system: {error}")


def untouched(victim: Path) -> None:
    found = (victim / "shadow").stat()
    assert (victim / "shadow").read_text() == "secret\n"
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)
    assert os.listdir(victim) == ["shadow"]
    assert "user.note" not in os.listxattr(victim / "shadow")


def no_temporaries(directory: Path) -> None:
    assert [name for name in os.listdir(directory) if safewrite.TEMP_MARK in name] == []


class TestPlantedLinks:
    def test_a_target_that_is_a_link_to_shadow_is_refused_and_shadow_untouched(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        link(home / "target", victim / "shadow")
        with pytest.raises(Unsupported):
            write(tree, home / "target")
        untouched(victim)
        no_temporaries(home)

    def test_reading_through_a_planted_link_is_refused(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        link(home / "target", victim / "shadow")
        with pytest.raises(OSError, match="symbolic links"):
            tree.digest(str(home / "target"))

    def test_a_directory_on_the_way_that_is_a_users_link_is_refused(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        link(home / "dir", victim)
        for act in (
            lambda: write(tree, home / "dir/shadow"),
            lambda: tree.set_attributes(str(home / "dir/shadow"), Attributes(USER, USER, 0o666)),
            lambda: tree.remove(str(home / "dir/shadow")),
            lambda: tree.mkdir(str(home / "dir/new"), Attributes()),
            lambda: tree.symlink(str(home / "dir/new"), "x"),
            lambda: tree.hardlink(str(home / "mine"), str(home / "dir/shadow")),
            lambda: tree.set_times(str(home / "dir/shadow"), 0, 0),
            lambda: tree.set_xattr(str(home / "dir/shadow"), "user.note", b"x"),
            lambda: tree.xattr(str(home / "dir/shadow"), "user.note"),
            lambda: tree.digest(str(home / "dir/shadow")),
        ):
            with pytest.raises(UnsafePath):
                act()
        untouched(victim)

    def test_a_link_of_root_in_a_users_directory_is_not_followed_either(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        link(home / "dir", victim, uid=0)
        with pytest.raises(UnsafePath):
            write(tree, home / "dir/shadow")
        untouched(victim)

    def test_a_hard_link_to_roots_link_in_a_shared_directory_is_not_followed(
        self, tree: Tree, tmp_path: Path, victim: Path
    ) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        (tmp_path / "roots").symlink_to(victim)
        os.link(tmp_path / "roots", shared / "dir", follow_symlinks=False)
        with pytest.raises(UnsafePath):
            write(tree, shared / "dir/shadow")
        untouched(victim)

    def test_links_of_root_in_directories_of_root_are_followed(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "absolute").symlink_to(tmp_path / "real")
        (tmp_path / "relative").symlink_to("../" + tmp_path.name + "/absolute")
        write(tree, tmp_path / "relative/file", mode=0o644)
        assert (tmp_path / "real/file").read_text() == "new\n"

    def test_a_circle_of_links_ends(self, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(UnsafePath, match="too many links"):
            write(tree, tmp_path / "a/file")

    def test_a_directory_of_root_that_a_user_moved_into_its_own_is_refused(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        shutil.move(victim, home / "dir")
        with pytest.raises(UnsafePath, match="belongs to uid 0"):
            write(tree, home / "dir/shadow")

    def test_absolute_links_end_below_a_directory_root(self, tmp_path: Path) -> None:
        (tmp_path / "root/etc").mkdir(parents=True)
        (tmp_path / "root/conf").symlink_to("/etc")
        tree = Tree(str(tmp_path / "root"))
        write(tree, "/conf/file")
        assert (tmp_path / "root/etc/file").read_text() == "new\n"
        assert tree.resolve("/conf") == "/etc"
        tree.close()

    @pytest.mark.parametrize("path", ["etc/x", "/a/../etc/shadow", "/a/\0b", ""])
    def test_paths_that_are_not_plain_are_refused(self, tree: Tree, path: str) -> None:
        with pytest.raises(UnsafePath):
            write(tree, path)


class TestResolve:
    def test_a_final_link_of_root_leads_on_and_a_users_does_not(
        self, tree: Tree, home: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/link").symlink_to("../file")
        (tmp_path / "short").symlink_to("deep/link")
        assert tree.resolve(str(tmp_path / "short")) == str(tmp_path / "file")
        assert tree.resolve(str(tmp_path / "none/at/all")) == str(tmp_path / "none/at/all")
        link(home / "mine", tmp_path / "file")
        with pytest.raises(UnsafePath):
            tree.resolve(str(home / "mine"))

    def test_dots_in_a_link_count_from_where_its_directory_really_is(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        (tmp_path / "a/b").mkdir(parents=True)
        (tmp_path / "a/b/link").symlink_to("../file")
        (tmp_path / "short").symlink_to("a/b")
        assert tree.resolve(str(tmp_path / "short/link")) == str(tmp_path / "a/file")


class TestRaces:
    def race(self, swap: Callable[[], None], act: Callable[[], None]) -> tuple[int, int]:
        """Act again and again while a thread swaps; how often it went through, and was refused."""
        stop = threading.Event()

        def swapping() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    swap()

        thread = threading.Thread(target=swapping)
        thread.start()
        done = refused = 0
        end = time.monotonic() + RACE_SECONDS
        try:
            while time.monotonic() < end:
                try:
                    act()
                    done += 1
                except (ReconcilerError, OSError):
                    refused += 1
        finally:
            stop.set()
            thread.join()
        return done, refused

    @staticmethod
    def exchanger(one: Path, other: Path, spare: Path) -> Callable[[], None]:
        def swap() -> None:
            os.rename(one, spare)
            os.rename(other, one)
            os.rename(one, other)
            os.rename(spare, one)

        return swap

    def test_a_link_swapped_in_between_look_and_write_captures_nothing(
        self, home: Path, victim: Path
    ) -> None:
        (home / "target").write_text("mine\n")
        as_user(home / "target")
        link(home / "trap", victim / "shadow")
        tree = Tree(durability="none")
        done, refused = self.race(
            self.exchanger(home / "target", home / "trap", home / "spare"),
            lambda: write(tree, home / "target", mode=0o644),
        )
        tree.close()
        untouched(victim)
        assert done + refused > 100
        assert refused > 0, "the race was never lost, so nothing was tested"

    def test_a_directory_swapped_for_a_link_captures_nothing(
        self, home: Path, victim: Path
    ) -> None:
        (home / "dir").mkdir()
        as_user(home / "dir")
        (home / "dir/shadow").write_text("mine\n")
        as_user(home / "dir/shadow")
        link(home / "trap", victim)
        tree = Tree(durability="none")

        def act() -> None:
            tree.set_attributes(str(home / "dir/shadow"), Attributes(USER, USER, 0o666))
            write(tree, home / "dir/shadow")

        done, refused = self.race(self.exchanger(home / "dir", home / "trap", home / "spare"), act)
        tree.close()
        untouched(victim)
        assert done > 0
        assert refused > 0

    def test_an_attribute_of_a_file_swapped_for_a_link_is_never_that_of_its_target(
        self, home: Path, victim: Path
    ) -> None:
        (home / "target").write_text("mine\n")
        as_user(home / "target")
        link(home / "trap", victim / "shadow")
        tree = Tree(durability="none")
        done, refused = self.race(
            self.exchanger(home / "target", home / "trap", home / "spare"),
            lambda: tree.set_xattr(str(home / "target"), "user.note", b"x"),
        )
        tree.close()
        untouched(victim)
        assert done > 0
        assert refused > 0

    def test_a_walk_over_a_tree_that_its_user_mutates_touches_nothing_else(
        self, home: Path, victim: Path
    ) -> None:
        top = home / "top"
        top.mkdir()
        for number in range(20):
            (top / f"d{number}").mkdir()
            as_user(top / f"d{number}")
            (top / f"d{number}/shadow").write_text("mine\n")
        as_user(top)
        link(home / "trap", victim)
        tree = Tree(durability="none")

        def act() -> None:
            for _, found, place in tree.below(str(top)):
                if not stat.S_ISLNK(found.st_mode):
                    safewrite.change_in_place("x", place, Attributes(USER, USER, 0o666))

        done, refused = self.race(self.exchanger(top / "d10", home / "trap", home / "spare"), act)
        tree.close()
        untouched(victim)
        assert done + refused > 10

    def test_removing_a_tree_that_its_user_mutates_removes_nothing_else(
        self, home: Path, victim: Path
    ) -> None:
        link(home / "trap", victim)

        def swap() -> None:
            (home / "top/dir").mkdir(parents=True, exist_ok=True)
            os.rename(home / "top/dir", home / "spare")
            os.rename(home / "trap", home / "top/dir")
            os.rename(home / "top/dir", home / "trap")
            os.rmdir(home / "spare")

        tree = Tree(durability="none")
        self.race(swap, lambda: tree.remove(str(home / "top"), recurse=True))
        tree.close()
        untouched(victim)


class TestHardLinks:
    def test_writing_breaks_a_hard_link_and_leaves_the_victim(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        os.link(victim / "shadow", home / "target")
        write(tree, home / "target", mode=0o644)
        untouched(victim)
        assert (home / "target").read_text() == "new\n"

    @pytest.mark.parametrize("mode", [0o755, 0o1777, 0o2775])
    def test_attributes_of_a_hard_link_are_not_changed_where_others_can_make_one(
        self, tree: Tree, tmp_path: Path, victim: Path, mode: int
    ) -> None:
        place = tmp_path / "place"
        place.mkdir()
        if mode == 0o755:
            as_user(place)
        os.chown(place, -1, USER)
        place.chmod(mode)
        os.link(victim / "shadow", place / "target")
        with pytest.raises(UnsafePath, match="hard link"):
            tree.set_attributes(str(place / "target"), Attributes(USER, USER, 0o666))
        with pytest.raises(UnsafePath, match="hard link"):
            tree.digest(str(place / "target"))
        with pytest.raises(UnsafePath, match="hard link"):
            tree.set_xattr(str(place / "target"), "user.note", b"x")
        with pytest.raises(UnsafePath, match="hard link"):
            tree.xattr(str(place / "target"), "user.note")
        untouched(victim)

    def test_hard_links_of_root_in_directories_of_root_are_no_matter(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        (tmp_path / "one").write_text("x")
        os.link(tmp_path / "one", tmp_path / "two")
        tree.set_attributes(str(tmp_path / "two"), Attributes(mode=0o640))
        assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o640

    def test_making_a_hard_link_twice_leaves_no_temporary_name(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        (tmp_path / "one").write_text("x")
        for _ in range(2):
            tree.hardlink(str(tmp_path / "two"), str(tmp_path / "one"))
        assert sorted(os.listdir(tmp_path)) == ["one", "two"]


class TestSpecialFiles:
    def test_a_fifo_never_blocks_and_is_refused(self, tree: Tree, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        started = time.monotonic()
        with pytest.raises(UnsafePath, match="not a regular file"):
            tree.digest(str(tmp_path / "fifo"))
        with pytest.raises(Unsupported):
            write(tree, tmp_path / "fifo")
        assert time.monotonic() - started < 1

    def test_a_device_is_neither_read_nor_written(self, tree: Tree, tmp_path: Path) -> None:
        with pytest.raises(UnsafePath):
            tree.digest("/dev/zero")
        with pytest.raises(Unsupported):
            write(tree, "/dev/null")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

    def test_a_directory_is_not_overwritten(self, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "dir").mkdir()
        with pytest.raises(Unsupported):
            write(tree, tmp_path / "dir")


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "new\nline",
            "-rf",
            "'quo\"ted`$(x)",
            "x" * 255,
            "ä" * 127,
            os.fsdecode(b"latin-\xe9-1"),
            " blank ",
            "tab\there",
            "*",
        ],
        ids=lambda name: repr(name[:8]),
    )
    def test_any_name_that_linux_takes_is_written_read_and_removed(
        self, tree: Tree, tmp_path: Path, name: str
    ) -> None:
        path = f"{tmp_path}/{name}"
        write(tree, path, mode=0o600)
        assert os.listdir(tmp_path) == [name]
        assert b"".join(tree.chunks(path)) == b"new\n"
        write(tree, path, "again\n")
        tree.set_attributes(path, Attributes(mode=0o644))
        tree.remove(path)
        assert os.listdir(tmp_path) == []

    def test_a_name_that_is_too_long_is_an_error_and_no_traceback(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        with pytest.raises(ResourceError, match="name too long"):
            write(tree, tmp_path / ("x" * 256))
        assert os.listdir(tmp_path) == []

    def test_many_byte_names_give_a_temporary_name_that_fits(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        seen: list[str] = []
        tree.write(
            str(tmp_path / ("ä" * 127)),
            [b"x"],
            Attributes(),
            validate=lambda path: seen.append(os.path.basename(path)),
        )
        assert len(os.fsencode(seen[0])) <= 255


class TestModes:
    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_a_file_is_never_more_readable_than_declared_while_it_is_made(
        self, tree: Tree, tmp_path: Path, umask: int
    ) -> None:
        seen: set[int] = set()

        def content() -> Iterator[bytes]:
            for _ in range(50):
                for entry in os.scandir(tmp_path):
                    seen.add(stat.S_IMODE(entry.stat().st_mode))
                yield b"secret\n"

        before = os.umask(umask)
        try:
            tree.write(str(tmp_path / "key"), content(), Attributes(mode=0o640))
        finally:
            os.umask(before)
        assert seen == {0o600}
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o640

    def test_a_directory_is_never_wider_than_declared(self, tree: Tree, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            tree.mkdir(str(tmp_path / "dir"), Attributes(mode=0o700))
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "dir").stat().st_mode) == 0o700

    def test_what_is_not_given_stays_as_it_was(self, tree: Tree, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old\n")
        os.chown(path, USER, OTHER)
        path.chmod(0o751)
        write(tree, path)
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (USER, OTHER, 0o751)

    @pytest.mark.parametrize("replace", [True, False], ids=["replaced", "in place"])
    def test_a_setuid_bit_of_one_owner_is_not_given_to_another(
        self, tree: Tree, home: Path, replace: bool
    ) -> None:
        path = home / "tool"
        path.write_text("#!/bin/sh\n")
        as_user(path)
        path.chmod(0o6755)
        if replace:
            write(tree, path, uid=0, gid=0)
        else:
            tree.set_attributes(str(path), Attributes(uid=0, gid=0))
        assert stat.S_IMODE(path.stat().st_mode) == 0o755

    def test_a_setuid_bit_that_is_declared_is_set(self, tree: Tree, tmp_path: Path) -> None:
        write(tree, tmp_path / "tool", uid=USER, mode=0o4755)
        assert stat.S_IMODE((tmp_path / "tool").stat().st_mode) == 0o4755

    def test_what_is_made_in_a_setgid_directory_gets_its_group(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        os.chown(tmp_path, 0, OTHER)
        tmp_path.chmod(0o2755)
        write(tree, tmp_path / "file", mode=0o644)
        tree.mkdir(str(tmp_path / "dir"), Attributes())
        tree.mkdir(str(tmp_path / "exact"), Attributes(mode=0o750))
        assert (tmp_path / "file").stat().st_gid == OTHER
        found = (tmp_path / "dir").stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (OTHER, 0o2755)
        assert stat.S_IMODE((tmp_path / "exact").stat().st_mode) == 0o750

    def test_extended_attributes_stay_and_capabilities_go(self, tree: Tree, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old\n")
        bear(path, "user.note")
        # VFS_CAP_REVISION_2 with cap_net_bind_service: for the old program, not for the new one.
        os.setxattr(path, "security.capability", bytes.fromhex("0100000200040000" + "00" * 12))
        write(tree, path)
        assert os.getxattr(path, "user.note") == b"kept"
        assert os.listxattr(path) == ["user.note"]

    def test_an_attribute_that_cannot_stay_costs_none_of_the_others(
        self, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        path.write_text("old\n")
        bear(path, "user.a", "user.b", "user.c")
        whole = os.setxattr

        def refuses(fd: int, name: str, value: bytes) -> None:
            if name == "user.b":
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            whole(fd, name, value)

        monkeypatch.setattr(os, "setxattr", refuses)
        monkeypatch.setattr(os, "listxattr", lambda _: ["user.b", "user.a", "user.c"])
        write(tree, path)
        monkeypatch.undo()
        assert sorted(os.listxattr(path)) == ["user.a", "user.c"]

    def test_a_links_own_owner_is_changed_and_its_targets_is_not(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        link(home / "link", victim / "shadow")
        tree.set_attributes(str(home / "link"), Attributes(OTHER, OTHER, 0o666))
        assert os.lstat(home / "link").st_uid == OTHER
        untouched(victim)


class TestExtendedAttributes:
    @pytest.mark.parametrize("name", ["user.note", "trusted.note"])
    @pytest.mark.parametrize("kind", ["file", "directory"])
    def test_they_come_change_and_go(
        self, tree: Tree, tmp_path: Path, name: str, kind: str
    ) -> None:
        path = tmp_path / "one"
        path.write_text("x") if kind == "file" else path.mkdir()
        bear(path, name)
        os.removexattr(path, name)
        before = path.stat()
        assert tree.xattr(str(path), name) is None
        for value in (b"x", b"", b"\0\xff" * 500):
            tree.set_xattr(str(path), name, value)
            assert tree.xattr(str(path), name) == os.getxattr(path, name) == value
        for _ in range(2):
            tree.set_xattr(str(path), name, None)
            assert os.listxattr(path) == []
        assert path.stat().st_ino == before.st_ino
        assert path.stat().st_mtime_ns == before.st_mtime_ns

    def test_a_link_a_fifo_and_a_device_bear_none(self, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "link").symlink_to("file")
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path / "link", tmp_path / "fifo", "/dev/null"):
            for name in ("user.note", "trusted.note"):
                with pytest.raises(ResourceError, match="neither a file nor a directory"):
                    tree.xattr(str(path), name)
                with pytest.raises(ResourceError, match="neither a file nor a directory"):
                    tree.set_xattr(str(path), name, b"x")
        assert os.listxattr(tmp_path / "file") == []

    def test_a_file_system_without_them_says_so(self, tree: Tree, tmp_path: Path) -> None:
        with mounted("ramfs", tmp_path / "plain", "mode=755") as plain:
            (plain / "file").write_text("x")
            for value in (b"x", None):
                with pytest.raises(Unsupported, match="file system does not keep") as caught:
                    tree.set_xattr(str(plain / "file"), "user.note", value)
                assert "ext4" in caught.value.hint

    @pytest.mark.parametrize(
        "code, said, hint",
        [
            (errno.ENOSPC, "there is no room", "ext4"),
            (errno.E2BIG, "there is no room", "ext4"),
            (errno.EPERM, "not permitted", "chattr -i"),
            (errno.EROFS, "Read-only", "read-only"),
            (errno.EDQUOT, "quota", "quota"),
        ],
    )
    def test_each_failure_says_what_to_do(
        self,
        tree: Tree,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        code: int,
        said: str,
        hint: str,
    ) -> None:
        (tmp_path / "file").write_text("x")

        def fails(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "setxattr", fails)
        with pytest.raises(ResourceError, match=said) as caught:
            tree.set_xattr(str(tmp_path / "file"), "user.note", b"x")
        assert f"cannot set user.note of {tmp_path}/file: " in caught.value.message
        assert hint in caught.value.hint

    def test_more_than_ext4_has_room_for_is_a_clear_error(self, tree: Tree, tmp_path: Path) -> None:
        image = tmp_path / "image"
        with image.open("wb") as disk:
            disk.truncate(4 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "1024", image], check=True)
        with mounted("ext4", tmp_path / "disk", "loop", image) as point:
            (point / "file").write_text("x")
            tree.set_xattr(str(point / "file"), "user.note", b"x" * 500)
            with pytest.raises(ResourceError, match="no room"):
                tree.set_xattr(str(point / "file"), "user.note", b"x" * 2000)
            assert tree.xattr(str(point / "file"), "user.note") == b"x" * 500


class TestFailures:
    def test_a_full_disk_leaves_the_old_file_and_no_temporary(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        with mounted("tmpfs", tmp_path / "small", "size=64k") as small:
            write(tree, small / "file", "old\n", mode=0o644)
            with pytest.raises(ResourceError, match=r"[Nn]o space left") as caught:
                tree.write(str(small / "file"), (b"x" * 4096 for _ in range(64)), Attributes())
            assert "free some space" in caught.value.hint
            assert (small / "file").read_text() == "old\n"
            assert os.listdir(small) == ["file"]
            tree.flush()

    def test_a_disk_without_inodes_is_not_said_to_be_without_space(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        with mounted("tmpfs", tmp_path / "small", "size=1m,nr_inodes=8") as small:
            (small / "there").write_text("old\n")
            for n in range(6):
                (small / f"ballast{n}").touch()
            acts = (
                lambda: write(tree, small / "there"),
                lambda: tree.mkdir(str(small / "dir"), Attributes()),
                lambda: tree.symlink(str(small / "link"), "x"),
            )
            for act in acts:
                with pytest.raises(ResourceError, match="No free inodes") as caught:
                    act()
                assert "df -i" in caught.value.hint
            assert (small / "there").read_text() == "old\n"
            (small / "ballast0").unlink()
            write(tree, small / "there")
            tree.flush()

    def test_a_quota_is_said_to_be_one(
        self, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object) -> int:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        monkeypatch.setattr(os, "write", fails)
        with pytest.raises(ResourceError, match="quota exceeded") as caught:
            write(tree, tmp_path / "file")
        assert "the quota is used up" in caught.value.hint

    @pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
    def test_an_input_output_error_leaves_the_old_file_and_no_temporary(
        self, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        (tmp_path / "file").write_text("old\n")

        def fails(*_: object, **__: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fails)
            with pytest.raises(ResourceError, match="Input/output error"):
                write(tree, tmp_path / "file")
        assert (tmp_path / "file").read_text() == "old\n"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_directory_that_cannot_be_synced_costs_no_other_its_sync_and_is_told_once(
        self, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There are more of them than are kept open, so that some are synced in between."""
        real, synced, broken = os.fsync, list[str](), str(tmp_path / "0")

        def fsync(fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            synced.append(path)
            if path == broken:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(fd)

        for n in range(100):
            (tmp_path / f"{n}").mkdir()
        monkeypatch.setattr(os, "fsync", fsync)
        for n in range(100):
            write(tree, tmp_path / f"{n}/file")
        with pytest.raises(OSError, match="Input/output") as caught:
            tree.flush()
        assert caught.value.filename == broken
        assert {str(tmp_path / f"{n}") for n in range(100)} <= set(synced)
        tree.flush()

    def test_short_writes_are_continued(
        self, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = os.write
        monkeypatch.setattr(os, "write", lambda fd, piece: whole(fd, bytes(piece)[:7]))
        text = "0123456789" * 100
        write(tree, tmp_path / "file", text)
        monkeypatch.undo()
        assert (tmp_path / "file").read_text() == text

    def test_a_temporary_name_that_is_taken_is_never_reused(
        self, tree: Tree, home: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "urandom", lambda _: b"known")
        link(home / f".file{safewrite.TEMP_MARK}{b'known'.hex()}", victim / "shadow")
        with pytest.raises(ResourceError):
            write(tree, home / "file")
        untouched(victim)

    def test_an_immutable_file_is_reported_as_such(self, tree: Tree, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old\n")
        if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
            pytest.skip("this file system has no immutable files")
        try:
            for act in (
                lambda: write(tree, path),
                lambda: tree.remove(str(path)),
                lambda: tree.set_attributes(str(path), Attributes(mode=0o600)),
                lambda: tree.set_xattr(str(path), "user.note", b"x"),
            ):
                with pytest.raises(ResourceError) as caught:
                    act()
                assert "chattr -i" in caught.value.hint
        finally:
            subprocess.run(["chattr", "-i", path], check=True)
        assert path.read_text() == "old\n"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_read_only_file_system_is_named(self, tree: Tree, tmp_path: Path) -> None:
        with (
            mounted("tmpfs", tmp_path / "ro", "size=64k,ro") as point,
            pytest.raises(ResourceError) as caught,
        ):
            write(tree, point / "file")
        assert "read-only" in caught.value.hint

    def test_a_bind_mounted_file_is_a_clear_error(self, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "source").write_text("source\n")
        (tmp_path / "hosts").write_text("hosts\n")
        with bound(tmp_path / "source", tmp_path / "hosts"):
            with pytest.raises(ResourceError) as caught:
                write(tree, tmp_path / "hosts")
            assert "bind-mounted" in caught.value.hint
            assert (tmp_path / "source").read_text() == "source\n"
        no_temporaries(tmp_path)

    def test_a_file_that_changed_since_it_was_seen_is_not_overwritten(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        path = tmp_path / "file"
        path.write_text("old\n")
        seen = path.stat()
        path.write_text("somebody else's\n")
        with pytest.raises(Moved):
            tree.write(str(path), [b"new\n"], Attributes(), expect=seen)
        assert path.read_text() == "somebody else's\n"

    def test_a_file_that_changes_while_it_is_written_is_not_overwritten(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        path = tmp_path / "file"
        path.write_text("old\n")

        def content() -> Iterator[bytes]:
            yield b"new\n"
            path.write_text("somebody else's\n")

        with pytest.raises(Moved):
            tree.write(str(path), content(), Attributes())
        assert path.read_text() == "somebody else's\n"
        no_temporaries(tmp_path)

    def test_an_old_open_descriptor_does_not_see_or_change_the_new_content(
        self, tree: Tree, home: Path
    ) -> None:
        path = home / "file"
        path.write_text("old\n")
        with path.open("r+") as old:
            write(tree, path, "secret\n", uid=0, mode=0o600)
            assert old.read() == "old\n"
            old.write("injected\n")
        assert path.read_text() == "secret\n"

    def test_a_validator_sees_a_path_beside_the_target_and_can_refuse(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        path = tmp_path / "sudoers"
        path.write_text("old\n")

        def refuse(temporary: str) -> None:
            assert Path(temporary).parent == tmp_path
            assert Path(temporary).read_text() == "new\n"
            raise ResourceError("no")

        with pytest.raises(ResourceError, match="no"):
            tree.write(str(path), [b"new\n"], Attributes(), validate=refuse)
        assert path.read_text() == "old\n"
        assert os.listdir(tmp_path) == ["sudoers"]


class TestRemove:
    def test_links_are_removed_and_not_followed(
        self, tree: Tree, tmp_path: Path, victim: Path
    ) -> None:
        (tmp_path / "top/deep").mkdir(parents=True)
        (tmp_path / "top/deep/out").symlink_to(victim)
        (tmp_path / "top/file").write_text("x")
        tree.remove(str(tmp_path / "top"), recurse=True)
        assert not (tmp_path / "top").exists()
        untouched(victim)

    def test_a_full_directory_needs_recurse(self, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "top/deep").mkdir(parents=True)
        with pytest.raises(ResourceError, match="not empty"):
            tree.remove(str(tmp_path / "top"))

    def test_a_trailing_slash_and_a_missing_path_are_no_matter(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        (tmp_path / "top").mkdir()
        tree.remove(f"{tmp_path}/top/")
        tree.remove(f"{tmp_path}/top")
        tree.remove(f"{tmp_path}/top/not/there")
        assert not (tmp_path / "top").exists()

    @pytest.mark.parametrize("how", ["the point", "above it", "through a link"])
    @pytest.mark.parametrize("kind", ["tmpfs", "bind"])
    def test_a_mount_is_never_removed_nor_emptied(
        self, tree: Tree, tmp_path: Path, victim: Path, kind: str, how: str
    ) -> None:
        point = tmp_path / "top/a mount"
        point.mkdir(parents=True)
        (tmp_path / "short").symlink_to("top")
        path = {
            "the point": point,
            "above it": tmp_path / "top",
            "through a link": tmp_path / "short/a mount",
        }[how]
        with bound(victim, point) if kind == "bind" else mounted("tmpfs", point, "size=64k"):
            (point / "shadow").write_text("secret\n")
            with pytest.raises(ResourceError, match="mount point"):
                tree.remove(str(path), recurse=True)
            assert (point / "shadow").read_text() == "secret\n"

    @pytest.mark.parametrize("path", ["/", "/etc", "/usr/", "/home", "//var/lib", "/./usr/bin"])
    def test_directories_of_the_system_are_never_removed(self, tree: Tree, path: str) -> None:
        with pytest.raises(UnsafePath):
            tree.remove(path)
        assert os.path.isdir(path)

    def test_a_directory_of_the_system_is_recognised_behind_a_link(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        (tmp_path / "short").symlink_to("/usr")
        with pytest.raises(UnsafePath, match="part of the system"):
            tree.remove(str(tmp_path / "short/bin"), recurse=False)

    def test_a_tree_deeper_than_any_limit_is_removed(self, tree: Tree, tmp_path: Path) -> None:
        top = os.open(tmp_path, os.O_RDONLY)
        fd = top
        for level in range(3000):
            os.mkdir("d" if level else "top", dir_fd=fd)
            inner = os.open("d" if level else "top", os.O_RDONLY, dir_fd=fd)
            if fd != top:
                os.close(fd)
            fd = inner
        os.close(fd)
        os.close(top)
        tree.remove(str(tmp_path / "top"), recurse=True)
        assert os.listdir(tmp_path) == []


class TestBelow:
    def test_it_goes_through_owners_but_not_through_links_or_mounts(
        self, tree: Tree, home: Path, victim: Path
    ) -> None:
        (home / "a/b").mkdir(parents=True)
        as_user(home / "a", OTHER)
        (home / "a/b/file").write_text("x")
        link(home / "a/out", victim)
        (home / "point").mkdir()
        with mounted("tmpfs", home / "point", "size=64k") as point:
            (point / "inside").write_text("x")
            names = [name for name, _, _ in tree.below(str(home))]
        assert names == ["a", "a/b", "a/b/file", "a/out"]


class TestLeftovers:
    def test_what_a_killed_run_left_is_swept_and_nothing_else(
        self, tree: Tree, tmp_path: Path
    ) -> None:
        mark, number = safewrite.TEMP_MARK, "0123456789abcdef01234567"
        ours = [f".file{mark}{number}", f".{mark}{number}"]
        others = [f".other{mark}{number}", f"file{mark}{number}", "file"]
        theirs = [f".file{mark}notes", f".{mark}new", f".file{mark}{number}.txt"]
        for name in (*ours, *others, *theirs):
            (tmp_path / name).write_text("x")
        tree.sweep(str(tmp_path / "file"))
        assert sorted(os.listdir(tmp_path)) == sorted([*others, *theirs])

    def test_no_descriptor_is_left_open(self, tmp_path: Path) -> None:
        before = os.listdir("/proc/self/fd")
        tree = Tree()
        with tree.reading():
            for number in range(300):
                tree.lstat(str(tmp_path / f"{number}/x"))
        write(tree, tmp_path / "file")
        list(tree.below(str(tmp_path)))
        with contextlib.suppress(ResourceError):
            write(tree, tmp_path / "none/file")
        tree.remove(str(tmp_path / "file"))
        tree.close()
        assert os.listdir("/proc/self/fd") == before


@contextlib.contextmanager
def mounted(kind: str, point: Path, options: str, what: Path | str = "none") -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", kind, "-o", options, what, point], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


@contextlib.contextmanager
def bound(source: Path, point: Path) -> Iterator[None]:
    if subprocess.run(
        ["mount", "--bind", source, point], capture_output=True, check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", point], check=True)
