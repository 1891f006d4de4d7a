"""The high-water mark: the last commit that was trusted, kept where no fetch can lose it.

It is stored twice, `trust.json` and `trust.json.bak`, each with a checksum. They agree, or the
newer valid one wins; with none valid nothing is trusted until a person says what was. Only the
standard library is needed here, so that the part that runs as root can keep it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from reconciler.errors import LockBusy, SourceError, Stale, StateLost, UsageError
from reconciler.refusals import reason
from reconciler.source.refs import is_id

SCHEMA = ["reconciler/trust", 1]
NAMES = ("trust.json", "trust.json.bak")
#: Its time stamp is the last contact that confirmed the mark; losing it costs a false alarm. In it is
#: the latest there was, where the clock has gone back since.
CONTACT = "contact"
#: No clock shows this time.
NEVER = 1e11
#: Resets that are remembered.
HISTORY = 50
#: What a writer that was killed has left.
_TEMPORARY = re.compile(r"\.trust\.json(?:\.bak)?\.[0-9a-f]{16}")


@dataclass(frozen=True)
class Reset:
    """A person's word on what is to be trusted. at: seconds since 1970."""

    to: str
    before: str
    reason: str
    by: str
    at: float


@dataclass(frozen=True)
class Mark:
    """What was trusted last. Times are seconds since 1970.

    sequence: grows with each change. commit: "" until the first is accepted. ref, object: what
    it was found as; a tag must go on naming the same object. epoch: of `reconciler.yml`.
    signers: who signed it. received_at: when it was fetched. advanced_at: when it became the mark.
    heard_at: the latest time at which a remote was heard; it is kept beside the mark.
    """

    sequence: int = 0
    commit: str = ""
    ref: str = ""
    object: str = ""
    epoch: int = 0
    signers: tuple[str, ...] = ()
    received_at: float = 0.0
    advanced_at: float = 0.0
    resets: tuple[Reset, ...] = ()
    heard_at: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the file and for the way between two processes."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Mark:
        """The reverse of `to_json`. Raises ValueError, TypeError or KeyError."""
        fields = dict(data)
        fields["signers"] = tuple(str(one) for one in data["signers"])
        fields["resets"] = tuple(Reset(**one) for one in data["resets"])
        return cls(**fields)


class Freshness(NamedTuple):
    """Seconds since a remote confirmed the mark, and since it moved; stale: why, or ""."""

    age: float
    quiet: float
    stale: str

    def require(self) -> None:
        """Raises Stale if a limit is passed; what was applied stays enforced all the same."""
        if self.stale:
            raise Stale(
                self.stale,
                hint="is the server reachable, and does it serve the newest commit? "
                "the last trusted commit stays enforced",
            )


class _Copy(NamedTuple):
    state: str
    mark: Mark | None = None


