"""Words for systemd: readiness and the watchdog, and log lines with fields."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

PRIORITIES = {"err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
JOURNAL = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"
#: What syslog calls services.
DAEMON = 3 << 3
NAME = "reconciler"


def notify(message: str) -> None:
    """Tell the service manager: `READY=1`, `WATCHDOG=1`, `STATUS=...`. Nothing without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(message.encode(), address)


@contextlib.contextmanager
def reloading() -> Iterator[None]:
    """Tell the service manager that the settings are read again, and when they hold.

    The time is how it tells this reload from one that was asked for before.
    """
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify(f"RELOADING=1\nMONOTONIC_USEC={now}")
    try:
        yield
    finally:
        notify("READY=1")


def watchdog() -> float:
    """Seconds after which a sign of life is expected; 0 if nobody waits for one."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() else 0.0


def log(priority: str, message: str, **fields: object) -> None:
    """One entry: to the journal with fields, where the service manager reads us; else to stderr.

    fields: `RECONCILER_RESOURCE`, `_CAUSE`, `_COMMIT`, `_RUN` and so on; empty ones are left out.
    """
    if "JOURNAL_STREAM" in os.environ:
        keep(priority, message, **fields)
    else:
        _print(message)


def keep(priority: str, message: str, **fields: object) -> None:
    """One entry in the log of the system, whoever reads what we print; without one, on stderr."""
    if not record(priority, message, **fields):
        _print(message)


def log_all(
    messages: Iterable[Mapping[str, object]],
    say: Callable[..., None] = log,
    **common: object,
) -> None:
    """What a run had to say. say: `log` or `keep`. common: fields of every entry."""
    for one in messages:
        fields = {name: value for name, value in one.items() if name not in ("priority", "message")}
        say(str(one["priority"]), str(one["message"]), **{**common, **fields})


def record(priority: str, message: str, **fields: object) -> bool:
    """One entry in the journal, else in syslog, which knows no fields; whether there is either."""
    number = PRIORITIES.get(priority, 6)
    entry = {
        "MESSAGE": message,
        "PRIORITY": number,
        "SYSLOG_IDENTIFIER": NAME,
        **{f"RECONCILER_{name.upper()}": value for name, value in fields.items() if value},
    }
    line = "; ".join(row.strip() for row in message.splitlines())
    return _send(b"".join(_field(k, str(v)) for k, v in entry.items()), JOURNAL) or _send(
        f"<{DAEMON | number}>{NAME}[{os.getpid()}]: {line}".encode("utf-8", "backslashreplace"),
        SYSLOG,
    )


def _send(entry: bytes, address: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(entry, address)
    except OSError:
        return False
    return True


def _print(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "backslashreplace")[:60_000]
    if b"\n" not in raw:
        return name.encode() + b"=" + raw + b"\n"
    return name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n"
