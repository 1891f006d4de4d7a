"""`plan` and `apply` on hosts of an inventory: who, in which batches, and what came of it."""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from reconciler.cli.console import Output, Span
from reconciler.cli.desired import Desired
from reconciler.cli.fleetview import View, view_of
from reconciler.cli.followed import in_mirrors
from reconciler.cli.places import open_cache
from reconciler.cli.remote import Selected, asked_for, is_local
from reconciler.cli.rollout import HERE, settings_of
from reconciler.compile.cache import CatalogCache
from reconciler.engine.wire import Message
from reconciler.errors import UsageError
from reconciler.push import journal as journals
from reconciler.push.fleet import Course, Fleet, Terms
from reconciler.push.host import Options
from reconciler.push.journal import Head, Journal, Record
from reconciler.push.outcome import Outcome, exit_code
from reconciler.push.rollout import Batch, Limits, arrange, cut, limits
from reconciler.push.task import HostWork, Manner, Mode
from reconciler.push.threads import Threads
from reconciler.transport.connect import Connector
from reconciler.transport.remote import Limits as HostLimits
from reconciler.transport.target import Target

if TYPE_CHECKING:
    from reconciler.push.fleet import Check
    from reconciler.push.settings import Settings
    from reconciler.push.workers import Workers

T = TypeVar("T")


def push(args: argparse.Namespace, out: Output, mode: Mode) -> int | None:
    """Plan for the selected hosts, or converge them; the exit code. Raises ReconcilerError.

    None, and nothing done, where all of them are this machine itself.
    """
    if in_mirrors(args.repo):
        raise UsageError(
            "the mirror of the agent is for this host alone",
            hint="--local for this one; for others clone the state repo",
        )
    begun = time.monotonic()
    with closing(open_cache(out)) as cache, Connector() as connector, ExitStack() as stack:
        away = _is_away(args)
        desired = _desired(args, cache, out, away=away)
        names = desired.chosen(args.limit)
        workers = stack.enter_context(_workers(args, desired, names)) if away else None
        if not away and names and all(is_local(desired, name) for name in names):
            return None
        settings = settings_of(desired.tree, args)
        run = _Run(args, out, mode, desired, settings, names)
        if run.journal is not None and not run.batches:
            out.note(f"run {run.head.run}: every host is done")
        project = Selected(desired, cache, args)
        asked = asked_for(args)

        def target(host: str) -> Target:
            return project.target(host, asked, args.ssh_config)

        view = view_of(args, out, run.head, total=sum(len(one.hosts) for one in run.batches))
        teller = _Teller(view, run.journal, desired, cache)
        manner, check = _manner(args, out, mode, settings), run.check(target, connector)
        if workers is None:
            work = HostWork(target, project, connector, manner, teller.tell, teller.call)
            fleet = Fleet(work, run.terms, teller, Threads(), check)
        else:
            from reconciler.cli.workers import employ

            # What waits for a thread of a worker waits here, where the limits can hold it back.
            terms = replace(run.terms, parallel=min(run.terms.parallel, workers.room))
            work = stack.enter_context(employ(args, desired, manner, workers, teller))
            fleet = Fleet(work, terms, teller, workers, check)
        teller.fleet = fleet
        with closing(run), view:
            course = fleet.run(run.batches)
            code = exit_code(
                course.outcomes,
                stopped=bool(course.stopped),
                interrupted=course.interrupted,
                detailed=args.detailed_exitcode,
            )
            run.end(course, code)
        for warning in [*run.warnings, *desired.warnings]:
            out.note(Span("warning", "bold yellow"), f": {warning}")
        view.finish(course, code, time.monotonic() - begun)
        if args.junit:
            from reconciler.cli.junit import write

            write(args.junit, run.head, course)
    return code


