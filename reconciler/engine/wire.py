"""Frames: the engine protocol on a pair of byte streams.

A frame is one byte of kind, four bytes of length (big-endian), and the payload: `J` is a JSON
object, `B` a piece of content; an empty `B` ends the content. The controller sends requests
(`{"op": ...}`); the engine sends events, asks for content and secrets, and ends each request
with one frame that has `facts`, `plan`, `report` or `error`. Sizes are bounded, and neither
side trusts the other's JSON beyond what it checks.
"""

from __future__ import annotations

import json
import struct
from typing import BinaryIO, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Type

from reconciler import errors
from reconciler.errors import ConfigErrors, Mark, ProtocolError, ReconcilerError

PROTOCOL = 1
MAX_FRAME = 64 << 20
PIECE = 1 << 20
_HEAD = struct.Struct(">cI")

Message = Dict[str, object]


class Wire:
    """One side of the protocol. Raises ProtocolError; EOFError when the other side is gone."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._in = incoming
        self._out = outgoing

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

    def receive(self) -> Message:
        """The next JSON object."""
        kind, payload = self._frame()
        if kind != b"J":
            raise ProtocolError("expected a message, got content")
        return parse(payload)

    def receive_content(self) -> Iterator[bytes]:
        """The pieces of content up to its end. Must be read to the end."""
        while True:
            kind, payload = self._frame()
            if kind == b"J":
                raise error_from_json(parse(payload).get("error"))
            if not payload:
                return
            yield payload

    def _frame(self) -> Tuple[bytes, bytes]:
        head = self._exactly(_HEAD.size)
        kind, size = _HEAD.unpack(head)
        if kind not in (b"J", b"B") or size > MAX_FRAME:
            raise ProtocolError(f"this is not our protocol: {head!r}")
        return kind, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = self._in.read(size)
        if len(data) != size:
            raise EOFError("the other side is gone")
        return data


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
    """An error as it travels; `error_from_json` makes it whole again."""
    if isinstance(error, ConfigErrors):
        return {"type": "ConfigErrors", "errors": [error_to_json(one) for one in error.errors]}
    mark = error.mark
    return {
        "type": type(error).__name__,
        "message": error.message,
        "source": [mark.file, mark.line, mark.column] if mark else None,
        "host": error.host,
        "hint": error.hint,
    }


def error_from_json(document: object) -> ReconcilerError:
    """The error that a document describes; an unknown type becomes a ReconcilerError."""
    if not isinstance(document, dict):
        return ProtocolError("the other side failed without saying why")
    if document.get("type") == "ConfigErrors":
        parts: List[errors.ConfigError] = []
        for one in document.get("errors") or []:
            part = error_from_json(one)
            parts.append(
                part if isinstance(part, errors.ConfigError) else errors.ConfigError(str(part))
            )
        return ConfigErrors(parts)
    found = getattr(errors, str(document.get("type")), None)
    kind: Type[ReconcilerError] = ReconcilerError
    # CommandFailed is made from an argv; what travels is its text.
    if (
        isinstance(found, type)
        and issubclass(found, ReconcilerError)
        and found is not errors.CommandFailed
    ):
        kind = found
    source = document.get("source")
    mark: Optional[Mark] = Mark(*source) if isinstance(source, list) and len(source) == 3 else None
    host = document.get("host")
    return kind(
        str(document.get("message")),
        mark=mark,
        host=str(host) if host else None,
        hint=str(document.get("hint") or ""),
    )