class Marks:
    """The mark of one host, in a directory that only its user can enter."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    # -- looking -------------------------------------------------------------------------

    def load(self) -> Mark:
        """The mark. Raises StateLost where no copy of it is valid."""
        marks = [one.mark for one in map(self._look, NAMES) if one.mark]
        if not marks:
            raise self._lost()
        newest = max(marks, key=lambda mark: mark.sequence)
        return replace(newest, heard_at=self._heard_at())

    def copies(self) -> dict[str, str]:
        """Each file: `valid`, `older`, `missing`, `damaged`, `not ours` or `not a file`.

        `not ours` belongs to somebody else than root and us, or others can write to it.
        """
        copies = {name: self._look(name) for name in NAMES}
        newest = max((one.mark.sequence for one in copies.values() if one.mark), default=0)
        return {
            name: "older" if one.mark and one.mark.sequence < newest else one.state
            for name, one in copies.items()
        }

    def freshness(
        self, *, max_age: float = 0.0, max_quiet: float = 0.0, now: float | None = None
    ) -> Freshness:
        """How old our knowledge is. Limits in seconds, 0 for none. Raises StateLost."""
        now = time.time() if now is None else now
        mark = self.load()
        contact = mark.advanced_at
        with contextlib.suppress(OSError):
            contact = os.stat(self._path(CONTACT)).st_mtime
        # A contact in the future is a clock that was set back: its age is not known to be small.
        age, quiet = abs(now - contact), abs(now - mark.advanced_at)
        stale = ""
        if 0 < max_age < age:
            stale = f"no remote has confirmed the state repo for {_span(age)}; {_span(max_age)} are allowed"
        elif 0 < max_quiet < quiet:
            stale = f"the state repo has not advanced for {_span(quiet)}; {_span(max_quiet)} are allowed"
        return Freshness(age, quiet, stale)

    # -- acting --------------------------------------------------------------------------

    def enrol(self) -> Mark:
        """Begin, with nothing trusted yet: for installing, never for mending.

        Raises UsageError where there is, or was, a mark.
        """
        with self._alone():
            if any(os.path.lexists(self._path(name)) for name in NAMES):
                raise UsageError(
                    f"{self.directory} has a trust file already",
                    hint="reconciler trust show",
                )
            return self._write(Mark(sequence=1, advanced_at=time.time()))

    def advance(self, new: Mark, *, before: Mark) -> Mark:
        """Make `new` the mark if it is still `before`; gives it with its number.

        Raises LockBusy if somebody changed it meanwhile, StateLost, SourceError.
        """
        with self._alone():
            current = self.load()
            if current != before:
                raise LockBusy(
                    "the last trusted commit was changed by somebody else",
                    hint="look at it again: reconciler trust show",
                )
            return self._write(replace(new, sequence=current.sequence + 1))

    def confirm(self, now: float | None = None) -> None:
        """Note that a remote showed the mark as its newest commit. Raises SourceError."""
        now = time.time() if now is None else now
        latest = self._heard_at()
        self._hear(now, str(latest) if latest > now else "")

    def mend(self) -> Mark:
        """Make both copies equal again, from the newest valid one. Raises StateLost."""
        with self._alone():
            mark = self.load()
            if set(self.copies().values()) != {"valid"}:
                self._write(mark)
            return mark

    def reset(self, to: str, reason: str, by: str) -> Mark:
        """Trust `to` because a person says so, whatever was trusted before.

        to: a full commit id. by: who says it. Raises UsageError.
        """
        if not is_id(to):
            raise UsageError(
                f"{to[:80]!r} is no full commit id",
                hint="git rev-parse main in the state repo shows it: 40 or 64 hexadecimal digits",
            )
        if not reason.strip():
            raise UsageError(
                "a reset of trust needs a reason", hint="--reason 'history was rewritten'"
            )
        with self._alone():
            try:
                old = self.load()
            except StateLost:
                # Above every number that a lost copy could come back with.
                old = Mark(sequence=int(time.time()))
            now = time.time()
            if self._heard_at() > now:
                self._hear(now)  # by a clock that was wrong, if that person looked at it
            entry = Reset(to, old.commit, reason.strip()[:500], by[:100], now)
            return self._write(
                Mark(
                    sequence=old.sequence + 1,
                    commit=to,
                    signers=(f"reset by {entry.by}",),
                    received_at=now,
                    advanced_at=now,
                    resets=(*old.resets, entry)[-HISTORY:],
                )
            )

    # -- details -------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _heard_at(self) -> float:
        """The latest contact; 0 before the first."""
        try:
            with open(self._path(CONTACT), encoding="ascii") as file:
                found = (os.fstat(file.fileno()).st_mtime, float(file.read(100) or 0))
        except (OSError, ValueError):
            return 0.0
        return max((one for one in found if 0 <= one < NEVER), default=0.0)

    def _hear(self, now: float, latest: str = "") -> None:
        path = self._path(CONTACT)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
                file.write(latest)
                file.flush()
                os.utime(file.fileno(), (now, now))
        except OSError as error:
            raise SourceError(f"cannot write {path}: {error.strerror}") from error

    def _look(self, name: str) -> _Copy:
        """One copy; it has a mark only if it is whole, and nobody else can have written it."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self._path(name), flags)
        except FileNotFoundError:
            return _Copy("missing")
        except OSError as error:
            return _Copy("not a file" if error.errno in (errno.ELOOP, errno.ENXIO) else "damaged")
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return _Copy("not a file")
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                return _Copy("not ours")
            mark = _decode(os.read(fd, 1 << 20))
        except OSError:
            return _Copy("damaged")
        finally:
            os.close(fd)
        return _Copy("valid" if mark else "damaged", mark)

    def _write(self, mark: Mark) -> Mark:
        data = _encode(mark)
        for name in NAMES:
            temporary = self._path(f".{name}.{secrets.token_hex(8)}")
            try:
                self._write_one(temporary, name, data)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise SourceError(
                    f"cannot write {self._path(name)}: {reason(error, self.directory)}",
                    hint="df -h; df -i; mount | grep ro",
                ) from error
        return mark

    def _write_one(self, temporary: str, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if os.path.isdir(self._path(name)) and not os.path.islink(self._path(name)):
            # It cannot be replaced by a file; what somebody has put there is theirs to remove.
            os.rename(self._path(name), f"{self._path(name)}.{secrets.token_hex(4)}")
        os.rename(temporary, self._path(name))
        above = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the mark meanwhile; nothing that is held here takes long."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"cannot open {self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._sweep()
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        with contextlib.suppress(OSError):
            for name in filter(_TEMPORARY.fullmatch, os.listdir(self.directory)):
                os.unlink(self._path(name))

    def _lost(self) -> StateLost:
        states = ", ".join(f"{name} is {state}" for name, state in self.copies().items())
        return StateLost(
            f"what was trusted last is not known: in {self.directory} {states}",
            hint="find out which commit this host may trust, on a machine that you trust: "
            "git rev-parse main\n"
            "then say so:  reconciler trust reset --to COMMIT --reason 'state was lost'",
        )


def _encode(mark: Mark) -> bytes:
    document: dict[str, Any] = {"schema": SCHEMA, **mark.to_json()}
    del document["heard_at"]
    document["checksum"] = _checksum(document)
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"


def _decode(data: bytes) -> Mark | None:
    try:
        document: dict[str, Any] = json.loads(data)
        checksum = document.pop("checksum")
        if checksum != _checksum(document) or document.pop("schema") != SCHEMA:
            return None
        return Mark.from_json(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _checksum(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
