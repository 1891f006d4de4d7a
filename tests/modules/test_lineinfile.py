"""One line of a file: what is replaced, where a new one goes, and what stays as it is."""

from __future__ import annotations

import os
import re
import stat
import threading
import time
from typing import Any

import pytest

from reconciler.errors import (
    Moved,
    NotYet,
    ResourceError,
    SchemaError,
    TimedOut,
    UnsafePath,
    Unsupported,
)
from reconciler.modules import _lines
from reconciler.modules.lineinfile import Lineinfile
from reconciler.resource import Diff

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, so it needs root")
PATH = "/etc/conf"


def edited(machine: Any, converge: Any, before: str, **params: Any) -> str:
    """The text of a file after one edit; a second run must have nothing to do."""
    machine.path(PATH).write_bytes(before.encode("utf-8", "surrogateescape"))
    converge(Lineinfile(PATH, **params))
    return machine.text(PATH)


class TestPresent:
    @pytest.mark.parametrize(
        "before, params, after",
        [
            # without a pattern
            ("a\nb\n", {"line": "c"}, "a\nb\nc\n"),
            ("a\nb\n", {"line": "a"}, "a\nb\n"),
            ("", {"line": "a"}, "a\n"),
            ("a", {"line": "b"}, "a\nb\n"),
            ("a\nb", {"line": "b"}, "a\nb"),
            ("a \n", {"line": "a"}, "a \na\n"),
            # the last match is replaced, or with firstmatch the first
            ("x=1\ny\nx=2\n", {"regexp": "^x=", "line": "x=3"}, "x=1\ny\nx=3\n"),
            ("x=1\ny\nx=2\n", {"regexp": "^x=", "line": "x=3", "firstmatch": True}, "x=3\ny\nx=2\n"),
            ("x=3\nx=2\n", {"regexp": "^x=", "line": "x=3"}, "x=3\nx=3\n"),
            # a pattern without a match: the line may be there already
            ("#x\ny\n", {"regexp": "^z", "line": "y"}, "#x\ny\n"),
            ("a\n", {"regexp": "^z", "line": "z"}, "a\nz\n"),
            ("#Port 22\n", {"regexp": "^#?Port", "line": "Port 2222"}, "Port 2222\n"),
            ("x=1", {"regexp": "^x", "line": "x=2"}, "x=2\n"),
            ("a$\n", {"regexp": r"a\$$", "line": "a$b$"}, "a$b$\n"),
            # a text instead of a pattern
            ("a.b\naxb\n", {"search_string": "a.b", "line": "a.b.c"}, "a.b.c\naxb\n"),
            # where a new line goes
            ("a\nb\n", {"line": "c", "insertafter": "EOF"}, "a\nb\nc\n"),
            ("a\nb\n", {"line": "c", "insertbefore": "BOF"}, "c\na\nb\n"),
            ("a\nb\n", {"line": "c", "insertafter": "BOF"}, "c\na\nb\n"),
            ("a\nb\na\n", {"line": "c", "insertafter": "^a"}, "a\nb\na\nc\n"),
            ("a\nb\na\n", {"line": "c", "insertafter": "^a", "firstmatch": True}, "a\nc\nb\na\n"),
            ("a\nb\na\n", {"line": "c", "insertbefore": "^a"}, "a\nb\nc\na\n"),
            ("a\nb\na\n", {"line": "c", "insertbefore": "^a", "firstmatch": True}, "c\na\nb\na\n"),
            ("a\nb\n", {"line": "c", "insertafter": "^z"}, "a\nb\nc\n"),
            ("a\nb\n", {"line": "c", "insertbefore": "^z"}, "a\nb\nc\n"),
            ("a", {"line": "c", "insertafter": "^a"}, "a\nc\n"),
            ("c\na\n", {"line": "c", "insertafter": "^a"}, "c\na\n"),
            ("a\nc\n", {"line": "c", "insertafter": "^a", "firstmatch": True}, "a\nc\n"),
            ("x=1\na\n", {"regexp": "^x=", "line": "x=2", "insertafter": "^a"}, "x=2\na\n"),
            # back references
            ("port = 1 # c\n", {"regexp": r"^(port\s*=\s*)\d+(.*)$", "line": r"\g<1>2\2", "backrefs": True}, "port = 2 # c\n"),
            ("a\n", {"regexp": "^(z)", "line": r"\1\1", "backrefs": True}, "a\n"),
            ("k v\n", {"regexp": r"^(?P<key>\w+) v", "line": r"\g<key> w", "backrefs": True}, "k w\n"),
            ("a\n", {"regexp": "^a", "line": r"\1", "backrefs": False}, "\\1\n"),
            # line ends
            ("a\r\nb\r\n", {"regexp": "^a$", "line": "c"}, "c\r\nb\r\n"),
            ("a\r\nb\r\n", {"line": "b"}, "a\r\nb\r\n"),
            ("a\r\nb\r\n", {"line": "c"}, "a\r\nb\r\nc\r\n"),
            ("a\r\nb", {"line": "c"}, "a\r\nb\r\nc\r\n"),
            ("a\rb\n", {"line": "b"}, "a\rb\nb\n"),
            ("a\x0cb\x0b\u2028c\n", {"regexp": "c$", "line": "c"}, "c\n"),
            # lines that stay together
            ("a\n", {"line": "b\nc"}, "a\nb\nc\n"),
            ("a\nb\nc\nd\n", {"line": "b\nc"}, "a\nb\nc\nd\n"),
            ("b\n", {"line": "b\nc\n"}, "b\nb\nc\n"),
            ("x=1\ny\n", {"regexp": "^x=", "line": "x=2\n# why"}, "x=2\n# why\ny\n"),
            ("x=2\nz\n# why\n", {"regexp": "^x=", "line": "x=2\n# why"}, "x=2\n# why\nz\n# why\n"),
            ("# why\nx=2\n", {"regexp": "^x=", "line": "# why\nx=2"}, "# why\nx=2\n"),
            # bytes that are no text
            ("caf\udce9\nx\n", {"line": "y"}, "caf\udce9\nx\ny\n"),
            ("caf\udce9=1\n", {"regexp": "=1$", "line": "ü=2"}, "ü=2\n"),
            # nothing but a newline
            ("a\n\n", {"regexp": "^$", "line": "b"}, "a\nb\n"),
            ("a\n", {"regexp": "^a", "line": ""}, "\n"),
        ],
    )  # fmt: skip
    def test_the_line_is_there_and_stays(
        self, machine: Any, converge: Any, before: str, params: dict[str, Any], after: str
    ) -> None:
        assert edited(machine, converge, before, **params) == after

    def test_a_plan_shows_the_line_that_goes_and_the_one_that_comes(
        self, machine: Any, plan: Any
    ) -> None:
        machine.put(PATH, "a\nx=1\n")
        replaced = plan(Lineinfile(PATH, regexp="^x=", line="x=2"))
        assert [tuple(change) for change in replaced.changes] == [("line", "x=1", "x=2")]
        machine.put(PATH, "a")
        added = plan(Lineinfile(PATH, line="x=2"))
        assert [tuple(change) for change in added.changes] == [("line", None, "x=2")]

    def test_a_preview_has_the_whole_texts(self, machine: Any, plan: Any) -> None:
        machine.put(PATH, "a\nx=1\n")
        wish = Lineinfile(PATH, regexp="^x=", line="x=2")
        assert wish.preview(machine, plan(wish)) == (b"a\nx=1\n", b"a\nx=2\n")


