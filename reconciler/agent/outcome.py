"""What came of a run: for the state that outlives it, for the log, and for whoever started it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.agent.hints import Watch
from reconciler.agent.state import State
from reconciler.catalog import Plan, Report, Result
from reconciler.engine.wire import error_to_json
from reconciler.errors import ReconcilerError, unforeseen

#: What a look says of a resource that is not as it is declared.
DIFFERENT = ("pending", "unknown", "owed")
#: Attributes that a line of the log names.
NAMED = 8
#: Lines for the log.
LINES = 500


@dataclass
class Outcome:
    """Ids of resources: changed; corrected, drift that was undone; resisted, drift that was not,
    though that was tried; pruned, what left Git and is gone now; looked, what is known to be as
    it was seen. troubled: something stood in the way. messages: for the log.

    watches: what is to be watched now; after a heal, of what it was about; None: as before.
    """

    state: State
    changed: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    resisted: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    looked: set[str] = field(default_factory=set)
    troubled: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)
    watches: Mapping[str, Watch] | None = None
    report: Report | None = None

    @property
    def failed(self) -> bool:
        """Whether anything is to be tried again."""
        unpruned = self.state.prune.get("failed")
        broken = not self.state.problems.keys().isdisjoint(("run", "source"))
        return bool(self.state.failed or unpruned) or broken

    @property
    def interrupted(self) -> bool:
        """Whether the machine was not seen to the end."""
        return self.report is not None and self.report.interrupted

    def to_json(self) -> dict[str, Any]:
        """What the supervisor needs of it."""
        return {
            "state": self.state.to_json(),
            "corrected": [*self.corrected, *self.resisted],
            "failed": self.failed,
            "messages": self.messages[:LINES],
            "watches": self.watches,
        }

    # -- what went wrong -----------------------------------------------------------------

    @contextlib.contextmanager
    def going_on(self, kind: str, **more: str) -> Iterator[None]:
        """What fails in here is noted as a problem of this kind, and the run goes on without it."""
        try:
            yield
        except ReconcilerError as error:
            self.trouble(kind, error, **more)
        except OSError as error:
            self.trouble(kind, unwritten(error), **more)
        except Exception as error:  # noqa: BLE001  # a flaw of ours must keep no host from being healed
            self.trouble(kind, _bug(error), **more)

    def trouble(self, kind: str, error: ReconcilerError, **more: str) -> None:
        """Note an error as a problem of this kind, and say it."""
        self.note(kind, {**error_to_json(error), "text": str(error), **more})

    def note(self, kind: str, document: Mapping[str, Any]) -> None:
        """The same, of an error as the wire has it."""
        self.troubled = True
        self.state.problem(kind, dict(document), time.time())
        text = str(document.get("text") or document.get("message"))
        hint = str(document.get("hint") or "")
        self.say("err", f"{kind}: {text}" + (f"; {hint}" if hint and hint not in text else ""))

    def say(self, priority: str, message: str, **fields: str) -> None:
        """A line for the log."""
        self.messages.append({"priority": priority, "message": message, **fields})

    # -- what was found and done ---------------------------------------------------------

    def count(self, report: Report | None, looked: Plan | None, ids: Collection[str]) -> None:
        """Remember what failed, what drifts and what was changed. ids: of a heal, what it is about."""
        state = self.state
        self.report = report
        applied = report.results if report else ()
        seen = looked.results if looked else ()
        # Of what a run that was told to stop has not reached, only the look before it is known.
        unreached = {one.id for one in applied if self.interrupted and one.status in DIFFERENT}
        self.looked |= {one.id for one in (*applied, *seen)} - unreached
        if not ids and not self.interrupted:
            state.failed, state.blocked, state.drifted = {}, {}, []
        for one in (*applied, *seen):
            if one.id not in unreached:
                self._count_one(one, ids)
        drifted = {one.id for one in seen if one.status in DIFFERENT}
        # What a new commit wants differently is no drift, though it is not there yet.
        drifted |= {one.id for one in applied if one.id in unreached and one.cause == "corrective"}
        state.drifted = sorted({*(set(state.drifted) - self.looked), *drifted})

    def _count_one(self, one: Result, ids: Collection[str]) -> None:
        state = self.state
        for status, members in (("failed", state.failed), ("blocked", state.blocked)):
            members.pop(one.id, None)
            if one.status == status:
                members[one.id] = one.reason
                self.say("err", f"{one.id} {status}: {one.reason}", resource=one.id)
        if one.status == "failed" and one.id in ids:
            self.resisted.append(one.id)
        if one.status not in ("changed", "notified"):
            return
        self.changed.append(one.id)
        corrective = one.cause == "corrective"
        kind = one.id.partition(":")[0]
        state.count("changes_total", cause=one.cause or "intentional", type=kind)
        if corrective:
            self.corrected.append(one.id)
        what = ", ".join(change.attribute for change in one.changes[:NAMED])
        self.say(
            "notice" if corrective else "info",
            f"{one.id} {'drift corrected' if corrective else 'changed'}"
            + (f": {what}" if what else ""),
            resource=one.id,
            cause=one.cause,
        )

    def count_pruned(self, found: Mapping[str, Any]) -> None:
        """Remember what left Git and what became of it, as the engine tells it."""
        state, before = self.state, self.state.prune
        state.prune = dict(found)
        for one in found.get("pruned", ()):
            kind = str(one["id"]).partition(":")[0]
            self.pruned.append(one["id"])
            state.count("changes_total", cause="prune", type=kind)
            self.say(
                "notice",
                f"{one['id']} is declared no more: {one['done']}",
                resource=one["id"],
                cause="prune",
            )
        for text in found.get("failed", ()):
            self.say("err", f"declared no more, and not pruned: {text}", cause="prune")
        held = found.get("held")
        if held and held != before.get("held"):
            self.say("warning", f"held: {held}; reconciler prune --dry-run", cause="prune")

    def summarise(self, kind: str, started: float, seconds: float, *, held: bool) -> None:
        """The run as a whole has ended. held: it was, or is, not to change anything."""
        state, report = self.state, self.report
        if held:
            result = "held"
        elif self.failed or self.troubled or (report is not None and report.failed):
            result = "failed"
        elif self.changed or self.pruned:
            result = "changed"
        else:
            result = "ok"
        causes = {
            "intentional": len(self.changed) - len(self.corrected),
            "corrective": len(self.corrected),
            "prune": len(self.pruned),
        }
        state.last_run = {
            "id": report.run if report is not None else "",
            "kind": kind,
            "cause": causes,
            "outcome": result,
            "started": started,
            "duration_s": round(seconds, 3),
        }
        state.gauge("last_run_timestamp_seconds", started, kind=kind)
        state.count("runs_total", kind=kind, outcome=result)
        state.observe("run_duration_seconds", seconds, kind=kind)
        whole = bool(self.looked) and kind != "heal" and not self.interrupted
        if whole and not (held or self.failed or state.blocked or state.drifted):
            state.proven_at = time.time()


def unwritten(error: OSError) -> ReconcilerError:
    """A full disk, mostly. Of what was to be written the old content is still there."""
    return ReconcilerError(
        f"cannot write {error.filename or 'what the agent remembers'}: {error.strerror}",
        hint="df -h; the next run goes on from here",
    )


def _bug(error: Exception) -> ReconcilerError:
    return ReconcilerError(unforeseen(error), hint="this is a bug in reconciler")
