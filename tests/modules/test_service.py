"""Services without a host: what is read from recordings, and what systemctl would be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import NotYet, ResourceError, SchemaError, Unsupported
from reconciler.modules import _systemd
from reconciler.modules._systemd import parse_show, unit_name
from reconciler.modules.service import Service
from reconciler.modules.systemd import Systemd
from reconciler.resource import Diff, Refresh, State
from reconciler.testing.fake import FakeHost

RECORDED = Path(__file__).parent / "service"
RUNNING = {
    "Id": "web.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "Type": "notify",
    "NRestarts": "0",
}
STOPPED = {**RUNNING, "ActiveState": "inactive", "SubState": "dead"}


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_systemd, "SETTLE", {})
    monkeypatch.setattr(_systemd, "SETTLE_READY", 0.0)
    monkeypatch.setattr(_systemd, "PAUSE", 0.0)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path)
    host.put("/usr/bin/systemctl")
    host.put("/run/systemd/system/.keep")
    host.answers("systemctl")
    host.answers("journalctl", out="what it said\n")
    shows(host)
    return host


def shows(host: FakeHost, **properties: str) -> None:
    """The unit as it is from now on."""
    seen = {**RUNNING, **properties}
    host.answers(
        "systemctl", "show", out="".join(f"{key}={value}\n" for key, value in seen.items())
    )


def differs(host: FakeHost, **params: Any) -> Diff:
    host.forget()
    service = Service("web", **params)
    return Diff(service.actual(host), service.desired())


def acts(host: FakeHost) -> list[str]:
    return [" ".join(argv) for argv in host.ran if argv[1] != "show" and argv[0] == "systemctl"]


def test_one_call_tells_about_all_units(host: FakeHost) -> None:
    host.answers("systemctl", "show", out=(RECORDED / "show.txt").read_text())
    names = ["sshd", "nowhere", "systemd-journald", "apt-daily.timer"]
    services = [Service(name, state="stopped") for name in sorted(names)]
    Service.actual_many(services, host)
    assert len(host.ran) == 1
    for one in services:
        one.actual(host)
    assert len(host.ran) == 1


def test_a_recorded_alias_has_the_state_of_its_unit() -> None:
    first, missing, _, timer = parse_show((RECORDED / "show.txt").read_text())
    assert (first["Id"], first["UnitFileState"]) == ("ssh.service", "enabled")
    assert missing["LoadState"] == "not-found"
    assert timer["Id"] == "apt-daily.timer"


@pytest.mark.parametrize(
    "name, unit",
    [
        ("nginx", "nginx.service"),
        ("nginx.service", "nginx.service"),
        ("fstrim.timer", "fstrim.timer"),
        ("php8.2-fpm", "php8.2-fpm.service"),
        ("getty@tty1", "getty@tty1.service"),
        ("mnt-my\\x20disk.mount", "mnt-my\\x20disk.mount"),
    ],
)
def test_a_unit_without_a_type_is_a_service(name: str, unit: str) -> None:
    assert unit_name(name) == unit
    assert Service(name).claims() == {f"unit:{unit}"}


@pytest.mark.parametrize(
    "name",
    ["../../x", "a/b", "a b", "-H evil", "", "x*", "a\nb", "a@b@c", "x" * 260, "a@../b", "$(id)"],
)
def test_a_name_that_no_unit_can_have_is_refused(host: FakeHost, name: str) -> None:
    with pytest.raises(ResourceError, match="cannot be the name"):
        Service(name, state="started").actual(host)
    assert host.ran == []


def test_a_service_waits_for_its_files_and_its_package() -> None:
    needs = Service("web@1").needs()
    assert {
        "path:/etc/systemd/system/web@1.service",
        "path:/etc/systemd/system/web@.service.d/**",
    } <= needs
    assert {
        "package:web",
        "path:/etc/default/web",
        "path:/usr/lib/systemd/system/web@.service",
    } <= needs
    assert "path:/etc/systemd/system/job.service" in Service("job.timer").needs()


@pytest.mark.parametrize(
    "seen, wish, changed",
    [
        ({}, {"state": "started", "enabled": True}, set()),
        (STOPPED, {"state": "started"}, {"running"}),
        (STOPPED, {"state": "stopped"}, set()),
        ({"ActiveState": "failed"}, {"state": "started"}, {"running"}),
        ({"ActiveState": "failed"}, {"state": "stopped"}, set()),
        ({"ActiveState": "activating", "SubState": "start"}, {"state": "started"}, set()),
        (
            {"ActiveState": "activating", "SubState": "auto-restart"},
            {"state": "started"},
            {"running"},
        ),
        (
            {"ActiveState": "activating", "SubState": "auto-restart"},
            {"state": "stopped"},
            {"running"},
        ),
        ({"ActiveState": "deactivating"}, {"state": "started"}, {"running"}),
        ({"UnitFileState": "enabled-runtime"}, {"enabled": True}, {"enabled"}),
        ({"UnitFileState": "linked"}, {"enabled": True}, {"enabled"}),
        ({"UnitFileState": "disabled"}, {"enabled": True}, {"enabled"}),
        ({"UnitFileState": "static"}, {"enabled": True}, set()),
        ({"UnitFileState": "static"}, {"enabled": False}, set()),
        ({"UnitFileState": "generated"}, {"enabled": False}, set()),
        ({"UnitFileState": "masked", "LoadState": "masked"}, {"masked": True}, set()),
        ({"UnitFileState": "masked-runtime", "LoadState": "masked"}, {"masked": True}, {"masked"}),
        ({"UnitFileState": "masked", "LoadState": "masked"}, {"enabled": False}, set()),
    ],
)
def test_what_systemd_says_and_what_is_wished(
    host: FakeHost, seen: dict[str, str], wish: dict[str, Any], changed: set[str]
) -> None:
    shows(host, **seen)
    assert differs(host, **wish).changed == changed


def test_what_contradicts_itself_is_refused_at_once() -> None:
    with pytest.raises(SchemaError, match="both masked and enabled"):
        Service("web", enabled=True, masked=True)
    with pytest.raises(SchemaError, match="both masked and started"):
        Service("web", state="started", masked=True)
    with pytest.raises(SchemaError, match="scope 'global'"):
        Service("web", state="started", scope="global")


def test_a_transient_unit_cannot_be_enabled(host: FakeHost) -> None:
    shows(host, UnitFileState="transient")
    with pytest.raises(Unsupported, match="its unit file is transient"):
        differs(host, enabled=True)


def test_changed_unit_files_are_read_before_the_start(host: FakeHost) -> None:
    shows(host, **STOPPED, NeedDaemonReload="yes")
    with pytest.raises(ResourceError, match="what it said"):
        Service("web").apply(host, Diff({"running": False}, {"running": True}))
    assert acts(host)[0] == "systemctl --no-ask-password daemon-reload"
    assert acts(host)[-1] == "systemctl --no-ask-password start -- web.service"


def test_a_service_is_enabled_before_it_is_started_and_stopped_before_it_is_masked(
    host: FakeHost,
) -> None:
    wish: State = {"enabled": True, "running": True}
    Service("web").apply(host, Diff({"enabled": False, "running": False}, wish))
    assert [act.split()[2] for act in acts(host)] == ["enable", "start"]
    host.ran.clear()
    Service("web").apply(
        host, Diff({"masked": False, "running": True}, {"masked": True, "running": False})
    )
    assert [act.split()[2] for act in acts(host)] == ["stop", "mask"]


def test_a_failed_unit_is_reset_before_it_is_started(host: FakeHost) -> None:
    service = Service("web", state="restarted")
    shows(host, ActiveState="failed")
    with pytest.raises(ResourceError, match="did not stay up: failed"):
        service.on_notify(host)
    assert [act.split()[2] for act in acts(host)] == ["reset-failed", "restart"]


def test_no_block_does_not_wait(host: FakeHost) -> None:
    Service("web", no_block=True).apply(host, Diff({"running": False}, {"running": True}))
    assert acts(host) == ["systemctl --no-ask-password --no-block start -- web.service"]


def test_of_several_notifications_the_restart_is_the_strongest() -> None:
    restart = Service("web", state="restarted").refresh()
    reload_ = Service("web.service", state="reloaded").refresh()
    assert restart == Refresh("unit:web.service", 2)
    assert reload_ == Refresh("unit:web.service", 1)
    assert Service("web", enabled=True).refresh() is None


def test_a_service_that_was_just_started_needs_no_restart() -> None:
    service = Service("web", state="started")
    assert service.absorbs(Diff({"running": False}, {"running": True}))
    assert not service.absorbs(
        Diff({"running": True, "enabled": False}, {"running": True, "enabled": True})
    )
    assert not service.absorbs(Diff({"running": True}, {"running": False}))


def test_what_a_package_of_this_run_may_bring_is_waited_for(host: FakeHost) -> None:
    shows(host, LoadState="not-found", ActiveState="inactive", UnitFileState="")
    assert not differs(host, state="stopped")
    host.memo("package", "coming", set).add("web")
    with pytest.raises(NotYet, match=r"web\.service does not exist"):
        Service("web", state="stopped").actual(host)


def test_without_a_name_it_is_systemd_that_reads_its_files(host: FakeHost) -> None:
    systemd = Systemd(daemon_reload=True)
    assert not Diff(systemd.actual(host), systemd.desired())
    host.forget()
    shows(host, NeedDaemonReload="yes")
    diff = Diff(systemd.actual(host), systemd.desired())
    systemd.apply(host, diff)
    assert acts(host) == ["systemctl --no-ask-password daemon-reload"]
    assert diff.changed == {"unit_files"}


def test_where_systemd_does_not_run_nothing_can_be_started(host: FakeHost) -> None:
    (host.directory / "run/systemd/system/.keep").unlink()
    (host.directory / "run/systemd/system").rmdir()
    with pytest.raises(Unsupported, match="no systemd runs here"):
        differs(host, state="started")
    host.answers("systemctl", "is-enabled", out="disabled\n", code=1)
    assert differs(host, enabled=True).changed == {"enabled"}
