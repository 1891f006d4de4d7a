"""Packages on a booted host, from a repository of our own, checked by dpkg and testinfra."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.debs import REPOSITORY, build, publish
from hosts.driver import Driver


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("debs")
    for version in ("1.0-1", "1.2~rc1-1", "1.2-1"):
        build(directory, "plain", version)
    build(directory, "configured", conffiles={"/etc/configured.conf": "theirs\n"})
    build(directory, "configured", "2.0", conffiles={"/etc/configured.conf": "theirs, newer\n"})
    build(directory, "breaks", scripts={"postinst": "echo it is broken >&2; exit 3"})
    build(directory, "lib")
    build(directory, "app", Depends="lib")
    build(directory, "mail-one", Provides="mail-agent", Conflicts="mail-agent")
    build(directory, "mail-two", Provides="mail-agent", Conflicts="mail-agent")
    build(directory, "vital", Essential="yes")
    build(directory, "needy", Depends="nowhere-to-be-found")
    build(directory, "tool-a")
    build(directory, "tool-b")
    build(
        directory,
        "killed",
        scripts={"postrm": "if [ -e /tmp/die ]; then kill -9 $PPID; sleep 1; fi"},
    )
    build(
        directory,
        "asks",
        scripts={"config": "exit 0", "postinst": 'read answer || true; test -z "$answer"'},
    )
    return directory


@pytest.fixture(scope="module")
def driver(host: BootedHost, debs: Path) -> Driver:
    publish(host, debs)
    return Driver(host)


@pytest.fixture(autouse=True)
def _no_packages_of_ours(driver: Driver) -> Iterator[None]:
    yield
    for name in (
        "plain",
        "configured",
        "breaks",
        "app",
        "lib",
        "mail-one",
        "mail-two",
        "vital",
        "tool-a",
        "tool-b",
        "killed",
        "asks",
        "slow",
    ):
        driver.host.run(
            [
                "sh",
                "-c",
                f"echo {name} install | dpkg --set-selections; dpkg --force-all --purge {name}",
            ],
            check=False,
        )


def package(name: str, **params: Any) -> tuple[str, dict[str, Any]]:
    return ("package", {"name": name, **params})


def version(driver: Driver, name: str) -> str:
    return driver.host.run(["dpkg-query", "-W", "-f", "${Version}", name]).stdout


def status(driver: Driver, name: str) -> str:
    return driver.host.run(["dpkg-query", "-W", "-f", "${Status}", name], check=False).stdout


def holds(driver: Driver) -> set[str]:
    return set(driver.host.run(["apt-mark", "showhold"]).stdout.split())


def test_a_package_comes_goes_and_is_left_alone_when_it_is_there(driver: Driver) -> None:
    first = driver.apply(package("plain"), package("app"))
    assert first.clean
    assert first.plan[0]["changes"] == [["installed", None, True]]
    assert driver.host.testinfra().package("plain").is_installed
    assert driver.host.testinfra().package("lib").is_installed
    assert driver.plan(package("plain"), package("app")).in_sync
    assert driver.apply(package("plain", state="absent")).clean
    assert not driver.host.testinfra().package("plain").is_installed
    assert driver.plan(package("plain", state="absent")).in_sync


def test_a_newer_version_is_named_before_it_is_installed(driver: Driver) -> None:
    assert driver.apply(package("plain=1.0*")).clean
    latest = driver.apply(package("plain", state="latest"))
    assert latest.plan[0]["changes"] == [["version", "1.0-1 (1.2-1 is available)", "latest"]]
    assert version(driver, "plain") == "1.2-1"
    assert driver.plan(package("plain", state="latest")).in_sync


def test_a_version_goes_down_only_when_that_is_allowed(driver: Driver) -> None:
    assert driver.apply(package("plain")).clean
    refused = driver.apply(package("plain=1.0*"))
    assert "1.0* is older" in refused.plan[0]["message"]
    assert "allow_downgrade" in refused.plan[0]["hint"]
    assert driver.apply(package("plain=1.0*", allow_downgrade=True)).clean
    assert version(driver, "plain") == "1.0-1"


def test_a_release_candidate_comes_before_its_release(driver: Driver) -> None:
    assert driver.apply(package("plain=1.2~rc1-1")).clean
    assert driver.apply(package("plain>=1.2")).clean
    assert version(driver, "plain") == "1.2-1"


def test_one_bad_name_keeps_no_other_package_away(driver: Driver) -> None:
    answer = driver.apply(
        package("plain"), package("plian"), package("lib=99"), package("needy"), package("app>=7")
    )
    good, unknown, no_version, no_dependency, too_old = answer.said
    assert good == ""
    assert "no package 'plian'" in unknown
    assert "plain" in unknown
    assert "lib has no 99" in no_version
    assert "there is: 1.0" in no_version
    assert "nowhere-to-be-found" in no_dependency
    assert "newest app is 1.0" in too_old
    assert driver.host.testinfra().package("plain").is_installed


def test_a_package_whose_script_fails_keeps_no_other_package_away(driver: Driver) -> None:
    answer = driver.apply(package("breaks"), package("plain"), package("tool-a"))
    assert "exit status 3" in answer.said[0]
    assert answer.outcomes[1:] == [None, None]
    assert driver.host.testinfra().package("tool-a").is_installed
    assert answer.left[0]["changes"] == [["installed", "half-configured", True]]


def test_an_interrupted_dpkg_is_made_to_finish(driver: Driver) -> None:
    unpack = ["dpkg", "--unpack", f"{REPOSITORY}/tool-b_1.0_all.deb"]
    driver.host.run(unpack)
    answer = driver.apply(package("plain"))
    assert answer.clean
    assert any("tool-b" in warning for warning in answer.warnings)
    assert status(driver, "tool-b") == "install ok installed"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_removal_that_was_killed_half_way_is_taken_to_either_end(
    driver: Driver, state: str
) -> None:
    assert driver.apply(package("killed")).clean
    driver.host.run(["touch", "/tmp/die"])
    driver.host.run(["dpkg", "--remove", "killed"], check=False)
    driver.host.run(["rm", "/tmp/die"])
    assert status(driver, "killed") == "deinstall ok half-installed"
    answer = driver.apply(package("killed", state=state), package("plain"))
    assert answer.clean, answer.said
    assert driver.host.testinfra().package("killed").is_installed == (state == "present")


def test_purge_takes_the_configuration_that_remove_leaves(driver: Driver) -> None:
    assert driver.apply(package("configured")).clean
    assert driver.apply(package("configured", state="absent")).clean
    assert driver.host.testinfra().file("/etc/configured.conf").exists
    purged = driver.apply(package("configured", state="absent", purge=True))
    assert purged.plan[0]["changes"] == [
        ["installed", False, None],
        ["configuration", "left behind", None],
    ]
    assert purged.clean
    assert not driver.host.testinfra().file("/etc/configured.conf").exists
    assert driver.plan(package("configured", state="absent", purge=True)).in_sync


def test_purge_of_an_installed_package_is_one_step(driver: Driver) -> None:
    assert driver.apply(package("configured")).clean
    assert driver.apply(package("configured", state="absent", purge=True)).clean
    assert status(driver, "configured") in ("", "unknown ok not-installed")


def test_a_configuration_file_that_the_host_changed_stays(driver: Driver) -> None:
    assert driver.apply(package("configured=1.0")).clean
    driver.host.run(["tee", "/etc/configured.conf"], input="ours\n")
    assert driver.apply(package("configured", state="latest")).clean
    assert driver.host.run(["cat", "/etc/configured.conf"]).stdout == "ours\n"


def test_a_package_on_hold_is_not_moved(driver: Driver) -> None:
    assert driver.apply(package("plain=1.0*")).clean
    driver.host.run(["apt-mark", "hold", "plain"])
    for wish in (
        package("plain", state="latest"),
        package("plain=1.2-1"),
        package("plain", state="absent"),
    ):
        refused = driver.plan(wish).plan[0]
        assert "plain is on hold at 1.0-1" in refused["message"]
        assert "hold: true" in refused["hint"]
    assert driver.plan(package("plain")).in_sync
    assert driver.apply(package("plain", state="latest", allow_change_held_packages=True)).clean


def test_a_hold_comes_and_goes_and_is_left_alone_where_none_is_declared(driver: Driver) -> None:
    held = [package("plain=1.0*", hold=True), package("tool-a", hold=True)]
    first = driver.apply(*held)
    assert first.clean
    assert ["hold", None, True] in first.plan[0]["changes"]
    assert holds(driver) == {"plain", "tool-a"}
    assert driver.plan(*held, package("tool-a"), package("plain", hold=True)).in_sync
    driver.host.run(["apt-mark", "unhold", "plain"])
    again = driver.apply(held[0], package("tool-b", hold=False), package("tool-a", hold=False))
    assert again.clean
    assert again.plan[0]["changes"] == [["hold", False, True]]
    assert again.plan[2]["changes"] == [["hold", True, False]]
    assert holds(driver) == {"plain"}
    assert driver.apply(package("plain"), package("tool-a")).in_sync
    assert holds(driver) == {"plain"}


def test_a_declared_hold_gives_way_to_a_new_wish_and_is_put_back(driver: Driver) -> None:
    """In one batch with an upgrade of everything, which must not find it free."""
    everything = package("*", state="latest")
    assert driver.apply(package("plain=1.0*", hold=True), package("configured=1.0")).clean
    answer = driver.apply(everything, package("plain=1.2~rc1*", hold=True))
    assert answer.clean
    assert answer.plan[1]["changes"] == [["version", "1.0-1", "1.2~rc1*"]]
    assert version(driver, "plain") == "1.2~rc1-1"
    assert version(driver, "configured") == "2.0"
    assert holds(driver) == {"plain"}
    assert driver.apply(package("plain", state="latest", hold=True)).clean
    assert version(driver, "plain") == "1.2-1"
    assert holds(driver) == {"plain"}


def test_a_package_that_somebody_holds_is_freed_before_it_changes_or_goes(driver: Driver) -> None:
    assert driver.apply(package("plain=1.0*", hold=True), package("lib", hold=True)).clean
    wishes = [package("plain=1.2-1", hold=False), package("lib", state="absent", hold=False)]
    assert driver.apply(*wishes).clean
    assert version(driver, "plain") == "1.2-1"
    assert holds(driver) == set()
    assert driver.plan(*wishes).in_sync


def test_a_hold_is_put_back_where_the_change_fails(driver: Driver) -> None:
    assert driver.apply(package("plain", hold=True)).clean
    answer = driver.apply(package("plain=99", hold=True), package("tool-a", hold=True))
    assert "plain has no 99" in answer.said[0]
    assert holds(driver) == {"plain", "tool-a"}


def test_what_could_not_be_configured_is_not_put_on_hold(driver: Driver) -> None:
    """dpkg would pass over it for ever."""
    answer = driver.apply(package("breaks", hold=True))
    assert "exit status 3" in answer.said[0]
    assert holds(driver) == set()


@pytest.mark.parametrize("hold", [True, False, None])
def test_what_was_put_on_hold_half_done_is_finished(driver: Driver, hold: bool | None) -> None:
    driver.host.run(["dpkg", "--unpack", f"{REPOSITORY}/tool-b_1.0_all.deb"])
    driver.host.run(["apt-mark", "hold", "tool-b"])
    assert driver.apply(package("tool-b", hold=hold)).clean
    assert holds(driver) == (set() if hold is False else {"tool-b"})
    assert status(driver, "tool-b").endswith(" ok installed")


def test_a_pattern_holds_all_that_match(driver: Driver) -> None:
    assert driver.apply(package("tool-*", hold=True)).clean
    assert holds(driver) == {"tool-a", "tool-b"}
    driver.host.run(["apt-mark", "unhold", "tool-b"])
    answer = driver.apply(package("tool-*", hold=True))
    assert answer.plan[0]["changes"] == [["hold", "1 of 2 as wished", True]]
    assert answer.clean
    assert holds(driver) == {"tool-a", "tool-b"}


def test_a_virtual_package_is_there_when_one_provides_it(driver: Driver) -> None:
    assert driver.apply(package("mail-one")).clean
    assert driver.plan(package("mail-agent")).in_sync


def test_one_package_takes_the_place_of_another_in_one_transaction(driver: Driver) -> None:
    assert driver.apply(package("mail-one")).clean
    absent = package("mail-one", state="absent")
    answer = driver.apply(package("mail-two"), absent)
    assert answer.clean
    assert answer.warnings == []
    other_options = package("mail-one", install_recommends=False)
    answer = driver.apply(other_options, package("mail-two", state="absent"))
    assert answer.clean
    assert answer.warnings == []


def test_what_is_removed_along_is_said(driver: Driver) -> None:
    assert driver.apply(package("app")).clean
    answer = driver.apply(package("lib", state="absent"))
    assert answer.clean
    assert answer.warnings == ["not declared absent, but removed along: app"]


def test_nothing_is_removed_along_when_that_is_a_failure(driver: Driver) -> None:
    assert driver.apply(package("app")).clean
    answer = driver.apply(package("lib", state="absent", fail_on_autoremove=True))
    assert "would remove app" in answer.said[0]
    assert driver.host.testinfra().package("app").is_installed


def test_what_is_declared_to_be_there_is_not_removed_along(driver: Driver) -> None:
    assert driver.apply(package("app")).clean
    answer = driver.apply(package("app"), package("lib", state="absent"))
    assert "app, which is declared to be installed" in answer.said[0]
    assert driver.host.testinfra().package("app").is_installed


def test_an_essential_package_is_never_removed(driver: Driver) -> None:
    assert driver.apply(package("vital")).clean
    assert "vital is essential" in driver.plan(package("vital", state="absent")).plan[0]["message"]


def test_a_shell_pattern_stands_for_all_that_match(driver: Driver) -> None:
    answer = driver.apply(package("tool-*"))
    assert answer.clean
    assert driver.host.testinfra().package("tool-b").is_installed
    assert driver.apply(package("tool-?", state="absent")).clean
    assert not driver.host.testinfra().package("tool-a").is_installed


def test_a_package_file_is_installed_if_only_root_can_have_written_it(driver: Driver) -> None:
    path = f"{REPOSITORY}/plain_1.0-1_all.deb"
    assert driver.apply(package("plain", deb=path)).clean
    assert driver.plan(package(path)).in_sync
    driver.host.run(["cp", path, "/tmp/planted.deb"])
    refused = driver.plan(package("plain", deb="/tmp/planted.deb"))
    driver.host.run(["chmod", "666", "/tmp/planted.deb"])
    refused = driver.plan(package("plain", deb="/tmp/planted.deb"))
    assert refused.plan[0]["error"] == "UnsafePath"


def test_a_host_without_package_lists_gets_them(driver: Driver) -> None:
    driver.host.run(["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"])
    assert driver.apply(package("plain")).clean


def test_a_name_that_the_lists_do_not_have_causes_one_refresh(driver: Driver, debs: Path) -> None:
    driver.host.run(["apt-get", "update"])
    build(debs, "newcomer")
    publish(driver.host, debs)
    # A source older than the lists is no reason to refresh them.
    driver.host.run(["touch", "-d", "2020-01-01", "/etc/apt/sources.list"])
    assert driver.apply(package("newcomer")).clean


def test_old_lists_are_refreshed_to_see_what_is_new(driver: Driver) -> None:
    wish = package("*", cache_valid_time=3600)
    driver.host.run(["apt-get", "update"])
    driver.host.run(["touch", "-d", "3 hours ago", "/var/lib/apt/lists"])
    driver.host.run(["rm", "-f", "/var/lib/apt/periodic/update-success-stamp"])
    answer = driver.apply(wish)
    assert answer.plan[0]["changes"][0][0] == "lists"
    assert answer.clean
    assert driver.plan(wish).in_sync


def test_everything_installed_follows_the_repositories(driver: Driver) -> None:
    assert driver.apply(package("plain=1.0*")).clean
    answer = driver.apply(package("*", state="latest"))
    assert answer.plan[0]["changes"] == [["upgradable", "plain", "none"]]
    assert answer.clean
    assert version(driver, "plain") == "1.2-1"


def test_what_nothing_needs_any_more_is_removed_on_wish(driver: Driver) -> None:
    assert driver.apply(package("app")).clean
    assert driver.apply(package("app", state="absent")).clean
    answer = driver.apply(package("*", autoremove=True))
    assert "lib" in answer.plan[0]["changes"][0][1]
    assert answer.clean


def test_only_upgrade_installs_nothing(driver: Driver) -> None:
    assert driver.plan(package("plain", state="latest", only_upgrade=True)).in_sync


@pytest.mark.parametrize(
    "lock",
    [
        "/var/lib/dpkg/lock-frontend",
        "/var/lib/dpkg/lock",
        "/var/cache/apt/archives/lock",
        "/var/lib/apt/lists/lock",
    ],
)
def test_a_lock_is_waited_for(driver: Driver, lock: str) -> None:
    _hold(driver, lock, 3)
    started = time.monotonic()
    assert driver.apply(package("plain", update_cache=True)).clean
    assert time.monotonic() - started > 1


def test_the_owner_of_a_lock_that_stays_is_named(driver: Driver) -> None:
    _hold(driver, "/var/lib/dpkg/lock-frontend", 20)
    answer = driver.apply(package("plain", lock_timeout=1))
    driver.host.run(["pkill", "-f", "the-lock-holder"])
    assert "/var/lib/dpkg/lock-frontend is held by process" in answer.said[0]
    assert "the-lock-holder" in answer.said[0]


def test_a_package_that_asks_gets_no_answer_and_does_not_hang(driver: Driver) -> None:
    assert driver.apply(package("asks")).clean


def test_services_are_not_started_where_the_policy_says_so(driver: Driver, debs: Path) -> None:
    script = 'test -x /usr/sbin/policy-rc.d && sh /usr/sbin/policy-rc.d; echo "$?" >/root/policy'
    build(debs, "asks-policy", scripts={"postinst": f"set +e; {script}"})
    publish(driver.host, debs)
    assert driver.apply(package("asks-policy", policy_rc_d=101)).clean
    assert driver.host.run(["cat", "/root/policy"]).stdout == "101\n"
    assert not driver.host.testinfra().file("/usr/sbin/policy-rc.d").exists


def test_a_plan_leaves_the_disk_as_it_is(driver: Driver) -> None:
    assert driver.apply(package("plain=1.0*")).clean
    driver.host.run(
        ["sh", "-c", "rm -f /var/cache/apt/*.bin; rm -rf /srv/driver/reconciler/__pycache__"]
    )
    before = driver.host.snapshot()
    driver.plan(
        package("plain", state="latest"),
        package("tool-*"),
        package("*", state="latest", autoremove=True),
        package("app"),
    )
    assert driver.host.snapshot() == before


def test_in_a_directory_root_programs_run_there(driver: Driver) -> None:
    """A bind of the host's own root is the cheapest root that has apt in it."""
    driver.host.run(["sh", "-c", "mkdir -p /mnt/root && mount --bind / /mnt/root"])
    try:
        done = driver.host.run(
            [
                "env",
                "PYTHONPATH=/srv/driver",
                "python3",
                "/srv/driver/drive.py",
                "apply",
                "/mnt/root",
            ],
            input='[["package", {"name": "plain"}]]',
        )
    finally:
        driver.host.run(["umount", "/mnt/root"])
    assert '"outcomes": [null]' in done.stdout
    assert driver.host.testinfra().package("plain").is_installed


