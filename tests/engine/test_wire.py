"""Frames: bounded, typed, and whole again after any interruption."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import errors
from reconciler.engine.wire import MAX_FRAME, PIECE, Wire, error_from_json, error_to_json
from reconciler.errors import (
    CommandFailed,
    ConfigError,
    ConfigErrors,
    LockBusy,
    Mark,
    ProtocolError,
    ReconcilerError,
    ResourceError,
    SchemaError,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def reading(data: bytes) -> Wire:
    return Wire(io.BufferedReader(io.BytesIO(data)), io.BytesIO())


def frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">cI", kind, len(payload)) + payload


def written(*messages: object) -> bytes:
    out = io.BytesIO()
    wire = Wire(io.BufferedReader(io.BytesIO()), out)
    for message in messages:
        if isinstance(message, dict):
            wire.send(message)
        else:
            wire.send_content(message)  # type: ignore[arg-type]
    return out.getvalue()


@given(st.dictionaries(st.text(), JSON))
def test_what_is_sent_is_received(message: dict[str, object]) -> None:
    assert reading(written(message)).receive() == message


def test_content_is_cut_into_pieces_and_comes_out_whole() -> None:
    content = b"x" * (2 * PIECE + 5)
    wire = reading(written([content[:10], content[10:]], {"a": 1}))
    pieces = list(wire.ask_content("00", len(content)))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= PIECE
    assert wire.receive() == {"a": 1}


def test_content_that_is_not_read_to_its_end_is_passed_over() -> None:
    wire = reading(written([b"a", b"b", b"c"], [b"second"], {"a": 1}))
    assert next(wire.ask_content("00", 3)) == b"a"
    assert list(wire.ask_content("01", 6)) == [b"second"]
    wire = reading(written([b"a", b"b", b"c"], {"a": 1}))
    assert next(wire.ask_content("00", 3)) == b"a"
    assert wire.receive() == {"a": 1}


def test_an_error_in_the_middle_of_content_is_raised_and_ends_it() -> None:
    error = {"error": error_to_json(errors.SourceError("gone"))}
    wire = reading(
        frame(b"B", b"half") + frame(b"J", json.dumps(error).encode()) + written({"a": 1})
    )
    pieces = wire.ask_content("00", 8)
    assert next(pieces) == b"half"
    with pytest.raises(errors.SourceError, match="gone"):
        next(pieces)
    assert wire.receive() == {"a": 1}


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_an_interruption_in_the_middle_of_a_frame_loses_nothing(chunk: int) -> None:
    """As by the alarm of a time limit, or Ctrl-C: at every byte once."""
    data = written({"first": "x" * 20}, {"last": 1})

    class Interrupting(io.RawIOBase):
        left = data
        ready = False

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            self.ready = not self.ready
            if self.ready:
                raise TimeoutError
            piece, self.left = self.left[:chunk], self.left[chunk:]
            buffer[: len(piece)] = piece
            return len(piece)

    wire = Wire(io.BufferedReader(Interrupting()), io.BytesIO())
    found: list[object] = []
    while len(found) < 2:
        with contextlib.suppress(TimeoutError):
            found.append(wire.receive())
    assert found == [{"first": "x" * 20}, {"last": 1}]


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_or_an_end(data: bytes) -> None:
    wire = reading(data)
    with pytest.raises((ProtocolError, EOFError)):
        list(iter(wire.receive, None))


@pytest.mark.parametrize(
    "data",
    [
        b"X" + struct.pack(">I", 1) + b"x",
        b"J" + struct.pack(">I", MAX_FRAME + 1),
        frame(b"J", b"[]"),
        frame(b"J", b"\xff"),
        frame(b"J", b"{" * 100_000),
        frame(b"J", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        frame(b"B", b"content"),
    ],
)
def test_what_is_no_message_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        reading(data).receive()


def test_a_huge_frame_is_refused_before_it_is_read() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as incoming, os.fdopen(write, "wb") as outgoing:
        outgoing.write(b"J\xff\xff\xff\xff")
        outgoing.flush()
        with pytest.raises(ProtocolError):
            Wire(incoming, io.BytesIO()).receive()


# -- errors ------------------------------------------------------------------------------


def test_errors_arrive_as_what_they_were() -> None:
    error = SchemaError("no", mark=Mark("a", 1, 2), host="h", hint="do")
    found = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(found) is SchemaError
    assert (found.message, found.mark, found.host, found.hint) == ("no", Mark("a", 1, 2), "h", "do")
    assert type(error_from_json(error_to_json(LockBusy("x")))) is LockBusy


def test_several_errors_arrive_as_several() -> None:
    found = error_from_json(error_to_json(ConfigErrors([SchemaError("a"), ConfigError("b")])))
    assert isinstance(found, ConfigErrors)
    assert [str(one) for one in found.errors] == ["a", "b"]


class Foreign(SchemaError):
    """A kind of error that only the room it is raised in knows."""


def test_an_error_that_few_know_arrives_as_the_nearest_that_all_know() -> None:
    found = error_from_json(error_to_json(Foreign("no", hint="do")))
    assert type(found) is SchemaError
    assert (found.message, found.hint, found.exit_code) == ("no", "do", 3)
    several = error_from_json(error_to_json(ConfigErrors([Foreign("no"), ConfigError("b")])))
    assert isinstance(several, ConfigErrors)
    assert [type(one) for one in several.errors] == [SchemaError, ConfigError]


def test_a_failed_command_arrives_as_its_text() -> None:
    found = error_from_json(error_to_json(CommandFailed(["x"], 1, "out")))
    assert type(found) is ResourceError
    assert "x ended with code 1" in found.message


@given(
    st.dictionaries(st.sampled_from(["type", "message", "source", "host", "hint", "errors"]), JSON)
)
def test_any_document_is_some_error(document: dict[str, object]) -> None:
    assert isinstance(error_from_json(document), ReconcilerError)
    for kind in ("ConfigErrors", "CommandFailed", "Mark", "dataclass", "SchemaError"):
        str(error_from_json({**document, "type": kind}))


def test_errors_within_errors_without_end_are_no_recursion() -> None:
    document: dict[str, object] = {"type": "ConfigErrors", "errors": []}
    for _ in range(5000):
        document = {"type": "ConfigErrors", "errors": [document]}
    assert isinstance(error_from_json(document), ConfigErrors)


def test_a_stop_in_the_middle_of_content_is_kept_for_the_boundary_and_nothing_is_lost() -> None:
    content = written([b"one", b"two"])
    stop = written({"op": "stop"})
    for cut in (0, len(frame(b"B", b"one")), len(content) - len(frame(b"B", b""))):
        wire = reading(content[:cut] + stop + content[cut:])
        assert b"".join(wire.ask_content("0" * 64, 6)) == b"onetwo"
        assert wire.waiting()


def test_a_stop_that_overtakes_an_answer_is_not_the_answer() -> None:
    wire = reading(written({"op": "stop"}, {"secrets": {"a": "b"}}))
    assert wire.ask("secrets") == {"secrets": {"a": "b"}}
    assert wire.waiting()
