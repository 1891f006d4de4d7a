"""A suspension shows in the status at once, also where no agent is there to write it."""

from __future__ import annotations

import time

from reconciler.agent.places import Places, read_json
from reconciler.agent.state import State, suspension
from reconciler.agent.status import Live, compose, publish

#: The conditions that a suspension bears on.
TOUCHED = ("InSync", "Healthy", "Suspended")


def restate(places: Places) -> None:
    """Write the status anew with what holds now; all else is as it was said last, and as old."""
    found = read_json(places.status)
    if found is None:
        return
    state = State.load(places)
    live = Live(contended=found["contended"])
    now = compose(state, live, suspension(places), now=time.time())
    fresh = {one["type"]: one for one in now["conditions"] if one["type"] in TOUCHED}
    conditions = [fresh.get(one["type"], one) for one in found["conditions"]]
    said = {**found, "conditions": conditions, "suspensions": now["suspensions"]}
    publish(places, said, state.totals)
