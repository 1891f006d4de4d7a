"""One run, in a process of its own: memory goes back to the system, and a leak cannot grow.

Everything that can fail on the way to a catalog is noted and does not keep the machine from being
healed by the last one. `applied` moves when a whole run of another commit has come to its end,
whatever single resources came to; until then, and while something holds that commit back, it is
the `candidate`, and what heals goes by `applied`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.agent.config import Config
from reconciler.agent.contents import Contents
from reconciler.agent.hints import Signature, Watch, signature, watch_list
from reconciler.agent.link import ForkedEngine, Provider, TransientUnit
from reconciler.agent.places import Places, read_json, sweep, write
from reconciler.agent.policy import drift_policy
from reconciler.agent.state import State, suspension
from reconciler.catalog import Catalog, Declaration, Plan, Report, dumps
from reconciler.engine import __main__ as engine_main
from reconciler.engine import ledgerfile
from reconciler.engine.ledger import Known, Ledger, wish_digest
from reconciler.engine.wire import error_to_json
from reconciler.errors import ReconcilerError, SourceError, TrustError
from reconciler.transport.engine import Engine
from reconciler.transport.link import Link

#: Seconds that a run waits for another one.
LOCK_PATIENCE = 60.0
#: Types whose change may run programs that must not be killed half-way.
DELICATE = ("package", "command")
#: What each mode of trust has verified.
VERIFIED = {"none": "order-only", "head": "head", "every": "all-commits"}
#: No file has this signature: who is watched with it is looked at again.
MOVED: Signature = (0, 0)


@dataclass(frozen=True)
class Job:
    """What is to be done. kind: `boot`, `sync`, `sweep`, `heal`. fetch: ask the remotes first.
    ids: only these resources. offer: what a poll has fetched, to be judged. resting: resources
    that are only looked at this time, since somebody keeps changing them back.
    """

    kind: str
    config: Config
    fetch: bool = False
    ids: tuple[str, ...] = ()
    offer: Mapping[str, Any] | None = None
    resting: Collection[str] = ()


@dataclass
class Outcome:
    """What came of it. corrected: drift that was undone; resisted: drift that was not, though that
    was tried. pruned: what left Git and is gone now. messages: for the log.

    watches: what is to be watched now; after a heal, of what it was about; None: as before.
    """

    state: State
    changed: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    resisted: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    watches: Mapping[str, Watch] | None = None
    report: Report | None = None

    @property
    def failed(self) -> bool:
        unpruned = self.state.prune.get("failed")
        return bool(self.state.failed or unpruned) or "run" in self.state.problems

    def to_json(self) -> dict[str, Any]:
        """What the supervisor needs of it."""
        return {
            "state": self.state.to_json(),
            "corrected": [*self.corrected, *self.resisted],
            "failed": self.failed,
            "messages": self.messages[:500],
            "watches": self.watches,
        }


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
        self._catalog: Catalog | None = None
        self._compiled = False
        self._provider: Provider | None = None
        self._facts: dict[str, Any] = {}
        self._closing = contextlib.ExitStack()
        self._engine: Engine | None = None
        self._stopped = False
        self._before: dict[str, Signature] = {}
        self._looked: set[str] = set()
        self._known: Mapping[str, Known] = {}

    def stop(self) -> None:
        """End at the next boundary."""
        self._stopped = True
        if self._engine is not None:
            self._engine.stop()

    def carry_out(self) -> Outcome:
        """Fetch if asked to, compile if need be, converge. Raises nothing that is expected."""
        started, clock = time.time(), time.monotonic()
        with self._closing:
            try:
                sweep(self._places)
                engine = self._take(ForkedEngine())
                # A heal goes by what was compiled: it need not wait for the engine's own look.
                kept = read_json(self._places.facts) if self._job.ids else None
                self._facts = kept or engine.facts()
                self._recall()
                if not self._job.ids:
                    self._judge(self._fetch() if self._job.fetch else self._job.offer)
                self._choose_catalog()
                if self._catalog is not None and not self._stopped:
                    self._converge(engine, self._catalog)
                self._state.problem("run", None, started)
            except ReconcilerError as error:
                # An engine that was told to stop says no more, which is no trouble.
                if not self._stopped:
                    self._trouble("run", error)
            except OSError as error:
                self._trouble("run", _unwritten(error))
            self._hold()
            self._pin()
        self._summarise(started, time.monotonic() - clock)
        try:
            self._state.save(self._places)
        except OSError as error:
            # Whoever started this run has it all the same, and keeps it for the next one.
            self._trouble("run", _unwritten(error))
        return self._outcome

    # -- the way to a catalog ------------------------------------------------------------

    def _recall(self) -> None:
        """What heals, if our own memory of that was lost: the catalog tells its commit itself."""
        state = self._state
        known = None if state.applied else read_json(self._places.catalog)
        if known is not None:
            state.applied, state.applied_since = str(known.get("commit", "")), time.time()

    def _fetch(self) -> Mapping[str, Any] | None:
        """What the remotes offer; None if they cannot be asked."""
        state, now, remotes = self._state, time.time(), self._config.remotes
        try:
            offer = self._ask().fetch(self._config.to_json())
        except ReconcilerError as error:
            state.unheard(remotes, error.message, now)
            state.unreached({**error_to_json(error), "text": str(error)}, now)
            self._say("err", f"fetch: {error}")
            return None
        state.heard(remotes, offer, now)
        state.reached()
        return offer

    def _judge(self, offer: Mapping[str, Any] | None) -> None:
        """Whether an offer may be used; then it is the trusted commit.

        Damage of the memory of trust is told by each whole run, before a commit needs it.
        """
        from reconciler.source.mark import Mark, Marks

        state, marks = self._state, Marks(self._places.trust)
        try:
            before = marks.mend()
            state.trusted = state.trusted or before.commit
            if offer is None:
                return
            answer = self._ask().judge(self._config.to_json(), before.to_json(), offer)
            if "refused" in answer:
                state.source["refused"] = offer["commit"]
                reason = str(answer["refused"].get("type", "TrustError"))
                state.count("verify_failures_total", reason=reason)
                self._note("trust", answer["refused"])
                return
            state.source["refused"] = ""
            new = Mark.from_json(answer["mark"])
            mark = marks.advance(new, before=before) if new != before else before
            if mark.commit != before.commit or not state.subject:
                state.subject = {
                    **answer["subject"],
                    "signer": ", ".join(mark.signers),
                    "verified": VERIFIED[self._config.trust],
                }
            marks.confirm(float(offer["received_at"]))
            if mark.commit != state.trusted:
                state.trusted, state.first_seen = mark.commit, time.time()
            state.problem("trust", None, time.time())
            if "alarm" in answer:
                self._note("trust", answer["alarm"])
        except TrustError as error:
            self._trouble("trust", error)
        except ReconcilerError as error:
            self._trouble("fetch", error)

    def _choose_catalog(self) -> None:
        """The one of the trusted commit; where that cannot be had, the one that was applied."""
        state = self._state
        stored = self._stored()
        wanted = state.applied if self._job.ids or self._gate() else state.trusted or state.applied
        fresh = bool(self._job.ids) or state.applied_facts == self._facts_digest()
        if stored is not None and stored.commit == wanted and fresh:
            self._catalog = stored
            return
        for commit in filter(None, dict.fromkeys((wanted, state.applied))):
            try:
                self._catalog = self._compile(commit)
            except ReconcilerError as error:
                kind = "fetch" if isinstance(error, SourceError) else "compile"
                self._trouble(kind, error, commit=commit)
            else:
                self._compiled = True
                if commit == state.trusted:
                    state.problem("compile", None, time.time())
                return
            if stored is not None:
                break
        self._catalog = stored

    def _gate(self) -> str:
        """What holds back a commit that is not applied yet; "" for nothing."""
        state = self._state
        state.held_until = 0.0
        if suspension(self._places) is not None:
            return "Suspended"
        if self._config.windows and state.trusted != state.applied:
            from reconciler.agent.windows import opens

            state.held_until = opens(self._config.windows, time.time())
        return "Window" if state.held_until else ""

    def _stored(self) -> Catalog | None:
        """The catalog that was applied last; for a heal, what of it that needs."""
        document = read_json(self._places.catalog)
        # Another one is what a run left that was killed before it could say so.
        if document is None or document.get("commit") != self._state.applied:
            return None
        try:
            if self._job.ids:
                ids = set(self._job.ids)
                document["resources"] = [
                    one
                    for one in document["resources"]
                    if one.get("handler") or f"{one['type']}:{one['key']}" in ids
                ]
            return Catalog.from_json(document)
        except (KeyError, TypeError, AttributeError, ReconcilerError):
            return None

    def _hold(self) -> None:
        """Say which commit is waiting, and for what."""
        state = self._state
        waits = {"compile": "CompileFailed", "fetch": "Unreachable", "run": "RunFailed"}
        found = [self._gate(), *(word for kind, word in waits.items() if kind in state.problems)]
        state.held_by = next(filter(None, found), "") if state.candidate else ""

    def _pin(self) -> None:
        """The commits that may still be needed stay in the mirror; said whenever that is open."""
        if self._provider is None:
            return
        state = self._state
        pointers = {"candidate": state.candidate, "applied": state.applied, "good": state.good}
        # What stands in the way was met and said before, and the next conversation says it again.
        with contextlib.suppress(ReconcilerError):
            self._provider.point(self._config.to_json(), pointers)

    def _advance(self, catalog: Catalog) -> None:
        """The run of a catalog came to its end: it is what healing goes by from now on."""
        if not self._compiled:
            return
        state = self._state
        write(self._places.facts, dumps(self._facts))
        write(self._places.catalog, dumps(catalog.to_json()))
        if state.applied != catalog.commit:
            state.applied, state.applied_since = catalog.commit, time.time()
        state.applied_facts = self._facts_digest()

    def _facts_digest(self) -> str:
        return hashlib.sha256(dumps(self._facts)).hexdigest()

    def _compile(self, commit: str) -> Catalog:
        _, document = self._ask().compile(self._config.to_json(), commit, self._facts)
        return Catalog.from_json(document)

    def _ask(self) -> Provider:
        if self._provider is None:
            self._provider = self._closing.enter_context(
                Provider.start(self._places, self._config.secret_files())
            )
        return self._provider

    def _whole(self) -> Provider:
        """The provider, with the catalog's contents and secrets at hand."""
        if not self._compiled and self._catalog is not None:
            self._ask().compile(self._config.to_json(), self._catalog.commit, self._facts)
            self._compiled = True
        return self._ask()

    # -- the machine ---------------------------------------------------------------------

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

    def _converge(self, engine: Engine, catalog: Catalog) -> None:
        self._before = {path: signature(path) for path in self._mine() or self._owned()}
        contents = Contents(self._places.contents, _digests(catalog, secret=True))
        offered: dict[str, Any] = {
            "content": lambda sha256: contents.get(sha256, lambda one: self._whole().content(one)),
            "secrets": lambda: self._whole().secrets(),
            "diff": False,
        }
        self._remember()
        healed, left = self._split(catalog)
        free = self._may_change()
        looked: Plan | None = None
        if not free or self._settled(healed):
            both = _with(catalog, (*healed.resources, *left.resources))
            looked = engine.plan(dumps(both.to_json()), **offered)
            free = self._may_change()
        report: Report | None = None
        if free and healed.resources and (looked is None or _differs(looked, left)):
            report = self._apply(self._engine_to_change(engine, healed), healed, offered)
            looked = None
        if looked is None and left.resources:
            looked = engine.plan(dumps(left.to_json()), **offered)
        self._count(report, looked)
        whole = free and not self._job.ids and not (report and report.interrupted)
        if whole:
            self._advance(catalog)
            if not (report and report.failed):
                self._finish(engine, catalog)
            contents.keep_only(_digests(catalog))
        with Ledger.open_readonly(self._places.root) as ledger:
            self._state.owed = list(ledger.owed()) if ledger is not None else []
        self._watch(engine, catalog, offered)

    def _may_change(self) -> bool:
        """Asked again before each step: a person may have said stop since the last one."""
        return not self._stopped and suspension(self._places) is None

    def _remember(self) -> None:
        """What the ledger knows; that it is lost is said until a whole run has found it whole."""
        with Ledger.open_readonly(self._places.root) as ledger:
            self._known = ledger.known() if ledger is not None else {}
            lost = ledger.lost if ledger is not None else "the ledger is gone or damaged"
        if lost and self._state.good:
            self._trouble("ledger", ReconcilerError(
                f"{lost}; it is begun anew: why something differs is unknown for one run, and what "
                "left Git before is not pruned",
                hint=f"what is left of it is beside {ledgerfile.place(self._places.root)}",
            ))  # fmt: skip
        elif not self._job.ids:
            self._state.problem("ledger", None, time.time())

    def _settled(self, healed: Catalog) -> bool:
        """Whether there is nothing to expect but drift: then a look comes first, and mostly last."""
        state = self._state
        expected = self._compiled or state.good != state.applied or state.failed
        if self._job.kind not in ("sweep", "sync") or expected or "run" in state.problems:
            return False
        # What the ledger has lost, a run writes down again.
        return all(one.id in self._known for one in healed.resources if not one.handler)

    def _apply(self, engine: Engine, catalog: Catalog, offered: Mapping[str, Any]) -> Report:
        catalog = dataclasses.replace(catalog, partial=bool(self._job.ids))
        report = engine.apply(
            dumps(catalog.to_json()), **offered, lock_timeout=LOCK_PATIENCE, mode="agent"
        )
        self._outcome.report = report
        for warning in report.warnings:
            self._say("warning", warning)
        return report

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
        return _with(catalog, healed), _untold(catalog, left)

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

    def _count(self, report: Report | None, looked: Plan | None) -> None:
        """Count, and remember what failed, what drifts and what was changed."""
        results = [*(report.results if report else ()), *(looked.results if looked else ())]
        drifted = [
            one.id
            for one in (looked.results if looked else ())
            if one.status in ("pending", "unknown", "owed")
        ]
        state, outcome = self._state, self._outcome
        partial = bool(self._job.ids)
        if not partial:
            state.failed, state.blocked, state.drifted = {}, {}, []
        looked_at = self._looked
        for one in results:
            looked_at.add(one.id)
            for status, members in (("failed", state.failed), ("blocked", state.blocked)):
                members.pop(one.id, None)
                if one.status == status:
                    members[one.id] = one.reason
                    self._say("err", f"{one.id} {status}: {one.reason}", resource=one.id)
            if one.status == "failed" and one.id in self._job.ids:
                outcome.resisted.append(one.id)
            if one.status in ("changed", "notified"):
                outcome.changed.append(one.id)
                corrective = one.cause == "corrective"
                kind = one.id.partition(":")[0]
                state.count("changes_total", cause=one.cause or "intentional", type=kind)
                if corrective:
                    outcome.corrected.append(one.id)
                what = ", ".join(change.attribute for change in one.changes[:8])
                cause = "drift corrected" if corrective else "changed"
                self._say(
                    "notice" if corrective else "info",
                    f"{one.id} {cause}" + (f": {what}" if what else ""),
                    resource=one.id,
                    cause=one.cause,
                )
        state.drifted = sorted({*(set(state.drifted) - looked_at), *drifted})

    def _finish(self, engine: Engine, catalog: Catalog) -> None:
        """A whole run that went well: the commit is good; and what left Git?"""
        state = self._state
        if catalog.commit and catalog.commit == state.applied:
            if state.good != state.applied and state.first_seen:
                state.gauge("commit_lag_seconds", time.time() - state.first_seen)
            state.good = state.applied
        # What is not applied yet may still declare it.
        if "trust" not in state.problems and "compile" not in state.problems:
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
        if not self._may_change():
            return
        state, before = self._state, self._state.prune
        state.prune = engine.prune(**wish)
        for one in state.prune.get("pruned", ()):
            kind = str(one["id"]).partition(":")[0]
            self._outcome.pruned.append(one["id"])
            state.count("changes_total", cause="prune", type=kind)
            self._say(
                "notice",
                f"{one['id']} is declared no more: {one['done']}",
                resource=one["id"],
                cause="prune",
            )
        for text in state.prune.get("failed", ()):
            self._say("err", f"declared no more, and not pruned: {text}", cause="prune")
        held = state.prune.get("held")
        if held and held != before.get("held"):
            self._say("warning", f"held: {held}; reconciler prune --dry-run", cause="prune")

    def _mine(self) -> Mapping[str, Watch]:
        """The watches that this run is about."""
        ids = set(self._job.ids)
        if not ids:
            return self._watches
        return {path: one for path, one in self._watches.items() if not ids.isdisjoint(one.ids)}

    def _owned(self) -> Mapping[str, Watch]:
        """What is to be watched of all that the ledger knows."""
        with Ledger.open_readonly(self._places.root) as ledger:
            return watch_list(ledger.claims() if ledger is not None else {}, self._places.root)

    def _watch(self, engine: Engine, catalog: Catalog, offered: Mapping[str, Any]) -> None:
        """Tell the supervisor what to watch, as this run left it."""
        found = self._found(catalog)
        # As it is now, it may be by somebody who came after us: of this only a look can tell.
        fresh = {id_ for path, one in found.items() if path not in self._before for id_ in one.ids}
        doubtful = {*fresh, *self._outcome.changed} - self._state.failed.keys()
        again = [one for one in catalog.resources if one.id in doubtful and not one.handler]
        moved: set[str] = set()
        if again and suspension(self._places) is None:
            looked = engine.plan(dumps(_untold(catalog, again).to_json()), **offered)
            moved = {one.id for one in looked.results if one.status == "pending"}
        self._outcome.watches = {
            path: one if moved.isdisjoint(one.ids) else one._replace(signature=MOVED)
            for path, one in found.items()
        }

    def _found(self, catalog: Catalog) -> Mapping[str, Watch]:
        """What is to be watched; after a heal, of what it was about."""
        if self._job.ids:
            return {path: self._left(path, one) for path, one in self._mine().items()}
        observed = {
            one.id
            for one in catalog.resources
            if not one.handler and drift_policy(one, self._config.drift) != "ignore"
        }
        found = {
            path: self._left(path, one._replace(ids=tuple(filter(observed.__contains__, one.ids))))
            for path, one in self._owned().items()
            if not observed.isdisjoint(one.ids)
        }
        # A link that is gone is found by no search; whom it was about must be looked at first.
        for path, one in self._watches.items():
            if path not in found and observed & set(one.ids) - self._looked:
                found[path] = one
        return found

    def _left(self, path: str, watch: Watch) -> Watch:
        """A watch with the signature that says of a later one whether somebody was there since.

        As it is now, where we changed it or did not know it. What was looked at may have been
        changed since: then the one from before the look. What was not looked at stays suspect if
        it was.
        """
        # What failed may have changed something all the same; it is tried again ever more slowly.
        ours = {*self._outcome.changed, *(self._looked & self._state.failed.keys())}
        if path not in self._before or not ours.isdisjoint(watch.ids):
            return watch._replace(signature=signature(path))
        before = self._watches.get(path)
        if before is not None and not self._looked.issuperset(watch.ids):
            return watch._replace(signature=before.signature)
        return watch._replace(signature=self._before[path])

    # -- what is said --------------------------------------------------------------------

    def _trouble(self, kind: str, error: ReconcilerError, **more: str) -> None:
        self._note(kind, {**error_to_json(error), "text": str(error), **more})

    def _note(self, kind: str, document: Mapping[str, Any]) -> None:
        self._state.problem(kind, dict(document), time.time())
        text = str(document.get("text") or document.get("message"))
        hint = str(document.get("hint") or "")
        self._say("err", f"{kind}: {text}" + (f"; {hint}" if hint and hint not in text else ""))

    def _say(self, priority: str, message: str, **fields: str) -> None:
        self._outcome.messages.append({"priority": priority, "message": message, **fields})

    def _summarise(self, started: float, seconds: float) -> None:
        state, outcome = self._state, self._outcome
        report = outcome.report
        if suspension(self._places) is not None:
            result = "held"
        elif outcome.failed or (report is not None and report.failed):
            result = "failed"
        elif outcome.changed or outcome.pruned:
            result = "changed"
        else:
            result = "ok"
        causes = {
            "intentional": len(outcome.changed) - len(outcome.corrected),
            "corrective": len(outcome.corrected),
            "prune": len(outcome.pruned),
        }
        state.last_run = {
            "id": report.run if report is not None else "",
            "kind": self._job.kind,
            "cause": causes,
            "outcome": result,
            "started": started,
            "duration_s": round(seconds, 3),
        }
        state.gauge("last_run_timestamp_seconds", started, kind=self._job.kind)
        state.count("runs_total", kind=self._job.kind, outcome=result)
        state.observe("run_duration_seconds", seconds, kind=self._job.kind)
        if self._looked and not self._job.ids and result in ("ok", "changed") and not state.drifted:
            state.proven_at = time.time()


def _with(catalog: Catalog, resources: Iterable[Declaration]) -> Catalog:
    return dataclasses.replace(catalog, resources=tuple(resources))


def _untold(catalog: Catalog, resources: Iterable[Declaration]) -> Catalog:
    """Resources that are only looked at: no handler is there, and none is told."""
    return _with(catalog, (dataclasses.replace(one, notify=()) for one in resources))


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


def _unwritten(error: OSError) -> ReconcilerError:
    """A full disk, mostly. Of what was to be written the old content is still there."""
    return ReconcilerError(
        f"cannot write {error.filename or 'what the agent remembers'}: {error.strerror}",
        hint="df -h; the next run goes on from here",
    )


def _digests(catalog: Catalog, *, secret: bool = False) -> set[str]:
    """The contents that a catalog names; secret: only those that must be in no other place."""
    return {
        str(value["$content"][0])
        for one in catalog.resources
        if one.no_log or not secret
        for value in one.params.values()
        if isinstance(value, dict) and "$content" in value
    }