class TestAbsent:
    @pytest.mark.parametrize(
        "before, params, after",
        [
            ("x=1\ny\nx=2\n", {"regexp": "^x="}, "y\n"),
            ("x=1\ny\nx=2\n", {"regexp": "^x=", "firstmatch": True}, "y\n"),
            ("a\nb\na\n", {"line": "a"}, "b\n"),
            ("a\r\nb\r\n", {"line": "a"}, "b\r\n"),
            ("a.b\naxb\n", {"search_string": "a.b"}, "axb\n"),
            ("a\nb", {"line": "b"}, "a\n"),
            ("a\nb\nc\nb\n", {"line": "b\nc"}, "a\nb\n"),
            ("a\n", {"line": "z"}, "a\n"),
            ("a\n", {"regexp": "."}, ""),
        ],
    )
    def test_all_that_match_go(
        self, machine: Any, converge: Any, before: str, params: dict[str, Any], after: str
    ) -> None:
        assert edited(machine, converge, before, state="absent", **params) == after

    def test_a_plan_shows_what_goes(self, machine: Any, plan: Any) -> None:
        machine.put(PATH, "x=1\ny\nx=2\n")
        diff = plan(Lineinfile(PATH, regexp="^x=", state="absent"))
        assert diff.before == {"line": "x=1\nx=2"}

    def test_from_a_file_that_is_not_there_nothing_goes(self, machine: Any, plan: Any) -> None:
        assert not plan(Lineinfile("/none/at/all", line="x", state="absent"))


