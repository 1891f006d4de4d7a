"""Packages without a host: what is read from recordings, and what apt-get would be told."""

from __future__ import annotations

import os
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import NotYet, ResourceError, Unsupported
from reconciler.modules import _aptget
from reconciler.modules._aptlook import parse_policy, subject
from reconciler.modules._dpkg import Database, compare
from reconciler.modules.package import Package
from reconciler.resource import Diff
from reconciler.testing.fake import FakeHost

RECORDED = Path(__file__).parent / "package"
STATUS = (RECORDED / "status").read_text()


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.put("/var/lib/dpkg/status", STATUS)
    host.put("/usr/bin/apt-get")
    host.put("/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n")
    host.put("/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_InRelease")
    host.answers("dpkg")
    host.answers("apt-cache", out=(RECORDED / "policy.txt").read_text())
    host.answers("apt-get")
    return host


def differs(host: FakeHost, name: str, **params: Any) -> Diff:
    package = Package(name, **params)
    return Diff(package.actual(host), package.desired())


# -- what dpkg knows ---------------------------------------------------------------------

versions = st.builds(
    lambda epoch, upstream, revision: epoch + upstream + revision,
    st.sampled_from(["", "0:", "1:", "10:"]),
    st.from_regex(r"[0-9][0-9a-zA-Z.+~]{0,6}", fullmatch=True),
    st.one_of(st.just(""), st.from_regex(r"-[0-9a-zA-Z.+~]{1,4}", fullmatch=True)),
)


@settings(max_examples=150, deadline=None)
@given(versions, versions)
def test_versions_have_the_order_that_dpkg_gives_them(one: str, other: str) -> None:
    def says(relation: str) -> bool:
        command = ["dpkg", "--compare-versions", one, relation, other]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    order = compare(one, other)
    assert says("lt" if order < 0 else "gt" if order > 0 else "eq")


def test_a_tilde_comes_before_the_end_and_an_epoch_before_all() -> None:
    ordered = [
        "1.0~~",
        "1.0~rc1",
        "1.0",
        "1.0-1",
        "1.0-1+b1",
        "1.0a",
        "1.0+x",
        "1.0.1",
        "1.10",
        "1:0.1",
    ]
    assert all(compare(one, other) < 0 for one, other in pairwise(ordered))


def test_five_hundred_packages_are_read_in_ten_milliseconds() -> None:
    paragraph = STATUS.split("\n\n")[3]
    name = paragraph.split("\n")[0]
    text = "\n\n".join(
        paragraph.replace(name, f"{name}{number}", 1) for number in range(500)
    ).encode()
    best = min(_seconds(text) for _ in range(5))
    assert best < 0.010


def _seconds(text: bytes) -> float:
    started = time.process_time()
    records = Database(text)
    assert all(records.get(f"libc6{number}") for number in range(0, 500, 17))
    return time.process_time() - started


def test_each_architecture_is_a_package_of_its_own(host: FakeHost) -> None:
    assert not differs(host, "libc6")
    assert not differs(host, "libc6:i386")
    assert differs(host, "libc6:armhf")


def test_states_between_there_and_not_there_are_told_apart(host: FakeHost) -> None:
    assert not differs(host, "waiting")
    assert differs(host, "halfway").before == {"installed": "half-configured", "version": "2.1.0-1"}
    assert differs(host, "torn").before == {"installed": "half-installed", "version": "2.1.0-1"}
    assert not differs(host, "removed", state="absent")
    assert differs(host, "removed", state="absent", purge=True).before == {
        "installed": False,
        "configuration": "left behind",
    }
    assert Database(STATUS.encode()).broken() == ["halfway", "torn"]


def test_what_an_interrupted_dpkg_had_not_merged_counts(host: FakeHost) -> None:
    tree = next(one for one in STATUS.split("\n\n") if one.startswith("Package: tree\n"))
    host.put(
        "/var/lib/dpkg/updates/0001",
        tree.replace("install ok installed", "install ok unpacked") + "\n",
    )
    assert differs(host, "tree").before == {"installed": "unpacked", "version": "2.1.0-1"}


