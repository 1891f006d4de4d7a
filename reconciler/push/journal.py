"""What a fleet run did, kept on the controller while it goes on: one JSON object a line.

`$XDG_STATE_HOME/reconciler/runs/RUN.jsonl`, mode 0600. The first line says what the run is about,
each further one what became of a host; these are on the disk before the next host begins. A run
whose controller died is resumed from there. Nothing in it is secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, get_args

from reconciler.compile.cache import PrivateDirectory
from reconciler.errors import ConfigError, LockBusy, UsageError
from reconciler.push.outcome import GOOD, Outcome, State
from reconciler.push.rollout import Batch

#: Runs that are kept; the oldest go first.
KEEP = 200
#: A journal of 100,000 hosts is smaller.
MAX_SIZE = 256 << 20
LAST = "last"
SCHEMA = ["reconciler/journal", 1]
_RUN = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{6}")
_STATES = frozenset(get_args(State))


@dataclass(frozen=True)
class Head:
    """What a run is about. tree: equal only for equal state repos; commit, dirty: for a person.

    only: the tags that select, and those that skip. batches: who goes when.
    """

    run: str
    mode: str
    tree: str
    commit: str
    dirty: bool
    only: tuple[tuple[str, ...], tuple[str, ...]]
    batches: tuple[Batch, ...]
    started: float

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts of the run, in the order in which they go."""
        return tuple(host for batch in self.batches for host in batch.hosts)

    def to_json(self) -> dict[str, object]:
        """The first line."""
        batches = [{"hosts": list(one.hosts), "canary": one.canary} for one in self.batches]
        return {
            "schema": SCHEMA,
            "run": self.run,
            "mode": self.mode,
            "tree": self.tree,
            "commit": self.commit,
            "dirty": self.dirty,
            "only": [list(tags) for tags in self.only],
            "batches": batches,
            "started": round(self.started, 3),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Head:
        """The inverse. Raises KeyError, TypeError, ValueError for something else."""
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}")
        tags, skip = document["only"]
        return cls(
            str(document["run"]),
            str(document["mode"]),
            str(document["tree"]),
            str(document["commit"]),
            bool(document["dirty"]),
            (tuple(map(str, tags)), tuple(map(str, skip))),
            tuple(
                Batch(tuple(map(str, one["hosts"])), bool(one["canary"]))
                for one in document["batches"]
            ),
            float(document["started"]),
        )


@dataclass(frozen=True)
class Record:
    """What a journal says. states: of hosts that ended. begun: hosts that began."""

    head: Head
    states: Mapping[str, State] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()

    @property
    def left(self) -> list[Batch]:
        """The batches without the hosts that are good; empty ones are dropped."""
        batches = [
            Batch(
                tuple(host for host in batch.hosts if self.states.get(host) not in GOOD),
                batch.canary,
            )
            for batch in self.head.batches
        ]
        return [batch for batch in batches if batch.hosts]

    @property
    def failed(self) -> list[str]:
        """The hosts that began and did not end well."""
        return [
            host
            for host in self.head.hosts
            if host in self.begun and self.states.get(host) not in GOOD
        ]


def new_run() -> str:
    """An id that no other run has, and that sorts by time: `20260302T091500-3fa9c1`.

    Half of what follows the second is its fraction, half is chance.
    """
    now = time.time()
    second = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{second}-{int(now % 1 * 0x1000):03x}{os.urandom(2).hex()[1:]}"


