"""Plans and reports as text: the golden outputs."""

from collections.abc import Sequence

import pytest

from reconciler.catalog import Plan, Report, Result
from reconciler.cli.console import plain
from reconciler.cli.render import duration, show, summary, value_text
from reconciler.errors import Mark
from reconciler.resource import Change

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SITE = Mark("site.yml", 7, 5)


def text(document: Plan | Report, **options: bool) -> str:
    return "\n".join(plain(one) for one in show(document, **options))


def in_sync(count: int) -> list[Result]:
    return [Result(f"file:/etc/{n}", "ok", SITE) for n in range(count)]


COMMIT = "3f2a1c9d5e6f" + "0" * 28


def plan(results: Sequence[Result], *, dirty: bool = False, warnings: tuple[str, ...] = ()) -> Plan:
    return Plan("web1", tuple(results), COMMIT, dirty, warnings, seconds=0.31)


def report(results: Sequence[Result], *, interrupted: bool = False) -> Report:
    return Report("web1", tuple(results), COMMIT, seconds=3.41, run="r1", interrupted=interrupted)


CHANGED = Result(
    "file:/etc/motd",
    "pending",
    SITE,
    title="the greeting",
    action="change",
    changes=(
        Change("content", f"5 bytes, sha256 {SHA}", f"6 bytes, sha256 {SHA[::-1]}"),
        Change("mode", "0600", "0644"),
    ),
    diff="--- /etc/motd (actual)\n+++ /etc/motd (desired)\n@@ -1 +1 @@\n-hello\n+hullo \n",
    cause="corrective",
)
CREATED = Result(
    "user:deploy",
    "pending",
    Mark("roles/base/main.yml", 3),
    action="create",
    changes=(Change("shell", None, "/bin/sh"),),
)
REMOVED = Result(
    "file:/etc/old", "pending", SITE, action="remove", changes=(Change("type", "file", None),)
)
OWED = Result(
    "handler:reload nginx",
    "owed",
    SITE,
    title="reload nginx",
    action="notify",
    because=("file:/etc/motd",),
)
FAILED = Result(
    "package:nginx",
    "failed",
    SITE,
    reason="apt-get ended with code 100:\nE: no space",
    hint="free some space",
)
BLOCKED = Result(
    "service:nginx",
    "blocked",
    SITE,
    reason="waits for file:/etc/nginx/nginx.conf <- package:nginx, which failed",
    because=("file:/etc/nginx/nginx.conf",),
)
UNKNOWN = Result(
    "lineinfile:/etc/x#1",
    "unknown",
    SITE,
    action="change",
    reason="after package:nginx",
    because=("package:nginx",),
)


def test_a_plan_shows_what_differs_from_what_to_what_and_where_it_is_declared() -> None:
    assert (
        text(
            plan(
                [*in_sync(3), CHANGED, CREATED, REMOVED, UNKNOWN, OWED],
                warnings=("the clock is off",),
            )
        )
        == """\
plan for web1, commit 3f2a1c9d5e6f
~ file:/etc/motd  the greeting  drift  site.yml:7:5
    content: 5 bytes, sha256 9f86d081884c -> 6 bytes, sha256 80a00f0b51c6
    mode: 0600 -> 0644
    --- /etc/motd (actual)
    +++ /etc/motd (desired)
    @@ -1 +1 @@
    -hello
    +hullo\N{SPACE}
+ user:deploy  roles/base/main.yml:3
    shell: /bin/sh
- file:/etc/old  site.yml:7:5
    type: file
? lineinfile:/etc/x#1  site.yml:7:5
    after package:nginx
> handler:reload nginx  site.yml:7:5
    notified by file:/etc/motd
warning: the clock is off

plan: 3 to change, 1 known only later, 1 to notify, 3 in sync, 0 failed in 0.3 s"""
    )


def test_a_plan_without_differences_says_0_changes() -> None:
    assert (
        text(plan(in_sync(216)))
        == "plan for web1, commit 3f2a1c9d5e6f\nplan: 0 changes, 216 in sync, 0 failed in 0.3 s"
    )


