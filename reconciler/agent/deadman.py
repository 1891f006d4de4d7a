"""A dead-man's switch: the one who says that the agent is silent cannot be the agent."""

from __future__ import annotations

import sys
import time
from typing import Any

from reconciler.agent import journal
from reconciler.agent.notices import Notices
from reconciler.agent.outbox import Outbox
from reconciler.agent.places import Places, read_json
from reconciler.agent.settings import usable
from reconciler.agent.state import State
from reconciler.agent.status import Live, believe, compose
from reconciler.errors import ReconcilerError


def look(places: Places, now: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The condition `Agent`, and the status that it is from."""
    found = read_json(places.status)
    if found is None:
        status = compose(State.load(places), Live(), None, now=now)
        message = "it has not run since this host was booted"
    else:
        status = believe(found, now)
        silent = [one for one in status["conditions"] if one["reason"] in ("Silent", "Stopped")]
        message = str(silent[0]["message"]) if silent else ""
    condition = {
        "type": "Agent",
        "status": str(not message),
        "reason": "Silent" if message else "Alive",
        "message": message,
        "since": float(status["valid_until"]) if found else now,
        "commit": status["source"]["applied"]["commit"],
    }
    return condition, status


def main() -> int:
    """0 if the agent has spoken lately, else 1, which makes the unit a failed one."""
    places = Places()
    condition, status = look(places, time.time())
    try:
        config, _ = usable(places)
    except ReconcilerError as error:
        journal.log("err", str(error))
        return error.exit_code
    if config.notify:
        now = time.time()
        notices, outbox = Notices.load(places, places.deadman), Outbox.load(places.deadman_outbox)
        due = notices.due([condition], now)
        if due:
            outbox.post(due, status, config.notify, now)
        notices.save()
        try:
            journal.log_all(outbox.wait(config.notify, now))
        except OSError as error:
            journal.log("err", f"notifications cannot be sent now: {error.strerror}")
    if condition["status"] == "True":
        return 0
    journal.log("err", f"the agent is silent: {condition['message']}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
