"""Crontabs on a booted host: cron itself must accept and run what we write."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared, failed


@pytest.fixture(scope="module")
def declared(host: BootedHost) -> Declared:
    declared = Declared(host)
    # On a host that has neither cron nor the user: all in one run.
    outcome = declared.converge(
        cron("first", job="true", user="ann", minute="5"),
        cron("second", job="true", cron_file="app", user="ann"),
        {"user": {"name": "ann"}},
        {"package": {"name": "cron"}},
    )
    assert "cron:first#ann" in outcome.changed
    return declared


def cron(name: str, **params: Any) -> dict[str, Any]:
    return {"cron": {"name": name, **params}}


def crontab(declared: Declared, user: str) -> str:
    return declared.host.run(["crontab", "-l", "-u", user], check=False).stdout


def test_an_entry_comes_changes_and_takes_the_crontab_with_it(declared: Declared) -> None:
    declared.converge(cron("backup", job="echo 100%; date", minute="30", hour="2"))
    assert crontab(declared, "root") == "#Ansible: backup\n30 2 * * * echo 100%; date\n"
    outcome = declared.converge(
        cron("backup", job="echo 100%; date", special_time="daily", disabled=True)
    )
    (changes,) = (one for name, one in outcome.done.items() if name.startswith("cron:backup"))
    assert [one["attribute"] for one in changes["changes"]] == ["schedule", "disabled"]
    assert crontab(declared, "root") == "#Ansible: backup\n#@daily echo 100%; date\n"
    declared.converge(cron("backup", state="absent"))
    assert crontab(declared, "root") == ""
    assert not declared.host.testinfra().file("/var/spool/cron/crontabs/root").exists


def test_what_the_user_wrote_stays(declared: Declared) -> None:
    written = "# mine\nMAILTO=me\n1 2 3 4 5 mine\n"
    declared.host.run(["crontab", "-u", "ann", "-"], input=written)
    declared.converge(cron("ours", job="ours", user="ann"))
    assert crontab(declared, "ann") == f"{written}#Ansible: ours\n* * * * * ours\n"
    declared.converge(cron("ours", state="absent", user="ann"))
    assert crontab(declared, "ann") == written


def test_an_entry_of_ansibles_is_adopted_without_a_change(declared: Declared) -> None:
    declared.host.run(["crontab", "-u", "ann", "-"], input="#Ansible: theirs\n0 5 * * 1 run this\n")
    outcome = declared.converge(
        cron("theirs", job="run this", hour="5", minute="0", weekday="1", user="ann")
    )
    assert outcome.changed == set()


def test_a_file_in_cron_d_comes_and_goes_and_cron_runs_it(declared: Declared) -> None:
    seen = declared.host.testinfra().file("/etc/cron.d/tick")
    declared.converge(
        {"service": {"name": "cron", "state": "started"}},
        cron("MAILTO", env=True, job="", cron_file="tick"),
        cron("tick", job="/usr/bin/touch /run/ticked", cron_file="tick", user="root"),
    )
    assert (seen.mode, seen.user) == (0o644, "root")
    assert (
        seen.content_string
        == 'MAILTO=""\n#Ansible: tick\n* * * * * root /usr/bin/touch /run/ticked\n'
    )
    for _ in range(75):
        if declared.host.testinfra().file("/run/ticked").exists:
            break
        time.sleep(1)
    else:
        pytest.fail("cron did not run the entry")
    declared.converge(
        cron("MAILTO", env=True, state="absent", cron_file="tick"),
        cron("tick", state="absent", cron_file="tick"),
    )
    assert not seen.exists


def test_a_schedule_that_cron_refuses_is_an_error_and_the_old_one_stays(declared: Declared) -> None:
    before = crontab(declared, "ann")
    _, done = declared.attempt(cron("bad", job="x", minute="99", user="ann"))
    (reason,) = failed(done).values()
    assert "bad minute" in reason
    assert crontab(declared, "ann") == before


def test_a_crontab_for_nobody_is_a_clear_error(declared: Declared) -> None:
    planned, _ = declared.attempt(cron("x", job="x", user="nobody-here"))
    (reason,) = failed(planned).values()
    assert "user 'nobody-here' does not exist" in reason
