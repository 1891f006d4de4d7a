"""Frames: the engine protocol on a pair of byte streams.

A frame is one byte of kind, four bytes of length (big-endian), and the payload: `J` is a JSON
object, `B` a piece of content; an empty `B` ends the content. The controller sends requests
(`{"op": ...}`); the engine sends events, asks for content and secrets, and ends each request
with one frame that has `facts`, `plan`, `report` or `error`. Sizes are bounded, and neither
side trusts the other's JSON beyond what it checks.
"""

from __future__ import annotations

import contextlib
import json
import select
import struct
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from typing import Any, BinaryIO

from reconciler import errors
from reconciler.errors import (
    CommandFailed,
    ConfigError,
    ConfigErrors,
    Mark,
    ProtocolError,
    ReconcilerError,
)

PROTOCOL = 1
MAX_FRAME = 64 << 20
PIECE = 1 << 20
_HEAD = struct.Struct(">cI")

Message = dict[str, object]


class Wire:
    """One side of the protocol. Raises ProtocolError; EOFError when the other side is gone."""

    def __init__(self, incoming: BufferedReader[Any], outgoing: BinaryIO) -> None:
        self._in = incoming
        self._out = outgoing
        # A frame leaves this whole: a time limit or Ctrl-C in the middle of one loses nothing.
        self._buffer = bytearray()
        self._in_content = False
        self._told = False

    def send(self, message: Mapping[str, object]) -> None:
        """Send a JSON object."""
        self.send_json(json.dumps(message, separators=(",", ":")).encode())

    def send_json(self, encoded: bytes) -> None:
        """Send JSON that is encoded already."""
        self._out.write(_HEAD.pack(b"J", len(encoded)) + encoded)
        self._out.flush()

    def send_content(self, pieces: Iterable[bytes]) -> None:
        """Send content; it is cut into frames of at most 1 MiB."""
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                part = piece[start : start + PIECE]
                self._out.write(_HEAD.pack(b"B", len(part)) + part)
        self._out.write(_HEAD.pack(b"B", 0))
        self._out.flush()

    def abandon(self) -> None:
        """Nothing more will be sent; what the other side did not take is dropped."""
        with contextlib.suppress(ConnectionError):  # it is closed all the same
            self._out.close()

    def waiting(self) -> bool:
        """Whether the other side has said something that nobody has read, or is gone."""
        if self._told:
            return True
        if self._in_content:
            return False  # the rest of what was asked for
        return bool(self._buffer) or bool(select.select([self._in], [], [], 0)[0])

    def receive(self) -> Message:
        """The next JSON object; content that nobody read to its end is passed over."""
        for _ in self._pieces():
            pass
        kind, payload = self._frame()
        if kind != b"J":
            raise ProtocolError("expected a message, got content")
        return parse(payload)

    def ask(self, what: str) -> Message:
        """Ask for something, and the answer to that."""
        self.send({"ask": what})
        while True:
            answer = self.receive()
            if not self._is_stop(answer):
                return answer

    def ask_content(self, sha256: str, size: int) -> Iterator[bytes]:
        """The pieces of content up to its end; what is not read of them is passed over later."""
        for _ in self._pieces():
            pass
        # Before it is sent: once it is on its way there will be an answer, read or not.
        self._in_content = True
        self.send({"ask": "content", "sha256": sha256, "size": size})
        return self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        while self._in_content:
            kind, payload = self._frame()
            message = parse(payload) if kind == b"J" else {}
            if self._is_stop(message):
                continue
            self._in_content = kind == b"B" and bool(payload)
            if kind == b"J":
                raise error_from_json(message.get("error"))
            if payload:
                yield payload

    def _is_stop(self, message: Message) -> bool:
        """Being told to stop may overtake an answer, or come in the middle of one: it is kept for
        the next boundary."""
        told = message.get("op") == "stop"
        self._told = self._told or told
        return told

    def _frame(self) -> tuple[bytes, bytes]:
        self._fill(_HEAD.size)
        kind, size = _HEAD.unpack_from(self._buffer)
        if kind not in (b"J", b"B") or size > MAX_FRAME:
            raise ProtocolError(f"this is not our protocol: {bytes(self._buffer[: _HEAD.size])!r}")
        end = _HEAD.size + size
        self._fill(end)
        payload = bytes(self._buffer[_HEAD.size : end])
        del self._buffer[:end]
        return kind, payload

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            piece = self._in.read1(PIECE)
            if not piece:
                raise EOFError("the other side is gone")
            self._buffer += piece


def parse(payload: bytes) -> Message:
    """A JSON object. Raises ProtocolError for anything else, however deep or broken."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError("expected a JSON object")
    return message


def error_to_json(error: ReconcilerError) -> Message:
    """An error as it travels; `error_from_json` makes it whole again, or the nearest that all know."""
    if isinstance(error, ConfigErrors):
        return {"type": "ConfigErrors", "errors": [error_to_json(one) for one in error.errors]}
    mark = error.mark
    return {
        "type": _known_name(error),
        "message": error.message,
        "source": [mark.file, mark.line, mark.column] if mark else None,
        "host": error.host,
        "hint": error.hint,
    }


def _known_name(error: ReconcilerError) -> str:
    """The nearest kind that every reader can make from a message, so that its exit code arrives."""
    return next(
        kind.__name__
        for kind in type(error).__mro__
        if getattr(errors, kind.__name__, None) is kind and kind is not CommandFailed
    )


def error_from_json(document: object) -> ReconcilerError:
    """The error that a document describes; an unknown type becomes a ReconcilerError."""
    if not isinstance(document, dict):
        return ProtocolError("the other side failed without saying why")
    parts = document.get("errors")
    if document.get("type") != "ConfigErrors" or not isinstance(parts, list):
        return _single(document)
    found = [_single(part) for part in parts if isinstance(part, dict)]
    return ConfigErrors(
        [one if isinstance(one, ConfigError) else ConfigError(str(one)) for one in found]
    )


def _single(document: Mapping[str, object]) -> ReconcilerError:
    found = getattr(errors, str(document.get("type")), None)
    kind: type[ReconcilerError] = ReconcilerError
    # These two are made from other things than a message; what travels is their text.
    if found not in (CommandFailed, ConfigErrors) and isinstance(found, type):
        kind = found if issubclass(found, ReconcilerError) else kind
    host = document.get("host")
    return kind(
        str(document.get("message")),
        mark=_mark(document.get("source")),
        host=str(host) if host else None,
        hint=str(document.get("hint") or ""),
    )


def _mark(source: object) -> Mark | None:
    if not isinstance(source, list) or len(source) != 3:
        return None
    file, line, column = source
    if not isinstance(line, int) or not isinstance(column, int):
        return None
    return Mark(str(file), line, column)
