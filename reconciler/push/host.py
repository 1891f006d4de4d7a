"""Push to one host: facts come back, the catalog goes out, a plan or report comes back.

One connection, one process on the host, one round of talk. Whatever the host does costs this host
only: every failure is a ReconcilerError that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, overload

from reconciler.catalog import Plan, Report
from reconciler.engine.wire import Message
from reconciler.errors import ProtocolError, ReconcilerError
from reconciler.push.parcel import packed_engine
from reconciler.transport.bootstrap import Launch
from reconciler.transport.connect import Connector
from reconciler.transport.engine import Engine
from reconciler.transport.remote import Limits
from reconciler.transport.target import Target

Facts = Mapping[str, Any]
OnEvent = Callable[[Message], None]
Mode = Literal["plan", "apply"]


class Project(Protocol):
    """What a state repo wants of hosts; the same object serves all hosts of a run."""

    def catalog(self, host: str, facts: Facts) -> bytes:
        """The canonical JSON of the host's catalog. Raises ConfigErrors."""
        ...

    def content(self, host: str, facts: Facts, sha256: str) -> Iterable[bytes]:
        """The bytes of a content that the catalog names."""
        ...

    def secrets(self, host: str, facts: Facts) -> Mapping[str, str]:
        """The values of the catalog's handles."""
        ...


@dataclass(frozen=True)
class Options:
    """How hosts are treated.

    diff: whether texts are compared. durability: as in `Host`. lock_timeout: seconds to wait for
    another run. keep_engine: whether the host may cache the engine; False leaves nothing behind.
    start_timeout: seconds from the login until the engine runs. limits: what one host may cost.
    """

    diff: bool = True
    durability: str = "batch"
    lock_timeout: float = 0.0
    keep_engine: bool = True
    start_timeout: float = 30.0
    limits: Limits = field(default_factory=Limits)


@overload
def push_host(
    target: Target,
    project: Project,
    mode: Literal["plan"],
    connector: Connector,
    options: Options = ...,
    on_event: OnEvent = ...,
) -> Plan: ...


@overload
def push_host(
    target: Target,
    project: Project,
    mode: Literal["apply"],
    connector: Connector,
    options: Options = ...,
    on_event: OnEvent = ...,
) -> Report: ...


def push_host(
    target: Target,
    project: Project,
    mode: Mode,
    connector: Connector,
    options: Options = Options(),
    on_event: OnEvent = lambda event: None,
) -> Plan | Report:
    """Plan for a host, or converge it. Raises ReconcilerError, with `host` set."""
    try:
        with open_engine(target, connector, options) as engine:
            return talk(engine, target.name, project, mode, options, on_event)
    except ReconcilerError as error:
        error.host = error.host or target.name
        raise
    except RecursionError as error:
        raise ProtocolError("the host's answer is nested too deeply", host=target.name) from error


def fetch_history(
    target: Target, connector: Connector, options: Options = Options(), limit: int = 20
) -> dict[str, Any]:
    """The last `runs` of a host and their `changes`, from its own ledger: also of a run whose
    connection broke off before its report came. Raises ReconcilerError, with `host` set."""
    try:
        with open_engine(target, connector, options) as engine:
            return engine.history(limit)
    except ReconcilerError as error:
        error.host = error.host or target.name
        raise


def open_engine(
    target: Target, connector: Connector, options: Options, packed: bytes | None = None
) -> Engine:
    """The engine on a host, for other talk than a push. Raises ReconcilerError.

    packed: what `packed_engine` gave, where many hosts get the same.
    """
    how = Launch(
        packed_engine() if packed is None else packed,
        interpreter=target.interpreter,
        become=target.become,
        keep=options.keep_engine,
        patience=options.start_timeout,
    )
    return connector.engine(target, how, options.limits, options.durability)


def talk(
    engine: Engine,
    host: str,
    project: Project,
    mode: Mode,
    options: Options,
    on_event: OnEvent,
) -> Plan | Report:
    """The one round of talk with a running engine. Raises ReconcilerError."""
    facts = engine.facts()
    catalog = project.catalog(host, facts)

    def content(sha256: str) -> Iterable[bytes]:
        return project.content(host, facts, sha256)

    def secrets() -> Mapping[str, str]:
        return project.secrets(host, facts)

    if mode == "plan":
        return engine.plan(
            catalog, content=content, secrets=secrets, diff=options.diff, on_event=on_event
        )
    return engine.apply(
        catalog,
        content=content,
        secrets=secrets,
        diff=options.diff,
        on_event=on_event,
        lock_timeout=options.lock_timeout,
        mode="push",
    )
