"""One run, in a process of its own: memory goes back to the system, and a leak cannot grow.

Everything that can fail on the way to a catalog is noted and does not keep the machine from being
healed by the last one. `applied` moves when a whole run of another commit has come to its end,
whatever single resources came to; until then, and while something holds that commit back, it is
the `candidate`, and what heals goes by `applied`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.agent.asking import Asking
from reconciler.agent.choice import Choice
from reconciler.agent.config import Config
from reconciler.agent.contents import Contents
from reconciler.agent.hints import Watch
from reconciler.agent.link import ForkedEngine, TransientUnit
from reconciler.agent.outcome import Outcome, unwritten
from reconciler.agent.places import Places, read_json, sweep
from reconciler.agent.policy import drift_policy
from reconciler.agent.state import State, suspension
from reconciler.agent.watched import Watched, suspected
from reconciler.catalog import Catalog, Declaration, Plan, Report, dumps
from reconciler.engine import __main__ as engine_main
from reconciler.engine import ledgerfile
from reconciler.engine.ledger import Known, Ledger, wish_digest
from reconciler.errors import ReconcilerError
from reconciler.transport.engine import Engine
from reconciler.transport.link import Link

#: Seconds that a run waits for another one.
LOCK_PATIENCE = 60.0
#: Types whose change may run programs that must not be killed half-way.
DELICATE = ("package", "command")


@dataclass(frozen=True)
class Job:
    """What is to be done. kind: `boot`, `sync`, `sweep`, `heal`. ids: of a heal, only these
    resources. offer: what a poll has brought, to be judged. resting: resources that are only
    looked at this time, since somebody keeps changing them back.
    """

    kind: str
    config: Config
    ids: tuple[str, ...] = ()
    offer: Mapping[str, Any] | None = None
    resting: Collection[str] = ()


class Run:
    """One run of the agent on this machine. watches: what was watched until now."""

    def __init__(
        self, job: Job, state: State, places: Places, watches: Mapping[str, Watch] | None = None
    ) -> None:
        self._job = job
        self._config = job.config
        self._state = state
        self._places = places
        self._watches = watches or {}
        self._outcome = Outcome(state)
        self._asking = Asking(places, job.config)
        self._closing = contextlib.ExitStack()
        self._choice: Choice | None = None
        self._engine: Engine | None = None
        self._stopped = False
        self._known: Mapping[str, Known] = {}

    def stop(self) -> None:
        """End at the next boundary."""
        self._stopped = True
        if self._engine is not None:
            self._engine.stop()

    def carry_out(self) -> Outcome:
        """Judge what was offered, compile if need be, converge. Raises nothing that is expected."""
        started, clock = time.time(), time.monotonic()
        outcome = self._outcome
        with self._closing, self._asking:
            with outcome.going_on("run"):
                self._go()
            with outcome.going_on("run"):
                if self._choice is not None:
                    self._choice.close()
        held = suspension(self._places) is not None
        outcome.summarise(self._job.kind, started, time.monotonic() - clock, held=held)
        try:
            self._state.save(self._places)
        except OSError as error:
            # Whoever started this run has it all the same, and keeps it for the next one.
            outcome.trouble("run", unwritten(error))
        return outcome

    def _go(self) -> None:
        """All that may fail. Raises ReconcilerError, OSError."""
        try:
            sweep(self._places)
            engine = self._take(ForkedEngine())
            # A heal goes by what was compiled: it need not wait for the engine's own look.
            kept = read_json(self._places.facts) if self._job.ids else None
            self._choice = choice = Choice(
                self._places, self._config, self._outcome, self._asking, kept or engine.facts()
            )
            choice.recall()
            if not self._job.ids:
                choice.judge(self._job.offer)
            choice.choose(healing=frozenset(self._job.ids))
            if choice.catalog is not None and not self._stopped:
                self._converge(engine, choice, choice.catalog)
        except ReconcilerError:
            # An engine that was told to stop says no more, which is no trouble.
            if not self._stopped:
                raise
        self._state.problem("run", None, time.time())

    def _take(self, link: Link) -> Engine:
        """An engine that is told to stop with us, and gone with us."""
        self._engine = self._closing.enter_context(Engine(link, root=self._places.root))
        return self._engine

    def _engine_to_change(self, engine: Engine, healed: Catalog) -> Engine:
        """A fork of ours ends with the agent; what runs other programs must not."""
        delicate = not self._job.ids or is_delicate(healed)
        if self._places.root != "/" or not delicate or not os.path.isdir("/run/systemd/system"):
            return engine
        # -S: the standard library is all it needs. -B: a look must not write, not even a cache.
        argv = [sys.executable, "-I", "-S", "-B", os.path.abspath(engine_main.__file__)]
        return self._take(TransientUnit(argv, f"reconciler-run-{os.urandom(4).hex()}"))

    # -- the machine ---------------------------------------------------------------------

    def _converge(self, engine: Engine, choice: Choice, catalog: Catalog) -> None:
        watched = Watched(self._watches, self._job.ids, self._places.root)
        contents = Contents(self._places.contents, _digests(catalog, secret=True))
        offered: dict[str, Any] = {
            "content": lambda sha256: contents.get(sha256, self._asking.content),
            "secrets": self._asking.secrets,
            "diff": False,
        }
        self._remember()
        healed, left = self._split(catalog)
        free = self._may_change()
        looked: Plan | None = None
        if not free or self._settled(healed, choice):
            both = catalog.only((*healed.resources, *left.resources))
            looked = engine.plan(dumps(both.to_json()), **offered)
            free = self._may_change()
        report: Report | None = None
        if free and healed.resources and (looked is None or _differs(looked, left)):
            report = self._apply(engine, healed, offered)
            looked = looked if report is None else None
        if looked is None and left.resources:
            looked = engine.plan(dumps(left.to_json()), **offered)
        self._outcome.count(report, looked, self._job.ids)
        if free and not self._job.ids and not self._outcome.interrupted:
            choice.advance(catalog)
            if not (report and report.failed):
                self._finish(engine, catalog)
            contents.keep_only(_digests(catalog))
        with Ledger.open_readonly(self._places.root) as ledger:
            self._state.owed = list(ledger.owed()) if ledger is not None else []
        self._watch(engine, catalog, watched, offered)

    def _may_change(self) -> bool:
        """Asked again before each step: a person may have said stop since the last one."""
        return not self._stopped and suspension(self._places) is None

    def _remember(self) -> None:
        """What the ledger knows; that it is lost is said until a whole run has found it whole."""
        with Ledger.open_readonly(self._places.root) as ledger:
            self._known = ledger.known() if ledger is not None else {}
            lost = ledger.lost if ledger is not None else "the ledger is gone or damaged"
        if lost and self._state.good:
            self._outcome.trouble("ledger", ReconcilerError(
                f"{lost}; it is begun anew: why something differs is unknown for one run, and what "
                "left Git before is not pruned",
                hint=f"what is left of it is beside {ledgerfile.place(self._places.root)}",
            ))  # fmt: skip
        elif not self._job.ids:
            self._state.problem("ledger", None, time.time())

    def _settled(self, healed: Catalog, choice: Choice) -> bool:
        """Whether there is nothing to expect but drift: then a look comes first, and mostly last."""
        state = self._state
        expected = choice.compiled or state.good != state.applied or state.failed
        if self._job.kind not in ("sweep", "sync") or expected or "run" in state.problems:
            return False
        # What the ledger has lost, a run writes down again.
        return all(one.id in self._known for one in healed.resources if not one.handler)

    def _apply(self, engine: Engine, healed: Catalog, offered: Mapping[str, Any]) -> Report | None:
        """What came of it; None if a person has said stop while an engine was being started."""
        engine = self._engine_to_change(engine, healed)
        if not self._may_change():
            return None
        healed = dataclasses.replace(healed, partial=bool(self._job.ids))
        report = engine.apply(
            dumps(healed.to_json()),
            **offered,
            on_event=self._heed_suspension,
            lock_timeout=LOCK_PATIENCE,
            mode="agent",
        )
        for warning in report.warnings:
            self._outcome.say("warning", warning)
        return report

    def _heed_suspension(self, event: Mapping[str, Any]) -> None:
        """Who suspends may have nobody to tell but us: there need be no resident process."""
        if event.get("event") == "start" and not self._stopped and not self._may_change():
            self.stop()

    def _split(self, catalog: Catalog) -> tuple[Catalog, Catalog]:
        """What is converged, and what is only looked at: drift that policy leaves alone."""
        ids = set(self._job.ids)
        policies = [
            (one, self._policy(one))
            for one in catalog.resources
            if not ids or one.handler or one.id in ids
        ]
        lenient = [one for one, policy in policies if policy != "heal"]
        unchanged = {one.id for one in lenient if self._is_unchanged(one, catalog)}
        healed = [one for one, _ in policies if one.id not in unchanged]
        left = [one for one, policy in policies if policy == "warn" and one.id in unchanged]
        if not ids:
            total = sum(not one.handler for one, _ in policies)
            ignored = sum(policy == "ignore" and one.id in unchanged for one, policy in policies)
            self._state.resources = {"total": total, "ignored": ignored}
        return catalog.only(healed), _untold(catalog, left)

    def _policy(self, one: Declaration) -> str:
        """What is to be done about drift of it: `heal`, `warn`, `ignore`."""
        policy = "heal" if one.handler else drift_policy(one, self._config.drift)
        return "warn" if policy == "heal" and one.id in self._job.resting else policy

    def _is_unchanged(self, one: Declaration, catalog: Catalog) -> bool:
        """Whether it was converged as it is declared now: what Git has changed is applied, whatever
        is to be done about drift. Of what the ledger has lost we know what was converged whole."""
        if one.id not in self._known:
            return bool(catalog.commit) and catalog.commit == self._state.good
        return self._known[one.id] == Known(wish_digest(one), True)

    def _finish(self, engine: Engine, catalog: Catalog) -> None:
        """A whole run that went well: the commit is good; and what left Git?"""
        state = self._state
        if catalog.commit and catalog.commit == state.applied:
            if state.good != state.applied and state.first_seen:
                state.gauge("commit_lag_seconds", time.time() - state.first_seen)
            state.good = state.applied
        # What is not applied yet, whatever keeps it, may still declare it.
        doubts = ("trust", "compile", "source")
        if not state.candidate and state.problems.keys().isdisjoint(doubts):
            self._prune(engine, catalog)

    def _prune(self, engine: Engine, catalog: Catalog) -> None:
        """What left Git leaves the machine, where policy says so."""
        wish: dict[str, Any] = {
            "present": [one.id for one in catalog.resources],
            "modules": dict(catalog.modules),
            "host": catalog.host,
            "commit": catalog.commit,
            "policy": self._config.prune,
            "most": self._config.prune_max,
            "percent": self._config.prune_percent,
        }
        listed = engine.prune(**wish, dry_run=True)
        if listed.get("ready") and not listed.get("held"):
            engine = self._engine_to_change(engine, catalog)
        if self._may_change():
            self._outcome.count_pruned(engine.prune(**wish))

    def _watch(
        self, engine: Engine, catalog: Catalog, watched: Watched, offered: Mapping[str, Any]
    ) -> None:
        """Tell the supervisor what to watch, as this run left it."""
        outcome, failed = self._outcome, self._state.failed.keys()
        declared = [one for one in catalog.resources if not one.handler]
        observed = {one.id for one in declared if drift_policy(one, self._config.drift) != "ignore"}
        found = watched.after(
            observed, outcome.looked, {*outcome.changed, *(outcome.looked & failed)}
        )
        # As it is now, it may be by somebody who came after us: of this only a look can tell.
        doubtful = {*watched.fresh(found), *outcome.changed} - failed
        again = [one for one in declared if one.id in doubtful]
        moved: set[str] = set()
        if again and suspension(self._places) is None:
            looked = engine.plan(dumps(_untold(catalog, again).to_json()), **offered)
            moved = {one.id for one in looked.results if one.status == "pending"}
        outcome.watches = suspected(found, moved)


def _untold(catalog: Catalog, resources: Iterable[Declaration]) -> Catalog:
    """Resources that are only looked at: no handler is there, and none is told."""
    return catalog.only(dataclasses.replace(one, notify=()) for one in resources)


def is_delicate(catalog: Catalog) -> bool:
    """Whether a resource of it, or a handler that one may notify, must not be killed half-way."""
    notified = {id_ for one in catalog.resources for id_ in one.notify}
    return any(
        one.type in DELICATE and (not one.handler or one.id in notified)
        for one in catalog.resources
    )


def _differs(plan: Plan, left: Catalog) -> bool:
    """Whether anything is to be done, besides what policy leaves alone."""
    alone = {one.id for one in left.resources}
    return any(one.status != "ok" and one.id not in alone for one in plan.results)


def _digests(catalog: Catalog, *, secret: bool = False) -> set[str]:
    """The contents that a catalog names; secret: only those that must be in no other place."""
    return {
        str(value["$content"][0])
        for one in catalog.resources
        if one.no_log or not secret
        for value in one.params.values()
        if isinstance(value, dict) and "$content" in value
    }
