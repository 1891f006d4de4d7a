"""One run, in a process of its own: memory goes back to the system, and a leak cannot grow.

A job comes as JSON on stdin, its outcome leaves as JSON on stdout. Everything that can fail on
the way to a catalog is noted and does not keep the machine from being healed by the last one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import reconciler
from reconciler.agent.config import Config
from reconciler.agent.contents import Contents
from reconciler.agent.hints import Signature, signature, watch_list
from reconciler.agent.link import Provider, TransientUnit
from reconciler.agent.places import Places, read_json, write
from reconciler.agent.policy import drift_policy
from reconciler.agent.state import State, suspension
from reconciler.catalog import Catalog, Declaration, Report, Result, dumps
from reconciler.engine.ledger import Ledger, wish_digest
from reconciler.engine.wire import error_to_json
from reconciler.errors import ReconcilerError, SourceError, TrustError
from reconciler.transport.engine import Engine
from reconciler.transport.process import Process

#: Seconds that a run waits for another one.
LOCK_PATIENCE = 60.0
#: Types whose change may run programs that must not be killed half-way.
DELICATE = ("package", "command")
#: Reasons of failures that are kept for the status.
SHOWN = 50


@dataclass(frozen=True)
class Job:
    """What is to be done. kind: `boot`, `sync`, `sweep`, `heal`. ids: only these resources."""

    kind: str
    config: Config
    fetch: bool = False
    ids: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What came of it. corrected: drift that was undone. messages: for the log."""

    state: State
    changed: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    report: Report | None = None

    @property
    def failed(self) -> bool:
        return bool(self.state.failed) or "run" in self.state.problems


