"""`agent once`: one whole run where no resident process is, for a person or for cron."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reconciler.agent import journal
from reconciler.agent.once import once
from reconciler.agent.places import Places
from reconciler.agent.settings import usable
from reconciler.agent.status import exit_code, oneline, redact
from reconciler.agent.worker import Outcome
from reconciler.cli.agentsync import NO_WAIT, pid_of_agent
from reconciler.cli.console import Output, line
from reconciler.errors import LockBusy, ReconcilerError, UsageError

#: Lets the commit through that waits for its window in a status; whether one does.
Override = Callable[[Mapping[str, Any]], bool]
LAST_GOOD = "the settings are the last that could be used"


def run_and_say(places: Places, out: Output, override: Override | None = None) -> int:
    """What came of it, in words or as the status; its exit code. Raises ReconcilerError."""
    outcome, document, unread = _run(places, override)
    if unread:
        out.notes([line(text) for text in f"warning: {LAST_GOOD}: {unread}".splitlines()])
    if out.as_json:
        out.document(document)
    for message in outcome.messages:
        out.line(str(message["message"]))
    out.line(oneline(document))
    return exit_code(document)


def run_and_log(places: Places, override: Override | None = None) -> int:
    """The same for the log of the system, errors included: nobody reads what cron starts."""
    try:
        outcome, document, unread = _run(places, override)
    except ReconcilerError as error:
        # That the last one is still at work is nothing to look after.
        journal.keep("info" if isinstance(error, LockBusy) else "err", str(error))
        return error.exit_code
    if unread:
        journal.keep("err", f"{LAST_GOOD}: {unread}")
    known = {"commit": outcome.state.applied, "run": outcome.state.last_run.get("id", "")}
    journal.log_all(outcome.messages, journal.keep, **known)
    journal.keep("info", oneline(document))
    return exit_code(document)


def _run(places: Places, override: Override | None) -> tuple[Outcome, dict[str, Any], str]:
    """What came of it, the status, and why the settings are not what the file says."""
    if pid_of_agent(places):
        raise UsageError("the agent runs already", hint="reconciler agent sync")
    config, unread = usable(places)
    try:
        outcome, document = once(places, config, unread)
        if override and override(document):
            before = outcome.messages
            outcome, document = once(places, config, unread)
            outcome.messages[:0] = before
        elif override:
            outcome.messages.append({"priority": "info", "message": NO_WAIT})
    except OSError as error:
        raise ReconcilerError(f"the agent cannot write its state: {error}") from error
    return outcome, document, redact(unread)
