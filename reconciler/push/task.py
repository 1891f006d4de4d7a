"""What a fleet run does with one host: reach it, again if need be, and talk to its engine."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from reconciler.catalog import Plan, Report
from reconciler.engine.wire import Message
from reconciler.errors import HostUnreachable, Interrupted, ReconcilerError
from reconciler.push.host import Options, Project, open_engine, talk
from reconciler.push.outcome import Outcome, of_document, of_error
from reconciler.push.parcel import packed_engine
from reconciler.transport.connect import Connector
from reconciler.transport.engine import Engine
from reconciler.transport.target import Target

Mode = Literal["plan", "apply"]
T = TypeVar("T")
#: Seconds before the second attempt; each further one waits three times as long.
BACK_OFF = 0.5
#: Seconds after which no further attempt is begun: that a host hangs is found out once.
PATIENCE = 20.0


class Call(Protocol):
    """Has something done, maybe elsewhere, and waits for what comes of it."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


@dataclass(frozen=True)
class Manner:
    """How each host is treated. retries: further attempts to connect. keep_all: results that are
    in sync are kept too; a fleet has many of them, and a person asks for none."""

    mode: Mode
    options: Options
    retries: int = 2
    keep_all: bool = False


def here(work: Callable[[], T]) -> T:
    """Do something in the thread that asks for it."""
    return work()


class OneAtATime:
    """A `Project` for many threads: compiling is for one, and all hosts share what it parsed.

    call: has something done in a thread that can be interrupted, and waits for it. An expression of
    the state repo that never ends on what a hostile host says of itself is ended only there.
    """

    def __init__(self, project: Project, call: Call = here) -> None:
        self._project = project
        self._call = call
        self._lock = threading.Lock()

    def do(self, work: Callable[[], T]) -> T:
        """Something else that needs the state repo."""

        def alone() -> T:
            with self._lock:
                return work()

        return self._call(alone)

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        """As `Project`."""
        return self.do(lambda: self._project.catalog(host, facts))

    def content(self, host: str, facts: Mapping[str, Any], sha256: str) -> Iterable[bytes]:
        """As `Project`."""
        return self.do(lambda: list(self._project.content(host, facts, sha256)))

    def secrets(self, host: str, facts: Mapping[str, Any]) -> Mapping[str, str]:
        """As `Project`."""
        return self.do(lambda: self._project.secrets(host, facts))


class HostWork:
    """The `Work` of a run from this process. target: how a host is reached; may raise ConfigError.

    Safe to use from threads: `run` of different hosts, `stop` and `abandon` of hosts that run.
    """

    def __init__(
        self,
        target: Callable[[str], Target],
        project: Project,
        connector: Connector,
        manner: Manner,
        tell: Callable[[str, Message], None] = lambda host, event: None,
        call: Call = here,
    ) -> None:
        self._target = target
        self._project = OneAtATime(project, call)
        self._connector = connector
        self._manner = manner
        self._tell = tell
        self._packed: bytes | None = None
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._stopped: set[str] = set()
        self._wake = threading.Event()

    def run(self, host: str, wait: float = 0.0) -> Outcome:
        """Reach the host and plan for it or converge it. wait: as in `Work`."""
        begun = time.monotonic()
        attempts = _Attempts(host, self._manner.retries)
        try:
            document = self._reached(host, attempts, begun, wait)
        except ReconcilerError as error:
            return of_error(host, error, time.monotonic() - begun, attempts.made)
        except RecursionError:
            error = ReconcilerError("the host's answer is nested too deeply")
            return of_error(host, error, time.monotonic() - begun, attempts.made)
        outcome = of_document(host, document, time.monotonic() - begun, attempts.made)
        if self._manner.keep_all:
            return outcome
        differing = tuple(one for one in document.results if one.status != "ok")
        return replace(outcome, document=replace(document, results=differing))

    def stop(self, host: str) -> None:
        """Stop at the next boundary; a host that is not reached yet is not waited for."""
        with self._lock:
            self._stopped.add(host)
            engine = self._engines.get(host)
        self._wake.set()
        if engine is not None:
            # It may have to wait its turn to speak; the coordinator must not.
            threading.Thread(target=_unheard, args=(engine.stop,), daemon=True).start()

    def abandon(self, host: str) -> None:
        """Hang up at once."""
        with self._lock:
            self._stopped.add(host)
            engine = self._engines.get(host)
        if engine is not None:
            # Hanging up waits for the other side; the coordinator must not.
            threading.Thread(target=_unheard, args=(engine.close,), daemon=True).start()

    def _reached(self, host: str, attempts: _Attempts, begun: float, wait: float) -> Plan | Report:
        target, packed = self._project.do(lambda: self._prepared(host))
        while True:
            attempts.made += 1
            try:
                engine = open_engine(target, self._connector, self._in_time(begun), packed)
            except HostUnreachable:
                self._go_on(host)
                if not attempts.again(self._wake, begun):
                    raise
                self._go_on(host)
                continue
            with engine:
                return self._talk(host, engine, wait)

    def _prepared(self, host: str) -> tuple[Target, bytes]:
        # Packing parses modules, and Python's parser is not for two threads at a time.
        self._packed = self._packed or packed_engine()
        return self._target(host), self._packed

    def _talk(self, host: str, engine: Engine, wait: float) -> Plan | Report:
        with self._lock:
            self._engines[host] = engine
        try:
            self._go_on(host)
            options = self._manner.options
            return talk(
                engine,
                host,
                self._project,
                self._manner.mode,
                replace(options, lock_timeout=max(options.lock_timeout, wait)),
                lambda event: self._tell(host, event),
            )
        finally:
            with self._lock:
                del self._engines[host]

    def _go_on(self, host: str) -> None:
        if host in self._stopped:
            raise Interrupted("interrupted before anything was done")

    def _in_time(self, begun: float) -> Options:
        """The options with what is left of the host's time."""
        options = self._manner.options
        left = max(1.0, options.limits.seconds - (time.monotonic() - begun))
        return replace(
            options,
            start_timeout=min(options.start_timeout, left),
            limits=replace(options.limits, seconds=left),
        )


class _Attempts:
    """How often a host was connected to, and whether to try again."""

    def __init__(self, host: str, retries: int) -> None:
        self.made = 0
        self._retries = retries
        # Hosts behind one gateway do not all come back at the same moment.
        self._jitter = 1 + zlib.crc32(host.encode()) % 100 / 200

    def again(self, wake: threading.Event, begun: float) -> bool:
        """Wait, and say yes; no once all attempts are made or it has taken long enough."""
        if self.made > self._retries or time.monotonic() - begun > PATIENCE:
            return False
        wake.wait(BACK_OFF * 3 ** (self.made - 1) * self._jitter)
        return True


def _unheard(say: Callable[[], None]) -> None:
    """Say something to a host that may be gone by now."""
    try:
        say()
    except (ReconcilerError, OSError, ValueError):
        return
