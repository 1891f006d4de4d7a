"""An agent on a machine whose inotify instances are used up: it starts, says so and heals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.test_worker import SITE, Machine
from reconciler.agent.places import read_json

pytestmark = pytest.mark.slow

#: Root of a user namespace of its own sets its own limits.
START = 'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"'


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return Machine(tmp_path)


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """An agent that sees no event."""
    argv = ["unshare", "--user", "--map-root-user", "sh", "-c", START, "sh"]
    argv += [sys.executable, "-m", "reconciler.agent", str(machine.root)]
    env = {name: text for name, text in os.environ.items() if name != "JOURNAL_STREAM"}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as agent:
        try:
            yield agent
        finally:
            agent.send_signal(signal.SIGTERM)


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_without_any_events_an_agent_starts_heals_by_its_sweeps_and_says_so(
    machine: Machine,
) -> None:
    settings = Path(machine.places.config)
    settings.parent.mkdir(parents=True)
    settings.write_text(f"repo: {machine.repo}\nsweep: 5s\n")
    machine.commit(SITE)
    motd = machine.root / "etc/motd"

    def status() -> dict[str, Any]:
        return read_json(machine.places.status) or {}

    with running(machine) as agent:
        wait_for(lambda: status().get("source", {}).get("good", {}).get("commit", "") != "")
        assert status()["watch"]["mode"] == "none"
        assert status()["watch"]["paths"] == 0
        motd.write_text("by hand\n")
        wait_for(lambda: motd.read_text() == "hello\n")
        agent.send_signal(signal.SIGTERM)
        assert agent.stderr is not None
        said = agent.stderr.read()
    assert agent.returncode == 0
    assert said.count("no change is seen before the next sweep: inotify instance limit") == 1
    assert "sysctl fs.inotify.max_user_instances" in said