class Journal:
    """A journal that is written. It holds a lock: nobody resumes a run that goes on."""

    def __init__(self, file: IO[bytes], run: str) -> None:
        self.run = run
        self._file = file
        self._owed = False

    @classmethod
    def begin(cls, head: Head) -> Journal:
        """A new journal. Raises ConfigError where none can be written."""
        with _directory() as directory:
            journal = cls(_open(directory, head.run, os.O_CREAT | os.O_EXCL), head.run)
            journal.note(head.to_json())
            journal.settle()
            os.fsync(directory.fd)
            directory.keep_newest(KEEP)
        return journal

    @classmethod
    def resume(cls, run: str) -> Journal:
        """Go on in one that is there. Raises ConfigError, LockBusy."""
        with _directory() as directory:
            file = _open(directory, run, 0)
        # What a controller wrote last when it died may have no end.
        file.write(b"\n")
        return cls(file, run)

    def note(self, document: Mapping[str, object]) -> None:
        """One line; `settle` brings it to the disk."""
        self._file.write(json.dumps(document, separators=(",", ":")).encode() + b"\n")
        self._owed = True

    def began(self, host: str) -> None:
        """A host begins."""
        self.note({"event": "began", "host": host, "at": round(time.time(), 3)})

    def ended(self, outcome: Outcome) -> None:
        """A host is done; `settle` brings that to the disk."""
        error = outcome.error
        self.note(
            {
                "event": "ended",
                "host": outcome.host,
                "state": outcome.state,
                "at": round(time.time(), 3),
                "seconds": round(outcome.seconds, 3),
                "attempts": outcome.attempts,
                "counts": dict(outcome.counts),
                "error": None if error is None else f"{type(error).__name__}: {error.message}",
            }
        )

    def settle(self) -> None:
        """What was written survives a power cut, as soon as this returns."""
        self._file.flush()
        if self._owed:
            os.fsync(self._file.fileno())
        self._owed = False

    def end(self, stopped: str, code: int) -> None:
        """The run has ended."""
        self.note({"event": "end", "stopped": stopped, "exit": code, "at": round(time.time(), 3)})
        self.settle()
        self._file.close()

    def close(self) -> None:
        """Let go of it, ended or not."""
        with contextlib.suppress(OSError):
            self._file.close()


def _open(directory: PrivateDirectory, run: str, flags: int) -> IO[bytes]:
    flags |= os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(f"{run}.jsonl", flags, 0o600, dir_fd=directory.fd)
    except OSError as error:
        raise ConfigError(f"cannot write the journal of {run}: {error.strerror}") from error
    file = open(fd, "ab")  # noqa: SIM115  closed by the journal
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LockBusy(f"run {run} is going on", hint="wait until it has ended") from error
    return file


def read(run: str) -> Record:
    """What became of a run; `last` is the newest. Raises UsageError if there is none, ConfigError."""
    with _directory() as directory:
        names = sorted(one for one in os.listdir(directory.fd) if one.endswith(".jsonl"))
        runs = [one.removesuffix(".jsonl") for one in names if _RUN.fullmatch(one[:-6])]
        if run == LAST:
            if not runs:
                raise UsageError("there is no run yet")
            run = runs[-1]
        if run not in runs:
            newest = ", ".join(reversed(runs[-3:]))
            raise UsageError(
                f"there is no run {run!r}", hint=f"the newest are {newest}" if runs else ""
            )
        text = directory.read(f"{run}.jsonl") or b""
    return _record(run, text[:MAX_SIZE].splitlines())


def _record(run: str, lines: Sequence[bytes]) -> Record:
    try:
        head = Head.from_json(json.loads(lines[0]))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"the journal of {run} is damaged: its first line is {error}") from error
    states: dict[str, State] = {}
    begun: set[str] = set()
    for entry in _entries(lines[1:]):
        host = str(entry.get("host"))
        if entry.get("event") == "began":
            begun.add(host)
            states.pop(host, None)
        elif entry.get("event") == "ended" and entry.get("state") in _STATES:
            states[host] = entry["state"]
    return Record(head, states, frozenset(begun))


def _entries(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """All lines that are whole: one that a power cut left half was about a host that had begun."""
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def runs_home() -> str:
    """Where journals are."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = state if state.startswith("/") else os.path.expanduser("~/.local/state")
    return os.path.join(base, "reconciler", "runs")


@contextlib.contextmanager
def _directory() -> Iterator[PrivateDirectory]:
    place = runs_home()
    above = PrivateDirectory.open(os.path.dirname(place))
    directory = None if above is None else PrivateDirectory.open("runs", above)
    if above is not None:
        above.close()
    if directory is None:
        raise ConfigError(
            f"{place} cannot be used: it must be yours, and writable by nobody else",
            hint="set XDG_STATE_HOME to a directory of yours",
        )
    try:
        yield directory
    finally:
        directory.close()
