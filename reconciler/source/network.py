"""git that speaks to a remote: one protocol, constant configuration, limits for every child.

The one file in which git may use the network. Everything that a caller, a user or a server
could bend is pinned on the command line or in an environment made here; keys and passwords are
in files, one of them in memory only, never among the arguments or in the environment.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.errors import Damaged, ReconcilerError, SourceError, UnknownServer
from reconciler.source.git import ENVIRONMENT, OPTIONS, names_damage
from reconciler.source.process import Ended, memory_file, run
from reconciler.source.remote import Remote, redact


@dataclass(frozen=True)
class Limits:
    """What a fetch may cost. Times in seconds, the rest in bytes; `objects` is a number.

    total: for all that one remote does. poll: for asking what a ref names. connect: until it
    answers. stall: at less than 1 KiB/s. mirror: the whole mirror. memory: each process.
    """

    total: float = 300.0
    poll: float = 60.0
    connect: float = 15.0
    stall: int = 30
    mirror: int = 2 << 30
    memory: int = 1 << 30
    objects: int = 1_000_000


_SPARING = (
    ("core", "bigFileThreshold", "16m"),
    ("core", "packedGitWindowSize", "32m"),
    ("core", "packedGitLimit", "256m"),
    ("pack", "threads", "1"),
    ("pack", "windowMemory", "64m"),
)

#: What `-c` pins beside what every git process of ours is told.
_PINS = {
    **{f"{section}.{name}": value for section, name, value in _SPARING},
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "transfer.unpackLimit": "1",  # always a pack: one file, whose size has a limit
    "fetch.unpackLimit": "1",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.negotiationAlgorithm": "consecutive",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "http.sslVerify": "true",
    "http.lowSpeedLimit": "1024",
    "http.emptyAuth": "false",
    "http.saveCookies": "false",
}

#: A constant: what differs between remotes is in variables that this shell text quotes.
_SSH = 'exec ssh -F none -a -x -T -o UserKnownHostsFile="$RECONCILER_KNOWN_HOSTS" -o ConnectTimeout="$RECONCILER_CONNECT" -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes -o UpdateHostKeys=no -o VerifyHostKeyDNS=no -o BatchMode=yes -o PreferredAuthentications=publickey -o IdentitiesOnly=yes -o IdentityAgent=none -o IdentityFile="${RECONCILER_KEY:-/proc/$PPID/fd/$RECONCILER_KEY_FD}" -o ClearAllForwardings=yes -o PermitLocalCommand=no -o ProxyCommand=none -o ControlPath=none -o CanonicalizeHostname=no -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o LogLevel=ERROR'


def git(
    directory: str,
    remote: Remote,
    args: list[str],
    limits: Limits,
    room: int,
    end: float = math.inf,
) -> bytes:
    """The output of a git command that may speak to `remote` and to nobody else.

    room: the most bytes that a file may grow to. end: when all that this remote does must be over,
    by the monotonic clock. Raises SourceError, UnknownServer.
    """
    try:
        with configuration(remote, root=os.geteuid() == 0) as config:
            argv, env = command(remote, args, limits, room, config)
            ended = run(
                argv,
                env,
                seconds=min(_seconds(args, limits), end - time.monotonic()),
                cap=16 << 20,
                pass_fds=[config],
                cwd=directory,
            )
    except OSError as error:
        raise SourceError(
            f"cannot start git: {error.filename}: {error.strerror}",
            hint="it needs prlimit, too: apt-get install util-linux",
        ) from error
    if not ended.ok:
        raise explain(ended, remote, _seconds(args, limits))
    return ended.out


def command(
    remote: Remote, args: list[str], limits: Limits, room: int, config: int
) -> tuple[list[str], dict[str, str]]:
    """The argv and the environment of such a git. config: a descriptor of `configuration`."""
    protocol = remote.place.protocol
    pins = {**_PINS, f"protocol.{protocol}.allow": "always", "http.lowSpeedTime": str(limits.stall)}
    bounds = [
        f"--data={limits.memory}",
        f"--fsize={room}",
        f"--cpu={int(_seconds(args, limits)) + 1}",
        "--core=0",
        "--nofile=256",
    ]
    pinned = [word for key, value in pins.items() for word in ("-c", f"{key}={value}")]
    argv = ["prlimit", *bounds, "git", *OPTIONS, *pinned, *args]
    return argv, environment(remote, limits) | {"GIT_CONFIG_GLOBAL": f"/proc/self/fd/{config}"}


def _seconds(args: list[str], limits: Limits) -> float:
    return min(limits.poll, limits.total) if args[0] == "ls-remote" else limits.total


def environment(remote: Remote, limits: Limits) -> dict[str, str]:
    """All that git and its children know."""
    place = remote.place
    made = {**ENVIRONMENT, "GIT_ALLOW_PROTOCOL": place.protocol}
    settings: dict[str, str] = {}
    if place.protocol == "ssh":
        made |= {
            "GIT_SSH_COMMAND": _SSH,
            "GIT_SSH_VARIANT": "ssh",
            "RECONCILER_KNOWN_HOSTS": remote.known_hosts or os.devnull,
            "RECONCILER_KEY": remote.deploy_key or "none",
            "RECONCILER_CONNECT": str(max(1, int(limits.connect))),
        }
    elif place.protocol == "https":
        settings["http.proxy"] = remote.proxy
        # A redirect would take the password along.
        settings["http.followRedirects"] = "false" if remote.credentials else "initial"
        if remote.ca_file:
            settings["http.sslCAInfo"] = remote.ca_file
    made["GIT_CONFIG_COUNT"] = str(len(settings))
    for n, (key, value) in enumerate(settings.items()):
        made |= {f"GIT_CONFIG_KEY_{n}": key, f"GIT_CONFIG_VALUE_{n}": value}
    return made


def key_of_git(fd: int) -> dict[str, str]:
    """More of the environment: the key is in a descriptor that git holds open, and ssh, which closes
    what it was started with, opens anew."""
    return {"RECONCILER_KEY": "", "RECONCILER_KEY_FD": str(fd)}


@contextlib.contextmanager
def configuration(remote: Remote, *, root: bool) -> Iterator[int]:
    """A file in memory with what nobody else may see, and what must reach more than our own git.

    That is the password of an https address. And the git at the other end of a path on this machine
    works within our limits, so it must be as sparing; whoever configures a path wants that repository
    read, whoever owns it, but root (who `root` says it runs as) runs nothing in the repository of
    somebody else. Raises OSError, ConfigError.
    """
    lines: list[str] = []
    place = remote.place
    if place.protocol == "file":
        lines += [f"[{section}]\n\t{name} = {value}" for section, name, value in _SPARING]
        if not root:
            paths = (place.path, os.path.join(place.path, ".git"))
            lines += [f'[safe]\n\tdirectory = "{path}"' for path in paths]
    elif place.protocol == "https" and remote.credentials:
        encoded = base64.b64encode(remote.password().encode()).decode()
        lines.append(f'[http "https://{place.host}:{place.port}/"]')
        lines.append(f'\textraHeader = "Authorization: Basic {encoded}"')
    with memory_file("\n".join([*lines, ""]).encode()) as file:
        yield file


def reach(remote: Remote, limits: Limits) -> None:
    """Find out in `limits.connect` seconds whether an https server answers; git would wait long.

    Raises SourceError.
    """
    place = remote.place
    if place.protocol != "https" or remote.proxy:
        return
    try:
        socket.create_connection((place.host.strip("[]"), place.port), limits.connect).close()
    except OSError as error:
        reason = "it did not answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise SourceError(
            f"cannot reach {place.host} port {place.port}: {reason}",
            hint=f"try: curl -sv {remote.url}",
        ) from error


_Rule = tuple[str, str, str]
#: What git, ssh and TLS libraries say: the cause in our words, and what to do. The first that
#: fits; that what came cannot be read may also be the consequence of a connection that broke off.
_CAUSES: tuple[_Rule, ...] = (
    (
        r"failed to execute git\b",
        "git is not installed",
        "apt-get install git",
    ),
    (
        r"\bssh: (?:command )?not found|cannot (?:run|exec) ssh\b",
        "ssh, which git needs for that address, is not installed",
        "apt-get install openssh-client",
    ),
    (
        r"[Oo]ut of memory|create (?:async )?thread|cannot allocate|mmap failed",
        "it needs more memory than a fetch may use",
        "take large files out of the history",
    ),
    (
        r"No space left on device",
        "the disk is full",
        "df -h; df -i; nothing that was there before is lost",
    ),
    (
        r"Permission denied \(|no mutual signature|Load key",
        "the server does not accept the deploy key",
        "add its public half at the server: ssh-keygen -yf {key}",
    ),
    (
        r"Authentication failed|could not read Username|returned error: 40[13]",
        "the server wants other credentials",
        "put user:password into a file of mode 0600 and name it as credentials",
    ),
    (
        r"redirect|returned error: 30",
        "the server sends us elsewhere, where we do not follow",
        "configure the address that it names: curl -sI {url}/info/refs",
    ),
    (
        r"certificate",
        "its certificate is not one that we trust",
        "name the authority that signed it as ca_file; check the clock: date",
    ),
    (
        r"ould not resolve|Name or service not known|Temporary failure in name",
        "the name of its host is not known",
        "getent hosts {host}",
    ),
    (
        r"dubious ownership",
        "the repository belongs to another user",
        "fetch as its owner, or give it to one user: chown -R USER {url}",
    ),
    (
        r"not a git repository|not found|returned error: 404|does not appear to be a git",
        "there is no repository at that address, or it may not be seen with these credentials",
        "git ls-remote {url}",
    ),
    (
        r"transport '\S+' not allowed",
        "the address leads to another protocol",
        "configure an address of https, ssh or an absolute path",
    ),
    (
        r"shallow",
        "the repository there has no whole history",
        "git fetch --unshallow in it",
    ),
    (
        r"Operation too slow|timed out|[Tt]imeout",
        "it is too slow, or stopped to answer",
        "is its network or its disk in trouble?",
    ),
    (
        (
            r"refused|reset by peer|unreachable|hung up|Connection closed|early EOF|unexpected disconnect"
            r"|Broken pipe|Empty reply|No route"
        ),
        "the connection failed",
        "is the server up? the next poll tries again",
    ),
    (
        r"fsck|bad object|invalid|did not receive expected|corrupt|inflate|SHA1 mismatch|index-pack",
        "what it sent is damaged or malformed",
        "git fsck --full in the repository there",
    ),
)


def explain(ended: Ended, remote: Remote, seconds: float) -> ReconcilerError:
    """Why a fetch failed, in the words of an operator.

    Damaged: that may be so because of objects, those that came or those that are here.
    """
    place = remote.place
    said = redact(ended.err.decode("utf-8", "replace"))
    if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
        return _unknown_host(remote, "HAS CHANGED" in said)
    where = f"{remote.name} ({remote.url})"
    if ended.stopped == "time":
        return SourceError(
            f"{where}: it took longer than {seconds:.0f} s",
            hint="is the server or the network in trouble? the next poll tries again",
        )
    if ended.stopped == "output":
        return SourceError(
            f"{where}: it sends names of refs without end", hint=f"git ls-remote {remote.url}"
        )
    last = _last(said)
    kind = Damaged if names_damage(said) else SourceError
    for pattern, cause, hint in _CAUSES:
        if re.search(pattern, said):
            filled = hint.format(key=remote.deploy_key or "KEY", url=remote.url, host=place.host)
            return kind(f"{where}: {cause}: {last}", hint=filled)
    kind = Damaged if last else SourceError
    return kind(
        f"{where}: {last or 'git failed and said nothing'}", hint=f"git ls-remote {remote.url}"
    )


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:", "remote: fatal:"))]
    return (fatal or lines or [""])[0].removeprefix("fatal: ").removeprefix("error: ")[:300]


def _unknown_host(remote: Remote, changed: bool) -> UnknownServer:
    place = remote.place
    known = remote.known_hosts or "/etc/reconciler/known_hosts"
    name, port = place.host.strip("[]"), place.port
    listed = name if port == 22 else f"[{name}]:{port}"
    what = "another key than the one in" if changed else "a key that is not in"
    replace = f"forget the old key:  ssh-keygen -f {known} -R '{listed}'\n" if changed else ""
    return UnknownServer(
        f"{remote.name} ({remote.url}): the server shows {what} {known}",
        hint=f"get its keys:        ssh-keyscan -p {port} {name} > server-keys\n"
        "compare with what its owner publishes:  ssh-keygen -lf server-keys\n"
        f"{replace}"
        f"only if they agree:  cat server-keys >> {known}",
    )
