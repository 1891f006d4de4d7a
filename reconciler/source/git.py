"""The git program, with nothing left of it that a repository or a caller could bend.

A repository is hostile input, its `.git/config` and hooks too. So:

- the environment is made here: no system or user configuration, no inherited `GIT_*`, no
  prompt, no pager, no network protocol (a partial clone would fetch with whatever
  `core.sshCommand` says), no replacement objects, no locks taken by a reader;
- hooks and the file system monitor are off on the command line, which beats the repository;
- only plumbing that reads objects, the index or names is called. `status` and `diff` are not:
  they run the filters that `.git/config` defines;
- refs and ids go to standard input and paths behind `--`, so that none is taken for an option;
- root reads a repository of another user as that user: what its owner could make git do is
  then no more than the owner can do anyway, and git has no reason to distrust the owner.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple, cast

from reconciler.errors import (
    ConfigError,
    Damaged,
    ReconcilerError,
    SourceError,
    TrustError,
    UsageError,
)
from reconciler.source.process import Ended, drain, run

#: Seconds that a git process may take, and that it may be silent while an object is read.
TIMEOUT = 60.0
#: Most output that is kept of one call: the names of a million files fit.
OUTPUT_CAP = 256 << 20
CHUNK = 1 << 20

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "/bin/false",
    "GIT_PAGER": "cat",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
}

#: Configuration that beats the repository's own.
OPTIONS: tuple[str, ...] = (
    "--no-pager",
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "core.excludesFile=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.alternateRefsCommand=false"),
    *("-c", "core.commitGraph=false"),  # what it says of parents is not what the commits say
    *("-c", "core.quotePath=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "transfer.bundleURI=false"),
    *("-c", "submodule.recurse=false"),
    *("-c", "gpg.program=false"),
    *("-c", "log.showSignature=false"),
)

#: What git says where it has had too little of something, and so has seen nothing of the rest.
EXHAUSTED = re.compile(r"[Oo]ut of memory|mmap failed|annot allocate|create thread|Too many open")
#: What it says of objects; nobody says that of a connection, of keys or of a server that is busy.
_DAMAGE = re.compile(
    r"corrupt|inflate|loose object|existing object|beyond end of packfile|fsck|SHA1 mismatch"
    r"|hash mismatch|unresolved delta|did not receive expected|bad (?:object|tree|blob)"
    r"|[Uu]nable to (?:read|parse|find) (?:tree|commit|object|[0-9a-f]{40})|[Cc]ould not (?:read|parse)"
)

#: A ref, tag or commit as a person writes it; no range, no search, no path behind a colon.
_REF = re.compile(r"[\w@][\w./+@^~=#%,-]*")


def check_ref(ref: str) -> str:
    """`ref` itself. Raises UsageError for what is no name of a commit."""
    if not _REF.fullmatch(ref) or ".." in ref or "@{" in ref or len(ref) > 255:
        raise UsageError(
            f"{ref[:60]!r} is no name of a commit",
            hint="name a branch, a tag or a commit, like main, v1.2 or main~1",
        )
    return ref


class Owner(NamedTuple):
    """Who a git process runs as; None: who we are."""

    uid: int
    gid: int


class Git:
    """One directory in a repository, or a bare repository.

    top: whether `directory` is where the repository itself lies. Raises UsageError where there
    is no such directory.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        try:
            found = os.stat(self.directory)
        except OSError as error:
            raise UsageError(f"cannot read {directory}: {error.strerror}") from error
        if not stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{directory} is not a directory")
        self._inner = _lstat(os.path.join(self.directory, ".git"))
        self.bare = self._inner is None and _is_bare(self.directory)
        self.top = self.bare or self._inner is not None
        self._owners = {found.st_uid: found.st_gid}
        if self._inner is not None:
            self._owners[self._inner.st_uid] = self._inner.st_gid

    def owner(self) -> Owner | None:
        """Who git must run as. Raises TrustError where two other users share the repository."""
        if os.geteuid() != 0:
            return None
        others = [Owner(uid, gid) for uid, gid in self._owners.items() if uid != 0]
        if len(others) > 1:
            raise TrustError(
                f"{self.directory} and its .git belong to different users",
                hint=f"give both to one: chown -R USER {self.directory}",
            )
        return others[0] if others else None

    def environment(self) -> dict[str, str]:
        """The whole environment of a git process."""
        environment = dict(ENVIRONMENT)
        if os.geteuid() != 0 and self.top and os.geteuid() not in self._owners:
            # Whoever names the directory wants it read. Nothing that the owner configured runs.
            environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": os.path.realpath(self.directory),
            }
        return environment

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        """A running git process with pipes, alone in its process group. Raises SourceError."""
        with self._starting():
            process = subprocess.Popen(
                ["git", *OPTIONS, *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment(),
                start_new_session=True,
                **self._place(),
            )
        return cast("subprocess.Popen[bytes]", process)

    def ask(self, *args: str, seconds: float = TIMEOUT, feed: bytes = b"") -> Ended:
        """How a git command ended that was given `feed`. Raises SourceError, TrustError."""
        with self._starting():
            return run(
                ["git", *OPTIONS, *args],
                self.environment(),
                seconds=seconds,
                cap=OUTPUT_CAP,
                feed=feed,
                **self._place(),
            )

    def run(self, *args: str, timeout: float = TIMEOUT, feed: bytes = b"") -> bytes:
        """The output of a git command. Raises SourceError, ConfigError, TrustError."""
        return _output(self.ask(*args, seconds=timeout, feed=feed), self.directory, timeout)

    def _place(self) -> dict[str, Any]:
        """Where a git process runs, and as whom."""
        owner = self.owner()
        who = {"user": owner.uid, "group": owner.gid, "extra_groups": []} if owner else {}
        return {"cwd": self.directory, **who}

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceError("git is not installed", hint="apt-get install git") from error
        except OSError as error:
            raise SourceError(f"cannot start git in {self.directory}: {error.strerror}") from error

    def ref_names(self) -> list[str]:
        """Branches and tags, for a suggestion; none if git has trouble."""
        try:
            out = self.run("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags")
        except ReconcilerError:
            return []
        return out.decode("utf-8", "replace").splitlines()[:5000]


def init(directory: str) -> None:
    """Make an empty repository with the branch `main`; one that is there stays as it is.

    Raises SourceError.
    """
    os.makedirs(directory, exist_ok=True)
    git = Git(directory)
    if not git.top:
        git.run("init", "--quiet", "--template=", "--initial-branch=main")


def collect(process: subprocess.Popen[bytes], directory: str, timeout: float = TIMEOUT) -> bytes:
    """All that a process prints. Raises SourceError, ConfigError."""
    stdin, _, _ = pipes(process)
    stdin.close()
    out, err, stopped = drain(process, time.monotonic() + timeout, OUTPUT_CAP)
    code = 0 if stopped else process.wait()
    return _output(Ended(code, out, err, stopped), directory, timeout)


def _output(ended: Ended, directory: str, seconds: float) -> bytes:
    """What git printed, if it did what it was told to. Raises SourceError, ConfigError."""
    if ended.stopped == "time":
        raise too_slow(directory, seconds)
    if ended.stopped == "output":
        raise SourceError(f"git in {directory} printed more than {OUTPUT_CAP >> 20} MiB")
    if ended.code != 0:
        raise explain(ended.err.decode("utf-8", "replace"), directory)
    return ended.out


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group if it still runs, and give its pipes back."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def names_damage(said: str) -> bool:
    """Whether git complains of objects, and not of having had too little of something."""
    return _DAMAGE.search(said) is not None and EXHAUSTED.search(said) is None


def explain(said: str, directory: str) -> ReconcilerError:
    """What git said, in the words of an operator, with what to do where that is known.

    Damaged: an object cannot be read.
    """
    lines = [line for line in said.strip().splitlines() if line.strip()]
    last = next((line for line in lines if line.startswith("fatal:")), lines[-1] if lines else "")
    text = last.removeprefix("fatal: ").removeprefix("error: ")[:300]
    if "not a git repository" in said:
        return ConfigError(
            f"{directory} is not a Git repository", hint=f"git init {directory}, or leave --ref out"
        )
    if "dubious ownership" in said:
        return TrustError(
            f"{directory} belongs to another user",
            hint="run as its owner or as root, or give it to one user with chown -R",
        )
    if "ermission denied" in said:
        return SourceError(
            f"git may not read {directory}: {text}",
            hint="its owner must be able to enter every directory above it",
        )
    kind = Damaged if names_damage(said) else SourceError
    return kind(
        f"git failed in {directory}: {text or 'it said nothing'}",
        hint=f"git -C {directory} fsck shows whether it is damaged",
    )


def pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """Input, output and complaints of a process that was started with all three."""
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise AssertionError("git was started without pipes")
    return process.stdin, process.stdout, process.stderr


def too_slow(directory: str, seconds: float) -> SourceError:
    """What is said of a git that was not waited for any longer."""
    return SourceError(
        f"git in {directory} took longer than {seconds:.0f} s", hint="is its file system reachable?"
    )


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _is_bare(directory: str) -> bool:
    return all(_lstat(os.path.join(directory, name)) for name in ("HEAD", "objects", "refs"))
