"""A run over many hosts: batch after batch, so many at a time, within limits.

The coordinator is one loop that waits on one queue: hosts that are done, events of hosts, signals
and time limits all arrive there. It never waits for a host, so one that hangs costs its own time
limit and nobody else's. Host tasks run on any `concurrent.futures.Executor`; one that may begin
a task later than it takes it, or twice because it has lost the first one, says so with `begun`.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from reconciler.engine.wire import Message
from reconciler.errors import HostUnreachable, Interrupted, LockBusy, ReconcilerError
from reconciler.push.outcome import Outcome, of_error
from reconciler.push.rollout import Batch, Limits, Tally, verdict
from reconciler.push.threads import Threads, fulfil

PARALLEL = 50
#: A task has its own way to end at the time limit, and says more; so long it may take for that.
GRACE = 1.0
Done = tuple[Literal["done"], str, "Future[Outcome]"]
Told = tuple[Literal["told"], str, Message]
Begun = tuple[Literal["begun"], str, None]
Called = tuple[Literal["call"], Callable[[], None], None]
Signal = tuple[Literal["signal"], int, None]
T = TypeVar("T")
Check = Callable[[Sequence[str]], str]


class Work(Protocol):
    """What is done with one host."""

    @property
    def run(self) -> Callable[..., Outcome]:
        """All of it, on the executor: `run(host, wait)`. Every failure is an outcome.

        wait: seconds for the host's lock, which an earlier attempt of this run may still hold; 0
        if there was none. For an executor in other processes it can be pickled.
        """
        ...

    def stop(self, host: str) -> None:
        """Ask it to stop at the next boundary; it still ends with an outcome."""
        ...

    def abandon(self, host: str) -> None:
        """Hang up on the host; nobody waits for the outcome any more."""
        ...


class Listener(Protocol):
    """Who is told what happens; always in the thread of the coordinator."""

    def batch(self, number: int, batch: Batch) -> None:
        """A batch begins; numbers count from 1."""
        ...

    def began(self, host: str) -> None:
        """A host begins."""
        ...

    def event(self, host: str, event: Message) -> None:
        """An event of a host's engine."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A host is done."""
        ...

    def settled(self) -> None:
        """Nothing else is known at this moment: the time to flush."""
        ...

    def checking(self, number: int) -> None:
        """The checks after a batch begin."""
        ...

    def pausing(self, seconds: float) -> None:
        """A pause between two batches begins."""
        ...

    def stopping(self, reason: str) -> None:
        """No further host begins."""
        ...


@dataclass(frozen=True)
class Terms:
    """What a run may do.

    parallel: hosts at a time. host_timeout: seconds for one host, retries included; where a task
    waits for somebody to begin it, it may wait as long, and its time counts from then.
    pause: seconds between batches. total: hosts of the whole fleet, which the limits are about.
    """

    total: int
    limits: Limits
    parallel: int = PARALLEL
    host_timeout: float = 3600.0
    pause: float = 0.0


@dataclass(frozen=True)
class Course:
    """How a run went. stopped: why hosts were held back, or a check failed; "" if not."""

    outcomes: tuple[Outcome, ...]
    stopped: str = ""
    interrupted: bool = False