class TestFiles:
    def test_a_missing_file_is_not_there_yet_or_made_if_declared(
        self, machine: Any, converge: Any, plan: Any
    ) -> None:
        with pytest.raises(NotYet) as caught:
            plan(Lineinfile(PATH, line="x"))
        assert "create: true" in caught.value.hint
        diff = converge(Lineinfile("/srv/new/conf", line="x", create=True, mode="0600"))
        assert diff.before is None
        assert machine.text("/srv/new/conf") == "x\n"
        assert stat.S_IMODE(machine.path("/srv/new/conf").stat().st_mode) == 0o600

    def test_mode_and_owner_of_the_file_stay(self, machine: Any, converge: Any) -> None:
        machine.put(PATH, "a\n", 0o640)
        if os.geteuid() == 0:
            os.chown(machine.path(PATH), 12345, 12346)
        before = machine.path(PATH).stat()
        converge(Lineinfile(PATH, line="b"))
        after = machine.path(PATH).stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (
            before.st_mode,
            before.st_uid,
            before.st_gid,
        )

    def test_a_declared_mode_is_kept_without_a_write(self, machine: Any, converge: Any) -> None:
        machine.put(PATH, "a\n", 0o644)
        inode = machine.path(PATH).stat().st_ino
        diff = converge(Lineinfile(PATH, line="a", mode="u=rw,go="))
        assert [change.attribute for change in diff.changes] == ["mode"]
        found = machine.path(PATH).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_ino) == (0o600, inode)

    def test_a_link_of_roots_is_followed_and_stays(self, machine: Any, converge: Any) -> None:
        machine.put("/run/real/conf", "a\n")
        machine.path(PATH).symlink_to("../run/real/conf")
        converge(Lineinfile(PATH, line="b"))
        assert machine.text("/run/real/conf") == "a\nb\n"
        assert machine.path(PATH).is_symlink()

    @needs_root
    def test_a_link_of_a_user_is_not_followed(self, machine: Any, plan: Any) -> None:
        machine.put("/etc/shadow", "a\n")
        machine.path("/home").mkdir()
        os.chown(machine.path("/home"), 500, 500)
        machine.path("/home/x").symlink_to("/etc/shadow")
        os.chown(machine.path("/home/x"), 500, 500, follow_symlinks=False)
        with pytest.raises(UnsafePath):
            plan(Lineinfile("/home/x", line="evil"))

    def test_a_directory_or_fifo_is_no_file_to_edit(self, machine: Any, plan: Any) -> None:
        machine.path("/etc/dir").mkdir()
        os.mkfifo(machine.path("/etc/fifo"))
        for path in ("/etc/dir", "/etc/fifo"):
            with pytest.raises(ResourceError):
                plan(Lineinfile(path, line="x"))

    def test_the_old_content_is_kept_if_declared(self, machine: Any, converge: Any) -> None:
        machine.put(PATH, "a\n")
        converge(Lineinfile(PATH, line="b", backup=True))
        (copy,) = [name for name in machine.names("/etc") if name != "conf"]
        assert machine.text(f"/etc/{copy}") == "a\n"

    def test_an_edit_that_the_check_refuses_is_not_made(self, machine: Any, plan: Any) -> None:
        machine.put(PATH, "a\n")
        machine.answers("sshd", "-t", "-f", code=255, err="Bad configuration option: b")
        wish = Lineinfile(PATH, line="b", validate="sshd -t -f %s")
        with pytest.raises(ResourceError, match="Bad configuration option"):
            wish.apply(machine, plan(wish))
        assert machine.text(PATH) == "a\n"