def _hold(driver: Driver, lock: str, seconds: int) -> None:
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(float(sys.argv[2]))"
    )
    script = f'python3 -c "{code}" {lock} {seconds} the-lock-holder >/tmp/held 2>/dev/null </dev/null & until grep -q held /tmp/held; do sleep 0.1; done'
    driver.host.run(["sh", "-c", f": >/tmp/held; {script}"])


@pytest.mark.parametrize("suite", ["bullseye", "trixie"])
def test_the_oldest_and_the_newest_debian_are_managed_the_same_way(
    suite: str, request: pytest.FixtureRequest, debs: Path
) -> None:
    """Python 3.9 with apt 2.2, and Python 3.13 with apt 3."""
    host: BootedHost = request.getfixturevalue(f"{suite}_host")
    publish(host, debs)
    driver = Driver(host)
    first = package("plain=1.0*", hold=True)
    assert driver.apply(first, package("mail-one"), package("configured")).clean
    assert holds(driver) == {"plain"}
    wishes = [
        package("plain", state="latest", hold=True),
        package("mail-two"),
        package("mail-one", state="absent"),
        package("configured", state="absent", purge=True),
    ]
    assert driver.apply(*wishes).clean
    assert driver.plan(*wishes).in_sync
    assert version(driver, "plain") == "1.2-1"
    assert holds(driver) == {"plain"}
    unknown, broken, fine = driver.apply(
        package("plian"), package("breaks"), package("app")
    ).outcomes
    assert unknown is not None
    assert "no package 'plian'" in unknown
    assert broken is not None
    assert "exit status 3" in broken
    assert fine is None
