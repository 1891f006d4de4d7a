"""Words for systemd: readiness and the watchdog, and log lines with fields."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Mapping

PRIORITIES = {"err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
JOURNAL = "/run/systemd/journal/socket"


def notify(message: str) -> None:
    """Tell the service manager: `READY=1`, `WATCHDOG=1`, `STATUS=...`. Nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(message.encode(), address)


def watchdog() -> float:
    """Seconds between two signs of life; 0 if nobody waits for them."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() else 0.0


def log_all(messages: Iterable[Mapping[str, object]], **common: object) -> None:
    """What a run had to say. common: fields of every entry."""
    for one in messages:
        fields = {name: value for name, value in one.items() if name not in ("priority", "message")}
        log(str(one["priority"]), str(one["message"]), **{**common, **fields})


def log(priority: str, message: str, **fields: object) -> None:
    """One entry: to the journal with fields, where the service manager reads us; else to stderr.

    fields: `RECONCILER_RESOURCE`, `_CAUSE`, `_COMMIT`, `_RUN` and so on; empty ones are left out.
    """
    if "JOURNAL_STREAM" in os.environ and record(priority, message, **fields):
        return
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def record(priority: str, message: str, **fields: object) -> bool:
    """One entry in the journal, whoever reads what we print; whether there is a journal."""
    entry = {
        "MESSAGE": message,
        "PRIORITY": PRIORITIES.get(priority, 6),
        "SYSLOG_IDENTIFIER": "reconciler",
        **{f"RECONCILER_{name.upper()}": value for name, value in fields.items() if value},
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(b"".join(_field(k, str(v)) for k, v in entry.items()), JOURNAL)
    except OSError:
        return False
    return True


def _field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "backslashreplace")[:60_000]
    if b"\n" not in raw:
        return name.encode() + b"=" + raw + b"\n"
    return name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n"
