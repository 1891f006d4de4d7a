"""What `reconciler doctor` looks at where an agent was installed; nothing is changed.

A check says what is well, or raises what is not: ConfigError and TrustError are failures, which
keep the agent from its work; other errors are warnings.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from reconciler.agent.places import UNIT, USER, Places, read_json
from reconciler.cli.finding import Finding, Patient
from reconciler.errors import ConfigError, ReconcilerError, TrustError
from reconciler.host import Host
from reconciler.words import counted

if TYPE_CHECKING:
    from reconciler.agent.config import Config

AGAIN = "reconciler agent install does it"


def agent(patient: Patient) -> Iterator[Finding]:
    """Nothing where no agent was installed. Raises ConfigError for settings of no use."""
    from reconciler.agent.config import load

    places = Places(patient.root)
    if not os.path.lexists(places.config):
        return
    if not os.access(places.config, os.R_OK):
        yield Finding("agent", "warn", f"only root may look at {places.config}", "sudo")
        return
    config = load(places.config)
    yield Finding("agent", "ok", f"follows {config.remotes[0]['url']}, branch {config.branch}")
    for name, check in CHECKS.items():
        try:
            yield Finding(f"agent {name}", "ok", check(places, config))
        except ReconcilerError as error:
            worse = isinstance(error, (ConfigError, TrustError))
            status = "fail" if worse else "warn"
            yield Finding(f"agent {name}", status, error.message, error.hint or "")


def _programs(_: Places, config: Config) -> str:
    from reconciler.agent.wish import programs

    needed = programs(config)
    missing = [one for one in needed if shutil.which(one) is None]
    if missing:
        packages = " ".join(dict.fromkeys(needed[one] for one in missing))
        raise ConfigError(f"{', '.join(missing)} not installed", hint=f"apt-get install {packages}")
    return ", ".join(needed)


def _user(places: Places, _: Config) -> str:
    """The user that fetches, and what belongs to it and to root alone."""
    try:
        user = pwd.getpwnam(USER).pw_uid
    except KeyError:
        raise ConfigError(f"there is no user {USER}", hint=AGAIN) from None
    for path, owner in ((places.trust, 0), (places.mirrors, user)):
        found = _stat(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"there is no directory {path}", hint=AGAIN)
        if (found.st_uid, stat.S_IMODE(found.st_mode)) != (owner, 0o700):
            raise ConfigError(
                f"{path} is of uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}",
                hint=f"chown {owner} {path}; chmod 0700 {path}",
            )
    return f"{USER}, uid {user}"


def _keys(places: Places, config: Config) -> str:
    """Files of secrets are root's alone."""
    files = [places.config, *config.secret_files()]
    for path in files:
        found = _stat(path)
        if found is None:
            raise ConfigError(f"there is no {path}, which the settings name")
        if found.st_uid or found.st_mode & 0o077:
            raise ConfigError(
                f"{path} is open to others: uid {found.st_uid}, mode {found.st_mode & 0o777:04o}",
                hint=f"chown root {path}; chmod 0600 {path}; who could read it may have done so",
            )
    return f"{counted(len(files), 'file')} that only root can read"


def _servers(_: Places, config: Config) -> str:
    from reconciler.agent.wish import check_place
    from reconciler.source.remote import Remote

    for settings in config.remotes:
        remote = Remote(**settings)
        remote.check_trusted()
        check_place(remote, remote.known_hosts)
    return f"{counted(len(config.remotes), 'address')} that can be asked"


def _trust(places: Places, config: Config) -> str:
    """The keys, what can judge by them, and the memory of what was trusted."""
    from reconciler.source.keyfile import check_key_file
    from reconciler.source.mark import Marks
    from reconciler.source.selftest import check_ssh_signatures

    Marks(places.trust).load()
    if config.trust == "none":
        return "no signature is asked for"
    for path in filter(None, (config.keyring, config.revoked)):
        check_key_file(path)
    if not config.keyring or os.path.exists(config.allowed_signers):
        check_key_file(config.allowed_signers)
        check_ssh_signatures()
    return f"signatures of {'each' if config.trust == 'every' else 'the newest'} commit"


def _unit(places: Places, _: Config) -> str:
    from reconciler.agent.install import SYSTEMD, has_systemd
    from reconciler.agent.units import TIMER

    if places.root != "/" or not has_systemd():
        return "started by hand or by cron"
    unit = TIMER if os.path.exists(os.path.join(SYSTEMD, TIMER)) else UNIT
    for question, wanted, cure in (
        ("is-enabled", "enabled", f"systemctl enable {unit}"),
        ("is-active", "active", f"systemctl start {unit}; journalctl -u {unit}"),
    ):
        said = Host().probe(["systemctl", question, unit], check=False, timeout=10).out.strip()
        if said != wanted:
            raise ConfigError(f"{unit} is {said or 'not there'}, and not {wanted}", hint=cure)
    return f"{unit} is enabled and active"


def _watching(places: Places, _: Config) -> str:
    """What the running agent says of the kernel's limits, which are those of all of root's."""
    status = read_json(places.status) or {}
    watch = status.get("watch") or {}
    if watch.get("trouble"):
        raise ReconcilerError(
            f"not everything is watched: {watch['trouble']}",
            hint="raise that limit; until then drift is found by sweeps",
        )
    return f"{counted(int(watch.get('paths') or 0), 'path')} watched"


def _mirror(places: Places, config: Config) -> str:
    from reconciler.source.mirror import mirror_path

    path = mirror_path(places.mirrors, config.remotes[0]["url"], config.branch)
    if not os.path.isdir(path):
        raise ReconcilerError("nothing was fetched yet", hint="reconciler agent status tells why")
    return path


CHECKS: Mapping[str, Callable[[Places, Config], str]] = {
    "programs": _programs,
    "user": _user,
    "keys": _keys,
    "servers": _servers,
    "trust": _trust,
    "unit": _unit,
    "watching": _watching,
    "mirror": _mirror,
}


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
