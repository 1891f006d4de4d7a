"""The coordinator's side of workers: an executor on a dask scheduler, and what is said to them.

Who can speak to a scheduler or a worker of dask can run code there, and what they answer is unpickled
here. So all of them are one zone of trust, closed by TLS with certificates on both sides; without it
only this very machine is accepted.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import secrets
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, wait
from functools import partial
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

from distributed import Client, KilledWorker, Security
from distributed import Future as Task

from reconciler.engine.wire import Message
from reconciler.errors import ConfigError, ConnectionLost, HostUnreachable, UsageError
from reconciler.push import worker
from reconciler.push.order import Opening, Order, code_digest
from reconciler.push.outcome import Outcome
from reconciler.push.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

PORT = 8786
#: Seconds for the scheduler to answer, and for a first worker to be there.
PATIENCE = 10.0
_ADDRESS = re.compile(
    r"(?P<scheme>dask|tls)://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?"
)


class Keys(NamedTuple):
    """PEM files: of the authority that signs for all, our certificate, and its key.

    "" is what dask's own configuration says, in its files or in `DASK_DISTRIBUTED__COMM__TLS__*`.
    """

    ca_file: str = ""
    cert: str = ""
    key: str = ""


class Workers(Executor):
    """Runs what is submitted on the workers of a scheduler, again where a worker is lost.

    address: `dask://HOST:PORT`, or `tls://` which takes TLS even on this machine. Raises UsageError,
    HostUnreachable, ConfigError where one of them has other code than we.
    """

    def __init__(self, address: str, keys: Keys) -> None:
        where, security = _secured(address, keys)
        _be_quiet()
        try:
            self._client = Client(
                where, security=security, timeout=PATIENCE, set_as_default=False, name="reconciler"
            )
        except (OSError, TimeoutError) as error:
            raise HostUnreachable(
                f"no scheduler answers at {where}: {_last_words(error)}",
                hint="start one: dask scheduler; both sides must have TLS, or neither",
            ) from error
        try:
            self._check(where)
        except BaseException:
            self._client.close()
            raise

    def _check(self, where: str) -> None:
        """Refuse to begin where a task would kill a worker, as one that it cannot read does."""
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise HostUnreachable(
                f"the scheduler at {where} has no workers", hint=f"start one: dask worker {where}"
            ) from error
        try:
            of_scheduler: object = self._client.run_on_scheduler(code_digest)
        except Exception as error:  # noqa: BLE001  whatever it cannot import, it says so
            of_scheduler = error
        found: Any = self._client.run(code_digest, on_error="return")
        for name, code in [("the scheduler", of_scheduler), *dict(found).items()]:
            if code != code_digest():
                why = f": {code}" if isinstance(code, Exception) else ""
                raise ConfigError(
                    f"{name} does not run the same reconciler as this controller{why}",
                    hint="install the same reconciler[fleet] on all of them, and start them anew",
                )

    def listen(self, heard: Callable[[Message], None]) -> None:
        """From now on, tell what workers say about any run; from another thread."""
        self._client.subscribe_topic(worker.TOPIC, lambda event: heard(event[1]))

    @property
    def room(self) -> int:
        """How many tasks all workers together take at a time."""
        threads: Any = self._client.nthreads()
        return sum(threads.values())

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand it to the scheduler. The future raises ConnectionLost where that has lost it."""
        key = f"reconciler-{secrets.token_hex(8)}"
        task = self._client.submit(fn, *args, key=key, pure=False, **kwargs)
        loop: Any = self._client.loop
        return asyncio.run_coroutine_threadsafe(_ended(task), loop.asyncio_loop)

    def everywhere(self, fn: Callable[..., None], *args: str) -> Future[object]:
        """Call a function on every worker, beside its tasks; who is gone by now does not matter."""
        if self._client.status != "running":
            nobody: Future[object] = Future()
            nobody.set_result(None)
            return nobody
        return Threads().submit(self._client.run, fn, *args, on_error="ignore")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the scheduler; it forgets what has not begun, and nobody waits for the rest."""
        self._client.close()


class WorkerWork:
    """The `Work` of a run on workers."""

    def __init__(self, workers: Workers, opening: Opening, order: Order) -> None:
        self._workers = workers
        self._opening = opening
        self._order = order
        self._said: list[Future[object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        wait(self._said, PATIENCE)
        wait([self._workers.everywhere(worker.end, self._order.id)], PATIENCE)

    @property
    def run(self) -> Callable[..., Outcome]:
        """As `Work`: a function and plain data."""
        return partial(worker.perform, self._opening, self._order)

    def stop(self, host: str) -> None:
        """As `Work`."""
        self._said.append(self._workers.everywhere(worker.stop, self._order.id, host))

    def abandon(self, host: str) -> None:
        """As `Work`."""
        self._said.append(self._workers.everywhere(worker.abandon, self._order.id, host))


async def _ended(task: Task[Any]) -> Any:
    """What a task returns or raises."""
    try:
        return await task
    except KilledWorker as error:
        raise ConnectionLost(
            f"every worker that was at it was lost, {error.allowed_failures + 1} in all",
            hint="what is wrong is in the logs of the workers",
        ) from error
    except (CancelledError, asyncio.CancelledError) as error:
        raise ConnectionLost(
            "the scheduler was lost", hint="hosts at work stop by themselves; go on with --resume"
        ) from error


def _secured(address: str, keys: Keys) -> tuple[str, Security]:
    """The address for dask, and how it is spoken to. Raises UsageError."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found["port"] or PORT) > 65535:
        raise UsageError(
            f"{address!r} is no executor", hint="threads, dask://HOST:PORT or tls://HOST:PORT"
        )
    place = f"{found['host']}:{found['port'] or PORT}"
    names = {"tls_ca_file": keys.ca_file, "tls_client_cert": keys.cert, "tls_client_key": keys.key}
    given = {name: value for name, value in names.items() if value}
    security = Security(**given)
    if security.tls_ca_file and security.tls_client_cert:
        security.require_encryption = True
        try:
            security.get_connection_args("client")
        except OSError as error:
            raise UsageError(
                f"the certificates for {address} cannot be used: {error}",
                hint="PEM files: the authority, a certificate by it, and its key",
            ) from error
        return f"tls://{place}", security
    if given or found["scheme"] == "tls" or not _is_loopback(found["host"].strip("[]")):
        raise UsageError(
            f"{address} takes TLS, and there are no certificates for it",
            hint="--tls-ca-file, --tls-cert and --tls-key, or dask's own "
            "distributed.comm.tls; without them whoever reaches a worker runs code on it",
        )
    return f"tcp://{place}", security


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _be_quiet() -> None:
    """What goes wrong is told as an error of ours; a log would be drawn into the live table."""
    for name in ("distributed", "distributed.client", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _last_words(error: BaseException) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__