def test_a_virtual_package_is_there_through_its_provider(host: FakeHost) -> None:
    assert not differs(host, "awk")
    assert differs(host, "mail-transport-agent")


# -- names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "-o APT::x=1",
        "--purge",
        "foo=1;id",
        "../x.deb",
        "x.deb",
        "a b",
        "foo\n",
        "foo=",
        "foo/",
        "$(id)",
        "",
        "foo=1=2",
    ],
)
def test_a_name_that_could_be_something_else_is_refused(host: FakeHost, name: str) -> None:
    with pytest.raises(ResourceError, match="cannot be the name"):
        Package(name).actual(host)
    assert host.ran == []


def test_a_package_file_must_be_there(host: FakeHost) -> None:
    with pytest.raises(NotYet, match=r"/srv/x\.deb does not exist"):
        Package("x", deb="/srv/x.deb").actual(host)


@pytest.mark.parametrize(
    "name, about",
    [
        ("nginx=1.2*", "nginx"),
        ("nginx>=1.2", "nginx"),
        ("nginx/backports", "nginx"),
        ("libc6:i386=2", "libc6:i386"),
        ("/srv/x.deb", "/srv/x.deb"),
    ],
)
def test_wishes_about_one_package_have_one_claim(name: str, about: str) -> None:
    assert subject(name) == about
    assert Package(name).claims() == {f"package:{about}"}


# -- wishes ------------------------------------------------------------------------------


def test_a_version_is_compared_as_a_pattern_or_by_order(host: FakeHost) -> None:
    assert not differs(host, "tree=2.1*")
    assert not differs(host, "tree=2.1.0-1")
    assert not differs(host, "tree>=2.0")
    assert differs(host, "tree>=3").changes == (("version", "2.1.0-1", ">= 3"),)


def test_what_apt_knows_is_read_with_its_sources() -> None:
    nginx = parse_policy((RECORDED / "policy.txt").read_text())["nginx"]
    assert nginx.candidate.startswith("1.22.1-9+deb12u")
    assert len(nginx.versions) == 2
    assert all(sources for sources in nginx.versions.values())


def test_latest_asks_apt_once_for_all(host: FakeHost) -> None:
    packages = [Package("bash", state="latest"), Package("nginx", state="latest")]
    Package.actual_many(packages, host)
    assert [bool(Diff(one.actual(host), one.desired())) for one in packages] == [False, True]
    assert [argv[0] for argv in host.ran] == ["apt-cache"]


def test_looking_at_installed_packages_runs_nothing(host: FakeHost) -> None:
    packages = [Package("bash"), Package("tree"), Package("removed", state="absent")]
    Package.actual_many(packages, host)
    assert not any(Diff(one.actual(host), one.desired()) for one in packages)
    assert host.ran == []


def test_essential_and_held_packages_fail_in_the_plan(host: FakeHost) -> None:
    with pytest.raises(Unsupported, match="bash is essential"):
        Package("bash", state="absent").actual(host)
    with pytest.raises(ResourceError, match=r"held is on hold at 2\.1\.0-1"):
        Package("held", state="absent").actual(host)


def test_a_hold_is_read_from_what_is_read_already(host: FakeHost) -> None:
    assert differs(host, "tree", hold=True).changes == (("hold", False, True),)
    assert differs(host, "held", hold=False).changes == (("hold", True, False),)
    for name, hold in (("held", True), ("tree", False), ("held", None), ("tree", None)):
        assert not differs(host, name, hold=hold)
    assert host.ran == []


def test_a_hold_that_is_declared_refuses_no_change_of_its_own_package(host: FakeHost) -> None:
    assert differs(host, "held=9", hold=True).changed == {"version"}
    assert differs(host, "held=9", hold=False).changed == {"version", "hold"}
    assert differs(host, "held", state="absent", hold=False)


