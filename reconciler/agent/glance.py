"""Whether a remote still says the same word: git asks, and nobody reads what comes.

A poll mostly brings the word that was brought before. So the fork becomes git, as the user that
fetches and without a way back to any privilege, and the supervisor compares what it prints with
what the provider has read once, byte by byte. Any other output, and any failure, is for the
provider in its sandbox to read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
from collections.abc import Mapping
from typing import Any

from reconciler.agent import keys
from reconciler.agent.config import SECRETS
from reconciler.agent.places import USER, Places
from reconciler.errors import ReconcilerError
from reconciler.source import network
from reconciler.source.network import Limits
from reconciler.source.remote import Remote

#: Bytes that git may print; one line is expected.
MOST = 4096


def word(offer: Mapping[str, Any]) -> bytes:
    """What git prints if a ref still names what it named."""
    return f"{offer['object']}\t{offer['ref']}\n".encode()


def ask(places: Places, remote: Remote, ref: str, limits: Limits, end: int) -> None:
    """In a fork: become git that asks what `ref` names, speaking into `end`.

    Comes back if that cannot be started; nothing is said then.
    """
    with contextlib.suppress(ReconcilerError, OSError, KeyError):
        remote.check_trusted()
        drop, remote = (
            _as_user(remote) if os.geteuid() == 0 and places.root == "/" else ([], remote)
        )
        args = ["ls-remote", "--", remote.url, ref]
        with network.configuration(remote, root=os.geteuid() == 0 and not drop) as config:
            argv, env = network.command(remote, args, limits, MOST, config)
            os.set_inheritable(config, True)
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for fd, place in ((nothing, 0), (end, 1), (nothing, 2)):
                os.dup2(fd, place)
            os.chdir("/")
            os.execvpe([*drop, *argv][0], [*drop, *argv], env)


def _as_user(remote: Remote) -> tuple[list[str], Remote]:
    """The argv that gives up all rights for good, and the remote with keys that are then readable.

    Raises OSError, and KeyError where there is no such user.
    """
    user = pwd.getpwnam(USER)
    argv = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    argv += ["--inh-caps=-all", "--no-new-privs", "--pdeathsig=KILL", "--"]
    named = [name for name in SECRETS if getattr(remote, name)]
    copies = {name: _copy(getattr(remote, name), user.pw_uid) for name in named}
    return argv, dataclasses.replace(remote, **copies)


def _copy(path: str, owner: int) -> str:
    """A copy in memory that only `owner` can read. git will be this process, and keeps its number."""
    copy = keys.copy(path, owner)
    os.set_inheritable(copy, True)
    return keys.place(copy)
