"""How each type is taken away again, for prune: by parameters that it takes itself."""

from __future__ import annotations

import pytest

from reconciler.modules.command import Command
from reconciler.modules.cron import Cron
from reconciler.modules.file import File
from reconciler.modules.group import Group
from reconciler.modules.lineinfile import Lineinfile
from reconciler.modules.package import Package
from reconciler.modules.service import Service
from reconciler.modules.user import User
from reconciler.modules.xattr import Xattr
from reconciler.resource import Resource


@pytest.mark.parametrize(
    "resource, undone",
    [
        (Package("nginx"), {"name": "nginx", "state": "absent"}),
        (Package("nginx=1.22*", state="latest"), {"name": "nginx", "state": "absent"}),
        (Package("nginx", hold=True), {"name": "nginx", "state": "absent", "hold": False}),
        (User("ada", uid=1000), {"name": "ada", "state": "absent"}),
        (Group("crew"), {"name": "crew", "state": "absent"}),
        (
            Service("nginx", state="started", enabled=True),
            {"name": "nginx", "scope": "system", "state": "stopped", "enabled": False},
        ),
        (Service("nginx", masked=True), {"name": "nginx", "scope": "system", "masked": False}),
        (
            Cron("backup", job="/bin/true", user="ada"),
            {"name": "backup", "user": "ada", "cron_file": None, "env": False, "state": "absent"},
        ),
        (
            Cron("MAILTO", job="ops", env=True, cron_file="app"),
            {"name": "MAILTO", "user": None, "cron_file": "app", "env": True, "state": "absent"},
        ),
        (
            Lineinfile("/etc/conf", line="a=1", regexp="^a="),
            {"path": "/etc/conf", "line": "a=1", "state": "absent"},
        ),
        (
            Xattr("/srv/app", "note", "x"),
            {"path": "/srv/app", "name": "note", "state": "absent"},
        ),
    ],
)
def test_what_is_there_by_us_goes_by_its_own_parameters(
    resource: Resource, undone: dict[str, object]
) -> None:
    assert resource.undone() == undone
    gone = type(resource)(**undone)
    assert gone.claims() == resource.claims() or isinstance(gone, (Package, Lineinfile))
    assert gone.undone() is None


@pytest.mark.parametrize(
    "resource",
    [
        Package("*", state="latest"),
        Package("php8.2-*"),
        Package("/srv/x.deb"),
        Package("nginx", state="absent"),
        Package("nginx", state="build-dep"),
        User("ada", state="absent"),
        Group("crew", state="absent"),
        Service("*", daemon_reload=True),
        Service("nginx", state="stopped", enabled=False),
        Cron("backup", state="absent"),
        Lineinfile("/etc/conf", line="x", state="absent"),
        Lineinfile("/etc/conf", line=r"\1", regexp="(x)", backrefs=True),
        Xattr("/srv/app", "note", state="absent"),
        Command("true", creates="/x"),
        File("/etc/x"),
    ],
)
def test_what_nobody_could_take_away_is_kept(resource: Resource) -> None:
    assert resource.undone() is None
