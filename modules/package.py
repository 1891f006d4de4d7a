"""Keep a package installed, at a version, up to date, or away.

    - name: nginx is there
      package: {name: nginx}
    - name: a version of ours, that only a new wish of ours changes
      package: {name: postgresql-16=16.4*, allow_downgrade: true, hold: true}
    - name: no mail server
      package: {name: exim4-base, state: absent, purge: true}
    - name: every package up to date
      package: {name: "*", state: latest, update_cache: true, cache_valid_time: 3600}

All packages of a batch go in one transaction of the package manager, which waits for its locks;
one that cannot be installed does not keep the others away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal

from reconciler.errors import ResourceError, Unsupported
from reconciler.host import Host
from reconciler.modules import _apt
from reconciler.resource import Diff, Path, Resource, State, Value

PROVIDERS = {"apt": _apt}
#: How a package manager is recognised where no fact names it.
PROGRAMS = {
    "apt": "/usr/bin/apt-get",
    "dnf": "/usr/bin/dnf",
    "yum": "/usr/bin/yum",
    "zypper": "/usr/bin/zypper",
    "pacman": "/usr/bin/pacman",
    "apk": "/sbin/apk",
}


@dataclass(frozen=True)
class Package(Resource):
    name: str  #: `nginx`, `nginx=1.22*`, `nginx>=1.2`, `nginx/bookworm-backports`, `libc6:i386`, `php8.2-*`, the path of a package file on the host, or `*` for everything installed.
    state: Literal["present", "absent", "latest", "fixed", "build-dep"] = (
        "present"  #: `latest` follows the repositories; `fixed` also finishes what was left half done; `build-dep` installs what is needed to build it.
    )
    deb: Path | None = (
        None  #: Install from this package file on the host, which only root may be able to write.
    )
    purge: bool = False  #: When absent: its configuration files and data go as well.
    upgrade: Literal["no", "yes", "safe", "full", "dist"] = (
        "no"  #: With name `*`: bring everything up to date; `full` and `dist` may remove packages for it.
    )
    install_recommends: bool | None = (
        None  #: Install recommended packages too; left out, the host's own setting holds.
    )
    update_cache: bool = False  #: Refresh the package lists before an install if they are older than cache_valid_time. Missing lists and unknown names cause a refresh in any case.
    cache_valid_time: int = 0  #: Age of the package lists in seconds up to which they are good enough. With `latest`, lists that are older (an hour if 0, with update_cache) are refreshed to see what is new.
    default_release: str | None = (
        None  #: The release that is preferred, for what is installed and for its dependencies.
    )
    allow_downgrade: bool = (
        False  #: The version that is wished may be lower than the one that is installed.
    )
    hold: bool | None = (
        None  #: Whether the package is on hold (`apt-mark hold`), so that no upgrade moves it; a new wish for it does, and the hold is put back. Left out, a hold stays as it is.
    )
    allow_change_held_packages: bool = (
        False  #: Change a package even if somebody has put it on hold.
    )
    allow_unauthenticated: bool = (
        False  #: Install from repositories without a valid signature. Dangerous.
    )
    only_upgrade: bool = False  #: Never install what is not there.
    autoremove: bool = False  #: Remove dependencies that nothing needs any more; with name `*`, as a wish of its own.
    fail_on_autoremove: bool = (
        False  #: Fail instead of removing any package that is not declared absent.
    )
    dpkg_options: str = "force-confdef,force-confold"  #: What dpkg does with changed configuration files: the host's own version stays.
    policy_rc_d: int | None = (
        None  #: Exit code of policy-rc.d during the transaction: 101 keeps services from being started.
    )
    lock_timeout: int = (
        300  #: Seconds to wait for another program that holds the package manager's locks.
    )
    use: str = "auto"  #: Package manager; `auto` takes the host's own.

    aliases: ClassVar[Mapping[str, str]] = {"pkg": "name", "package": "name"}
    key_list: ClassVar[bool] = True
    opaque: ClassVar[bool] = True
    batched: ClassVar[str] = "ahead"

    def claims(self) -> set[str]:
        return {f"package:{_apt.subject(self.name)}"}

    def undone(self) -> dict[str, Value] | None:
        subject = _apt.subject(self.name)
        one = self.state not in ("absent", "build-dep") and not self._file
        if not one or set("*?[") & set(subject):
            return None
        gone: dict[str, Value] = {"name": subject, "state": "absent"}
        return {**gone, "hold": False} if self.hold else gone

    def needs(self) -> set[str]:
        needs = {"path:/etc/apt/**"}
        return needs | {f"path:{self._file}"} if self._file else needs

    def desired(self) -> State:
        if self.name == "*":
            return self._everything()
        if self.state == "absent":
            return None
        if self.state == "build-dep":
            return {"build_dependencies": "installed"}
        wish: State = {"installed": True}
        version, release = _apt.conditions(self.name)
        if self._file:
            wish["version"] = f"that of {self._file}"
        elif version:
            wish["version"] = version
        elif self.state == "latest":
            wish["version"] = "latest"
        if release:
            wish["release"] = release
        if self.hold is not None:
            wish["hold"] = self.hold
        if self.lists_age is not None:
            wish["lists"] = f"at most {self.lists_age} s old"
        return wish

    def _everything(self) -> State:
        wish: State = {}
        if self.lists_age is not None:
            wish["lists"] = f"at most {self.lists_age} s old"
        if self.state == "fixed":
            wish["unfinished"] = "none"
        if self.upgrades:
            wish["upgradable"] = "none"
        if self.autoremove:
            wish["unneeded"] = "none"
        return wish

    @property
    def _file(self) -> str:
        """The package file to install from; "" if it comes from a repository."""
        return self.deb or (self.name if self.name.startswith("/") else "")

    @property
    def upgrades(self) -> bool:
        """Whether everything that is installed is to be brought up to date."""
        return self.name == "*" and (self.state == "latest" or self.upgrade != "no")

    @property
    def lists_age(self) -> int | None:
        """The age that the package lists must not pass even if nothing is to be installed."""
        follows = self.state == "latest" or self.upgrades
        if self.cache_valid_time > 0:
            return self.cache_valid_time if follows or self.name == "*" else None
        return 3600 if follows and self.update_cache else None

    def actual(self, host: Host) -> State:
        return _provider(host, self.use).look(host, self)

    @classmethod
    def actual_many(cls, resources: Sequence[Resource], host: Host) -> None:
        for use, members in _by_provider(resources).items():
            _provider(host, use).read_ahead(host, members)

    def apply(self, host: Host, diff: Diff) -> None:
        outcome = self.apply_many(host, [(self, diff)])[0]
        if outcome is not None:
            raise outcome

    @classmethod
    def apply_many(
        cls, host: Host, work: Sequence[tuple[Resource, Diff]]
    ) -> list[ResourceError | None]:
        outcomes: dict[int, ResourceError | None] = {}
        for use, members in _by_provider([resource for resource, _ in work]).items():
            try:
                results = _provider(host, use).converge(host, members)
            except ResourceError as error:
                results = [error] * len(members)
            outcomes.update((id(member), result) for member, result in zip(members, results))
        return [outcomes[id(resource)] for resource, _ in work]


def _by_provider(resources: Sequence[Resource]) -> dict[str, list[Package]]:
    groups: dict[str, list[Package]] = {}
    for resource in resources:
        if isinstance(resource, Package):
            groups.setdefault(resource.use, []).append(resource)
    return groups


def _provider(host: Host, use: str) -> ModuleType:
    name = use
    if use == "auto":
        fact = host.facts.get("pkg_mgr")
        name = fact if isinstance(fact, str) and fact else _recognised(host)
    if name not in PROVIDERS:
        raise Unsupported(
            f"packages of '{name or 'this host'}' cannot be managed",
            hint=f"this host has {_recognised(host) or 'no known package manager'}; supported: {', '.join(PROVIDERS)}",
        )
    return PROVIDERS[name]


def _recognised(host: Host) -> str:
    return next((name for name, path in PROGRAMS.items() if host.lstat(path) is not None), "")