class TestTogether:
    def apply(self, machine: Any, plan: Any, *edits: Lineinfile) -> list[ResourceError | None]:
        work = [(edit, plan(edit)) for edit in edits]
        return Lineinfile.apply_many(machine, work)

    def test_edits_of_one_file_are_one_write_in_declared_order(
        self, machine: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.put(PATH, "a\n")
        machine.put("/etc/other", "")
        written: list[str] = []
        write = machine.write
        monkeypatch.setattr(
            machine, "write", lambda path, *a, **k: (written.append(path), write(path, *a, **k))
        )
        edits = [
            Lineinfile(PATH, line="b"),
            Lineinfile("/etc/other", line="x"),
            Lineinfile(PATH, line="c", insertafter="^b"),
            Lineinfile(PATH, regexp="^a", state="absent"),
        ]
        assert self.apply(machine, plan, *edits) == [None] * 4
        assert sorted(written) == [PATH, "/etc/other"]
        assert machine.text(PATH) == "b\nc\n"
        assert not any(plan(edit) for edit in edits)

    def test_one_bad_edit_does_not_take_the_good_ones_with_it(
        self, machine: Any, plan: Any
    ) -> None:
        machine.put(PATH, "a\n")
        machine.answers("check", code=1, err="no")
        good, bad = Lineinfile(PATH, line="b"), Lineinfile(PATH, line="c", validate="check %s")
        first, second = self.apply(machine, plan, good, bad)
        assert first is None
        assert "refused by" in str(second)
        assert machine.text(PATH) == "a\nb\n"

    def test_each_check_runs_once_on_the_whole(self, machine: Any, plan: Any) -> None:
        machine.put(PATH, "a\n")
        machine.answers("check")
        edits = [Lineinfile(PATH, line=line, validate="check %s") for line in "bcd"]
        assert self.apply(machine, plan, *edits) == [None] * 3
        assert len(machine.ran) == 1

    def test_a_write_by_somebody_else_meanwhile_is_kept(
        self, machine: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.put(PATH, "a\n")
        write, raced = machine.write, []

        def racing(path: str, *args: Any, **kwargs: Any) -> None:
            if not raced:
                raced.append(path)
                raise Moved("changed by somebody else")
            write(path, *args, **kwargs)

        wish = Lineinfile(PATH, line="b")
        diff = plan(wish)
        monkeypatch.setattr(machine, "write", racing)
        machine.put(PATH, "a\nnew\n")
        wish.apply(machine, diff)
        assert machine.text(PATH) == "a\nnew\nb\n"


class TestTraps:
    def test_a_pattern_that_does_not_match_its_own_line_is_a_warning(
        self, machine: Any, converge: Any
    ) -> None:
        machine.put(PATH, "#x\n")
        converge(Lineinfile(PATH, regexp="^#x", line="x"))
        (warning,) = machine.warnings
        assert "does not match the line 'x'" in warning
        machine.warnings.clear()
        converge(Lineinfile(PATH, regexp="x", line="xy"))
        assert machine.warnings == []

    def test_an_edit_that_would_never_end_is_refused_before_it_is_made(
        self, machine: Any, plan: Any
    ) -> None:
        machine.put(PATH, "x\nx\n")
        with pytest.raises(Unsupported, match="would never end"):
            plan(Lineinfile(PATH, regexp="^x$", line="y"))
        with pytest.raises(Unsupported, match="would never end"):
            plan(Lineinfile(PATH, regexp="^(.*)x(.*)$", line=r"\1xx\2", backrefs=True))
        assert machine.text(PATH) == "x\nx\n"

    def test_a_pattern_that_takes_for_ever_is_ended(
        self, machine: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_lines, "SEARCH_LIMIT", 0.3)
        machine.put(PATH, "a" * 60 + "!\n")
        started = time.monotonic()
        with pytest.raises(TimedOut, match=r"more than 0\.3 s"):
            plan(Lineinfile(PATH, regexp="^(a+)+$", line="b"))
        assert time.monotonic() - started < 10
        assert not plan(Lineinfile(PATH, regexp="^a", line="a" * 60 + "!"))

    def test_the_limit_does_not_disturb_another_thread(self, machine: Any) -> None:
        machine.put(PATH, "a\n")
        seen: list[Any] = []
        wish = Lineinfile(PATH, regexp="^a", line="b")
        thread = threading.Thread(target=lambda: seen.append(wish.actual(machine)))
        thread.start()
        thread.join()
        assert seen == [{"line": "a"}]

    @pytest.mark.parametrize(
        "params, message",
        [
            ({"regexp": "x"}, "`line` is missing"),
            ({"state": "absent"}, "must say which line"),
            ({"line": "x", "regexp": "x", "search_string": "x"}, "exclude each other"),
            ({"line": "x", "insertafter": "x", "insertbefore": "y"}, "exclude each other"),
            ({"line": "x", "backrefs": True}, "needs `regexp`"),
            ({"line": "x", "regexp": "(x"}, "not a regular expression"),
            ({"line": r"\2", "regexp": "(x)", "backrefs": True}, "not a template"),
        ],
    )
    def test_parameters_that_make_no_sense_are_errors_in_words(
        self, machine: Any, plan: Any, params: dict[str, Any], message: str
    ) -> None:
        machine.put(PATH, "x\n")
        with pytest.raises((SchemaError, ResourceError), match=re.escape(message)):
            plan(Lineinfile(PATH, **params))


class TestRelations:
    def test_two_edits_of_one_line_are_one_claim(self) -> None:
        one = Lineinfile(PATH, regexp="^x=", line="x=1")
        other = Lineinfile(PATH, regexp="^x=", line="x=2")
        assert one.claims() == other.claims() == {"line:/etc/conf#^x="}
        assert Lineinfile(PATH, line="x=1").claims() != one.claims()
        assert one.needs() == {"path:/etc", "path:/etc/conf"}

    def test_the_difference_is_json(self, machine: Any) -> None:
        machine.path(PATH).write_bytes(b"caf\xe9\n")
        seen = Lineinfile(PATH, regexp="^caf", line="tea").actual(machine)
        assert Diff(seen, None).changes[0].before == "caf\\xe9"