class Run:
    """One run of the agent on this machine."""

    def __init__(self, job: Job, state: State, places: Places) -> None:
        self._job = job
        self._config = job.config
        self._state = state
        self._places = places
        self._outcome = Outcome(state)
        self._catalog: Catalog | None = None
        self._compiled = False
        self._provider: Provider | None = None
        self._facts: dict[str, Any] = {}
        self._closing = contextlib.ExitStack()
        self._engine: Engine | None = None
        self._before: dict[str, tuple[Signature, Signature]] = {}
        self._looked: set[str] = set()

    def stop(self) -> None:
        """End at the next boundary."""
        if self._engine is not None:
            self._engine.stop()

    def carry_out(self) -> Outcome:
        """Fetch if asked to, compile if need be, converge. Raises nothing that is expected."""
        started, clock = time.time(), time.monotonic()
        with self._closing:
            try:
                self._engine = self._closing.enter_context(self._start_engine())
                # A heal goes by what was compiled: it need not wait for the engine's own look.
                kept = read_json(self._places.facts) if self._job.ids else None
                self._facts = kept or self._engine.facts()
                if self._job.fetch:
                    self._fetch()
                self._choose_catalog()
                if self._catalog is not None:
                    self._converge(self._engine, self._catalog)
                self._state.problem("run", None, started)
            except ReconcilerError as error:
                self._trouble("run", error)
        self._summarise(started, time.monotonic() - clock)
        self._state.save(self._places)
        return self._outcome

    # -- the way to a catalog ------------------------------------------------------------

    def _fetch(self) -> None:
        """Ask the remotes; a commit that may be used becomes the trusted one."""
        from reconciler.source.mark import Mark, Marks

        state, now = self._state, time.time()
        source = state.source
        source["last_attempt"] = now
        marks = Marks(self._places.trust)
        try:
            before = marks.mend()
            known = [before.commit] if before.commit else []
            answer = self._ask().fetch(self._config.to_json(), before.to_json(), known)
            source.update(last_success=now, remote=answer["remote"], head=answer["commit"])
            state.problem("fetch", None, now)
            state.count("fetch_total")
            if "refused" in answer:
                source["refused"] = answer["commit"]
                state.count("verify_failures_total")
                self._note("trust", answer["refused"])
                return
            source["refused"] = ""
            mark = before
            if "mark" in answer:
                new = Mark.from_json(answer["mark"])
                mark = marks.advance(new, before=before) if new != before else before
                state.subject = {**answer["subject"], "signer": ", ".join(mark.signers)}
            marks.confirm(float(answer["received_at"]))
            if mark.commit != state.trusted:
                state.trusted, state.first_seen = mark.commit, now
            state.problem("trust", None, now)
        except TrustError as error:
            self._trouble("trust", error)
        except ReconcilerError as error:
            state.count("fetch_failures_total")
            self._trouble("fetch", error)

    def _choose_catalog(self) -> None:
        """The one of the trusted commit; where that cannot be had, the one that was applied."""
        state = self._state
        digest = hashlib.sha256(dumps(self._facts)).hexdigest()
        stored = self._stored()
        fresh = stored is not None and (state.applied_facts == digest or bool(self._job.ids))
        if fresh and state.trusted in ("", state.applied):
            self._catalog = stored
            return
        commit = state.trusted or state.applied
        held = stored is not None and suspension(self._places) is not None
        if not commit or held:
            self._catalog = stored
            return
        try:
            self._catalog = self._compile(commit)
            self._compiled = True
            state.problem("compile", None, time.time())
        except ReconcilerError as error:
            kind = "fetch" if isinstance(error, SourceError) else "compile"
            self._trouble(kind, error, commit=commit)
            self._catalog = stored
            return
        write(self._places.facts, dumps(self._facts))
        write(self._places.catalog, dumps(self._catalog.to_json()))
        if state.applied != commit:
            state.applied, state.applied_since = commit, time.time()
        state.applied_facts = digest

    def _stored(self) -> Catalog | None:
        try:
            with open(self._places.catalog, "rb") as file:
                catalog = Catalog.from_json(json.load(file))
        except (OSError, ValueError, ReconcilerError):
            return None
        # Another one is what a run left that was killed before it could say so.
        return catalog if catalog.commit == self._state.applied else None

    def _compile(self, commit: str) -> Catalog:
        _, document = self._ask().compile(self._config.to_json(), commit, self._facts)
        return Catalog.from_json(document)

    def _ask(self) -> Provider:
        if self._provider is None:
            self._provider = self._closing.enter_context(Provider.start(self._places))
        return self._provider

    def _whole(self) -> Provider:
        """The provider, with the catalog's contents and secrets at hand."""
        if not self._compiled and self._catalog is not None:
            self._ask().compile(self._config.to_json(), self._catalog.commit, self._facts)
            self._compiled = True
        return self._ask()

    # -- the machine ---------------------------------------------------------------------

    def _start_engine(self) -> Engine:
        root = self._places.root
        main = os.path.join(os.path.dirname(reconciler.__file__), "engine", "__main__.py")
        argv = [sys.executable, "-I", "-S", "-B", main]
        if root == "/" and os.path.isdir("/run/systemd/system") and self._is_delicate():
            return Engine(TransientUnit(argv, f"reconciler-run-{uuid.uuid4().hex[:8]}"), root=root)
        return Engine(Process(argv), root=root)

    def _is_delicate(self) -> bool:
        if self._job.ids:
            return any(id_.startswith(DELICATE) for id_ in self._job.ids)
        return True

    def _converge(self, engine: Engine, catalog: Catalog) -> None:
        self._before = self._signatures()
        watched, left = self._split(catalog)
        contents = Contents(self._places.contents, _digests(catalog, secret=True))
        offered: dict[str, Any] = {
            "content": lambda sha256: contents.get(sha256, lambda one: self._whole().content(one)),
            "secrets": lambda: self._whole().secrets(),
            "diff": False,
        }
        held = suspension(self._places)
        results: list[Result] = []
        drifted: list[str] = []
        if held is None and watched.resources:
            report = engine.apply(
                dumps(watched.to_json()), **offered, lock_timeout=LOCK_PATIENCE, mode="agent"
            )
            self._outcome.report = report
            results += report.results
            for warning in report.warnings:
                self._say("warning", warning)
        looked = left if held is None else dataclasses.replace(
            catalog, resources=(*watched.resources, *left.resources)
        )  # fmt: skip
        if looked.resources:
            plan = engine.plan(dumps(looked.to_json()), **offered)
            results += plan.results
            drifted = [
                one.id for one in plan.results if one.status in ("pending", "unknown", "owed")
            ]
        self._take(results, drifted)
        if held is None and self._outcome.report is not None and not self._job.ids:
            self._finish(engine, catalog, self._outcome.report)
            contents.keep_only(_digests(catalog))
        self._watch(catalog)

    def _split(self, catalog: Catalog) -> tuple[Catalog, Catalog]:
        """What is converged, and what is only looked at: drift that policy leaves alone."""
        known = {}
        with Ledger.open_readonly(self._places.root) as ledger:
            if ledger is not None:
                known = ledger.known()
        watched: list[Declaration] = []
        left: list[Declaration] = []
        wanted = self._wanted(catalog)
        for one in catalog.resources:
            if wanted is not None and one.id not in wanted:
                continue
            policy = "heal" if one.handler else drift_policy(one, self._config.drift)
            before = known.get(one.id)
            unchanged = before is not None and before.converged and before.wish == wish_digest(one)
            if policy == "heal" or not unchanged:
                watched.append(one)
            elif policy == "warn":
                left.append(one)
        return (
            dataclasses.replace(catalog, resources=tuple(watched)),
            dataclasses.replace(catalog, resources=tuple(left)),
        )

    def _wanted(self, catalog: Catalog) -> set[str] | None:
        """For a heal: the resources that an event was about, with all handlers."""
        if not self._job.ids:
            return None
        handlers = {one.id for one in catalog.resources if one.handler}
        return {*self._job.ids, *handlers}

    def _take(self, results: Iterable[Result], drifted: list[str]) -> None:
        """Count, and remember what failed and what was changed."""
        state, outcome = self._state, self._outcome
        partial = bool(self._job.ids)
        if not partial:
            state.failed, state.drifted, state.resources = {}, [], {}
        looked = self._looked
        for one in results:
            looked.add(one.id)
            state.failed.pop(one.id, None)
            if one.status in ("failed", "blocked") and len(state.failed) < SHOWN:
                state.failed[one.id] = one.reason
                self._say("err", f"{one.id} {one.status}: {one.reason}", resource=one.id)
            if one.status in ("changed", "notified"):
                outcome.changed.append(one.id)
                corrective = one.cause == "corrective"
                state.count(
                    "changes_corrective_total" if corrective else "changes_intentional_total"
                )
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
            if not partial and not one.id.startswith("handler:"):
                state.resources["total"] = state.resources.get("total", 0) + 1
        state.drifted = sorted({*(set(state.drifted) - looked), *drifted})

    def _finish(self, engine: Engine, catalog: Catalog, report: Report) -> None:
        """A whole run: is the commit good, and what left Git?"""
        if report.failed or report.interrupted:
            return
        state = self._state
        if catalog.commit and catalog.commit == state.applied:
            if state.good != state.applied and state.first_seen:
                state.totals["commit_lag_seconds"] = round(time.time() - state.first_seen, 3)
            state.good = state.applied
        if "trust" in state.problems or "compile" in state.problems:
            return  # what is not applied yet may still declare it
        state.prune = engine.prune(
            present=[one.id for one in catalog.resources],
            host=catalog.host,
            commit=catalog.commit,
            policy=self._config.prune,
            most=self._config.prune_max,
            percent=self._config.prune_percent,
        )
        for one in state.prune.get("pruned", ()):
            state.count("changes_prune_total")
            self._say(
                "notice",
                f"{one['id']} is declared no more: {one['done']}",
                resource=one["id"],
                cause="prune",
            )

    def _watch(self, catalog: Catalog) -> None:
        """Tell the supervisor what to watch, as the machine is now."""
        observed = {
            one.id
            for one in catalog.resources
            if not one.handler and drift_policy(one, self._config.drift) != "ignore"
        }
        with Ledger.open_readonly(self._places.root) as ledger:
            claims = ledger.claims() if ledger is not None else {}
        wanted = {id_: claimed for id_, claimed in claims.items() if id_ in observed}
        paths = watch_list(wanted, self._places.root)
        for path, entry in paths.items():
            ids = set(entry[1])
            if path not in self._before or ids & set(self._outcome.changed):
                continue  # as we left it
            stored, at_start = self._before[path]
            # What was not looked at in this run stays suspect if it was; what was looked at may
            # have been changed since, so its signature is the one from before the look.
            entry[0] = at_start if self._looked.issuperset(ids) else stored
        # A link that is gone is found by no search; whom it was about must be looked at first.
        for path, entry in (read_json(self._places.watches) or {}).items():
            if path not in paths and wanted.keys() & set(entry[1]) - self._looked:
                paths[path] = entry
        document = json.dumps(paths, separators=(",", ":"))
        write(self._places.watches, document.encode(), durable=False)

    def _signatures(self) -> dict[str, tuple[Signature, Signature]]:
        """Path -> its signature as the last run left it, and now."""
        stored = read_json(self._places.watches) or {}
        return {path: (entry[0], signature(path)) for path, entry in stored.items()}

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
        elif outcome.changed:
            result = "changed"
        else:
            result = "ok"
        causes = {"intentional": 0, "corrective": 0, "prune": len(state.prune.get("pruned", ()))}
        causes["corrective"] = len(outcome.corrected)
        causes["intentional"] = len(outcome.changed) - len(outcome.corrected)
        state.last_run = {
            "id": report.run if report is not None else "",
            "kind": self._job.kind,
            "cause": causes,
            "outcome": result,
            "started": started,
            "duration_s": round(seconds, 3),
        }
        state.count(f"runs_{self._job.kind}_{result}_total")


def _digests(catalog: Catalog, *, secret: bool = False) -> set[str]:
    """The contents that a catalog names; secret: only those that must be in no other place."""
    return {
        str(value["$content"][0])
        for one in catalog.resources
        if one.no_log or not secret
        for value in one.params.values()
        if isinstance(value, dict) and "$content" in value
    }


def main() -> int:
    """Do the job on stdin; the outcome as JSON on stdout."""
    job = json.load(sys.stdin)
    places = Places(job.get("root", "/"))
    state = State.from_json(job.get("state")) if job.get("state") else State.load(places)
    config = Config.from_json(job["config"])
    run = Run(
        Job(job["kind"], config, bool(job.get("fetch")), tuple(job.get("ids", ()))), state, places
    )
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    outcome = run.carry_out()
    sys.stdout.write(json.dumps({
        "state": outcome.state.to_json(),
        "corrected": outcome.corrected,
        "changed": outcome.changed,
        "failed": outcome.failed,
        "messages": outcome.messages[:500],
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
