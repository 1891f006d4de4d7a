"""A fleet run on workers: what the coordinator asks of them, and how a worker makes itself ready.

Both sides compile the same commit. The coordinator knows who is meant and in which order; a worker
asks a host for its facts, compiles for it and converges it.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.cli.console import Output
from reconciler.cli.desired import Desired, open_repo
from reconciler.cli.places import open_cache
from reconciler.cli.remote import Selected, is_local
from reconciler.compile.cache import CatalogCache
from reconciler.engine.wire import Message
from reconciler.errors import UsageError
from reconciler.inventory import Places
from reconciler.push.nearby import check_settings, repo_with
from reconciler.push.order import Order, Settings, Tell, code_digest, desired_digest
from reconciler.push.outcome import Outcome
from reconciler.push.task import Call, HostWork, Manner, here
from reconciler.transport.connect import Connector
from reconciler.transport.target import Target

if TYPE_CHECKING:
    from reconciler.push.workers import Workers, WorkerWork

#: Options that mean something on this machine only, and what workers have instead.
NOT_FOR_WORKERS = {
    "ask_pass": "a worker logs in with a key of its own",
    "ask_become_pass": "a worker can only become root where no password is asked for",
    "ask_key_pass": "a worker has a key without a passphrase, or an agent",
    "connection_password_file": "a worker logs in with a key of its own",
    "become_password_file": "a worker can only become root where no password is asked for",
    "keyring": "a worker logs in with a key of its own",
    "ssh_config": "a worker has its own: DASK_RECONCILER__SSH_CONFIG",
}

# -- the coordinator ---------------------------------------------------------------------------


class Teller(Protocol):
    """Whom to tell what workers say; from any thread."""

    @property
    def wants_events(self) -> bool:
        """Whether anybody watches."""
        ...

    def begun(self, host: str) -> None:
        """A worker begins a host; again, if another one was lost."""
        ...

    def tell(self, host: str, event: Message) -> None:
        """An event of a host's engine."""
        ...


def connect(args: argparse.Namespace) -> Workers:
    """The workers that `--executor` names. Raises UsageError, HostUnreachable."""
    for name, hint in NOT_FOR_WORKERS.items():
        if getattr(args, name, None):
            raise UsageError(f"--{name.replace('_', '-')} does not reach workers", hint=hint)
    try:
        from reconciler.push.workers import Keys, Workers
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--executor takes dask.distributed, and there is no {error.name}",
            hint="pip install 'reconciler[fleet]'",
        ) from error
    return Workers(args.executor, Keys(args.tls_ca_file, args.tls_cert, args.tls_key))


def committed(args: argparse.Namespace, cache: CatalogCache, out: Output) -> Desired:
    """The state repo as workers will have it. Raises UsageError for files that are no commit."""
    ref = args.ref
    if ref is None:
        tree = open_repo(args.repo, None)
        if tree.dirty or not tree.commit:
            raise UsageError(
                "workers apply commits, and these files are none",
                hint="commit and push them, or name a commit with --ref",
            )
        ref = tree.commit
    return Desired(args.repo, ref, args.inventories, cache, out, allow_empty=args.allow_empty)


def check_hosts(desired: Desired, inventories: Sequence[str], names: Sequence[str]) -> None:
    """Refuse sources and hosts that mean something else on a worker. Raises UsageError."""
    places = Places(desired.tree)
    for source in inventories:
        if not places.in_tree(source):
            raise UsageError(
                f"the inventory {source} is not a part of the commit, so workers do not have it",
                hint="name it relative to the state repo, and commit it",
            )
    if desired.inventory_key is None:
        raise UsageError(
            "an inventory that is made from facts may be another one on each worker",
            hint="write the groups down, or run without --executor",
        )
    local = [name for name in names if is_local(desired, name)]
    if local:
        raise UsageError(
            f"ansible_connection=local is this machine, not a worker: {', '.join(local[:5])}",
            hint="leave it out with --limit, and run it without --executor",
        )


def employ(
    args: argparse.Namespace,
    desired: Desired,
    manner: Manner,
    workers: Workers,
    teller: Teller,
) -> WorkerWork:
    """The work of a run, and the ear for what workers say about it."""
    from reconciler.push.workers import WorkerWork

    order = order_of(args, desired, manner, events=teller.wants_events)

    def heard(message: Message) -> None:
        host = str(message.get("host"))
        if message.get("id") != order.id:
            return  # another coordinator's
        if message.get("event") == "begun":
            teller.begun(host)
        else:
            teller.tell(host, {**message, "id": message.get("resource")})

    workers.listen(heard)
    return WorkerWork(workers, Site, order)


def order_of(args: argparse.Namespace, desired: Desired, manner: Manner, *, events: bool) -> Order:
    """What workers are told about all hosts of a run."""
    inventories, tags, skip = tuple(args.inventories), tuple(args.tags), tuple(args.skip_tags)
    return Order(
        id=secrets.token_hex(16),
        commit=desired.tree.commit,
        inventories=inventories,
        tags=tags,
        skip_tags=skip,
        allow_empty=args.allow_empty,
        manner=manner,
        events=events,
        code=code_digest(),
        desired=desired_digest(desired.tree.key, inventories, tags, skip),
    )


# -- a worker ----------------------------------------------------------------------------------


class _Asked(Selected):
    """Keeps the facts of hosts until their outcome takes them to the coordinator."""

    def __init__(self, desired: Desired, cache: CatalogCache, args: argparse.Namespace) -> None:
        super().__init__(desired, cache, args)
        self.facts: dict[str, Mapping[str, Any]] = {}

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        """As `push.host.Project`."""
        self.facts[host] = facts
        return super().catalog(host, facts)


class Site:
    """An order on a worker: the commit and the way to the hosts near it, for all of its hosts."""

    def __init__(self, order: Order, settings: Settings, tell: Tell, call: Call = here) -> None:
        """An `Opening`. Raises ReconcilerError."""
        check_settings(settings)
        directory = repo_with(settings, order.commit)
        with ExitStack() as stack:
            out = Output()
            cache = stack.enter_context(closing(open_cache(out)))
            connector = stack.enter_context(Connector())
            allow_empty = order.allow_empty
            self._desired = Desired(
                directory, order.commit, order.inventories, cache, out, allow_empty=allow_empty
            )
            order.check(self._desired.tree.key)
            known = argparse.Namespace(
                tags=order.tags, skip_tags=order.skip_tags, allow_empty=allow_empty, keyring=False
            )
            self._project = _Asked(self._desired, cache, known)
            self._ssh_config = settings.get("ssh_config")
            self._work = HostWork(self._target, self._project, connector, order.manner, tell, call)
            self._stack = stack.pop_all()

    def run(self, host: str, wait: float = 0.0) -> Outcome:
        """As `Opened`."""
        try:
            outcome = self._work.run(host, wait)
        finally:
            self._desired.forget(host)
        return replace(outcome, facts=self._project.facts.pop(host, None))

    def stop(self, host: str) -> None:
        """As `Opened`."""
        self._work.stop(host)

    def abandon(self, host: str) -> None:
        """As `Opened`."""
        self._work.abandon(host)

    def close(self) -> None:
        """As `Opened`."""
        self._stack.close()

    def _target(self, host: str) -> Target:
        return self._project.target(host, {}, self._ssh_config)
