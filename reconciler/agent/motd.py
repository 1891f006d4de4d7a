"""A suspension is told to who logs in: whoever forgot it will be reminded by the others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.agent.places import Places, write


def tell(places: Places, suspensions: Sequence[Mapping[str, Any]]) -> None:
    """Leave word where `pam_motd` reads it, and take it away once it is over. Raises OSError."""
    if suspensions:
        write(places.motd, "".join(map(_lines, suspensions)).encode(), 0o644, durable=False)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(places.motd)


def _lines(held: Mapping[str, Any]) -> str:
    until = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(held["until"]))
    said = f"reconciler is suspended until {until} by {held['by']}: {held['reason']}"
    # A terminal would obey what is no text.
    shown = "".join(one if one.isprintable() else "?" for one in said)
    return f"{shown}\nuntil then nothing here is corrected; to end it: reconciler agent resume\n"
