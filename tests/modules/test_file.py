"""The file module, and the modes, owners and contents that it shares with others."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import NotYet, ResourceError, SchemaError, UnsafePath, Unsupported
from reconciler.modules._mode import is_mode, mode_bits, mode_text
from reconciler.modules.file import File
from reconciler.resource import Content, Diff

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, so it needs root")

PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:500:600::/srv:/bin/sh\n"
GROUP = "root:x:0:\napp:x:600:\nadm:x:4:\n"


@pytest.fixture(autouse=True)
def _accounts(machine: Any) -> None:
    machine.put("/etc/passwd", PASSWD)
    machine.put("/etc/group", GROUP)


def mode_of(machine: Any, path: str) -> int:
    return stat.S_IMODE(machine.path(path).lstat().st_mode)


def changed(diff: Diff) -> dict[str, tuple[object, object]]:
    return {change.attribute: (change.before, change.after) for change in diff.changes}


class TestModes:
    @pytest.mark.parametrize(
        "text, now, directory",
        [
            ("0644", 0o777, False), ("755", 0, True), ("u=rwX,g=rX,o=", 0o600, False),
            ("u=rwX,g=rX,o=", 0o700, False), ("u=rwX,g=rX,o=", 0o600, True), ("a+x", 0o644, False),
            ("+w", 0o444, False), ("+x", 0o644, False), ("=r", 0o777, False), ("g=u", 0o740, False),
            ("o=g-w", 0o670, False), ("u+s,g+s", 0o755, False), ("+t", 0o777, True),
            ("o=", 0o1777, True), ("g=rx", 0o2775, True), ("g=rx", 0o2775, False), ("g-s", 0o2775, True),
            ("ug=rw,o-rwx", 0o777, False), ("a=rX", 0o200, False), ("u=", 0o4755, True),
        ],
    )  # fmt: skip
    def test_a_mode_means_what_chmod_makes_of_it(
        self, tmp_path: Path, text: str, now: int, directory: bool
    ) -> None:
        path = tmp_path / "x"
        path.mkdir() if directory else path.touch()
        path.chmod(now)
        argv = ["sh", "-c", 'umask 022; exec chmod -- "$0" "$1"', text, str(path)]
        subprocess.run(argv, check=False, capture_output=True)
        expected = stat.S_IMODE(path.stat().st_mode)
        # chmod keeps a directory's setgid bit when digits do not name it; a declared mode is exact.
        assert mode_bits(text, now, directory) == expected

    @pytest.mark.parametrize("text", ["", "9", "0888", "64", "00644", "rw", "u=z", "u=rw,", "²44"])
    def test_what_is_no_mode_is_refused_with_the_way_to_write_it(self, text: str) -> None:
        assert not is_mode(text)
        with pytest.raises(SchemaError, match="is not a mode") as caught:
            File("/etc/x", mode=text)
        assert '"0644"' in caught.value.hint

    def test_octal_digits_are_shown_as_four(self) -> None:
        assert (mode_text("644"), mode_text("0644"), mode_text("u=rw")) == ("0644", "0644", "u=rw")


class TestContent:
    def test_a_file_comes_changes_and_goes(self, machine: Any, converge: Any) -> None:
        first = File("/etc/motd", content=machine.content("hello\n"), mode="0640")
        assert converge(first).before is None
        assert machine.text("/etc/motd") == "hello\n"
        assert mode_of(machine, "/etc/motd") == 0o640
        second = File("/etc/motd", content=machine.content("bye\n"), mode="0600")
        assert set(changed(converge(second))) == {"content", "mode"}
        assert not converge(second)
        assert converge(File("/etc/motd", state="absent")).after is None
        assert not machine.path("/etc/motd").exists()

    def test_a_new_file_has_mode_0644_whatever_the_umask(self, machine: Any, converge: Any) -> None:
        before = os.umask(0o077)
        try:
            converge(File("/etc/motd", content=machine.content("x")))
        finally:
            os.umask(before)
        assert mode_of(machine, "/etc/motd") == 0o644

    def test_what_is_not_declared_of_a_file_stays(self, machine: Any, converge: Any) -> None:
        machine.put("/etc/motd", "old", 0o751)
        converge(File("/etc/motd", content=machine.content("new")))
        assert mode_of(machine, "/etc/motd") == 0o751

    def test_the_same_content_with_another_mode_is_not_written_again(
        self, machine: Any, converge: Any
    ) -> None:
        machine.put("/etc/motd", "x", 0o600)
        inode = machine.path("/etc/motd").stat().st_ino
        diff = converge(File("/etc/motd", content=machine.content("x"), mode="u=rw,g+r,o="))
        assert changed(diff) == {"mode": ("0600", "u=rw,g+r,o=")}
        assert mode_of(machine, "/etc/motd") == 0o640
        assert machine.path("/etc/motd").stat().st_ino == inode

    def test_a_sparse_terabyte_is_compared_by_size_and_not_read(
        self, machine: Any, plan: Any
    ) -> None:
        with machine.path("/etc/huge").open("w") as file:
            file.truncate(1 << 40)
        started = time.monotonic()
        diff = plan(File("/etc/huge", content=machine.content("x")))
        assert changed(diff)["content"][0] == f"{1 << 40} bytes"
        assert time.monotonic() - started < 1

    def test_texts_are_previewed_and_large_ones_are_not(self, machine: Any, plan: Any) -> None:
        machine.put("/etc/motd", "old\n")
        small = File("/etc/motd", content=machine.content("new\n"))
        assert small.preview(machine, plan(small)) == (b"old\n", b"new\n")
        large = File("/etc/motd", content=Content("0" * 64, 1 << 30))
        assert large.preview(machine, plan(large)) is None

    def test_the_replaced_content_is_kept_beside_with_its_mode(
        self, machine: Any, converge: Any
    ) -> None:
        machine.put("/etc/motd", "old", 0o600)
        converge(File("/etc/motd", content=machine.content("new"), mode="0644", backup=True))
        (copy,) = [name for name in machine.names("/etc") if name.startswith("motd.")]
        assert machine.text(f"/etc/{copy}") == "old"
        assert mode_of(machine, f"/etc/{copy}") == 0o600

    @pytest.mark.parametrize(
        "name", ["new\nline", "ü", os.fsdecode(b"\xff"), "x" * 255, "-rf", " "]
    )
    def test_any_name_will_do(self, machine: Any, converge: Any, name: str) -> None:
        converge(File(f"/etc/{name}", content=machine.content("x")))
        assert name in machine.names("/etc")
        converge(File(f"/etc/{name}", state="absent"))
        assert name not in machine.names("/etc")

    def test_a_missing_directory_is_an_error_that_says_so(self, machine: Any) -> None:
        resource = File("/no/such/file", content=machine.content("x"))
        with pytest.raises(ResourceError) as caught:
            resource.apply(machine, Diff(None, resource.desired()))
        assert "declare its directory" in caught.value.hint


class TestValidate:
    def test_new_content_counts_only_after_the_check(self, machine: Any, converge: Any) -> None:
        machine.answers("visudo", "-cf")
        machine.put("/etc/sudoers", "old\n", 0o440)
        wish = File("/etc/sudoers", content=machine.content("new\n"), validate="visudo -cf %s")
        converge(wish)
        ((_, _, checked),) = machine.ran
        assert checked.startswith("/etc/.sudoers.rec-")
        assert machine.text("/etc/sudoers") == "new\n"
        assert mode_of(machine, "/etc/sudoers") == 0o440

    def test_refused_content_leaves_the_old_and_says_why(self, machine: Any, plan: Any) -> None:
        machine.answers("visudo", code=1, err="syntax error near line 1")
        machine.put("/etc/sudoers", "old\n")
        wish = File("/etc/sudoers", content=machine.content("bad\n"), validate="visudo -cf %s")
        with pytest.raises(
            ResourceError, match="refused by 'visudo -cf %s'; nothing was changed"
        ) as caught:
            wish.apply(machine, plan(wish))
        assert "syntax error near line 1" in str(caught.value)
        assert machine.text("/etc/sudoers") == "old\n"
        assert "rec-" not in str(machine.names("/etc"))

    @pytest.mark.parametrize("old", ["old\n", None])
    def test_a_check_of_the_whole_runs_in_place_and_is_undone(
        self, machine: Any, plan: Any, old: str | None
    ) -> None:
        machine.answers("nginx", "-t", code=1, err="unknown directive")
        if old is not None:
            machine.put("/etc/site", old, 0o600)
        wish = File("/etc/site", content=machine.content("bad\n"), mode="0644", validate="nginx -t")
        with pytest.raises(ResourceError, match="unknown directive"):
            wish.apply(machine, plan(wish))
        if old is None:
            assert not machine.path("/etc/site").exists()
        else:
            assert (machine.text("/etc/site"), mode_of(machine, "/etc/site")) == (old, 0o600)


class TestKinds:
    def test_a_directory_is_made_with_its_parents(self, machine: Any, converge: Any) -> None:
        converge(File("/srv/a/b", state="directory", mode="0700"))
        assert mode_of(machine, "/srv/a/b") == 0o700
        assert mode_of(machine, "/srv/a") == 0o755

    def test_in_a_setgid_directory_the_declared_mode_is_exact(
        self, machine: Any, converge: Any
    ) -> None:
        machine.path("/srv").mkdir()
        machine.path("/srv").chmod(0o2775)
        converge(File("/srv/plain", state="directory", mode="0755"))
        converge(File("/srv/inherits", state="directory"))
        converge(File("/srv/symbolic", state="directory", mode="u=rwx,g=rx,o="))
        assert mode_of(machine, "/srv/plain") == 0o755
        assert mode_of(machine, "/srv/inherits") == 0o2755
        assert mode_of(machine, "/srv/symbolic") & 0o777 == 0o750

    def test_a_link_comes_moves_and_may_dangle(self, machine: Any, converge: Any) -> None:
        converge(File("/etc/current", state="link", src="releases/1"))
        diff = converge(File("/etc/current", state="link", src="releases/2", mode="0600"))
        assert changed(diff) == {"src": ("releases/1", "releases/2")}
        assert os.readlink(machine.path("/etc/current")) == "releases/2"

    def test_a_link_to_a_directory_is_replaced_and_the_directory_stays(
        self, machine: Any, converge: Any
    ) -> None:
        machine.put("/srv/one/file", "x")
        machine.path("/srv/current").symlink_to("one")
        converge(File("/srv/current", state="link", src="two"))
        assert machine.names("/srv") == ["current", "one"]
        converge(File("/srv/current", state="absent"))
        assert machine.text("/srv/one/file") == "x"

    def test_a_link_becomes_a_file_and_its_target_stays(self, machine: Any, converge: Any) -> None:
        machine.put("/etc/target", "target")
        machine.path("/etc/motd").symlink_to("target")
        converge(File("/etc/motd", content=machine.content("own")))
        assert (machine.text("/etc/target"), machine.text("/etc/motd")) == ("target", "own")
        assert not machine.path("/etc/motd").is_symlink()

    def test_with_follow_the_target_is_managed(self, machine: Any, converge: Any) -> None:
        machine.put("/etc/real/target", "target")
        machine.path("/etc/motd").symlink_to("/etc/real/target")
        converge(File("/etc/motd", content=machine.content("new"), follow=True))
        assert machine.text("/etc/real/target") == "new"
        assert machine.path("/etc/motd").is_symlink()

    @needs_root
    def test_with_follow_a_users_link_is_not_followed(self, machine: Any, plan: Any) -> None:
        machine.put("/etc/shadow", "secret")
        machine.path("/home").mkdir()
        os.chown(machine.path("/home"), 500, 600)
        machine.path("/home/x").symlink_to("/etc/shadow")
        os.chown(machine.path("/home/x"), 500, 600, follow_symlinks=False)
        with pytest.raises(UnsafePath):
            plan(File("/home/x", content=machine.content("x"), follow=True))

    @pytest.mark.parametrize(
        "wish, there",
        [
            ("directory", "file"),
            ("file", "directory"),
            ("link", "full"),
            ("link", "file"),
            ("touch", "fifo"),
        ],
    )
    def test_what_is_of_another_kind_is_only_replaced_by_force(
        self, machine: Any, plan: Any, converge: Any, wish: Any, there: str
    ) -> None:
        path = machine.path("/etc/x")
        if there == "fifo":
            os.mkfifo(path)
        elif there == "file":
            path.touch()
        else:
            path.mkdir()
            (path / "inside").touch()
        src = "y" if wish == "link" else None
        content = machine.content("x") if wish == "file" else None
        with pytest.raises(Unsupported) as caught:
            plan(File("/etc/x", state=wish, src=src, content=content))
        assert "force: true" in caught.value.hint
        diff = converge(File("/etc/x", state=wish, src=src, content=content, force=True))
        assert "type" in diff.changed

    def test_an_empty_directory_may_become_a_link(self, machine: Any, converge: Any) -> None:
        machine.path("/etc/x").mkdir()
        converge(File("/etc/x", state="link", src="y"))
        assert machine.path("/etc/x").is_symlink()

    def test_a_hard_link_shares_the_inode(self, machine: Any, converge: Any) -> None:
        machine.put("/etc/one", "x")
        machine.put("/etc/two", "y")
        wish = File("/etc/two", state="hard", src="/etc/one", mode="u=rw,go=")
        assert changed(converge(wish))["src"] == ("another file", "/etc/one")
        assert machine.path("/etc/one").samefile(machine.path("/etc/two"))
        assert mode_of(machine, "/etc/one") == 0o600

    def test_touch_makes_an_empty_file_and_leaves_one_that_is_there(
        self, machine: Any, converge: Any
    ) -> None:
        assert converge(File("/etc/mark", state="touch")).before is None
        machine.put("/etc/mark", "filled")
        assert not converge(File("/etc/mark", state="touch"))
        assert machine.text("/etc/mark") == "filled"

    def test_a_file_to_manage_that_is_not_there_is_not_there_yet(
        self, machine: Any, plan: Any
    ) -> None:
        with pytest.raises(NotYet) as caught:
            plan(File("/etc/none", mode="0600"))
        assert "touch" in caught.value.hint


class TestAttributes:
    @needs_root
    def test_owner_and_group_by_name_and_number(self, machine: Any, converge: Any) -> None:
        machine.put("/etc/x", "x")
        diff = converge(File("/etc/x", owner="app", group="4"))
        assert changed(diff) == {"owner": ("root", "app"), "group": ("root", "4")}
        found = machine.path("/etc/x").stat()
        assert (found.st_uid, found.st_gid) == (500, 4)
        assert not converge(File("/etc/x", owner="500", group="adm"))

    def test_an_owner_that_a_later_step_makes_is_planned_and_named(
        self, machine: Any, plan: Any
    ) -> None:
        machine.put("/etc/x", "x")
        wish = File("/etc/x", owner="deploy")
        assert changed(plan(wish)) == {"owner": ("root", "deploy")}
        with pytest.raises(NotYet, match="user 'deploy' does not exist"):
            wish.apply(machine, plan(wish))

    @needs_root
    @pytest.mark.parametrize("mode", [None, "g+w", "0755"])
    def test_a_setuid_bit_does_not_pass_to_another_owner(
        self, machine: Any, converge: Any, mode: str | None
    ) -> None:
        machine.put("/etc/tool", "x")
        os.chown(machine.path("/etc/tool"), 500, 600)
        machine.path("/etc/tool").chmod(0o4755)
        converge(File("/etc/tool", owner="root", group="root", mode=mode))
        assert mode_of(machine, "/etc/tool") & 0o6000 == 0

    @needs_root
    def test_below_a_directory_everything_is_as_declared(
        self, machine: Any, converge: Any, plan: Any
    ) -> None:
        machine.put("/srv/app/run.sh", "x", 0o744)
        machine.put("/srv/app/deep/data", "x", 0o600)
        os.chown(machine.path("/srv/app/deep"), 500, 600)
        machine.put("/outside", "x", 0o600)
        machine.path("/srv/app/out").symlink_to("/outside")
        wish = File(
            "/srv/app",
            state="directory",
            owner="app",
            group="app",
            mode="u=rwX,g=rX,o=",
            recurse=True,
        )
        assert changed(plan(wish))["below"] == (
            "not as declared: deep, deep/data, out and 1 more",
            "as declared",
        )
        converge(wish)
        modes = {
            name: mode_of(machine, f"/srv/app/{name}")
            for name in ("", "run.sh", "deep", "deep/data")
        }
        assert modes == {"": 0o750, "run.sh": 0o750, "deep": 0o750, "deep/data": 0o640}
        assert machine.path("/srv/app/out").lstat().st_uid == 500
        assert machine.path("/outside").stat().st_uid == 0

    def test_times_are_kept_when_declared(self, machine: Any, converge: Any) -> None:
        machine.put("/etc/x", "x")
        converge(File("/etc/x", modification_time="202001020304.05", access_time="preserve"))
        assert machine.path("/etc/x").stat().st_mtime == 1577934245
        with pytest.raises(SchemaError, match="is not a time"):
            File("/etc/x", modification_time="now")

    @pytest.mark.parametrize(
        "params",
        [
            {"path": "etc/x"},
            {"path": "/etc/../x"},
            {"path": "/etc/x", "state": "link"},
            {"path": "/etc/x", "state": "hard", "src": ""},
            {"path": "/etc/x", "recurse": True},
            {"path": "/etc/x", "validate": "a 'b"},
            {"path": "/etc/x", "validate": ""},
        ],
    )
    def test_parameters_that_make_no_sense_are_errors_of_the_compile(self, params: Any) -> None:
        with pytest.raises(SchemaError):
            File(**params)


class TestRelations:
    def test_it_claims_its_path_and_needs_what_leads_there(self) -> None:
        wish = File("/srv/app/x", state="hard", src="/srv//y", owner="app", group="web")
        assert "path:/srv/app/x" in wish.claims()
        assert wish.needs() == {
            "path:/srv",
            "path:/srv/app",
            "path:/srv/y",
            "user:app",
            "group:web",
        }

    @pytest.mark.parametrize(
        "params, parts",
        [
            ({"content": Content("0" * 64, 1)}, {"content:/etc/x", "entry:/etc/x#file"}),
            ({"state": "hard", "src": "/y"}, {"content:/etc/x", "entry:/etc/x#file"}),
            ({"state": "touch"}, {"entry:/etc/x#file"}),
            ({"state": "directory", "mode": "0700"}, {"entry:/etc/x#directory", "attribute:/etc/x#mode"}),
            ({"state": "link", "src": "y", "mode": "0700"}, {"entry:/etc/x#link"}),
            ({"owner": "a", "group": "b"}, {"attribute:/etc/x#owner", "attribute:/etc/x#group"}),
            ({"state": "absent", "owner": "a"}, set()),
        ],
    )  # fmt: skip
    def test_each_part_that_is_declared_is_a_claim_of_its_own(
        self, params: Any, parts: set[str]
    ) -> None:
        assert File("/etc/x", **params).claims() == {"path:/etc/x"} | parts
