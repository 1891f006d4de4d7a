"""The door to the machine: programs that misbehave, accounts as data, and a plan that cannot act."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import (
    CommandFailed,
    NotYet,
    ReconcilerError,
    ResourceError,
    TimedOut,
    UnsafePath,
    Unsupported,
)
from reconciler.host import GRACE, OUTPUT_CAP, Host
from reconciler.safewrite import Attributes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes users, so it needs root")


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    host.readonly = False
    yield host
    host.files.close()


@pytest.fixture
def rooted(tmp_path: Path) -> Iterator[Host]:
    """A host whose root is an empty directory."""
    (tmp_path / "etc").mkdir()
    host = Host(str(tmp_path))
    yield host
    host.files.close()


def script(code: str) -> list[str]:
    return [sys.executable, "-Ic", code]


def gone(pid: int) -> bool:
    """Whether a process has ended, a zombie counts as ended."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


class TestPrograms:
    def test_output_code_and_argv_come_back(self, host: Host) -> None:
        done = host.probe(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
        assert (done.code, done.out, done.err, done.ok) == (3, "out\n", "err\n", False)

    def test_an_error_carries_the_last_lines_of_the_output(self, host: Host) -> None:
        with pytest.raises(CommandFailed) as caught:
            host.probe(["sh", "-c", "seq 1 50 >&2; exit 4"])
        assert caught.value.code == 4
        assert str(caught.value) == "sh ended with code 4:\n" + "\n".join(map(str, range(41, 51)))

    def test_arguments_are_never_seen_by_a_shell(self, host: Host) -> None:
        assert host.probe(["echo", "$HOME; rm -rf *", "`id`"]).out == "$HOME; rm -rf * `id`\n"

    def test_bytes_that_are_no_text_are_escaped(self, host: Host) -> None:
        assert host.probe(["printf", r"a\377b"]).out == "a\\xffb"

    def test_a_gigabyte_of_output_is_capped_at_both_ends(self, host: Host) -> None:
        code = (
            "import os; os.write(1, b'first'); piece = b'x' * (1 << 20)\n"
            "for _ in range(1024): os.write(1, piece)\n"
            "os.write(1, b'last')"
        )
        done = host.probe(script(code), timeout=120)
        assert done.out.startswith("firstxxx")
        assert done.out.endswith("xxxlast")
        assert "bytes left out" in done.out
        assert len(done.out) < OUTPUT_CAP + 100

    def test_output_under_the_cap_is_whole(self, host: Host) -> None:
        assert host.probe(["head", "-c", str(OUTPUT_CAP), "/dev/zero"]).out == "\0" * OUTPUT_CAP

    def test_a_program_that_never_ends_is_killed_with_all_that_it_started(
        self, host: Host, tmp_path: Path
    ) -> None:
        code = f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; sleep 600"
        started = time.monotonic()
        with pytest.raises(TimedOut, match="took longer than"):
            host.run(["sh", "-c", code], timeout=0.5)
        assert time.monotonic() - started < 5
        assert gone(int((tmp_path / "child").read_text()))
        assert gone(int((tmp_path / "self").read_text()))

    def test_a_program_that_ignores_sigterm_is_killed_all_the_same(
        self, host: Host, tmp_path: Path
    ) -> None:
        code = (
            "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            f"open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
        )
        with pytest.raises(TimedOut):
            host.run(script(code), timeout=0.5)
        assert gone(int((tmp_path / "pid").read_text()))

    def test_a_daemon_that_holds_the_pipe_does_not_hang_the_run(
        self, host: Host, tmp_path: Path
    ) -> None:
        code = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600' & sleep 0.1; echo done"
        started = time.monotonic()
        done = host.run(["sh", "-c", code])
        try:
            assert done.out == "done\n"
            assert time.monotonic() - started < GRACE + 3
            assert not gone_now(int((tmp_path / "pid").read_text())), "a daemon may stay"
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    def test_a_program_that_closes_its_output_is_still_waited_for(
        self, host: Host, tmp_path: Path
    ) -> None:
        host.run(["sh", "-c", f"exec >&- 2>&-; sleep 0.4; touch {tmp_path}/late"])
        assert (tmp_path / "late").exists()

    def test_a_program_that_closes_its_output_and_hangs_is_killed(self, host: Host) -> None:
        with pytest.raises(TimedOut):
            host.run(["sh", "-c", "exec >&- 2>&-; exec sleep 600"], timeout=0.5)

    def test_much_input_and_much_output_at_once_do_not_deadlock(self, host: Host) -> None:
        text = b"line of text\n" * 200_000
        done = host.run(["wc", "-c"], input=text)
        assert done.out.strip() == str(len(text))
        assert len(host.run(["cat"], input=text).out) > OUTPUT_CAP // 2

    def test_input_that_nobody_reads_is_no_error(self, host: Host) -> None:
        assert host.run(["true"], input=b"x" * 1_000_000).ok

    def test_without_input_a_program_reads_nothing(self, host: Host) -> None:
        assert host.run(["cat"]).out == ""

    def test_the_environment_is_ours_and_not_the_callers(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LD_PRELOAD_NOT", "x")
        monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
        lines = host.probe(["env"], env={"MINE": "1"}).out.splitlines()
        assert sorted(line.partition("=")[0] for line in lines) == [
            "HOME",
            "LANG",
            "LC_ALL",
            "MINE",
            "PATH",
        ]
        assert "LC_ALL=C.UTF-8" in lines

    def test_a_missing_program_or_directory_is_not_there_yet(self, host: Host) -> None:
        with pytest.raises(NotYet, match="no-such-program"):
            host.probe(["no-such-program"])
        with pytest.raises(NotYet, match="/no/such"):
            host.probe(["true"], cwd="/no/such")

    def test_a_file_that_cannot_be_run_is_an_error_in_words(
        self, host: Host, tmp_path: Path
    ) -> None:
        (tmp_path / "text").write_text("x")
        with pytest.raises(ResourceError, match="Permission denied"):
            host.probe([str(tmp_path / "text")])

    def test_the_deadline_of_the_resource_counts_for_each_program(self, host: Host) -> None:
        host.deadline = time.monotonic() + 0.3
        with pytest.raises(TimedOut):
            host.run(["sleep", "600"], timeout=500)

    def test_no_descriptor_is_inherited_not_even_a_lock(self, host: Host, tmp_path: Path) -> None:
        with (tmp_path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code = "import os; print(sorted(os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if int(fd) > 2 and os.path.exists(f'/proc/self/fd/{fd}')))"
            assert "lock" not in host.probe(script(code)).out
            host.run(["sh", "-c", f"setsid sleep 30 >/dev/null 2>&1 & echo $! > {tmp_path}/pid"])
        try:
            with (tmp_path / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    @needs_root
    def test_a_program_of_a_user_has_its_identity_and_home(self, host: Host) -> None:
        user = host.account("nobody")
        assert user is not None
        done = host.probe(["sh", "-c", "id -u; id -g; id -G; echo $HOME $USER"], user="nobody")
        uid, gid, groups, rest = done.out.splitlines()
        assert (uid, gid, groups) == (str(user.uid), str(user.gid), str(user.gid))
        assert rest == f"{user.home} nobody"

    def test_an_unknown_user_is_not_there_yet(self, host: Host) -> None:
        with pytest.raises(NotYet, match="user 'no-such-user' does not exist"):
            host.probe(["true"], user="no-such-user")


def gone_now(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


class TestAccounts:
    PASSWD = (
        "root:x:0:0:root:/root:/bin/sh\n"
        "app:x:500:600:An App:/srv/app:/bin/sh\n"
        "alias:x:500:600::/srv/app:/bin/sh\n"
        "+nis::::::\n"
        "broken:x:abc:0::/:/bin/sh\n"
        "short:x:1\n"
        "trick:x:700:700:a\u2028evil:x:0:0::/:/bin/sh\x0bevil:x:0:0::/:/bin/sh:/home:/bin/sh\n"
    )

    def test_rows_that_are_none_do_no_harm(self, rooted: Host, tmp_path: Path) -> None:
        (tmp_path / "etc/passwd").write_text(self.PASSWD)
        assert rooted.account("app") == ("app", 500, 600, "/srv/app", "/bin/sh", "An App")
        assert rooted.account("broken") is None
        assert rooted.account("evil") is None
        assert rooted.owner_name(500) == "app"
        assert rooted.owner_name(4711) == "4711"

    def test_names_and_numbers_become_numbers(self, rooted: Host, tmp_path: Path) -> None:
        (tmp_path / "etc/passwd").write_text(self.PASSWD)
        (tmp_path / "etc/group").write_text("root:x:0:\napp:x:600:one,two\nodd:x::\n")
        assert (rooted.uid("app"), rooted.uid("123"), rooted.gid("app")) == (500, 123, 600)
        assert rooted.groups()["app"] == (600, ("one", "two"))
        assert "odd" not in rooted.groups()
        for name in ("nobody-here", "²", ""):
            with pytest.raises(NotYet):
                rooted.uid(name)

    def test_what_was_read_is_kept_until_something_changes(
        self, rooted: Host, tmp_path: Path
    ) -> None:
        (tmp_path / "etc/passwd").write_text(self.PASSWD)
        assert rooted.account("new") is None
        (tmp_path / "etc/passwd").write_text(self.PASSWD + "new:x:9:9::/:/bin/sh\n")
        assert rooted.account("new") is None
        rooted.forget(opaque=False)
        assert rooted.account("new") is not None

    def test_packages_are_forgotten_only_after_something_opaque(self, rooted: Host) -> None:
        answers = iter(range(10))
        assert rooted.memo("package", "x", lambda: next(answers)) == 0
        rooted.forget(opaque=False)
        assert rooted.memo("package", "x", lambda: next(answers)) == 0
        rooted.forget()
        assert rooted.memo("package", "x", lambda: next(answers)) == 1

    def test_a_host_without_accounts_has_none(self, rooted: Host) -> None:
        assert rooted.account("root") is None
        assert rooted.groups() == {}


class TestReading:
    def test_what_is_too_large_to_edit_is_not_read(self, rooted: Host, tmp_path: Path) -> None:
        with (tmp_path / "huge").open("w") as file:
            file.truncate(1 << 40)
        with pytest.raises(Unsupported, match="not read whole"):
            rooted.read("/huge")

    def test_a_link_is_not_read_through(self, rooted: Host, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/etc/hostname")
        with pytest.raises(ResourceError):
            rooted.read("/link")

    def test_a_fifo_is_refused_at_once(self, rooted: Host, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(UnsafePath):
            rooted.read("/fifo")

    def test_a_missing_directory_is_empty(self, rooted: Host) -> None:
        assert rooted.listdir("/none") == []
        assert list(rooted.below("/none")) == []

    def test_a_walk_gives_paths_and_a_way_to_change_each(
        self, rooted: Host, tmp_path: Path
    ) -> None:
        (tmp_path / "top/deep").mkdir(parents=True)
        (tmp_path / "top/deep/file").touch()
        rooted.readonly = False
        for entry in rooted.below("/top"):
            entry.set_attributes(Attributes(mode=0o750))
        assert [entry.path for entry in rooted.below("/top")] == ["/top/deep", "/top/deep/file"]
        assert (tmp_path / "top/deep/file").stat().st_mode & 0o777 == 0o750


class TestReadonly:
    def test_no_act_goes_through_while_a_plan_is_made(self, rooted: Host, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("old\n")
        (tmp_path / "dir").mkdir()
        (tmp_path / "dir/file").touch()
        before = {path: path.lstat() for path in sorted(tmp_path.rglob("*"))}
        acts = [
            lambda: rooted.run(["touch", "/file"]),
            lambda: rooted.write("/file", [b"new"]),
            lambda: rooted.mkdir("/new"),
            lambda: rooted.symlink("/new", "x"),
            lambda: rooted.hardlink("/new", "/file"),
            lambda: rooted.set_attributes("/file", Attributes(mode=0o777)),
            lambda: rooted.set_times("/file", 0, 0),
            lambda: rooted.set_xattr("/file", "user.note", b"x"),
            lambda: rooted.set_xattr("/file", "user.note", None),
            lambda: rooted.remove("/file"),
            lambda: [
                entry.set_attributes(Attributes(mode=0o777)) for entry in rooted.below("/dir")
            ],
        ]
        for act in acts:
            with pytest.raises(ReconcilerError, match="a plan must not change anything"):
                act()
        assert {path: path.lstat() for path in sorted(tmp_path.rglob("*"))} == before

    def test_the_first_image_is_asked_for_before_each_change(
        self, rooted: Host, tmp_path: Path
    ) -> None:
        rooted.readonly = False
        seen: list[tuple[str, bool]] = []
        rooted.before_change = lambda path: seen.append((path, (tmp_path / path[1:]).exists()))
        rooted.write("/file", [b"x"])
        rooted.remove("/file")
        assert seen == [("/file", False), ("/file", True)]

    def test_an_extended_attribute_is_in_no_image_and_none_is_asked_for(
        self, rooted: Host, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("x")
        rooted.readonly = False
        seen: list[str] = []
        rooted.before_change = seen.append
        rooted.set_xattr("/file", "user.note", b"x")
        assert rooted.xattr("/file", "user.note") == b"x"
        assert seen == []


class TestDirectoryRoot:
    def test_links_end_below_the_root(self, rooted: Host, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "short").symlink_to("/real")
        rooted.readonly = False
        rooted.write("/short/file", [b"x"])
        assert (tmp_path / "real/file").read_bytes() == b"x"
        assert rooted.resolve("/short") == "/real"

    def test_programs_run_as_root_in_the_root_only(self, rooted: Host, tmp_path: Path) -> None:
        (tmp_path / "etc/passwd").write_text("app:x:500:600::/:/bin/sh\n")
        with pytest.raises(Unsupported):
            rooted.probe(["true"], user="app")
        with pytest.raises(Unsupported):
            rooted.probe(["true"], cwd="/etc")
