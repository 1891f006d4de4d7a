"""The text of the units: what each version of systemd is told."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from reconciler.agent import install
from reconciler.agent.places import UNIT
from reconciler.agent.status import BOTH
from reconciler.agent.units import units
from reconciler.errors import Held, LockBusy, ResourceError, SourceError


def service(systemd: int, *, timer: bool = False) -> list[str]:
    """The lines of the agent's unit."""
    made = units(timer=timer, interval=60, memory=1 << 30, systemd=systemd)
    return made[UNIT].splitlines()


@pytest.mark.parametrize("systemd", [0, 247, 252])
def test_an_older_systemd_is_told_how_to_reload(systemd: int) -> None:
    lines = service(systemd)
    assert "Type=notify" in lines
    assert "ExecReload=/bin/kill -HUP $MAINPID" in lines


@pytest.mark.parametrize("systemd", [253, 257])
def test_a_newer_one_waits_until_the_settings_hold(systemd: int) -> None:
    lines = service(systemd)
    assert "Type=notify-reload" in lines
    assert not any(line.startswith("ExecReload") for line in lines)


@pytest.mark.parametrize("systemd", [252, 257])
def test_all_else_is_the_same_and_so_is_all_of_a_timer(systemd: int) -> None:
    def rest(lines: list[str]) -> list[str]:
        return [line for line in lines if not line.startswith(("Type=notify", "ExecReload"))]

    assert rest(service(systemd)) == rest(service(0))
    assert service(systemd, timer=True) == service(0, timer=True)
    assert not any("{" in line for line in service(systemd))


@pytest.mark.parametrize(
    "said, version",
    [("systemd 252 (252.39-1~deb12u1)\n+PAM\n", 252), ("systemd 257.5\n", 257), ("what?", 0)],
)
def test_the_version_is_what_systemctl_says(
    monkeypatch: pytest.MonkeyPatch, said: str, version: int
) -> None:
    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 0, said, "")

    monkeypatch.setattr(install.subprocess, "run", run)
    assert install.systemd_version() == version


def test_what_the_next_run_tries_again_is_no_failed_unit() -> None:
    (codes,) = [one for one in service(0, timer=True) if one.startswith("SuccessExitStatus=")]
    passing = (
        ResourceError.exit_code,
        SourceError.exit_code,
        BOTH,
        Held.exit_code,
        LockBusy.exit_code,
    )
    assert codes == f"SuccessExitStatus={' '.join(map(str, sorted(passing)))}"
