"""The part of a fleet run that happens on a dask worker: one host, on the coordinator's order.

A worker opens an order once, for all hosts of it that it is given. It says when it begins a host, so
that the coordinator knows from when the time counts, and that a lost task has been begun again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

import dask.config as dask_config
from distributed import Worker, get_worker

from reconciler.engine.wire import Message, error_from_json, error_to_json
from reconciler.errors import Interrupted, ReconcilerError
from reconciler.push.order import Opened, Opening, Order
from reconciler.push.outcome import Outcome, of_error
from reconciler.push.task import Call, here
from reconciler.push.threads import fulfil

T = TypeVar("T")

#: One topic for all runs: the scheduler keeps the last events of each for good.
TOPIC = "reconciler"
#: Seconds between two words about one host; the table of a terminal is drawn as often.
SPARING = 0.25
#: Seconds after which an order whose coordinator is gone is closed, once another one comes.
FORGOTTEN = 600.0


def perform(opening: Opening, order: Order, host: str, wait: float = 0.0) -> Outcome:
    """Plan for a host or converge it. Every failure is an outcome."""
    worker = get_worker()
    task = _enter(order, worker)
    try:
        _say(worker, {"id": order.id, "host": host, "event": "begun"})
        # Another version may not even know what there is in an order.
        order.check_code()
        return task.run(opening, host, wait)
    except ReconcilerError as error:
        return of_error(host, error)
    finally:
        task.leave()


def stop(id_: str, host: str) -> None:
    """Stop a host that is at work here at its next boundary."""
    _tell_to("stop", id_, host)


def abandon(id_: str, host: str) -> None:
    """Hang up on a host that is at work here."""
    _tell_to("abandon", id_, host)


def end(id_: str) -> None:
    """The coordinator has no further word about this order."""
    with _lock:
        task = _tasks.pop(id_, None)
    if task is not None:
        task.end()


class _Task:
    """An order that was opened here, or is about to be; it is closed when nobody is at it."""

    def __init__(self, order: Order, worker: Worker) -> None:
        self.used = time.monotonic()
        self.at_work = 0
        self._order = order
        self._worker = worker
        self._opening = threading.Lock()
        self._opened: Opened | None = None
        self._failed: Message | None = None
        self._ended = False
        self._told: set[str] = set()
        self._said: dict[str, float] = {}

    def run(self, opening: Opening, host: str, wait: float) -> Outcome:
        with self._opening:
            opened = self._opened = self._opened or self._open(opening)
        if host in self._told:
            raise Interrupted("interrupted before anything was done")
        return opened.run(host, wait)

    def _open(self, opening: Opening) -> Opened:
        """What failed for one host is not tried again for the next: it may have taken minutes."""
        if self._failed is not None:
            raise error_from_json(self._failed)
        try:
            return opening(self._order, _settings(), self._tell, _caller(self._worker))
        except ReconcilerError as error:
            self._failed = error_to_json(error)
            raise

    def tell_to(self, what: Literal["stop", "abandon"], host: str) -> None:
        """Never waits, since the worker's event loop says it."""
        self._told.add(host)
        opened = self._opened
        if opened is not None:
            (opened.stop if what == "stop" else opened.abandon)(host)

    def leave(self) -> None:
        with _lock:
            self.at_work -= 1
            self.used = time.monotonic()
            last = self._ended and not self.at_work
        if last:
            self._close()

    def end(self) -> None:
        with _lock:
            self._ended = True
            last = not self.at_work
        if last:
            # To hang up on a jump host takes a moment, and an event loop has none.
            threading.Thread(target=self._close, daemon=True).start()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _tell(self, host: str, event: Message) -> None:
        if event.get("event") == "waiting":
            known = {key: event.get(key) for key in ("event", "holder", "seconds")}
            _say(self._worker, {"id": self._order.id, "host": host, **known})
            return
        now = time.monotonic()
        watched = self._order.events and event.get("event") == "start"
        if watched and now - self._said.get(host, 0.0) >= SPARING:
            self._said[host] = now
            known = {key: event.get(key) for key in ("event", "index", "total")}
            _say(
                self._worker,
                {"id": self._order.id, "host": host, **known, "resource": str(event.get("id"))},
            )


_lock = threading.Lock()
_tasks: dict[str, _Task] = {}


def _enter(order: Order, worker: Worker) -> _Task:
    now = time.monotonic()
    with _lock:
        old = [id_ for id_, one in _tasks.items() if not one.at_work and now - one.used > FORGOTTEN]
        task = _tasks.setdefault(order.id, _Task(order, worker))
        task.at_work += 1
    for id_ in old:
        end(id_)
    return task


def _tell_to(what: Literal["stop", "abandon"], id_: str, host: str) -> None:
    with _lock:
        task = _tasks.get(id_)
    if task is not None:
        task.tell_to(what, host)


def _settings() -> dict[str, str]:
    found: Any = dask_config.get("reconciler", {})
    return {str(key).replace("-", "_"): str(value) for key, value in dict(found or {}).items()}


def _caller(worker: Worker) -> Call:
    """Has something done in the main thread, where a regular expression without end is ended.

    That is the thread of the event loop, unless the worker is a part of another program. What
    compiles keeps the interpreter to itself in any thread, so the loop loses nothing by it.
    """
    if worker.thread_id != threading.main_thread().ident:
        return here

    def call(work: Callable[[], T]) -> T:
        future: Future[T] = Future()
        worker.loop.add_callback(fulfil, future, work)
        return future.result()

    return call


def _say(worker: Worker, message: Message) -> None:
    worker.log_event(TOPIC, message)