def _is_away(args: argparse.Namespace) -> bool:
    """Whether hosts are run elsewhere. Raises UsageError for keys to nowhere."""
    if args.executor == HERE and (args.tls_ca_file or args.tls_cert or args.tls_key):
        raise UsageError(
            "certificates are for workers", hint="--executor dask://HOST:PORT says where they are"
        )
    return args.executor != HERE


def _desired(args: argparse.Namespace, cache: CatalogCache, out: Output, *, away: bool) -> Desired:
    if away:
        from reconciler.cli.workers import committed

        return committed(args, cache, out)
    return Desired.asked(args, cache, out)


def _workers(args: argparse.Namespace, desired: Desired, names: Sequence[str]) -> Workers:
    from reconciler.cli.workers import check_hosts, connect

    check_hosts(desired, args.inventories, names)
    return connect(args)


def _manner(args: argparse.Namespace, out: Output, mode: Mode, settings: Settings) -> Manner:
    options = Options(
        diff=args.diff,
        durability=getattr(args, "durability", "batch"),
        lock_timeout=getattr(args, "lock_timeout", 0.0),
        keep_engine=not args.no_cache,
        start_timeout=args.start_timeout,
        limits=HostLimits(seconds=settings.host_timeout),
    )
    everything = bool(out.as_json or out.verbose or args.jsonl or args.junit)
    return Manner(mode, options, settings.connect_retries, everything)


class _Run:
    """What is to be done: a new run, the rest of one, or what failed in one."""

    def __init__(
        self,
        args: argparse.Namespace,
        out: Output,
        mode: Mode,
        desired: Desired,
        settings: Settings,
        names: Sequence[str],
    ) -> None:
        self._desired = desired
        self._settings = settings
        self._mode = mode
        self._only = (tuple(args.tags), tuple(args.skip_tags))
        self.warnings: list[str] = []
        self.journal: Journal | None = None
        resumed = getattr(args, "resume", None)
        if resumed and args.only_failed:
            raise UsageError("--resume goes on with a run, --only-failed begins a new one")
        if resumed:
            self.head, self.batches = self._resume(journals.read(resumed).head.run, names)
        else:
            if args.only_failed:
                names = self._failed(args.only_failed, names, empty=args.allow_empty)
            self.batches = self._cut(names, args)
            self.head = self._head()
            if mode == "apply":
                self.journal = Journal.begin(self.head)
        self.terms = self._terms()

    def check(self, target: Callable[[str], Target], connector: Connector) -> Check | None:
        """What looks at the hosts between batches, if anything does."""
        if self._mode == "plan" or not self._settings.verify:
            return None
        from reconciler.push.verify import Verifier

        return Verifier(self._settings.verify, target, connector)

    def end(self, course: Course, code: int) -> None:
        """The journal ends."""
        if self.journal is not None:
            self.journal.end(course.stopped, code)

    def close(self) -> None:
        """Let go of the journal."""
        if self.journal is not None:
            self.journal.close()

    # -- who ------------------------------------------------------------------------------

    def _cut(self, names: Sequence[str], args: argparse.Namespace) -> list[Batch]:
        rollout = self._settings.rollout
        if self._mode == "plan":
            hosts = arrange(names, rollout.order, rollout.seed)
            return [Batch(tuple(hosts))] if hosts else []
        canary: list[str] = []
        if rollout.canary:
            canary = self._desired.select(rollout.canary)
            if not set(canary) & set(names):
                said = f"the canary {rollout.canary!r} is none of the selected hosts"
                if args.canary:
                    raise UsageError(said, hint="see: reconciler inventory list")
                self.warnings.append(said)
        return cut(names, rollout, canary)

    def _head(self) -> Head:
        return Head(
            run=journals.new_run(),
            mode=self._mode,
            tree=self._tree(),
            commit=self._desired.tree.commit,
            dirty=self._desired.tree.dirty,
            only=self._only,
            batches=tuple(self.batches),
            started=time.time(),
        )

    def _tree(self) -> str:
        return hashlib.sha256(self._desired.tree.key.encode("utf-8", "replace")).hexdigest()

    def _failed(self, run: str, names: Sequence[str], *, empty: bool) -> list[str]:
        failed = set(journals.read(run).failed)
        found = [name for name in names if name in failed]
        if not found and not empty:
            raise UsageError(f"no selected host failed in run {run}", hint="--allow-empty")
        return found

    def _resume(self, run: str, names: Sequence[str]) -> tuple[Head, list[Batch]]:
        """The lock first: what the journal says holds only while nobody else goes on in it."""
        self.journal = Journal.resume(run)
        try:
            record = journals.read(run)
            self._check_same(record)
        except BaseException:
            self.journal.close()
            raise
        known, wanted = set(self._desired.select("all")), set(names)
        gone = [host for batch in record.left for host in batch.hosts if host not in known]
        if gone:
            self.warnings.append(f"not in the inventory any more: {', '.join(gone)}")
        left = (
            Batch(tuple(host for host in batch.hosts if host in wanted), batch.canary)
            for batch in record.left
        )
        return record.head, [batch for batch in left if batch.hosts]

    def _check_same(self, record: Record) -> None:
        head = record.head
        if head.tree != self._tree():
            what = f"commit {head.commit[:12]}" if head.commit else "files that have changed since"
            raise UsageError(
                f"run {head.run} was about {what}",
                hint=f"--ref {head.commit[:12]} goes on with that; "
                "--only-failed RUN begins anew with what the state repo says now",
            )
        if head.only != self._only:
            raise UsageError(f"run {head.run} had other --tags or --skip-tags: give the same")

    def _terms(self) -> Terms:
        settings = self._settings
        total = len(self.head.hosts)
        allowed, pause = Limits(), 0.0
        if self._mode == "apply":
            allowed = limits(settings.rollout, total, len(self.head.batches))
            pause = settings.rollout.pause
        return Terms(total, allowed, settings.parallel, settings.host_timeout, pause)


