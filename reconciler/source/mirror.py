"""A bare copy of the state repo on this host: what was fetched, and the agent's own pointers.

Only `fetch` writes objects into it, complete packs that were checked beside it. A damaged mirror is
made anew in another directory and swapped in.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.errors import ConfigError, LockBusy, ReconcilerError, SourceError, UsageError
from reconciler.source.bare import CONFIG, make_repository, oddity, read, sync, walk
from reconciler.source.git import EXHAUSTED, TIMEOUT, Git
from reconciler.source.process import Ended
from reconciler.source.refs import OWN, POINTERS, is_id

#: More packs than this are made one: each fetch that brings something adds one.
MANY_PACKS = 50
#: Seconds for which a mirror that was read whole is not read whole again, whatever is suspected.
AGAIN = 3600.0
#: Where a pack waits until it is known to be whole and sound; each fetch has its own.
QUARANTINE = "quarantine-"

#: Lines of fsck that tell of no damage.
_REMARKS = ("notice:", "warning:", "hint:", "dangling ")
_MIRROR = re.compile(r"mirror-[0-9a-f]{32}\.git(?=$|\.)")


class Ref(NamedTuple):
    """What a ref names: an object, and the commit behind it if that is a tag."""

    id: str
    commit: str


def mirror_path(directory: str, url: str, ref: str) -> str:
    """Where the mirror of one ref of one repository lies: no two share a place."""
    # Between them is what no argument of a program can hold, so neither runs into the other.
    digest = hashlib.sha256(f"{url}\0{ref}".encode()).hexdigest()
    return os.path.join(directory, f"mirror-{digest[:32]}.git")


def remove_others(kept: Mirror) -> None:
    """Take away the mirrors beside this one: of branches and repositories that nobody follows now.

    One that somebody writes to, or that is not ours, stays.
    """
    directory, name = os.path.split(kept.path)
    found = filter(None, map(_MIRROR.match, os.listdir(directory)))
    for other in {one[0] for one in found} - {name}:
        with contextlib.suppress(ReconcilerError, OSError):
            Mirror(os.path.join(directory, other)).remove()


class Mirror:
    """The mirror at `path`, which need not exist before the first fetch."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._suspicion = f"{self.path}.suspect"
        self._examined = f"{self.path}.examined"
        self._lock = f"{self.path}.lock"

    @property
    def exists(self) -> bool:
        """Whether there is a directory, sound or not."""
        return os.path.isdir(self.path)

    @property
    def git(self) -> Git:
        """The git program in it. Raises UsageError where there is no mirror yet."""
        return Git(self.path)

    @property
    def algorithm(self) -> str:
        """The kind of object ids: `sha1` or `sha256`."""
        return (
            "sha256"
            if read(os.path.join(self.path, "config")) == CONFIG["sha256"].encode()
            else "sha1"
        )

    # -- looking -------------------------------------------------------------------------

    def refs(self) -> dict[str, Ref]:
        """Every ref by its full name. Raises SourceError if one names nothing."""
        fields = "%(objectname) %(objecttype) %(*objectname) %(refname)"
        found: dict[str, Ref] = {}
        for line in self.git.run("for-each-ref", f"--format={fields}").decode().splitlines():
            id_, kind, peeled, name = line.split(" ", 3)
            found[name] = Ref(id_, id_ if kind == "commit" else peeled)
        return found

    def pointer(self, name: str) -> str:
        """The commit that an own pointer names, "" for none. Raises UsageError, SourceError."""
        found = self.refs().get(_own(name)) if self.exists else None
        return found.commit if found else ""

    def has(self, commit: str) -> bool:
        """Whether this commit is here."""
        return is_id(commit) and self.ask("cat-file", "-t", commit).out == b"commit\n"

    def damage(self) -> str:
        """What is wrong with it at a glance, or was found by whoever has read it; "" for nothing."""
        if not self.exists:
            return "it does not exist"
        found = (read(self._suspicion) or b"").decode("utf-8", "replace")
        try:
            found = found or oddity(self.path)
            if not found:
                self.refs()
        except ReconcilerError as error:
            return error.message
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return found

    def fsck(self, seconds: float = 600.0) -> str | None:
        """What is wrong with any object, "" for nothing, None if it does not come to an end.

        That takes long, and says nothing of a mirror that is only large or on a slow disk.
        """
        checked = self.ask("fsck", "--full", "--no-dangling", "--no-progress", seconds=seconds)
        said = (checked.err + b"\n" + checked.out).decode("utf-8", "replace")
        if checked.ok:
            return ""
        if checked.stopped or checked.code < 0 or EXHAUSTED.search(said):
            return None
        lines = [line for line in said.splitlines() if line and not line.startswith(_REMARKS)]
        return (lines or ["git fsck failed"])[0][:200]

    @property
    def suspected(self) -> bool:
        """Whether somebody had trouble that damage can cause."""
        return os.path.lexists(self._suspicion)

    def size(self) -> int:
        """Bytes of everything in it."""
        return sum(found.st_size for _, found in walk(self.path))

    # -- acting --------------------------------------------------------------------------

    def point(self, name: str, commit: str) -> None:
        """Make an own pointer name a commit; "" takes it away. Raises UsageError, SourceError."""
        self.update({_own(name): commit})

    def update(self, refs: dict[str, str]) -> None:
        """Make refs name objects, all or none of them; "" takes one away.

        Needs no lock of the caller's. Raises SourceError.
        """
        lines = "".join(
            f"update {name} {id_}\n" if id_ else f"delete {name}\n" for name, id_ in refs.items()
        )
        with self._alone_with_refs():
            done = self.ask("update-ref", "--no-deref", "--stdin", feed=lines.encode())
        if not done.ok:
            raise SourceError(f"cannot move refs of {self.path}: {done.said[:300]}")

    def ask(self, *args: str, seconds: float = TIMEOUT, feed: bytes = b"") -> Ended:
        """How a git command in the mirror ended. Raises SourceError, UsageError."""
        return self.git.ask(*args, seconds=seconds, feed=feed)

    def suspect(self, found: str = "") -> None:
        """Have the next fetch look for damage. found: what it is, where that is certain.

        A disk that is full can wait.
        """
        _touch(self._suspicion, found[:200])

    def examine(self, seconds: float) -> str:
        """What `fsck` finds in a mirror that is suspected; "" too where it was read whole lately.

        One that cannot be read whole in time is neither sound nor damaged: it stays in use, and
        suspected. Raises SourceError, OSError.
        """
        if not self.suspected or self._was_examined():
            return ""
        _touch(self._examined)
        found = self.fsck(seconds)
        if found == "":
            os.unlink(self._suspicion)
        return found or ""

    @contextlib.contextmanager
    def lock(self, patience: float = 0.0) -> Iterator[None]:
        """Be the only one that writes, after so many seconds at most.

        Raises LockBusy, ConfigError, SourceError.
        """
        self._check_owner()
        end = time.monotonic() + patience
        while True:
            fd = self._open_lock()
            try:
                self._take(fd, end, "another fetch is writing to")
                # Who removes a mirror removes its lock: the file that we waited for may be gone.
                if _is_at(self._lock, fd):
                    yield
                    return
            finally:
                os.close(fd)

    def remove(self) -> None:
        """Take it away with all that is beside it.

        Raises LockBusy while somebody writes to it, ConfigError, SourceError, OSError.
        """
        with self.lock():
            for path in (self.path, f"{self.path}.new", f"{self.path}.old"):
                shutil.rmtree(path, ignore_errors=True)
            self._forget()
            os.unlink(self._lock)

    def tidy(self) -> None:
        """Take away what a killed fetch left behind. To be called under the lock only."""
        old = f"{self.path}.old"
        if not self.exists and os.path.isdir(old):
            os.rename(old, self.path)
        quarantines = glob.glob(glob.escape(os.path.join(self.path, QUARANTINE)) + "*")
        for leftover in (old, f"{self.path}.new", *quarantines):
            shutil.rmtree(leftover, ignore_errors=True)
        if self.exists:
            with self._alone_with_refs():
                for path, _ in walk(self.path):
                    name = os.path.basename(path)
                    if name.endswith(".lock") or name.startswith(("tmp_", ".tmp-")):
                        os.unlink(path)

    def create(self, algorithm: str = "sha1") -> None:
        """Make an empty mirror where there is nothing. Raises OSError."""
        make_repository(self.path, algorithm)

    def replace_by(self, other: Mirror) -> Sequence[str]:
        """Put another mirror in the place of this one; gives the pointers that got lost.

        Pointers move along where the other has their commits. Raises SourceError, OSError.
        """
        with self._alone_with_refs() if self.exists else contextlib.nullcontext():
            pointers = self._pointers()
            kept = {OWN + name: id_ for name, id_ in pointers.items() if other.has(id_)}
            if kept:
                other.update(kept)
            if self.exists:
                os.rename(self.path, f"{self.path}.old")
            os.rename(other.path, self.path)
        sync(os.path.dirname(self.path))
        shutil.rmtree(f"{self.path}.old", ignore_errors=True)
        self._forget()
        return [name for name in pointers if OWN + name not in kept]

    def pack_up(self) -> None:
        """Make one pack of many, and forget what no ref reaches."""
        if len(self._packs()) > MANY_PACKS:
            memory = ("-c", "pack.threads=1", "-c", "pack.windowMemory=64m")
            self.ask(*memory, "repack", "-a", "-d", "-q", seconds=300)

    # -- details -------------------------------------------------------------------------

    def _forget(self) -> None:
        """Nothing is known of what is in its place now. Raises OSError."""
        for path in (self._suspicion, self._examined):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _was_examined(self) -> bool:
        try:
            return 0 <= time.time() - os.stat(self._examined).st_mtime < AGAIN
        except OSError:
            return False

    def _open_lock(self) -> int:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(self._lock, flags, 0o600)
        except OSError as error:
            raise SourceError(f"cannot lock {self.path}: {error.strerror}") from error

    def _take(self, fd: int, end: float, what: str) -> None:
        while True:
            try:
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise LockBusy(f"{what} {self.path}", hint="wait for it to end") from None
            time.sleep(0.05)

    @contextlib.contextmanager
    def _alone_with_refs(self) -> Iterator[None]:
        """Nobody else moves refs, and a file that git has left as its lock on one is nobody's.

        Never held for long, so that pointers can be moved while a fetch works.
        """
        end = time.monotonic() + TIMEOUT
        while True:
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise SourceError(f"cannot open {self.path}: {error.strerror}") from error
            try:
                self._take(fd, end, "somebody else moves refs of")
                # Another mirror may have been put in its place meanwhile.
                if _is_at(self.path, fd):
                    yield
                    return
            finally:
                os.close(fd)

    def _check_owner(self) -> None:
        if self.exists and os.stat(self.path).st_uid != os.geteuid():
            raise ConfigError(
                f"{self.path} belongs to another user, who must be the one to fetch",
                hint=f"chown -R the mirror to the user of the agent: ls -ld {self.path}",
            )

    def _packs(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [
                n
                for n in os.listdir(os.path.join(self.path, "objects/pack"))
                if n.endswith(".pack")
            ]
        return []

    def _pointers(self) -> dict[str, str]:
        """The own pointers, as far as they can be read from a damaged mirror."""
        found: dict[str, str] = {}
        for name in POINTERS:
            text = (
                (read(os.path.join(self.path, OWN + name)) or b"")
                .strip()
                .decode("ascii", "replace")
            )
            if is_id(text):
                found[name] = text
        return found


def _touch(path: str, text: str = "") -> None:
    """Make a file be of now, with a text in the place of its own if there is one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        fd = os.open(path, flags | (os.O_TRUNC if text else 0), 0o600)
        with open(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.utime(path)


def _is_at(path: str, fd: int) -> bool:
    """Whether this is the file that has the name now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _own(name: str) -> str:
    if name not in POINTERS:
        raise UsageError(
            f"{name!r} is no pointer of the agent", hint=f"one of {', '.join(POINTERS)}"
        )
    return OWN + name
