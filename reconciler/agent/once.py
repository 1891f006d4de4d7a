"""One whole run without a resident process: fetch, verify, compile, converge, tell."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from reconciler.agent import journal
from reconciler.agent.config import Config, load
from reconciler.agent.notices import Notices, deliver
from reconciler.agent.places import Places
from reconciler.agent.state import State, suspension
from reconciler.agent.status import VALID, Live, compose, exit_code, oneline, publish
from reconciler.agent.worker import Job, Outcome, Run
from reconciler.errors import ReconcilerError


def once(places: Places, config: Config) -> tuple[Outcome, dict[str, Any]]:
    """What came of it, and the status. Raises OSError where the state cannot be written."""
    run = Run(Job("sync", config, fetch=True), State.load(places), places)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    outcome = run.carry_out()
    live = Live(state="degraded" if outcome.failed else "idle", pid=os.getpid())
    live.valid = max(VALID, 3 * config.interval)
    live.next_fetch = time.time() + config.interval
    held = suspension(places)
    document = compose(outcome.state, live, held, **config.ages, now=time.time())
    outcome.state.save(places)
    publish(places, document, outcome.state.totals)
    if config.notify:
        due = Notices.load(places.notices).due(document["conditions"], document["written"])
        if due:
            deliver(config.notify, due, document).wait()
    return outcome, document


def main() -> int:
    """For the timer: says everything to the journal; the exit code is that of `agent status`."""
    places = Places()
    try:
        outcome, document = once(places, load(places.config))
    except ReconcilerError as error:
        journal.log("err", str(error))
        return error.exit_code
    except OSError as error:
        journal.log("err", f"the agent cannot write its state: {error}")
        return ReconcilerError.exit_code
    last = outcome.state.last_run
    journal.log_all(outcome.messages, commit=outcome.state.applied, run=last.get("id", ""))
    journal.log("info", oneline(document))
    return exit_code(document)


if __name__ == "__main__":
    sys.exit(main())
