"""The one door to the machine: look, read, write, run.

Modules get a `Host` and nothing else. It is the local machine, or a directory root (`--root`),
where paths are below that directory and programs run in chroot. While a plan is made the host
is read-only: an act raises, so a dry run cannot lie.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import (
    IO,
    BinaryIO,
    Callable,
    NamedTuple,
    TypeVar,
    cast,
)

from reconciler.errors import (
    CommandFailed,
    NotYet,
    ReconcilerError,
    ResourceError,
    TimedOut,
    Unsupported,
)
from reconciler.refusals import explain, explain_xattr
from reconciler.safepath import Place
from reconciler.safewrite import Attributes, Tree, change_in_place

T = TypeVar("T")

#: Output of a program that is kept: the first and the last half of this many bytes.
OUTPUT_CAP = 1 << 20
#: A file that is edited or compared as text is read whole, up to this many bytes.
READ_CAP = 64 << 20
DEFAULT_TIMEOUT = 900.0
AS_IT_IS = Attributes()
#: After the program itself has ended, a daemon that it left may hold its output open this long.
GRACE = 0.2

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}

Fetch = Callable[[str, int], Iterator[bytes]]
"""Asks the controller for content: (sha256, size) -> pieces."""


class Completed(NamedTuple):
    """What a program left behind; output is decoded with undecodable bytes escaped."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Whether it ended with code 0."""
        return self.code == 0