@pytest.mark.parametrize(
    "name, params",
    [
        ("bash", {"state": "absent", "hold": True}),
        ("*", {"state": "latest", "hold": True}),
        ("bash", {"state": "build-dep", "hold": False}),
        ("awk", {"hold": True}),
    ],
)
def test_what_cannot_be_on_hold_says_so_in_the_plan(
    host: FakeHost, name: str, params: dict[str, Any]
) -> None:
    with pytest.raises(Unsupported, match=r"hold") as raised:
        Package(name, **params).actual(host)
    assert raised.value.hint


def test_another_package_manager_is_named(host: FakeHost) -> None:
    with pytest.raises(Unsupported) as raised:
        Package("bash", use="dnf").actual(host)
    assert raised.value.hint == "this host has apt; supported: apt"


# -- acts --------------------------------------------------------------------------------


def test_everything_goes_in_one_transaction_behind_a_double_dash(host: FakeHost) -> None:
    work = [
        Package("nginx"),
        Package("jq=1.6*"),
        Package("curl/bookworm"),
        Package("tree", state="absent"),
        Package("libc6:armhf"),
    ]
    Package.apply_many(host, [(one, Diff(None, one.desired())) for one in work])
    acts = [
        argv for argv in host.ran if argv[0] == "apt-get" and "-s" not in argv and "install" in argv
    ]
    words = acts[0][acts[0].index("--") + 1 :]
    assert words == ("nginx", "jq=1.6*", "curl/bookworm", "tree-", "libc6:armhf")
    assert "DPkg::Options::=--force-confold" in acts[0]
    assert "DPkg::Options::=--force-confdef" in acts[0]
    assert any(word.startswith("DPkg::Lock::Timeout=") for word in acts[0])


def test_holds_alone_are_one_call_of_dpkg_and_none_of_apt(host: FakeHost) -> None:
    broken = ("Package: halfway\n", "Package: torn\n")
    whole = [one for one in STATUS.split("\n\n") if not one.startswith(broken)]
    host.put("/var/lib/dpkg/status", "\n\n".join(whole))
    work = [Package("tree", hold=True), Package("held", hold=False), Package("bash", hold=False)]
    Package.apply_many(host, [(one, Diff(one.actual(host), one.desired())) for one in work])
    assert host.ran == [("dpkg", "--set-selections")]


def test_an_interrupted_dpkg_is_finished_before_anything_else(host: FakeHost) -> None:
    package = Package("nginx")
    Package.apply_many(host, [(package, Diff(None, package.desired()))])
    assert host.ran[0] == ("dpkg", "--force-confdef", "--force-confold", "--configure", "-a")
    assert host.warnings == ["dpkg had been interrupted and was made to finish: halfway, torn"]


def test_lists_older_than_their_source_are_refreshed_before_an_install(host: FakeHost) -> None:
    assert not _aptget.lists_outdated(host, None)
    lists = host.directory / "var/lib/apt/lists"
    os.utime(lists, (1, 1))
    assert _aptget.lists_outdated(host, None)


def test_a_policy_that_a_killed_run_left_is_taken_away(host: FakeHost) -> None:
    host.put("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 42\n", 0o755)
    with _aptget.service_policy(host, 101):
        assert "exit 101" in host.read("/usr/sbin/policy-rc.d").decode()
        # What a run sees that comes after one that was killed here.
        with _aptget.service_policy(host, None):
            assert host.read("/usr/sbin/policy-rc.d") == b"#!/bin/sh\nexit 42\n"
    assert host.read("/usr/sbin/policy-rc.d") == b"#!/bin/sh\nexit 42\n"
    assert host.listdir("/usr/sbin") == ["policy-rc.d"]


def test_a_plan_cannot_act(host: FakeHost) -> None:
    host.readonly = True
    package = Package("nginx")
    assert differs(host, "nginx")
    with pytest.raises(Exception, match="a plan must not change anything"):
        package.apply(host, Diff(None, package.desired()))
