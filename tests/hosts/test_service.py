"""Services on a booted host: every kind of unit that systemd knows, checked by testinfra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared
from hosts.driver import Driver

INSTALL = "[Install]\nWantedBy=multi-user.target\n"
UNITS = {
    "steady.service": f"[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\n{INSTALL}",
    "crash.service": f'[Service]\nExecStart=/bin/sh -c "sleep 1; echo out of cheese; exit 7"\n{INSTALL}',
    "loop.service": f"[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=100ms\n{INSTALL}",
    "brief.service": f"[Service]\nExecStart=/bin/true\n{INSTALL}",
    "once.service": f"[Service]\nType=oneshot\nExecStart=/bin/true\n{INSTALL}",
    "stays.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
    "conditional.service": f"[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep infinity\n{INSTALL}",
    "static.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "copies@.service": f"[Service]\nExecStart=/bin/sleep infinity\n{INSTALL}",
    "aliased.service": f"[Service]\nExecStart=/bin/sleep infinity\n{INSTALL}Alias=other-name.service\n",
    "knock.socket": "[Socket]\nListenStream=/run/knock.sock\n[Install]\nWantedBy=sockets.target\n",
    "knock.service": "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nAlso=knock.socket\n",
    "broken.service": "[Service]\nType=simple\n",
}


@pytest.fixture(scope="module")
def driver(host: BootedHost) -> Driver:
    return _with_units(host)


def _with_units(host: BootedHost) -> Driver:
    for name, text in UNITS.items():
        host.run(["tee", f"/lib/systemd/system/{name}"], input=text)
    script = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: old\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\nexit 0\n"
    host.run(["tee", "/etc/init.d/old"], input=script)
    host.run(["chmod", "755", "/etc/init.d/old"])
    host.run(["systemctl", "daemon-reload"])
    return Driver(host)


@pytest.fixture(autouse=True)
def _units_at_rest(driver: Driver) -> Iterator[None]:
    yield
    names = [name for name in UNITS if "@" not in name]
    driver.host.run(["systemctl", "unmask", *names], check=False)
    driver.host.run(["systemctl", "stop", *names], check=False)
    driver.host.run(["systemctl", "disable", "-q", *names], check=False)
    driver.host.run(["systemctl", "reset-failed"], check=False)


def service(name: str, **params: Any) -> tuple[str, dict[str, Any]]:
    return ("service", {"name": name, **params})


def test_a_service_starts_and_stops_and_is_left_alone_when_it_is_so(driver: Driver) -> None:
    wish = service("steady", state="started", enabled=True)
    first = driver.apply(wish)
    assert first.plan[0]["changes"] == [["enabled", False, True], ["running", False, True]]
    assert first.clean
    seen = driver.host.testinfra().service("steady")
    assert seen.is_running
    assert seen.is_enabled
    assert driver.plan(wish).in_sync
    assert driver.apply(service("steady", state="stopped", enabled=False)).clean
    assert not driver.host.testinfra().service("steady").is_running
    assert driver.plan(service("steady.service", state="stopped", enabled=False)).in_sync


def test_a_service_that_ends_a_second_after_its_start_is_a_failure(driver: Driver) -> None:
    answer = driver.apply(service("crash", state="started"))
    assert "did not stay up" in answer.said[0]
    assert "exit-code 7" in answer.said[0]
    assert "out of cheese" in answer.said[0]


def test_a_service_that_systemd_restarts_all_the_time_is_a_failure(driver: Driver) -> None:
    assert "did not stay up" in driver.apply(service("loop", state="started")).said[0]


def test_a_service_that_ends_well_at_once_is_not_running(driver: Driver) -> None:
    assert "did not stay up: inactive" in driver.apply(service("brief", state="started")).said[0]


def test_a_service_whose_condition_is_not_met_says_so(driver: Driver) -> None:
    assert "condition" in driver.apply(service("conditional", state="started")).said[0]


def test_a_failed_service_is_started_again(driver: Driver) -> None:
    driver.host.run(["systemctl", "start", "steady"])
    driver.host.run(["systemctl", "kill", "-s", "SEGV", "steady"])
    assert driver.apply(service("steady", state="started")).clean


def test_what_runs_once_counts_as_started_when_it_has_run(driver: Driver) -> None:
    wish = service("once", state="started", enabled=True)
    assert driver.apply(wish).clean
    assert driver.plan(wish).in_sync
    assert driver.plan(service("once", state="stopped")).in_sync
    assert driver.apply(service("stays", state="started")).clean
    assert driver.apply(service("stays", state="stopped")).clean


def test_what_runs_once_and_is_forgotten_cannot_be_kept_started(driver: Driver) -> None:
    seen = driver.plan(service("once", state="started")).plan[0]
    assert seen["error"] == "Unsupported"
    assert "nothing remembers" in seen["message"]


def test_a_mask_comes_and_goes(driver: Driver) -> None:
    wish = service("steady", state="stopped", masked=True)
    driver.host.run(["systemctl", "start", "steady"])
    assert driver.apply(wish).clean
    assert driver.host.testinfra().service("steady").is_masked
    assert driver.plan(wish).in_sync
    assert driver.plan(service("steady", state="stopped", enabled=False)).in_sync
    assert "is masked" in driver.plan(service("steady", state="started")).plan[0]["message"]
    assert driver.apply(service("steady", masked=False, state="started", enabled=True)).clean


def test_a_unit_in_etc_cannot_be_masked(driver: Driver) -> None:
    driver.host.run(["tee", "/etc/systemd/system/local.service"], input=UNITS["steady.service"])
    seen = driver.plan(service("local", masked=True)).plan[0]
    assert "/etc/systemd/system/local.service is its unit file" in seen["message"]


def test_a_mask_may_come_before_its_unit(driver: Driver) -> None:
    assert driver.apply(service("yet-to-come", masked=True)).clean
    assert driver.plan(service("yet-to-come", masked=True)).in_sync
    assert driver.apply(service("yet-to-come", masked=False)).clean


def test_enabled_until_the_next_boot_is_not_enabled(driver: Driver) -> None:
    driver.host.run(["systemctl", "enable", "--runtime", "steady"])
    answer = driver.apply(service("steady", enabled=True))
    assert answer.plan[0]["changes"] == [["enabled", "until the next boot", True]]
    assert answer.clean
    driver.host.run(["systemctl", "disable", "steady"])
    driver.host.run(["systemctl", "enable", "--runtime", "steady"])
    assert driver.apply(service("steady", enabled=False)).clean


def test_a_static_unit_is_as_enabled_as_it_can_be(driver: Driver) -> None:
    answer = driver.plan(service("static", enabled=True))
    assert answer.in_sync
    assert "static.service is static" in answer.warnings[0]
    assert driver.plan(service("static", enabled=False)).in_sync


def test_an_indirect_unit_is_as_enabled_as_what_it_names(driver: Driver) -> None:
    wish = service("knock", enabled=True)
    assert driver.plan(wish).plan[0]["changes"] == [["enabled", False, True]]
    assert driver.apply(wish).clean
    assert driver.host.testinfra().service("knock.socket").is_enabled
    assert driver.apply(service("knock", enabled=False)).clean


def test_a_script_of_old_is_enabled_by_its_links(driver: Driver) -> None:
    assert driver.apply(service("old", enabled=True)).clean
    assert driver.host.run(["sh", "-c", "ls /etc/rc3.d"]).stdout.count("old") == 1
    assert driver.plan(service("old", enabled=True)).in_sync
    assert driver.apply(service("old", enabled=False)).clean


def test_an_alias_stands_for_its_unit(driver: Driver) -> None:
    assert driver.apply(service("aliased", enabled=True)).clean
    assert driver.apply(service("other-name", state="started", enabled=True)).clean
    assert driver.host.testinfra().service("aliased").is_running
    assert driver.apply(service("other-name", state="stopped", enabled=False)).clean
    assert not driver.host.testinfra().service("aliased").is_enabled


def test_instances_of_a_template_are_units_of_their_own(driver: Driver) -> None:
    assert driver.apply(service("copies@one", state="started", enabled=True)).clean
    assert driver.plan(service("copies@two", state="stopped", enabled=False)).in_sync
    assert driver.host.testinfra().service("copies@one").is_running
    assert driver.apply(service("copies@one", state="stopped", enabled=False)).clean
    assert (
        "cannot be started" in driver.plan(service("copies@", state="started")).plan[0]["message"]
    )


def test_a_linked_unit_is_enabled_where_it_lies(driver: Driver) -> None:
    driver.host.run(["mkdir", "-p", "/opt/app"])
    driver.host.run(["tee", "/opt/app/afar.service"], input=UNITS["steady.service"])
    driver.host.run(["systemctl", "link", "/opt/app/afar.service"])
    assert driver.apply(service("afar", state="started", enabled=True)).clean
    assert driver.plan(service("afar", state="started", enabled=True)).in_sync
    assert driver.apply(service("afar", state="stopped", enabled=False)).clean


def test_a_changed_unit_file_is_read_before_anything_is_done(driver: Driver) -> None:
    path = "/etc/systemd/system/fresh.service"
    driver.host.run(["tee", path], input=UNITS["steady.service"])
    assert driver.apply(service("fresh", state="started", enabled=True)).clean
    driver.host.run(["tee", path], input=UNITS["steady.service"].replace("infinity", "12345"))
    answer = driver.notify(service("fresh", state="restarted"))
    assert answer.outcomes == [None]
    assert "12345" in driver.host.run(["ps", "-eo", "args"]).stdout
    properties = driver.host.run(["systemctl", "show", "-p", "NeedDaemonReload", "fresh"]).stdout
    assert properties == "NeedDaemonReload=no\n"
    assert driver.apply(service("fresh", state="stopped", enabled=False)).clean


def test_a_unit_that_was_removed_while_it_ran_can_be_stopped(driver: Driver) -> None:
    path = "/etc/systemd/system/ghost.service"
    driver.host.run(["tee", path], input=UNITS["steady.service"])
    driver.host.run(["systemctl", "start", "ghost"])
    driver.host.run(["rm", path])
    driver.host.run(["systemctl", "daemon-reload"])
    answer = driver.apply(service("ghost", state="stopped", enabled=False))
    assert answer.plan[0]["changes"] == [["running", True, False]]
    assert answer.clean


def test_a_stopped_service_with_an_open_socket_is_warned_about(driver: Driver) -> None:
    driver.host.run(["systemctl", "start", "knock.socket", "knock.service"])
    answer = driver.apply(service("knock", state="stopped"))
    assert answer.clean
    assert "knock.socket can start it again" in answer.warnings[0]


def test_restart_and_reload_do_what_they_say(driver: Driver) -> None:
    driver.host.run(["systemctl", "start", "steady"])
    first = _main_pid(driver, "steady")
    assert driver.notify(service("steady", state="reloaded")).outcomes == [None]
    assert _main_pid(driver, "steady") == first
    assert driver.notify(service("steady", state="restarted")).outcomes == [None]
    assert _main_pid(driver, "steady") != first
    assert driver.notify(service("static", state="reloaded")).outcomes == [None]
    assert driver.host.testinfra().service("static").is_running


def test_a_restart_that_fails_shows_the_log(driver: Driver) -> None:
    assert "out of cheese" in driver.notify(service("crash", state="restarted")).said[0]


def test_a_unit_that_is_not_there_is_waited_for_or_already_stopped(driver: Driver) -> None:
    assert driver.plan(service("nowhere", state="started")).plan[0]["error"] == "NotYet"
    assert driver.plan(service("nowhere", enabled=True)).plan[0]["error"] == "NotYet"
    assert driver.plan(service("nowhere", state="stopped", enabled=False)).in_sync


def test_a_unit_file_that_systemd_refuses_is_a_failure_in_the_plan(driver: Driver) -> None:
    assert "cannot be loaded" in driver.plan(service("broken", state="started")).plan[0]["message"]


def test_a_unit_can_be_enabled_for_the_users_own_managers(driver: Driver) -> None:
    path = "/etc/systemd/user/mine.service"
    unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=default.target\n"
    driver.host.run(["mkdir", "-p", "/etc/systemd/user"])
    driver.host.run(["tee", path], input=unit)
    assert driver.apply(service("mine", enabled=True, scope="global")).clean
    assert driver.plan(service("mine", enabled=True, scope="global")).in_sync


def test_where_no_systemd_runs_units_can_be_enabled_and_nothing_else(driver: Driver) -> None:
    driver.host.run(["sh", "-c", "mkdir -p /mnt/root && mount --bind / /mnt/root"])
    command = [
        "env",
        "PYTHONPATH=/srv/driver",
        "python3",
        "/srv/driver/drive.py",
        "apply",
        "/mnt/root",
    ]
    resources = '[["service", {"name": "steady", "enabled": true}], ["service", {"name": "stays", "state": "started"}]]'
    try:
        done = driver.host.run(command, input=resources)
    finally:
        driver.host.run(["umount", "/mnt/root"])
    assert '"outcomes": [null]' in done.stdout
    assert "no systemd runs here" in done.stdout
    assert driver.host.testinfra().service("steady").is_enabled


def test_fifty_services_are_looked_at_in_one_call(driver: Driver) -> None:
    many = [service(f"copies@{number}", state="stopped", enabled=False) for number in range(50)]
    answer = driver.plan(*many)
    assert answer.in_sync
    assert answer.seconds < 0.5


def _main_pid(driver: Driver, name: str) -> str:
    return driver.host.run(["systemctl", "show", "-p", "MainPID", name]).stdout


@pytest.mark.parametrize("suite", ["bullseye", "trixie"])
def test_the_oldest_and_the_newest_systemd_are_managed_the_same_way(
    suite: str, request: pytest.FixtureRequest
) -> None:
    """systemd 247 and 257."""
    driver = _with_units(request.getfixturevalue(f"{suite}_host"))
    wishes = [
        service("steady", state="started", enabled=True),
        service("once", state="started", enabled=True),
        service("knock", enabled=True),
        service("copies@one", state="started", enabled=True),
        service("static", state="stopped", masked=True),
    ]
    assert driver.apply(*wishes).clean
    assert driver.plan(*wishes).in_sync
    crash, brief = driver.apply(
        service("crash", state="started"), service("brief", state="started")
    ).outcomes
    assert crash is not None
    assert "out of cheese" in crash
    assert brief is not None
    assert "did not stay up" in brief


def test_a_unit_file_takes_the_place_of_a_mask(host: BootedHost) -> None:
    path = "/etc/systemd/system/guard.service"
    host.run(["ln", "-s", "/dev/null", path])
    host.run(["systemctl", "daemon-reload"])
    unit = f"[Service]\nExecStart=/bin/sleep infinity\n{INSTALL}"
    Declared(host).converge(
        {"copy": {"dest": path, "content": unit}},
        {"service": {"name": "guard", "state": "started", "enabled": True}},
    )
    assert host.testinfra().service("guard").is_running
