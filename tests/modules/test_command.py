"""Commands and their guards, against real programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import (
    CommandFailed,
    NotConverged,
    NotYet,
    SchemaError,
    TimedOut,
)
from reconciler.host import Host
from reconciler.modules.command import Command
from reconciler.resource import Diff


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.files.close()


def would_run(host: Host, wish: Command) -> bool:
    """What a plan says; the host is read-only while it does."""
    host.readonly = True
    return bool(Diff(wish.actual(host), wish.desired()))


def apply(host: Host, wish: Command) -> None:
    diff = Diff(wish.actual(host), wish.desired())
    host.readonly = False
    try:
        wish.apply(host, diff)
    finally:
        host.readonly = True


class TestGuards:
    def test_creates_runs_until_the_path_is_there(self, host: Host, tmp_path: Path) -> None:
        wish = Command(f"touch {tmp_path}/made", creates=f"{tmp_path}/made")
        assert would_run(host, wish)
        apply(host, wish)
        assert (tmp_path / "made").exists()
        assert not would_run(host, wish)

    def test_removes_runs_while_the_path_is_there(self, host: Host, tmp_path: Path) -> None:
        wish = Command(f"rm {tmp_path}/old", removes=f"{tmp_path}/old")
        assert not would_run(host, wish)
        (tmp_path / "old").symlink_to("nowhere")
        assert would_run(host, wish)
        apply(host, wish)
        assert not would_run(host, wish)

    def test_unless_and_onlyif_are_run_for_real_in_a_plan(self, host: Host, tmp_path: Path) -> None:
        there = f"test -e {tmp_path}/x"
        unless = Command(f"touch {tmp_path}/x", unless=[there])
        onlyif = Command(f"rm {tmp_path}/x", onlyif=[there])
        assert (would_run(host, unless), would_run(host, onlyif)) == (True, False)
        apply(host, unless)
        assert (would_run(host, unless), would_run(host, onlyif)) == (False, True)

    @pytest.mark.parametrize(
        "params, runs",
        [
            ({"unless": ["false", "false"]}, True),
            ({"unless": ["false", "true"]}, False),
            ({"onlyif": ["true", "true"]}, True),
            ({"onlyif": ["true", "false"]}, False),
            (
                {"unless": ["false"], "onlyif": ["true"], "creates": "/nowhere", "removes": "/etc"},
                True,
            ),
            ({"unless": ["false"], "onlyif": ["true"], "creates": "/etc"}, False),
            ({"creates": "/nowhere", "onlyif": ["false"]}, False),
            ({"creates": "/et*"}, False),
            ({"creates": "/etc/pass?d"}, False),
            ({"creates": "/etc/[xyz]asswd"}, True),
            ({"creates": "/*/passwd"}, False),
            ({"creates": "/etc/passwd/x"}, True),
            ({"creates": "etc", "chdir": "/"}, False),
        ],
    )
    def test_it_runs_only_if_every_guard_lets_it(self, host: Host, params: Any, runs: bool) -> None:
        assert would_run(host, Command("false", **params)) is runs

    def test_a_guard_that_need_not_be_asked_is_not_run(self, host: Host, tmp_path: Path) -> None:
        assert not would_run(host, Command("false", creates="/etc", unless=[f"touch {tmp_path}/x"]))
        assert not (tmp_path / "x").exists()

    def test_a_guard_whose_program_is_missing_is_not_decided_yet(self, host: Host) -> None:
        with pytest.raises(NotYet, match="no-such-program"):
            would_run(host, Command("false", unless=["no-such-program --check"]))

    def test_a_guard_that_hangs_is_ended(self, host: Host) -> None:
        started = time.monotonic()
        with pytest.raises(TimedOut):
            would_run(host, Command("false", unless=["sleep 600"], timeout=0.3))
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(
        "params, message",
        [
            ({"creates": "/nowhere"}, "/nowhere still does not exist"),
            ({"removes": "/etc"}, "/etc still exists"),
            ({"unless": ["false"]}, "`false` still fails"),
            ({"onlyif": ["true"]}, "`true` still succeeds"),
        ],
    )
    def test_work_that_the_guard_does_not_see_is_a_failure_that_says_so(
        self, host: Host, params: Any, message: str
    ) -> None:
        with pytest.raises(NotConverged, match="true went through, but " + message) as caught:
            apply(host, Command("true", **params))
        assert "the guard must tell" in caught.value.hint


class TestRunning:
    def test_there_is_no_shell_and_that_is_a_warning(self, host: Host, tmp_path: Path) -> None:
        wish = Command("touch a && $HOME", creates="a", chdir=str(tmp_path))
        apply(host, wish)
        assert sorted(os.listdir(tmp_path)) == ["$HOME", "&&", "a"]
        assert "no shell runs this, so && is passed on as text" in host.warnings[0]

    def test_a_list_is_taken_as_it_is(self, host: Host, tmp_path: Path) -> None:
        apply(host, Command(argv=["touch", f"{tmp_path}/a b|c"], creates=f"{tmp_path}/a b|c"))
        assert os.listdir(tmp_path) == ["a b|c"]
        assert host.warnings == []

    def test_directory_input_and_environment_are_given(self, host: Host, tmp_path: Path) -> None:
        wish = Command(
            argv=["sh", "-c", "{ pwd; echo $X; cat; } > out"],
            creates="out",
            chdir=str(tmp_path),
            stdin="text ü",
            environment={"X": "1"},
        )
        apply(host, wish)
        assert (tmp_path / "out").read_text() == f"{tmp_path}\n1\ntext ü"

    @pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, so it needs root")
    def test_it_and_its_guards_run_as_the_declared_user(self, host: Host, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        for path in (tmp_path, *tmp_path.parents):
            if path.stat().st_mode & 0o777 == 0o700:  # what pytest made for itself
                path.chmod(0o755)
        shared.chmod(0o777)
        assert would_run(
            host, Command("true", unless=["test 0 = 1"], onlyif=["test -O /"], user="root")
        )
        assert not would_run(host, Command("true", onlyif=["test -O /"], user="nobody"))
        apply(host, Command(f"touch {shared}/x", creates=f"{shared}/x", user="nobody"))
        user = host.account("nobody")
        assert user is not None
        assert (shared / "x").stat().st_uid == user.uid

    def test_a_failure_shows_code_and_the_end_of_the_output_and_no_argument(
        self, host: Host
    ) -> None:
        argv = ["sh", "-c", "seq 1 30 >&2; exit 7", "--password=hunter2"]
        with pytest.raises(CommandFailed) as caught:
            apply(host, Command(argv=argv, creates="/nowhere"))
        assert str(caught.value).splitlines()[0] == "sh ended with code 7:"
        assert str(caught.value).splitlines()[1:] == [str(number) for number in range(21, 31)]

    def test_other_codes_can_mean_success(self, host: Host) -> None:
        with pytest.raises(NotConverged):
            apply(
                host, Command(argv=["sh", "-c", "exit 3"], creates="/nowhere", success_codes=[0, 3])
            )
        with pytest.raises(CommandFailed):
            apply(host, Command("true", creates="/nowhere", success_codes=[3]))

    def test_it_is_ended_with_all_that_it_started_when_its_time_is_up(
        self, host: Host, tmp_path: Path
    ) -> None:
        code = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
        with pytest.raises(TimedOut):
            apply(host, Command(argv=["sh", "-c", code], creates="/nowhere", timeout=0.5))
        pid = int((tmp_path / "pid").read_text())
        state = Path(f"/proc/{pid}/stat")
        for _ in range(100):
            if not state.exists() or " Z " in state.read_text():
                break
            time.sleep(0.02)
        else:
            pytest.fail("the child is still there")

    def test_a_daemon_that_keeps_the_output_open_does_not_hang_it(
        self, host: Host, tmp_path: Path
    ) -> None:
        started = time.monotonic()
        code = f"touch {tmp_path}/x; sleep 5 &"
        apply(host, Command(argv=["sh", "-c", code], creates=f"{tmp_path}/x"))
        assert time.monotonic() - started < 4

    @pytest.mark.parametrize(
        "params", [{}, {"cmd": ""}, {"cmd": "x", "argv": ["x"]}, {"cmd": 'a "b'}, {"argv": []}]
    )
    def test_what_is_no_command_is_an_error_in_words(self, host: Host, params: Any) -> None:
        with pytest.raises(SchemaError):
            would_run(host, Command(creates="/nowhere", **params))

    def test_a_plan_runs_nothing_but_guards(self, host: Host, tmp_path: Path) -> None:
        wish = Command(f"touch {tmp_path}/x", unless=["false"])
        assert would_run(host, wish)
        assert not (tmp_path / "x").exists()


class TestNotified:
    def test_without_a_guard_it_runs_each_time(self, host: Host, tmp_path: Path) -> None:
        wish = Command(argv=[sys.executable, "-Ic", f"open('{tmp_path}/log', 'a').write('x')"])
        assert not would_run(host, wish)
        host.readonly = False
        wish.on_notify(host)
        wish.on_notify(host)
        assert (tmp_path / "log").read_text() == "xx"

    def test_with_a_guard_it_runs_if_the_guard_lets_it(self, host: Host, tmp_path: Path) -> None:
        host.readonly = False
        Command(f"touch {tmp_path}/x", onlyif=["false"]).on_notify(host)
        assert not (tmp_path / "x").exists()
        Command(f"touch {tmp_path}/x", onlyif=["true"]).on_notify(host)
        assert (tmp_path / "x").exists()

    def test_a_failure_is_raised(self, host: Host) -> None:
        host.readonly = False
        with pytest.raises(CommandFailed):
            Command("false").on_notify(host)

    def test_two_handlers_of_one_command_are_one(self) -> None:
        assert Command("a b").refresh() == Command(argv=["a", "b"]).refresh()


class TestRelations:
    def test_it_needs_its_program_directory_and_user(self) -> None:
        wish = Command("/srv/bin/run x", chdir="/var/app", removes="/tmp/mark", user="app")
        assert wish.needs() == {
            "path:/srv", "path:/srv/bin", "path:/srv/bin/run", "path:/var", "path:/var/app",
            "path:/tmp", "path:/tmp/mark", "user:app",
        }  # fmt: skip
        assert wish.claims() == {"command:/srv/bin/run x"}
        assert Command("sh").needs() == set()

    def test_it_may_change_anything(self) -> None:
        assert Command.opaque
