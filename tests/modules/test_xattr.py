"""Extended attributes: as declared, whatever was there, and of nothing but what was declared."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import NotYet, ResourceError, SchemaError, UnsafePath, Unsupported
from reconciler.modules.xattr import LONGEST_VALUE, Xattr, _read, _shown
from reconciler.resource import Diff

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="plays root against a user, and mounts")
PATH = "/srv/file"
USER = 12345


@pytest.fixture(autouse=True)
def file(machine: Any) -> Path:
    """A file that bears something that nobody declares."""
    machine.put(PATH, "content\n")
    file = machine.path(PATH)
    try:
        os.setxattr(file, "user.theirs", b"stays")
    except OSError:
        pytest.skip("this file system has no user attributes")
    return file


def attributes(path: Path) -> dict[str, bytes]:
    """What it bears, beside what nobody declares and labels of the system."""
    names = [one for one in os.listxattr(path) if one.startswith(("user.", "trusted."))]
    return {one: os.getxattr(path, one) for one in names if one != "user.theirs"}


class TestPresent:
    @pytest.mark.parametrize(
        "value, bytes_",
        [
            ("x", b"x"),
            ("", b""),
            ("two\nlines", b"two\nlines"),
            ("grün", "grün".encode()),
            ("0x00FF", b"\0\xff"),
            ("0sAP8=", b"\0\xff"),
            ("0x", b""),
            ("x" * 3000, b"x" * 3000),
        ],
    )
    def test_the_value_is_what_is_declared(
        self, file: Path, converge: Any, value: str, bytes_: bytes
    ) -> None:
        diff = converge(Xattr(PATH, "user.note", value))
        assert diff.before is None
        assert attributes(file) == {"user.note": bytes_}
        assert not converge(Xattr(PATH, "user.note", value))

    @pytest.mark.parametrize(
        "there, shown",
        [
            (b"old", "old"),
            (b"", ""),
            (b"old\0", "0x6f6c6400"),
            (b"\xff\xfe", "0xfffe"),
            (b"\x1b[31mred", "0x1b5b33316d726564"),
            ("a\u202eb".encode(), "0x61e280ae62"),
            (b"0x6f", "0x30783666"),
        ],
    )
    def test_what_was_there_is_shown_and_replaced(
        self, file: Path, converge: Any, there: bytes, shown: str
    ) -> None:
        os.setxattr(file, "user.note", there)
        diff = converge(Xattr(PATH, "user.note", "new"))
        assert [tuple(change) for change in diff.changes] == [("value", shown, "new")]
        assert attributes(file) == {"user.note": b"new"}

    def test_bytes_are_never_taken_for_the_text_that_shows_them(
        self, file: Path, converge: Any
    ) -> None:
        os.setxattr(file, "user.note", b"\xe9")
        assert not converge(Xattr(PATH, "user.note", "0xe9"))
        os.setxattr(file, "user.note", b"0xe9")
        assert converge(Xattr(PATH, "user.note", "0xe9"))
        assert attributes(file) == {"user.note": b"\xe9"}

    def test_a_name_without_a_namespace_is_of_the_user(self, file: Path, converge: Any) -> None:
        converge(Xattr(PATH, "note", "x"))
        converge(Xattr(PATH, "xdg.origin.url", "y"))
        assert attributes(file) == {"user.note": b"x", "user.xdg.origin.url": b"y"}

    @needs_root
    def test_root_keeps_some_for_itself(self, file: Path, converge: Any) -> None:
        try:
            os.setxattr(file, "trusted.note", b"old")
        except OSError:
            pytest.skip("not the root of the machine itself")
        converge(Xattr(PATH, "trusted.note", "x"))
        assert attributes(file) == {"trusted.note": b"x"}

    def test_a_directory_bears_them_too(self, machine: Any, converge: Any) -> None:
        converge(Xattr("/srv/", "note", "x"))
        assert attributes(machine.path("/srv")) == {"user.note": b"x"}

    def test_nothing_else_of_the_file_changes(
        self, file: Path, machine: Any, converge: Any
    ) -> None:
        file.chmod(0o604)
        before = file.stat()
        images: list[str] = []
        machine.before_change = images.append
        converge(Xattr(PATH, "note", "x"))
        after = file.stat()
        same = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_atime_ns")
        assert [getattr(after, one) for one in same] == [getattr(before, one) for one in same]
        assert os.getxattr(file, "user.theirs") == b"stays"
        assert machine.names("/srv") == ["file"]
        assert images == [], "its content is not changed, so none is kept"


class TestAbsent:
    def test_it_goes_whatever_it_holds_and_nothing_else_does(
        self, file: Path, converge: Any
    ) -> None:
        os.setxattr(file, "user.note", b"\xff")
        diff = converge(Xattr(PATH, "note", state="absent"))
        assert [tuple(change) for change in diff.changes] == [("value", "0xff", None)]
        assert os.listxattr(file).count("user.theirs") == 1
        assert not converge(Xattr(PATH, "note", state="absent"))

    def test_a_file_that_is_not_there_has_none(self, converge: Any) -> None:
        assert not converge(Xattr("/srv/none", "note", state="absent"))
        assert not converge(Xattr("/no/where", "note", state="absent"))


class TestFailures:
    def test_a_missing_file_may_come_yet(self, plan: Any) -> None:
        with pytest.raises(NotYet, match="/srv/none does not exist") as caught:
            plan(Xattr("/srv/none", "note", "x"))
        assert "declare it" in caught.value.hint

    @needs_root
    def test_a_file_system_without_attributes_is_named_and_absence_holds_there(
        self, machine: Any, plan: Any
    ) -> None:
        with ramfs(machine.path("/srv/plain")):
            machine.put("/srv/plain/file")
            with pytest.raises(Unsupported, match="does not keep such attributes") as caught:
                plan(Xattr("/srv/plain/file", "note", "x"))
            assert "user.note of /srv/plain/file" in caught.value.message
            assert "ext4" in caught.value.hint
            assert not plan(Xattr("/srv/plain/file", "note", state="absent"))

    def test_a_value_that_the_file_system_has_no_room_for_is_an_error_in_words(
        self, machine: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        resource = Xattr(PATH, "note", "x")
        diff = plan(resource)
        monkeypatch.setattr(os, "setxattr", full)
        with pytest.raises(ResourceError, match="no room") as caught:
            resource.apply(machine, diff)
        assert "one block" in caught.value.hint

    def test_what_is_no_file_is_refused_declared_or_not(self, machine: Any, plan: Any) -> None:
        os.mkfifo(machine.path("/srv/fifo"))
        for resource in (
            Xattr("/srv/fifo", "note", "x"),
            Xattr("/srv/fifo", "trusted.note", state="absent"),
        ):
            with pytest.raises(ResourceError, match="neither a file nor a directory"):
                plan(resource)


class TestLinks:
    def test_a_link_of_root_is_followed(self, file: Path, machine: Any, converge: Any) -> None:
        machine.path("/srv/link").symlink_to("file")
        converge(Xattr("/srv/link", "note", "x"))
        assert attributes(file) == {"user.note": b"x"}
        assert machine.path("/srv/link").is_symlink()

    @needs_root
    @pytest.mark.parametrize("planted", ["link", "hard link"])
    def test_what_a_user_has_planted_is_neither_read_nor_written(
        self, file: Path, machine: Any, plan: Any, planted: str
    ) -> None:
        home = machine.path("/home")
        home.mkdir()
        os.chown(home, USER, USER)
        if planted == "link":
            (home / "mine").symlink_to(file)
            os.chown(home / "mine", USER, USER, follow_symlinks=False)
        else:
            os.link(file, home / "mine")
        for resource in (
            Xattr("/home/mine", "theirs", "x"),
            Xattr("/home/mine", "theirs", state="absent"),
        ):
            with pytest.raises(UnsafePath):
                plan(resource)
            with pytest.raises(UnsafePath):
                resource.apply(machine, Diff({"value": "stays"}, resource.desired()))
        assert os.getxattr(file, "user.theirs") == b"stays"


class TestSchema:
    @pytest.mark.parametrize(
        "params, said, hint",
        [
            ({"name": "security.capability", "value": "x"}, "security.*", "setcap"),
            ({"name": "security.selinux", "state": "absent"}, "security.*", "labels"),
            ({"name": "system.posix_acl_access", "value": "x"}, "system.*", "setfacl"),
            ({"name": "btrfs.compression", "value": "zstd"}, "btrfs.*", "property set"),
            ({"name": "", "value": "x"}, "not the name", "user."),
            ({"name": "user.", "value": "x"}, "not the name", "user."),
            ({"name": "trusted.", "value": "x"}, "not the name", "trusted."),
            ({"name": "a\0b", "value": "x"}, "not the name", "user."),
            ({"name": "x" * 251, "value": "x"}, "not the name", "255 bytes"),
            ({"name": "ä" * 126, "value": "x"}, "not the name", "255 bytes"),
            ({"name": "note"}, "`value` is missing", "absent"),
            ({"name": "note", "value": "0x0"}, "not hexadecimal", "in hexadecimal"),
            ({"name": "note", "value": "0Xzz"}, "not hexadecimal", "in hexadecimal"),
            ({"name": "note", "value": "0sum"}, "not base64", "in hexadecimal"),
            ({"name": "note", "value": "0sä"}, "not base64", "in hexadecimal"),
            ({"name": "note", "value": "x" * (LONGEST_VALUE + 1)}, "at most 65536", "a file"),
        ],
        ids=lambda one: str(one)[:40] if isinstance(one, dict) else None,
    )
    def test_what_can_never_be_is_refused_before_any_host(
        self, params: dict[str, Any], said: str, hint: str
    ) -> None:
        with pytest.raises(SchemaError) as caught:
            Xattr(PATH, **params)
        assert said in caught.value.message
        assert hint in caught.value.hint

    @pytest.mark.parametrize("name", ["user.system.note", "system", "systemic.note", "x" * 250])
    def test_names_that_only_look_alike_are_taken(self, name: str) -> None:
        assert Xattr(PATH, name, "x").claims()

    @pytest.mark.parametrize("path", ["srv/file", "/srv/../etc", "/a\0b"])
    def test_a_path_is_absolute_and_plain(self, path: str) -> None:
        with pytest.raises(SchemaError, match="absolute path"):
            Xattr(path, "note", "x")

    def test_one_attribute_in_two_spellings_is_one_claim(self) -> None:
        one, other = Xattr(PATH, "note", "x"), Xattr("/srv//file/", "user.note", "y")
        assert one.claims() == other.claims() == {"xattr:/srv/file#user.note"}
        assert one.needs() == {"path:/srv", "path:/srv/file"}
        assert Xattr(PATH, "trusted.note", "x").claims() != one.claims()


@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_a_value_is_shown_as_it_could_be_declared(value: bytes) -> None:
    assert _read(_shown(value)) == value


@contextlib.contextmanager
def ramfs(point: Path) -> Iterator[None]:
    """A file system that keeps no attributes of users."""
    point.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", point], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", point], check=True)
