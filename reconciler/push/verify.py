"""Checks between the batches of a rollout: does what was just changed still serve?

`http`, `tcp` and `command` look from here, `unit` asks the host. A check is tried again until
it holds or its time is up. With `{host}` or `{address}` in its words it is made for every host of the
batch, else once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reconciler.errors import ConfigError, Mark, ReconcilerError, SchemaError
from reconciler.transport.connect import Connector
from reconciler.transport.pipes import PipeChannel
from reconciler.transport.target import Target
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Seq

Kind = Literal["http", "tcp", "command", "unit"]
#: Seconds in which a check must come to hold, those of one attempt, and those between two.
WITHIN = 30.0
ATTEMPT = 10.0
AGAIN = 1.0
#: Keys of each kind; all have `within`.
KEYS: Mapping[str, tuple[str, ...]] = {
    "http": ("url", "status", "within"),
    "tcp": ("host", "port", "within"),
    "command": ("argv", "within"),
    "unit": ("name", "within"),
}
EACH = ("{host}", "{address}")


@dataclass(frozen=True)
class Check:
    """One check. words: the URL, the host, the argv or the unit. number: status or port."""

    kind: Kind
    words: tuple[str, ...]
    number: int = 0
    within: float = WITHIN
    mark: Mark | None = None

    @property
    def each(self) -> bool:
        """Whether it is made for every host of a batch."""
        return self.kind == "unit" or any(name in word for word in self.words for name in EACH)

    def __str__(self) -> str:
        number = f" {self.number}" if self.number else ""
        return f"{self.kind} {' '.join(self.words)}{number}"


class Verifier:
    """Makes checks. target: how a host is reached."""

    def __init__(
        self, checks: Sequence[Check], target: Callable[[str], Target], connector: Connector
    ) -> None:
        self._checks = checks
        self._target = target
        self._connector = connector

    def __call__(self, hosts: Sequence[str]) -> str:
        """Why the rollout must not go on; "" if all checks hold for these hosts."""
        for check in self._checks:
            for host in hosts if check.each else hosts[:1]:
                wrong = self._in_time(check, host)
                if wrong:
                    place = f" for {host}" if check.each else ""
                    return f"check `{check}`{place} does not hold: {wrong}"
        return ""

    def _in_time(self, check: Check, host: str) -> str:
        end = time.monotonic() + check.within
        words: Sequence[str] = ()
        while True:
            try:
                words = words or self._filled(check, host)
                wrong = self._once(
                    check, host, words, max(0.1, min(ATTEMPT, end - time.monotonic()))
                )
            except ReconcilerError as error:
                wrong = error.message
            except (OSError, ValueError) as error:
                wrong = str(error) or type(error).__name__
            if not wrong or time.monotonic() + AGAIN >= end:
                return wrong
            time.sleep(AGAIN)

    def _once(self, check: Check, host: str, words: Sequence[str], seconds: float) -> str:
        if check.kind == "http":
            return _http(words[0], check.number, seconds)
        if check.kind == "tcp":
            socket.create_connection((words[0], check.number), seconds).close()
            return ""
        if check.kind == "command":
            return _ended(PipeChannel(words), seconds)
        transport = self._connector.open(self._target(host))
        try:
            argv = ["systemctl", "is-active", "--quiet", words[0]]
            return _ended(transport.start(argv), seconds)
        finally:
            transport.close()

    def _filled(self, check: Check, host: str) -> list[str]:
        if check.kind == "unit" or not check.each:
            return list(check.words)
        address = self._connector.address(self._target(host))
        return [word.replace("{host}", host).replace("{address}", address) for word in check.words]


def _http(url: str, status: int, seconds: float) -> str:
    # Imported when a check is made: a run that makes none does not pay for them.
    import http.client
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """A redirect is an answer: whoever wants what it leads to names that."""

        def redirect_request(self, *args: Any, **kwargs: Any) -> None:
            """Do not follow it."""

    request = urllib.request.Request(url, headers={"User-Agent": "reconciler"})  # noqa: S310  checked when it was read
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=seconds) as answer:
            found = answer.status
    except urllib.error.HTTPError as error:
        found = error.code
        error.close()
    except urllib.error.URLError as error:
        return str(error.reason)
    except http.client.HTTPException as error:
        return f"{type(error).__name__}: {error}"
    return "" if found == status else f"status {found}, expected {status}"


def _ended(program: Any, seconds: float) -> str:
    """Wait for a program, and drop what it says."""
    end = time.monotonic() + seconds
    try:
        while (piece := program.receive(max(0.0, end - time.monotonic()))) != b"":
            if piece is None:
                return f"not done within {seconds:.0f} s"
        code = program.status(max(0.1, end - time.monotonic()))
        if code == 0:
            return ""
        lines = program.errors().decode("utf-8", "replace").strip().splitlines()
        return f"ended with code {code}" + (f": {lines[-1][:200]}" if lines else "")
    finally:
        program.close()


# -- as written ----------------------------------------------------------------------------


class CheckReader:
    """Reads `verify:`; what is wrong is in `errors`."""

    def __init__(self, parse_time: Callable[[object], float]) -> None:
        self.errors: list[ConfigError] = []
        self._parse_time = parse_time

    def read(self, value: object, mark: Mark) -> tuple[Check, ...]:
        """A list of checks."""
        if not isinstance(value, Seq):
            self._wrong("verify must be a list of checks", mark, "- http: {url: https://{host}/}")
            return ()
        found = [self._check(one, value.place(index)) for index, one in enumerate(value)]
        return tuple(one for one in found if one is not None)

    def _check(self, node: object, mark: Mark) -> Check | None:
        known = ", ".join(KEYS)
        if not isinstance(node, Map) or len(node) != 1:
            return self._wrong(f"a check is one of {known}", mark, "- http: {url: https://{host}/}")
        ((kind, value),) = node.items()
        if kind not in KEYS:
            hint = did_you_mean(str(kind), KEYS) or f"known: {known}"
            return self._wrong(f"there is no check {kind!r}", node.key_place(kind), hint)
        place = node.place(kind)
        if not isinstance(value, Map):
            value = self._short(kind, value, place)
        for key in value:
            if key not in KEYS[kind]:
                hint = did_you_mean(str(key), KEYS[kind]) or f"known: {', '.join(KEYS[kind])}"
                return self._wrong(
                    f"the check {kind} has no key {key!r}", value.key_place(key), hint
                )
        try:
            within = self._parse_time(value["within"]) if "within" in value else WITHIN
            words, number = _READERS[kind](value)
        except ValueError as error:
            return self._wrong(f"{kind}: {error}", place, "")
        return Check(kind, words, number, within, place)

    def _short(self, kind: str, value: object, place: Mark) -> Map:
        """`unit: nginx` is short for `unit: {name: nginx}`."""
        return Map({KEYS[kind][0]: value}, place)

    def _wrong(self, message: str, mark: Mark, hint: str) -> None:
        self.errors.append(SchemaError(message, mark=mark, hint=hint))


def _read_http(node: Map) -> tuple[tuple[str, ...], int]:
    url = _text(node, "url")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url must begin with http:// or https://, found {url!r}")
    return (url,), _number(node, "status", 100, 599, 200)


def _read_tcp(node: Map) -> tuple[tuple[str, ...], int]:
    host = _text(node, "host") if "host" in node else "{address}"
    return (host,), _number(node, "port", 1, 65535, None)


def _read_command(node: Map) -> tuple[tuple[str, ...], int]:
    argv = node.get("argv")
    words = [str(word) for word in argv] if isinstance(argv, Seq) else []
    if not words or not words[0] or any("\0" in word for word in words):
        raise ValueError("argv must be a list: the program and its words; there is no shell")
    return tuple(words), 0


def _read_unit(node: Map) -> tuple[tuple[str, ...], int]:
    name = _text(node, "name")
    if name.startswith("-") or any(c.isspace() or not c.isprintable() for c in name):
        raise ValueError(f"{name!r} is no name of a unit")
    return (name,), 0


_READERS: Mapping[str, Callable[[Map], tuple[tuple[str, ...], int]]] = {
    "http": _read_http,
    "tcp": _read_tcp,
    "command": _read_command,
    "unit": _read_unit,
}


def _text(node: Map, key: str) -> str:
    value = node.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} must be a text" if key in node else f"{key} is missing")
    return value


def _number(node: Map, key: str, least: int, most: int, default: int | None) -> int:
    value = node.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        what = f"found {value!r}" if key in node else "it is missing"
        raise ValueError(f"{key} must be a number from {least} to {most}, {what}")
    return int(value)
