"""The user's ssh_config, with its `Include` lines, which paramiko does not follow."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reconciler.errors import ConfigError

if TYPE_CHECKING:
    from paramiko import SSHConfig

USER = "~/.ssh/config"
SYSTEM = "/etc/ssh/ssh_config"
MAX_DEPTH = 16
_INCLUDE = re.compile(r"\s*include(?:\s+|\s*=\s*)(.+)", re.IGNORECASE)


def load(path: str | None = None) -> SSHConfig:
    """The named file, or the user's and the system's. Raises ConfigError."""
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    if path is not None and not os.path.isfile(path):
        raise ConfigError(f"there is no ssh_config {path}")
    lines: list[str] = []
    for one in (USER, SYSTEM) if path is None else (path,):
        base = "/etc/ssh" if one == SYSTEM else os.path.expanduser("~/.ssh")
        lines += _lines(os.path.expanduser(one), base, MAX_DEPTH)
        # What a file says behind its last `Host` is for that host only, not for the next file.
        lines.append("Host *\n")
    try:
        return SSHConfig.from_text("".join(lines))
    except ConfigParseError as error:
        raise ConfigError(f"ssh_config: {error}") from error


def _lines(path: str, base: str, depth: int) -> Iterator[str]:
    if depth == 0:
        raise ConfigError(f"ssh_config: {path} is included more than {MAX_DEPTH} levels deep")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError:
        return
    for line in lines:
        found = _INCLUDE.fullmatch(line.rstrip("\n"))
        if found is None:
            yield line if line.endswith("\n") else f"{line}\n"
            continue
        for pattern in found[1].split():
            for one in sorted(glob.glob(os.path.join(base, os.path.expanduser(pattern)))):
                yield from _lines(one, base, depth - 1)
