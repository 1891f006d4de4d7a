"""The engine in a unit of its own is told to stop from within a signal handler, at any moment."""

from __future__ import annotations

import signal
import sys
import threading

from reconciler.agent.link import TransientUnit
from reconciler.engine.wire import Wire
from reconciler.transport.process import Process

#: An engine that listens after a while only, and answers with the end of what it heard.
ENGINE = """
import json, os, struct, sys, time
time.sleep(0.5)
answer = json.dumps({"last": sys.stdin.buffer.read()[-13:].decode()}).encode()
os.write(1, struct.pack(">cI", b"J", len(answer)) + answer)
"""
STOP = '{"op":"stop"}'


class Alone(TransientUnit):
    """The same without systemd."""

    def __init__(self) -> None:
        Process.__init__(self, [sys.executable, "-c", ENGINE])


def test_in_the_middle_of_a_message_the_word_comes_behind_it() -> None:
    link = Alone()
    told: list[int] = []

    def tell(number: int, _: object) -> None:
        told.append(number)
        link.stop()

    before = signal.signal(signal.SIGALRM, tell)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        Wire(link.incoming, link.outgoing).send({"catalog": "x" * (4 << 20)})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert told == [signal.SIGALRM]
    wait_until_said()
    link.outgoing.close()
    assert Wire(link.incoming, link.outgoing).receive() == {"last": STOP}
    link.close(10)


def test_who_was_hung_up_on_needs_no_word() -> None:
    link = Alone()
    link.close(10)
    link.stop()
    wait_until_said()


def wait_until_said() -> None:
    for thread in threading.enumerate():
        if thread.name == "stop":
            thread.join(10)
