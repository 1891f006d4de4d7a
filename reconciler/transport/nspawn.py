"""A directory that holds a root file system, as a container: the engine runs in it, on its Python.

The container has its own /run, /tmp, /proc and processes, and the network of this machine. What it
writes is what the engine writes: nothing is adapted in the directory, so a plan leaves it as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence

from reconciler.errors import ConfigError, HostUnfit
from reconciler.transport.pipes import PipeChannel
from reconciler.transport.remote import said
from reconciler.transport.target import Target

PROGRAM = "systemd-nspawn"
ALWAYS = (
    *("--quiet", "--pipe", "--as-pid2", "--register=no"),
    # No settings that lie beside the directory, and nothing of this machine is put into it.
    *("--settings=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
)
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?")


class NspawnTransport:
    """A `Transport` into a directory root."""

    def __init__(self, target: Target) -> None:
        if os.geteuid() != 0:
            raise ConfigError(
                "ansible_connection nspawn takes root on this machine", hint="run it with sudo"
            )
        if shutil.which(PROGRAM) is None:
            raise ConfigError(
                f"ansible_connection nspawn needs the program {PROGRAM}, which is not there",
                hint="install systemd-container, or use ansible_connection: chroot",
            )
        if not os.path.isdir(target.root):
            raise ConfigError(f"there is no directory {target.root}", hint="see ansible_host")
        self._argv = [PROGRAM, *ALWAYS, f"--directory={target.root}", *_names(target)]
        if not os.path.isdir("/run/systemd/system"):
            # Without systemd nobody could make a cgroup for it.
            self._argv.append("--keep-unit")

    def start(self, argv: Sequence[str]) -> Container:
        """Start a container with a program; that it cannot start shows when it is read from."""
        return Container([*self._argv, "--", *argv])

    def close(self) -> None:
        """The container ends with its program."""


class Container(PipeChannel):
    """A channel whose end may be one that never began."""

    _began = False

    def receive(self, timeout: float) -> bytes | None:
        """As any channel. Raises HostUnfit where nothing could be run in the directory."""
        piece = super().receive(timeout)
        if piece == b"" and not self._began and self.status(2.0) == 1:
            raise HostUnfit(
                f"nothing can be run in the directory{said(self)}",
                hint="a machine that runs from it is reached with ansible_connection: ssh",
            )
        self._began = self._began or bool(piece)
        return piece


def _names(target: Target) -> list[str]:
    """A name of its own for the container, and the host's for what asks for a host name."""
    own = hashlib.sha256(os.fsencode(os.path.realpath(target.root))).hexdigest()[:12]
    names = [f"--machine=reconciler-{own}"]
    if _HOSTNAME.fullmatch(target.name):
        names.append(f"--hostname={target.name}")
    return names
