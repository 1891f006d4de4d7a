"""What is true of a bad condition: what happens next by itself, and which command shows more."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any

ASKED = "the remotes are asked again{at_fetch}"
AGAIN = "it is tried again by itself{at_retry}, a newer commit at once"
SLOWER = "it is corrected ever more slowly, at least every five minutes"
#: Type and reason -> what comes next; the reason "" is any other. `at_X`: the time in `next`.
NEXT = {
    ("SourceFresh", ""): ASKED,
    ("Trusted", ""): "it is judged again once the files of keys are others; another commit is "
    "looked for{at_fetch}",
    ("Trusted", "UnknownServer"): ASKED,
    ("Trusted", "StateLost"): "nothing new is applied before a person says what may be trusted",
    ("Ready", ""): AGAIN,
    ("Ready", "BadSettings"): "the settings are read again once the file is another",
    ("Ready", "LedgerLost"): "the next whole run begins it anew{at_sweep}",
    ("InSync", ""): AGAIN,
    ("InSync", "Contended"): SLOWER,
    ("InSync", "Drifted"): "it stays so: what is to be done about drift of it is `warn`",
    ("InSync", "Window"): "it is applied when the window opens{at_gate_opens}",
    ("InSync", "PruneHeld"): "nothing of it is removed before a person says so",
    ("Stalled", ""): SLOWER,
    ("RebootRequired", ""): "nobody boots this host by itself",
    ("Agent", ""): "systemd starts one that has died, and none that was stopped",
}
#: The same -> a command; `RESOURCE` is one that the status names under the key that stands behind.
MORE = {
    ("Trusted", ""): ("reconciler trust show", ""),
    ("Ready", "BadSettings"): ("reconciler doctor", ""),
    ("InSync", "Failed"): ("reconciler why RESOURCE", "failed"),
    ("InSync", "Drifted"): ("reconciler drift RESOURCE", "drifted"),
    ("InSync", "Contended"): ("reconciler drift RESOURCE", "contended"),
    ("InSync", "PruneHeld"): ("reconciler prune --dry-run", ""),
    ("InSync", "PruneFailed"): ("reconciler prune --dry-run", ""),
    ("Stalled", ""): ("reconciler history --cause corrective", ""),
    ("Agent", ""): ("journalctl -u reconciler-agent", ""),
}


def next_step(notice: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """What happens without a person. times: `next` of the status; what is not known is left out."""
    known = dict.fromkeys(("at_fetch", "at_sweep", "at_retry", "at_gate_opens"), "")
    known |= {f"at_{name}": f", at {clock(at)}" for name, at in times.items() if at}
    return _of(NEXT, notice, "").format(**known)


def more(notice: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """A command that shows more of it; "" if `agent status` says all. named: resources, by
    the list of the status that they are in."""
    command, where = _of(MORE, notice, ("", ""))
    found = next(iter(named.get(where, ())), "")
    if where and not found:
        return ""
    return command.replace("RESOURCE", shlex.quote(str(found)))


def clock(seconds: float) -> str:
    """A time as it is shown to people who may be anywhere."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _of(table: Mapping[tuple[str, str], Any], notice: Mapping[str, Any], default: Any) -> Any:
    kind = str(notice["type"])
    return table.get((kind, str(notice["reason"])), table.get((kind, ""), default))
