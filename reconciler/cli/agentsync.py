"""`agent sync`: the resident agent fetches and converges now, and who asked waits for what comes
of it, for as long as the agent works on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.agent.config import Config
from reconciler.agent.places import UNIT, Places, read_json
from reconciler.agent.settings import usable
from reconciler.cli.agentstatus import read_status
from reconciler.cli.console import Output
from reconciler.cli.render import duration
from reconciler.errors import Held, ReconcilerError, TransportError, UsageError

#: Seconds between two looks.
BETWEEN = 0.1
#: Of a window that is to be passed.
NO_WAIT = "no commit waits for a window"
#: States in which a run is at work; in the others the remotes are being asked.
AT_WORK = ("starting", "recovering", "applying", "healing", "sweeping", "stopping")


def pid_of_agent(places: Places) -> int:
    """The resident agent's process; 0 if none runs."""
    document = read_json(places.status) or {}
    pid = document.get("agent", {}).get("pid", 0)
    try:
        with open(f"/proc/{int(pid)}/cmdline", "rb") as file:
            if b"reconciler.agent" in file.read().split(b"\0"):
                return int(pid)
    except OSError:
        pass
    return 0


def sync(places: Places, out: Output, patience: float | None) -> dict[str, Any]:
    """The status after a run that began after this call. patience: seconds, None for as long as
    the limits of a poll and a run allow.

    Raises UsageError without an agent, Held when patience is over, TransportError if the agent
    ends meanwhile.
    """
    pid = pid_of_agent(places)
    asked = time.time()
    try:
        if not pid:
            raise ProcessLookupError
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        raise UsageError(
            "the agent does not run", hint=f"systemctl start {UNIT}, or: reconciler agent once"
        ) from None
    patience = _longest(places) if patience is None else patience
    with out.progress("sync") as show:
        for document in _looks(patience):
            last = document["last_run"]
            if last and last["kind"] == "sync" and last["started"] >= asked:
                return document
            show({"id": _doing(document)})
            _require(places, pid)
    raise Held(
        f"the agent is still at work after {duration(patience)} ({_doing(read_status())}), and goes on",
        hint="reconciler agent status --watch shows how it ends; --timeout 2h waits longer",
    )


def _looks(patience: float) -> Iterator[dict[str, Any]]:
    """What the agent says, again and again, until patience is over."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        yield read_status()
        time.sleep(BETWEEN)


def _doing(document: Mapping[str, Any]) -> str:
    state = str(document["state"])
    return state if state in AT_WORK else "fetching"


def _require(places: Places, pid: int) -> None:
    """Raises TransportError unless the agent that was asked is there."""
    now = pid_of_agent(places)
    if now != pid:
        how = "was started anew" if now else "has ended"
        raise TransportError(
            f"the agent {how} before it had done what it was asked for",
            hint=f"journalctl -u {UNIT} tells why; then: reconciler agent sync",
        )


def _longest(places: Places) -> float:
    """What a poll of all remotes and a run may take together."""
    try:
        config, _ = usable(places)
    except ReconcilerError:
        config = Config(remotes=({},))  # what runs has read its settings at another time
    return len(config.remotes) * config.fetch_limits().total + config.run_limit