class _Teller:
    """Passes on what happens: to the journal first, then to whoever watches."""

    def __init__(
        self, view: View, journal: Journal | None, desired: Desired, cache: CatalogCache
    ) -> None:
        self._view = view
        self._journal = journal
        self._desired = desired
        self._cache = cache
        self.fleet: Fleet | None = None

    @property
    def wants_events(self) -> bool:
        """Whether anybody watches while it happens."""
        return self._view.wants_events

    def tell(self, host: str, event: Message) -> None:
        """From any thread; events are for those who watch, but that a host waits is for all."""
        if self.fleet is not None and (self.wants_events or event.get("event") == "waiting"):
            self.fleet.tell(host, event)

    def call(self, work: Callable[[], T]) -> T:
        """From any thread: do it in the main one, where it can be interrupted."""
        return work() if self.fleet is None else self.fleet.call(work)

    def begun(self, host: str) -> None:
        """From any thread: a worker begins a host."""
        if self.fleet is not None:
            self.fleet.begun(host)

    def batch(self, number: int, batch: Batch) -> None:
        self._view.batch(number, batch)

    def began(self, host: str) -> None:
        if self._journal is not None:
            self._journal.began(host)
        self._view.began(host)

    def event(self, host: str, event: Message) -> None:
        self._view.event(host, event)

    def ended(self, outcome: Outcome) -> None:
        if self._journal is not None:
            self._journal.ended(outcome)
        self._desired.forget(outcome.host)
        if outcome.facts is not None:
            self._cache.keep_facts(outcome.host, dict(outcome.facts))
        self._view.ended(outcome)

    def settled(self) -> None:
        if self._journal is not None:
            self._journal.settle()

    def checking(self, number: int) -> None:
        self._view.checking(number)

    def pausing(self, seconds: float) -> None:
        self._view.pausing(seconds)

    def stopping(self, reason: str) -> None:
        self._view.stopping(reason)