def test_a_failure_shows_its_reason_what_to_do_and_what_waits_for_it() -> None:
    assert (
        text(report([FAILED, BLOCKED]))
        == """\
apply for web1, commit 3f2a1c9d5e6f
! package:nginx  site.yml:7:5
    apt-get ended with code 100:
    E: no space
    hint: free some space
x service:nginx  site.yml:7:5
    waits for file:/etc/nginx/nginx.conf <- package:nginx, which failed

apply: 0 in sync, 1 failed, 1 blocked in 3.4 s"""
    )


def test_the_summary_of_a_run_counts_and_names_the_slowest() -> None:
    results = [
        *in_sync(216),
        *(Result(f"file:/{n}", "changed", SITE, action="change", seconds=0.01) for n in range(11)),
        Result("package:nginx", "changed", SITE, action="create", seconds=2.94),
        Result("service:nginx", "changed", SITE, action="change", seconds=0.25),
        *(Result(f"handler:{n}", "notified", SITE) for n in range(3)),
    ]
    assert plain(summary(report(results))) == (
        "apply: 13 changed, 3 notified, 216 in sync, 0 failed in 3.4 s; slowest: package:nginx 2.9 s, service:nginx 0.2 s"
    )


@pytest.mark.parametrize(
    "results",
    [
        [FAILED],
        [BLOCKED, FAILED],
        [Result("a:b", "changed", SITE)],
        [Result("a:b", "notified", SITE)],
    ],
)
def test_0_changes_is_never_said_of_a_run_that_changed_or_failed(results: list[Result]) -> None:
    assert "0 changes" not in plain(summary(report(results)))


@pytest.mark.parametrize("result", [FAILED, BLOCKED, UNKNOWN, OWED, CREATED])
def test_0_changes_is_never_said_of_a_plan_that_differs_or_failed(result: Result) -> None:
    assert "0 changes" not in plain(summary(plan([*in_sync(10), result])))


def test_an_interrupted_run_says_so() -> None:
    assert "interrupted" in plain(summary(report([], interrupted=True)))


def test_verbose_shows_what_is_in_sync_and_values_whole() -> None:
    shown = text(plan([*in_sync(1), CHANGED]), verbose=True)
    assert "= file:/etc/0  site.yml:7:5" in shown
    assert SHA in shown


def test_no_diff_shows_attributes_only() -> None:
    shown = text(plan([CHANGED]), diff=False)
    assert "hello" not in shown
    assert "mode: 0600 -> 0644" in shown


def test_a_work_tree_is_not_taken_for_its_commit() -> None:
    assert "its files may differ" in text(plan([], dirty=True))
    assert "no commit" in text(Plan("web1", ()))


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, "(none)"),
        ("a", "a"),
        (["a", 1], '["a", 1]'),
        ("x" * 161, "x" * 160 + "... (161 characters)"),
    ],
)
def test_values_are_one_line_and_not_too_long(value: object, shown: str) -> None:
    assert value_text(value) == shown


@pytest.mark.parametrize(
    "seconds, shown", [(0.04, "0.0 s"), (3.41, "3.4 s"), (75.2, "75 s"), (720, "12 min")]
)
def test_durations_have_the_precision_that_one_needs(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_hostile_names_and_diffs_are_shown_not_obeyed() -> None:
    hostile = Result(
        "file:/\x1b[2J",
        "pending",
        Mark("\u202e.yml", 1),
        action="change",
        changes=(Change("src", "\x07", "\r"),),
        diff="-\x1b]0;x\x07\n",
        reason="\x9b",
    )
    assert all(c.isprintable() for c in text(plan([hostile])).replace("\n", ""))


def test_a_handler_with_many_reasons_names_the_first_of_them() -> None:
    owed = Result("handler:h", "owed", SITE, because=tuple(f"file:/{n}" for n in range(9)))
    assert "notified by file:/0, file:/1, file:/2 and 6 more" in text(plan([owed]))
    assert "file:/8" in text(plan([owed]), verbose=True)