class Fleet:
    """One run. check: looks at the good hosts of a batch, from here, whatever the executor; says
    what is wrong, "" if nothing is."""

    def __init__(
        self,
        work: Work,
        terms: Terms,
        listener: Listener,
        executor: Executor,
        check: Check | None = None,
    ) -> None:
        self._work = work
        self._terms = terms
        self._listener = listener
        self._executor = executor
        self._check = check
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[str, float] = {}
        self._begun: Counter[str] = Counter()
        self._outcomes: dict[str, Outcome] = {}
        self._tally = Tally()
        self._stopped = ""
        self._check_failed = False
        self._signals = 0

    def tell(self, host: str, event: Message) -> None:
        """An event of a host, from any thread."""
        self._queue.put(("told", host, event))

    def begun(self, host: str) -> None:
        """A task has begun, and its time counts from now; again, if it was lost. From any thread."""
        self._queue.put(("begun", host, None))

    def call(self, work: Callable[[], T]) -> T:
        """Have something done in the coordinator's thread, from any other; waits for it."""
        future: Future[T] = Future()
        self._queue.put(("call", lambda: fulfil(future, work), None))
        return future.result()

    def run(self, batches: Sequence[Batch]) -> Course:
        """All batches, or as far as the limits, the checks and the operator let it go.

        The first SIGINT or SIGTERM stops hosts at their next boundary, the second hangs up.
        """
        with self._signals_taken():
            for number, batch in enumerate(batches, 1):
                self._batch(number, batch)
                if self._held:
                    break
                self._verify(number, batch)
                if self._held:
                    break
                if number < len(batches) and self._terms.pause:
                    self._listener.pausing(self._terms.pause)
                    self._wait_until(time.monotonic() + self._terms.pause)
        for host in (host for batch in batches for host in batch.hosts):
            self._outcomes.setdefault(host, Outcome(host, "held", attempts=0))
        hosts = [host for batch in batches for host in batch.hosts]
        left = any(self._outcomes[host].state == "held" for host in hosts)
        # A limit that was passed by the last hosts has held nobody back.
        stopped = self._stopped if left or self._check_failed else ""
        return Course(tuple(self._outcomes[host] for host in hosts), stopped, self._signals > 0)

    # -- one batch -----------------------------------------------------------------------

    @property
    def _held(self) -> bool:
        return bool(self._stopped or self._signals)

    def _batch(self, number: int, batch: Batch) -> None:
        self._listener.batch(number, batch)
        waiting = deque(batch.hosts)
        while waiting or self._running:
            while waiting and len(self._running) < self._terms.parallel and not self._held:
                self._start(waiting.popleft())
            if not self._running:
                return
            self._turn(min(self._running.values()))
            if batch.canary and not self._held:
                bad = [host for host in batch.hosts if not self._is_good(host)]
                if bad:
                    self._stop(f"canary {self._outcomes[bad[0]].state}: {', '.join(bad)}")

    def _is_good(self, host: str) -> bool:
        return host not in self._outcomes or self._outcomes[host].good

    def _start(self, host: str) -> None:
        # Taken before it starts: a task may be done before `submit` returns.
        self._running[host] = time.monotonic() + self._terms.host_timeout + GRACE
        self._listener.began(host)
        self._submit(host)

    def _submit(self, host: str, wait: float = 0.0) -> None:
        future = self._executor.submit(self._work.run, host, wait)
        future.add_done_callback(lambda done: self._queue.put(("done", host, done)))

    def _turn(self, until: float) -> None:
        """Take what has come, or wait for the first of it until a moment has come."""
        with contextlib.suppress(queue.Empty):
            self._take(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            while True:
                self._take(self._queue.get_nowait())
        now = time.monotonic()
        for host in [host for host, deadline in self._running.items() if deadline <= now]:
            self._work.abandon(host)
            limit = self._terms.host_timeout
            error = HostUnreachable(
                f"the host was not done within {limit:g} s",
                hint="it stops at the next boundary; --host-timeout gives it more time",
            )
            self._ended(of_error(host, error, limit))
        self._listener.settled()

    def _take(self, item: Done | Told | Begun | Called | Signal) -> None:
        if item[0] == "signal":
            self._told_to_stop()
        elif item[0] == "call":
            item[1]()
        elif item[0] == "begun":
            self._has_begun(item[1])
        # A host that was given up may still talk.
        elif item[1] in self._running:
            if item[0] == "told":
                self._listener.event(item[1], item[2])
            else:
                self._done(_outcome(item[1], item[2]))

    def _has_begun(self, host: str) -> None:
        """What was said to a task that got lost is said again to the one that replaces it."""
        self._begun[host] += 1
        if host not in self._running:
            self._work.abandon(host)
        elif self._signals:
            self._work.stop(host)
        if host in self._running and self._begun[host] == 1:
            self._running[host] = time.monotonic() + self._terms.host_timeout + GRACE

    def _done(self, outcome: Outcome) -> None:
        """Where a task was lost, its engine may still be at the resource that it was at."""
        host = outcome.host
        lost = self._begun[host] - 1
        left = self._running[host] - GRACE - time.monotonic()
        if lost > 0 and isinstance(outcome.error, LockBusy) and left > 0 and not self._signals:
            self._submit(host, left)
        else:
            self._ended(outcome)

    def _ended(self, outcome: Outcome) -> None:
        del self._running[outcome.host]
        self._outcomes[outcome.host] = outcome
        self._tally += outcome.tally
        self._listener.ended(outcome)
        reason = verdict(self._tally, self._terms.limits, self._terms.total)
        if reason and not self._stopped:
            self._stop(reason)

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        self._listener.stopping(reason)

    # -- between batches -----------------------------------------------------------------

    def _verify(self, number: int, batch: Batch) -> None:
        good = [host for host in batch.hosts if self._outcomes[host].good]
        if self._check is None or not good:
            return
        self._listener.checking(number)
        future = Threads().submit(self._check, good)
        while not future.done() and not self._signals:
            self._turn(time.monotonic() + 0.05)
        if future.done() and (wrong := future.result()):
            self._check_failed = True
            self._stop(wrong)

    def _wait_until(self, moment: float) -> None:
        while time.monotonic() < moment and not self._held:
            self._turn(moment)

    # -- being told to stop --------------------------------------------------------------

    def _told_to_stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._listener.stopping("interrupted")
            for host in list(self._running):
                self._work.stop(host)
            return
        for host in list(self._running):
            self._work.abandon(host)
            self._ended(of_error(host, Interrupted("interrupted; the host stops by itself")))

    @contextlib.contextmanager
    def _signals_taken(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def told(number: int, frame: object) -> None:
            self._queue.put(("signal", number, None))

        before = {one: signal.signal(one, told) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _outcome(host: str, future: Future[Outcome]) -> Outcome:
    """The outcome of a task; an executor that lost it is no reason to lose the host."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, ReconcilerError):
        return of_error(host, error)
    kind = type(error).__name__
    return of_error(host, ReconcilerError(f"the task failed: {kind}: {error}", host=host))
