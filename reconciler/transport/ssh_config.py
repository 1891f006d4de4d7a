"""The user's ssh_config, with what paramiko leaves out: `Include` lines, and programs that are run
as OpenSSH runs them. Its `Match exec` would read what is typed at us, and it fills in `ProxyCommand`
before it is known which port and user the inventory gives.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from paramiko import SSHConfig

USER = "~/.ssh/config"
SYSTEM = "/etc/ssh/ssh_config"
MAX_DEPTH = 16
#: Seconds that a program of `Match exec` may take.
PATIENCE = 10.0
_SECTION = re.compile(r"\s*(?:host|match)(?:\s|=)", re.IGNORECASE)
_INCLUDE = re.compile(r"\s*include(?:\s+|\s*=\s*)(.+)", re.IGNORECASE)


def load(path: str | None = None) -> SSHConfig:
    """The named file, or the user's and the system's. Raises ConfigError."""
    from paramiko import SSHConfig, config
    from paramiko.ssh_exception import ConfigParseError

    library: Any = config
    library.invoke = Programs
    if path is not None and not os.path.isfile(path):
        raise ConfigError(f"there is no ssh_config {path}")
    lines: list[str] = []
    for one in (USER, SYSTEM) if path is None else (path,):
        base = "/etc/ssh" if one == SYSTEM else os.path.expanduser("~/.ssh")
        lines += _lines(os.path.expanduser(one), base, MAX_DEPTH)
        # What a file says behind its last `Host` is for that host only, not for the next file.
        lines.append("Host *\n")
    try:
        found = SSHConfig.from_text("".join(lines))
    except ConfigParseError as error:
        raise ConfigError(f"ssh_config: {error}") from error
    raw: Any = found
    raw.TOKENS_BY_CONFIG_KEY = {**SSHConfig.TOKENS_BY_CONFIG_KEY, "proxycommand": []}
    return found


@dataclass(frozen=True)
class Programs:
    """Runs `Match exec`, in the place of a library that would read our stdin for it.

    ok: whether the program ended with 0.
    """

    ok: bool

    @classmethod
    def run(cls, command: str, **_: object) -> Programs:
        """As OpenSSH: by the user's shell, and what it prints is nobody's."""
        shell = os.environ.get("SHELL") or "/bin/sh"
        null = subprocess.DEVNULL
        try:
            done = subprocess.run(
                [shell, "-c", command], check=False, stdin=null, stdout=null, timeout=PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired):
            return cls(ok=False)
        return cls(done.returncode == 0)


def proxy_command(said: str, values: Mapping[str, object]) -> str | None:
    """`ProxyCommand` with its tokens filled in; None for `none`.

    values: by token, without the percent sign. Raises ConfigError for one that is not there.
    """
    if said.lower() == "none":
        return None

    def filled(found: re.Match[str]) -> str:
        if found[1] not in values:
            known = ", ".join(f"%{name}" for name in values)
            raise ConfigError(f"ssh_config: ProxyCommand has {found[0]}; known are {known}")
        return str(values[found[1]])

    return re.sub(r"%(.?)", filled, said)


def hostname(address: str, path: str | None = None) -> str:
    """What a name of an inventory is called on the network: its `HostName`, or itself."""
    return str(load(path).lookup(address).get("hostname", address))


def _lines(path: str, base: str, depth: int) -> Iterator[str]:
    if depth == 0:
        raise ConfigError(f"ssh_config: {path} is included more than {MAX_DEPTH} levels deep")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return
    section = "Host *\n"
    for line in lines:
        found = _INCLUDE.fullmatch(line.rstrip("\n"))
        if found is None:
            line = line if line.endswith("\n") else f"{line}\n"
            section = line if _SECTION.match(line) else section
            yield line
            continue
        for pattern in found[1].split():
            for one in sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern)))):
                yield from _lines(one, base, depth - 1)
                # What follows is for whom it was for before the file.
                yield section