class Account(NamedTuple):
    """A user as the passwd database knows it."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    comment: str


class Entry(NamedTuple):
    """One thing below a directory, while `Host.below` stands at it. name: relative to there."""

    host: Host
    path: str
    name: str
    found: os.stat_result
    place: Place

    def set_attributes(self, attributes: Attributes) -> None:
        """Change owner, group and mode in place; of a link, its own. Raises ResourceError."""
        self.host.act(self.path)
        try:
            change_in_place(self.path, self.place, attributes)
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(error, self.path, "change the attributes of") from error


class Host:
    """The machine that resources are compared with and changed on.

    root: `/`, or a directory that holds a root file system.
    facts: what the host says about itself; modules choose their providers by it.
    fetch: where content comes from that the catalog names by digest.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        facts: Mapping[str, object] | None = None,
        durability: str = "batch",
        fetch: Fetch | None = None,
    ) -> None:
        self.root = root
        self.files = Tree(root, durability)
        self.facts: Mapping[str, object] = facts or {}
        #: While True, every act raises: set by `plan`.
        self.readonly = True
        #: Monotonic time at which the resource at work must be done.
        self.deadline: float | None = None
        #: Called with a path before it is changed for the first time.
        self.before_change: Callable[[str], None] = lambda path: None
        #: What a person should read beside the report; the engine collects and clears them.
        self.warnings: list[str] = []
        self._fetch = fetch
        self._memo: dict[str, dict[object, object]] = {}

    # -- looking -------------------------------------------------------------------------

    def lstat(self, path: str) -> os.stat_result | None:
        """What is at `path`, links not followed; None if nothing is."""
        return self.files.lstat(path)

    def read(self, path: str) -> bytes:
        """The content of a regular file. Raises NotYet if there is none, ResourceError."""
        found = self.lstat(path)
        if found is None:
            raise NotYet(f"{path} does not exist")
        if stat.S_ISREG(found.st_mode) and found.st_size > READ_CAP:
            raise Unsupported(
                f"{path} has {found.st_size} bytes; more than {READ_CAP} are not read whole"
            )
        try:
            return b"".join(self.files.chunks(path))
        except OSError as error:
            raise explain(error, path, "read") from error

    def digest(self, path: str) -> str:
        """The SHA-256 of a regular file, whatever its size. Raises ResourceError."""
        try:
            return self.files.digest(path)
        except OSError as error:
            raise explain(error, path, "read") from error

    def readlink(self, path: str) -> str:
        """The text of a symbolic link. Raises ResourceError."""
        try:
            return self.files.readlink(path)
        except OSError as error:
            raise explain(error, path, "read the link") from error

    def xattr(self, path: str, name: str) -> bytes | None:
        """The value of an extended attribute of a file or directory; None if it has none.

        Raises Unsupported where the file system keeps no such attributes, ResourceError.
        """
        try:
            return self.files.xattr(path, name)
        except OSError as error:
            raise explain_xattr(error, path, name, "read") from error

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, sorted; none if it does not exist. Raises ResourceError."""
        try:
            return self.files.listdir(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise explain(error, path, "list") from error

    def resolve(self, path: str) -> str:
        """Where `path` leads: links followed that nobody but root can have put there.

        Raises UnsafePath for any other link, ResourceError.
        """
        try:
            return self.files.resolve(path)
        except OSError as error:
            raise explain(error, path, "follow") from error

    def below(self, path: str) -> Iterator[Entry]:
        """Everything below a directory on its file system, parents first. Raises ResourceError."""
        try:
            for name, found, place in self.files.below(path):
                yield Entry(self, f"{path}/{name}", name, found, place)
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(error, path, "walk") from error

    def content(self, sha256: str, size: int) -> Iterator[bytes]:
        """The bytes that the catalog names by digest, a piece at a time."""
        if self._fetch is None:
            raise ReconcilerError("this run has no source of content")
        return self._fetch(sha256, size)

    def probe(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a program that only looks. Raises CommandFailed (with `check`), TimedOut."""
        return self._execute(argv, None, check, env, cwd, user, timeout)

    def memo(self, topic: str, key: object, look: Callable[[], T]) -> T:
        """The answer of `look`, kept until something on the machine changes that it may be about.

        topic: `package` survives the changes of resources that are not opaque; others do not.
        """
        answers = self._memo.setdefault(topic, {})
        if key not in answers:
            answers[key] = look()
        return answers[key]  # type: ignore[return-value]  # what look() gave for this key

    def forget(self, *, opaque: bool = True) -> None:
        """Something has changed: drop what was read ahead. opaque: it may have been anything."""
        packages = self._memo.get("package")
        self._memo.clear()
        if packages is not None and not opaque:
            self._memo["package"] = packages

    # -- names ---------------------------------------------------------------------------

    def account(self, name: str) -> Account | None:
        """The user `name`, or None."""
        return self._accounts().get(name)

    def _accounts(self) -> dict[str, Account]:
        return self.memo("user", "accounts", lambda: {a.name: a for a in self._read_accounts()})

    def _read_accounts(self) -> list[Account]:
        return [
            Account(name, int(uid), int(gid), home, shell, comment)
            for name, _, uid, gid, comment, home, shell in self.table("/etc/passwd", 7)
            if _is_number(uid) and _is_number(gid)
        ]

    def groups(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """All local groups: name -> (gid, members)."""
        return self.memo(
            "group",
            "all",
            lambda: {
                name: (int(gid), tuple(m for m in members.split(",") if m))
                for name, _, gid, members in self.table("/etc/group", 4)
                if _is_number(gid)
            },
        )

    def table(self, path: str, width: int) -> list[list[str]]:
        """The rows of a colon-separated account file that have `width` fields."""
        try:
            text = self.read(path).decode("utf-8", "surrogateescape")
        except NotYet:
            return []
        # Not splitlines(): a comment may hold characters that it takes for the end of a line.
        rows = (line.split(":") for line in text.split("\n") if line and line[0] not in "#+-")
        return [row for row in rows if len(row) == width]

    def uid(self, name: str) -> int:
        """The number of an owner given by name or number. Raises NotYet for an unknown name."""
        if _is_number(name):
            return int(name)
        account = self.account(name)
        if account is not None:
            return account.uid
        return self._from_name_service("getpwnam", name, "user")

    def gid(self, name: str) -> int:
        """The number of a group given by name or number. Raises NotYet for an unknown name."""
        if _is_number(name):
            return int(name)
        group = self.groups().get(name)
        if group is not None:
            return group[0]
        return self._from_name_service("getgrnam", name, "group")

    def _from_name_service(self, call: str, name: str, kind: str) -> int:
        """Names that are not in the files: LDAP, SSSD and the like, on the real root only."""
        if self.root == "/":
            import grp
            import pwd

            try:
                return (
                    pwd.getpwnam(name).pw_uid if call == "getpwnam" else grp.getgrnam(name).gr_gid
                )
            except KeyError:
                pass
        raise NotYet(
            f"{kind} '{name}' does not exist",
            hint=f"declare it as a {kind} resource, or install what brings it",
        )

    def owner_name(self, uid: int) -> str:
        """The name of a user number; the number itself where it has no name."""
        names = self.memo(
            "user",
            "names",
            lambda: {a.uid: a.name for a in reversed(list(self._accounts().values()))},
        )
        return names.get(uid, str(uid))

    def group_name(self, gid: int) -> str:
        """The name of a group number; the number itself where it has no name."""
        names = self.memo(
            "group",
            "names",
            lambda: {g[0]: name for name, g in reversed(list(self.groups().items()))},
        )
        return names.get(gid, str(gid))

    # -- acting --------------------------------------------------------------------------

    def act(self, path: str | None = None) -> None:
        """Say that something will be changed now; `path` if it is a file. Raises in a plan."""
        if self.readonly:
            raise ReconcilerError(
                f"a plan must not change anything{f', but would: {path}' if path else ''}"
            )
        if path is not None:
            self.before_change(path)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a program that changes the machine; never through a shell.

        timeout: in seconds, beside the time limit of the resource; then its whole process
        group is killed. user: run as that user, with its groups.
        Raises CommandFailed (with `check`), TimedOut.
        """
        self.act()
        return self._execute(argv, input, check, env, cwd, user, timeout)

    def write(
        self,
        path: str,
        content: Iterable[bytes],
        attributes: Attributes = AS_IT_IS,
        *,
        expect: os.stat_result | None = None,
        validate: Callable[[str], None] | None = None,
    ) -> None:
        """Put a regular file in place, whole or not at all: see `safewrite.Tree.write`."""
        self.act(path)
        self.files.write(path, content, attributes, expect=expect, validate=validate)

    def mkdir(self, path: str, attributes: Attributes = AS_IT_IS) -> None:
        """Make one directory, with mode 0755 unless one is given. Raises ResourceError."""
        self.act(path)
        self.files.mkdir(path, attributes)

    def symlink(self, path: str, text: str) -> None:
        """Put a symbolic link in place, atomically. Raises ResourceError."""
        self.act(path)
        self.files.symlink(path, text)

    def hardlink(self, path: str, target: str) -> None:
        """Make `path` another name of the file `target`. Raises ResourceError."""
        self.act(path)
        self.files.hardlink(path, target)

    def set_attributes(self, path: str, attributes: Attributes) -> None:
        """Change owner, group and mode in place; of a link, its own. Raises ResourceError."""
        self.act(path)
        self.files.set_attributes(path, attributes)

    def set_xattr(self, path: str, name: str, value: bytes | None) -> None:
        """Set an extended attribute, or with None remove it. Raises ResourceError.

        The first image of a path holds no such attributes, so none is taken.
        """
        self.act()
        self.files.set_xattr(path, name, value)

    def set_times(self, path: str, atime_ns: int, mtime_ns: int) -> None:
        """Set the times of what is there. Raises ResourceError."""
        self.act(path)
        self.files.set_times(path, atime_ns, mtime_ns)

    def remove(self, path: str, *, recurse: bool = False) -> None:
        """Remove a file, link or directory; never a mount point. Raises ResourceError."""
        self.act(path)
        self.files.remove(path, recurse=recurse)

    # -- processes -----------------------------------------------------------------------

    def remaining(self, timeout: float | None = None) -> float:
        """Seconds that the resource at work still has, at most `timeout`."""
        limit = DEFAULT_TIMEOUT if timeout is None else timeout
        if self.deadline is not None:
            limit = min(limit, self.deadline - time.monotonic())
        return max(limit, 0.0)

    def _execute(
        self,
        argv: Sequence[str],
        input: bytes | None,
        check: bool,
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
        timeout: float | None,
    ) -> Completed:
        limit = self.remaining(timeout)
        process = self._start(argv, input is not None, env, cwd, user)
        try:
            out, err = _communicate(process, input, time.monotonic() + limit)
        except _LateError:
            _kill_group(process)
            raise TimedOut(f"{argv[0]} took longer than {limit:.0f} s and was killed") from None
        except BaseException:
            _kill_group(process)
            raise
        finally:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        done = Completed(tuple(argv), process.returncode, _text(out), _text(err))
        if check and not done.ok:
            raise CommandFailed(done.argv, done.code, done.err.strip() or done.out)
        return done

    def _start(
        self,
        argv: Sequence[str],
        wants_input: bool,
        env: Mapping[str, str] | None,
        cwd: str | None,
        user: str | None,
    ) -> subprocess.Popen[bytes]:
        where = cwd or "/"
        identity: dict[str, object] = {}
        environment = {**ENVIRONMENT, **(env or {})}
        if user is not None:
            account = self.account(user)
            if account is None:
                raise NotYet(f"user '{user}' does not exist")
            groups = [gid for gid, members in self.groups().values() if user in members]
            identity = {"user": account.uid, "group": account.gid, "extra_groups": groups}
            environment = {
                **ENVIRONMENT,
                "HOME": account.home,
                "USER": user,
                "LOGNAME": user,
                **(env or {}),
            }
        command = list(argv)
        if self.root != "/":
            if identity or where != "/":
                raise Unsupported("in a directory root, programs run as root in /")
            command = ["chroot", self.root, *command]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE if wants_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=where if self.root == "/" else None,
                start_new_session=True,
                **identity,  # type: ignore[arg-type]  # user, group, extra_groups: as Popen wants them
            )
        except FileNotFoundError as error:
            missing = where if where != "/" and not os.path.isdir(where) else argv[0]
            raise NotYet(f"{missing} does not exist") from error
        except OSError as error:
            raise ResourceError(f"cannot run {argv[0]}: {error.strerror}") from error


class _LateError(Exception):
    pass


class _Kept:
    """The first and the last half MiB of a stream."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.tail = bytearray()
        self.dropped = 0

    def fill(self, fd: int) -> bool:
        """Take what there is; False at the end of the stream."""
        piece = os.read(fd, 65536)
        room = OUTPUT_CAP // 2 - len(self.head)
        self.head += piece[:room]
        self.tail += piece[room:]
        # Cut once in a while, and not for every piece.
        if len(self.tail) > 4 * OUTPUT_CAP:
            self._cut()
        return bool(piece)

    def _cut(self) -> None:
        extra = len(self.tail) - OUTPUT_CAP // 2
        if extra > 0:
            del self.tail[:extra]
            self.dropped += extra

    def whole(self) -> bytes:
        self._cut()
        if not self.dropped:
            return bytes(self.head + self.tail)
        return b"%b\n[... %d bytes left out ...]\n%b" % (self.head, self.dropped, self.tail)


def _communicate(
    process: subprocess.Popen[bytes], fed: bytes | None, end: float
) -> tuple[bytes, bytes]:
    """Feed and drain a process until it has ended, whoever still holds its output.

    Raises _LateError at `end`, in monotonic time.
    """
    out, err = cast("BinaryIO", process.stdout), cast("BinaryIO", process.stderr)
    kept = {out.fileno(): _Kept(), err.fileno(): _Kept()}
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        feeder = _Feeder(process.stdin, fed or b"", selector)
        ended: float | None = None
        while selector.get_map():
            now = time.monotonic()
            # What tells of the end is the process, not its output: a daemon may keep that open.
            if ended is None and process.poll() is not None:
                ended = now
            if ended is not None and now - ended > GRACE:
                break
            if ended is None and now > end:
                raise _LateError
            for key, _ in selector.select(
                0.02 if ended is not None else min(0.1, end - now + 0.01)
            ):
                if not (kept[key.fd].fill(key.fd) if key.fd in kept else feeder.feed()):
                    selector.unregister(key.fd)
        feeder.close()
    try:
        process.wait(max(end - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise _LateError from None
    whole = kept[out.fileno()].whole(), kept[err.fileno()].whole()
    out.close()
    err.close()
    return whole


class _Feeder:
    """Writes a process's input as fast as it takes it."""

    def __init__(
        self, stream: IO[bytes] | None, fed: bytes, selector: selectors.BaseSelector
    ) -> None:
        self._stream = stream
        self._todo = memoryview(fed)
        if stream is not None:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream.fileno(), selectors.EVENT_WRITE)

    def feed(self) -> bool:
        """Write a piece; False when there is nothing left to write, or nobody to read it."""
        stream = cast("IO[bytes]", self._stream)
        try:
            if self._todo:
                self._todo = self._todo[os.write(stream.fileno(), self._todo[:65536]) :]
        except BrokenPipeError:
            self._todo = memoryview(b"")
        if not self._todo:
            self.close()  # at once: most programs act on the end of their input
        return bool(self._todo)

    def close(self) -> None:
        """The end of the input."""
        if self._stream is not None:
            self._stream.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: politely first, for a second."""
    for number, patience in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _text(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace")
