"""The controller's side of the protocol, against engines that cannot be trusted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from reconciler.catalog import Catalog, Declaration, dumps
from reconciler.errors import (
    Interrupted,
    LockBusy,
    Mark,
    ProtocolError,
    ReconcilerError,
    SourceError,
    TransportError,
)
from reconciler.transport import engine as module
from reconciler.transport.engine import Engine
from reconciler.transport.process import Process

DIGEST = "ab" * 32
OTHER = "cd" * 32
PRELUDE = """
import json, os, struct, sys, time, signal
out = sys.stdout.buffer
def raw(data):
    out.write(data); out.flush()
def frame(payload, kind=b"J"):
    raw(struct.pack(">cI", kind, len(payload)) + payload)
def say(**message):
    frame(json.dumps(message).encode())
def hear():
    kind, size = struct.unpack(">cI", sys.stdin.buffer.read(5))
    return kind, sys.stdin.buffer.read(size)
hello = lambda: say(hello=1, python=[3, 11, 0], pid=os.getpid())
"""


def catalog() -> bytes:
    params = {"path": "/x", "content": {"$content": [DIGEST, 3]}}
    return dumps(Catalog("h", (Declaration("file", "/x", params, Mark("s.yml", 1)),)).to_json())


def content(sha256: str) -> Iterable[bytes]:
    return [b"abc"]


@contextlib.contextmanager
def hostile(script: str) -> Iterator[Engine]:
    """An engine that is this script. It must be gone within seconds."""
    link = Process([sys.executable, "-I", "-S", "-c", PRELUDE + textwrap.dedent(script)])
    begun = time.monotonic()
    with Engine(link) as engine:
        yield engine
    assert link._process.returncode is not None, "it was left behind"
    assert time.monotonic() - begun < 20


def plan(engine: Engine, on_event: object = lambda event: None) -> object:
    return engine.plan(catalog(), content=content, secrets=dict, on_event=on_event)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name, script",
    {
        "garbage": "raw(b'Welcome to Debian!\\n' * 9); time.sleep(60)",
        "endless garbage": "\nwhile True: raw(os.urandom(65536))",
        "a huge frame": "hello(); raw(b'J\\xff\\xff\\xff\\xff'); time.sleep(60)",
        "a huge first frame": "raw(b'J\\x7f\\xff\\xff\\xff'); time.sleep(60)",
        "deep JSON": "hello(); frame(b'[' * 10_000_000); time.sleep(60)",
        "deep JSON that is whole": "hello(); frame(b'{\"a\":' * 10**6 + b'1' + b'}' * 10**6); time.sleep(60)",
        "JSON that is no object": "hello(); frame(b'[]'); time.sleep(60)",
        "not UTF-8": "hello(); frame(b'\\xff\\xfe'); time.sleep(60)",
        "content unasked": "hello(); frame(b'x', b'B'); time.sleep(60)",
        "another protocol": "say(hello=2); time.sleep(60)",
        "no hello": "say(event='start'); time.sleep(60)",
        "an answer without a plan": "hello(); say(nothing=1); time.sleep(60)",
        "a plan that is none": "hello(); say(plan={'schema': ['reconciler/plan', 1]}); time.sleep(60)",
        "a plan of another kind": "hello(); say(plan=[]); time.sleep(60)",
        "content of others": f"hello(); say(ask='content', sha256='{OTHER}'); time.sleep(60)",
        "content of nobody": "hello(); say(ask='content', sha256='../../etc/shadow'); time.sleep(60)",
        "content of \\ud800": "hello(); say(ask='content', sha256='\\ud800'); time.sleep(60)",
        "content by a list": "hello(); say(ask='content', sha256=[1]); time.sleep(60)",
        "no reaction to signals": "signal.signal(15, signal.SIG_IGN); raw(b'garbage'); time.sleep(60)",
        "output closed": "hello(); hear(); hear(); os.close(1); time.sleep(60)",
    }.items(),
)
def test_what_cannot_be_right_is_a_protocol_error_and_the_end(name: str, script: str) -> None:
    with pytest.raises(ProtocolError) as refused, hostile(script) as engine:
        plan(engine)
    assert refused.value.exit_code == 1
    assert len(str(refused.value)) < 300


def test_events_without_end_are_not_listened_to_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES", 1000)
    events: list[object] = []
    script = "hello()\nwhile True: say(event='start', id='x')"
    with pytest.raises(ProtocolError, match="does not come to an end"), hostile(script) as engine:
        plan(engine, events.append)
    assert len(events) == 1000


def test_questions_without_end_are_not_answered_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES", 100)
    script = f"""
        hello(); hear(); hear()
        while True:
            say(ask='content', sha256='{DIGEST}')
            while hear()[1]: pass
    """
    with pytest.raises(ProtocolError, match="does not come to an end"), hostile(script) as engine:
        plan(engine)


@pytest.mark.parametrize(
    "script, said",
    [
        ("hello(); hear(); hear(); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("hello(); hear(); hear(); os.kill(os.getpid(), 36)", "was killed by signal 36"),
        ("hello(); hear(); hear(); raw(b'J\\0\\0\\1\\0half'); os._exit(3)", "ended with code 3"),
        ("os._exit(127)", "ended with code 127"),
        ("hello(); hear(); hear(); sys.exit(0)", "ended with code 0"),
    ],
)
def test_an_engine_that_dies_is_said_to_have_died(script: str, said: str) -> None:
    with pytest.raises(TransportError, match=said) as lost, hostile(script) as engine:
        plan(engine)
    assert lost.value.exit_code == 5


def test_an_engine_that_cannot_be_started_is_said() -> None:
    with pytest.raises(TransportError, match="cannot start the engine"):
        Process(["/does/not/exist"])


def test_errors_of_the_engine_arrive_as_they_were() -> None:
    script = "hello(); hear(); hear(); say(error={'type': 'LockBusy', 'message': 'held'})"
    with pytest.raises(LockBusy, match="held"), hostile(script) as engine:
        plan(engine)


@pytest.mark.parametrize(
    "error", ["5", "{}", "{'type': 'ConfigErrors', 'errors': [[[]]]}", "{'type': []}"]
)
def test_errors_that_make_no_sense_are_errors(error: str) -> None:
    with (
        pytest.raises(ReconcilerError),
        hostile(f"hello(); hear(); hear(); say(error={error})") as engine,
    ):
        plan(engine)


def test_content_is_served_and_a_source_that_fails_says_so_to_the_engine() -> None:
    script = f"""
        hello(); hear(); hear()
        say(ask='content', sha256='{DIGEST}')
        got = [hear(), hear()]
        say(ask='content', sha256='{DIGEST}')
        got += [hear(), hear()]
        say(error={{'message': repr(got)}})
    """

    asked: list[str] = []

    def source(sha256: str) -> Iterable[bytes]:
        asked.append(sha256)
        yield b"abc"
        if len(asked) == 2:
            raise SourceError("the mirror is gone")

    with pytest.raises(ReconcilerError) as said, hostile(script) as engine:
        engine.plan(catalog(), content=source, secrets=dict)
    assert "(b'B', b'abc'), (b'B', b''), (b'B', b'abc')" in said.value.message
    assert "the mirror is gone" in said.value.message


def test_secrets_are_sent_only_when_asked_for() -> None:
    script = "hello(); hear(); hear(); say(ask='secrets'); say(error={'message': repr(hear())})"
    with pytest.raises(ReconcilerError, match="hunter2"), hostile(script) as engine:
        engine.plan(catalog(), content=content, secrets=lambda: {"a": "hunter2"})


def interrupt_after(seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_one_ctrl_c_asks_to_stop_and_the_answer_still_comes() -> None:
    """It meets the controller in the middle of a frame, of which nothing may be lost."""
    script = """
        text = json.dumps({'error': {'type': 'Interrupted', 'message': 'at a boundary'}}).encode()
        data = struct.pack('>cI', b'J', len(text)) + text
        signal.signal(15, lambda *_: raw(data[9:]))
        hello(); hear(); hear(); raw(data[:9]); signal.pause()
    """
    timer = interrupt_after(0.7)
    with pytest.raises(Interrupted, match="at a boundary"), hostile(script) as engine:
        plan(engine)
    timer.join()


def test_a_second_ctrl_c_does_not_wait() -> None:
    script = "signal.signal(15, lambda *_: None); hello(); hear(); hear(); time.sleep(60)"
    first, second = interrupt_after(0.5), interrupt_after(1.0)
    begun = time.monotonic()
    link = Process([sys.executable, "-I", "-S", "-c", PRELUDE + script])
    try:
        with pytest.raises(Interrupted, match="ends what it is doing"), Engine(link) as engine:
            plan(engine)
        assert time.monotonic() - begun < 10
    finally:
        first.join()
        second.join()
        link.kill()


def test_the_real_engine_answers(tmp_path: Path) -> None:
    with Engine.local(str(tmp_path)) as engine:
        assert engine.facts()["system"] == "Linux"
        assert engine.plan(catalog(), content=lambda _: [b""], secrets=dict).differs


def test_closing_without_a_request_ends_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    with Engine.local(str(tmp_path)):
        pass
    assert time.monotonic() - begun < 5
