"""The limit of regular expressions."""

from __future__ import annotations

import re
import signal
import threading
import time

import pytest

from reconciler import patience


def hopeless() -> None:
    re.match("(a+)+$", "a" * 60 + "!")


def test_work_that_takes_too_long_is_ended_with_the_error_that_was_asked_for() -> None:
    began = time.process_time()
    with pytest.raises(KeyError, match="late"), patience.bounded(0.1, lambda: KeyError("late")):
        hopeless()
    assert time.process_time() - began < 2


def test_waiting_costs_nothing() -> None:
    with patience.bounded(0.05, TimeoutError):
        time.sleep(0.2)


def test_nothing_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with patience.bounded(5, TimeoutError):
        pass
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_a_limit_within_a_limit_leaves_the_outer_one_in_force() -> None:
    def nested() -> None:
        with patience.bounded(0.2, KeyError):
            with patience.bounded(10, TimeoutError):
                pass
            hopeless()

    with pytest.raises(KeyError):
        nested()


def test_another_thread_works_without_one() -> None:
    ended: list[bool] = []

    def work() -> None:
        with patience.bounded(0.001, TimeoutError):
            sum(range(200_000))
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
