"""Whether a remote still says the same word: git asks, and nobody reads what comes.

A poll mostly brings the word that was brought before. So git asks, as the user that fetches and
without a way back to any privilege, and the supervisor compares what it prints with what the
provider has read once, byte by byte. Any other output, and any failure, is for the provider in
its sandbox to read.

It is started as a program and not as a fork: that would copy the tables of all our memory.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Mapping
from typing import Any

from reconciler.agent import keys
from reconciler.agent.places import USER, Places
from reconciler.source import network
from reconciler.source.network import Limits
from reconciler.source.remote import Remote

#: Bytes that git may print; one line is expected.
MOST = 4096


def word(offer: Mapping[str, Any]) -> bytes:
    """What git prints if a ref still names what it named."""
    return f"{offer['object']}\t{offer['ref']}\n".encode()


def start(
    places: Places, remote: Remote, ref: str, limits: Limits, end: int
) -> subprocess.Popen[bytes]:
    """git that asks what `ref` names, speaking into `end`.

    Raises OSError, ConfigError and TrustError for keys that cannot be used, and KeyError where there
    is no user who could ask.
    """
    remote.check_files()
    remote.check_trusted()
    root = os.geteuid() == 0
    drop, user = _as_user() if root and places.root == "/" else ([], -1)
    args = ["ls-remote", "--", remote.url, ref]
    with contextlib.ExitStack() as closing:
        config = closing.enter_context(network.configuration(remote, root=root and not drop))
        argv, env = network.command(remote, args, limits, MOST, config)
        given = [config]
        if remote.deploy_key and drop:
            key = keys.copy(remote.deploy_key, user)
            closing.callback(os.close, key)
            given.append(key)
            env |= network.key_of_git(key)
        return subprocess.Popen(
            [*drop, *argv],
            stdin=subprocess.DEVNULL,
            stdout=end,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd="/",
            start_new_session=True,
            pass_fds=given,
        )


def _as_user() -> tuple[list[str], int]:
    """The argv that gives up all rights for good, and who it becomes. Raises KeyError."""
    user = pwd.getpwnam(USER)
    argv = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    argv += ["--inh-caps=-all", "--no-new-privs", "--pdeathsig=KILL", "--"]
    return argv, user.pw_uid
