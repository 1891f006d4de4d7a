"""`agent once`: what it says to a person, and to the log when cron starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.test_worker import SITE, Machine
from cli.conftest import Call
from reconciler.agent import journal
from reconciler.agent.alone import alone

#: Each run starts a provider, which fetches and compiles.
pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A host of which we are root, with settings and a commit; it has no log of its own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Machine(tmp_path)
    monkeypatch.setattr("reconciler.cli.agent.Places", lambda: made.places)
    monkeypatch.setattr("reconciler.cli.agent.os.geteuid", lambda: 0)
    for name in ("JOURNAL", "SYSLOG"):
        monkeypatch.setattr(journal, name, str(tmp_path / "no log"))
    Path(made.places.config).parent.mkdir(parents=True)
    settle(made)
    made.commit(SITE)
    return made


def settle(machine: Machine, more: str = "") -> None:
    Path(machine.places.config).write_text(f"repo: {machine.repo}\n{more}")


def test_settings_that_cannot_be_used_keep_nothing_from_being_healed_and_are_said(
    call: Call, machine: Machine
) -> None:
    assert call("agent", "once").code == 0
    (machine.root / "etc/motd").write_text("by hand\n")
    settle(machine, "intervall: 5s\n")
    done = call("agent", "once")
    assert machine.motd() == "hello\n"
    assert done.code == 3
    assert "file:/etc/motd drift corrected: content" in done.out.splitlines()
    assert "Ready=False (BadSettings)" in done.out.splitlines()[-1]
    first = done.err.splitlines()[0]
    assert first.startswith("warning: the settings are the last that could be used: ")
    assert first.endswith("agent.yml:2:1: there is no setting 'intervall'")
    document = call("agent", "once", "--json").json()
    assert [one["reason"] for one in document["conditions"] if one["type"] == "Ready"] == [
        "BadSettings"
    ]


def test_what_cron_starts_says_all_to_the_log_and_nothing_else(
    call: Call, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str, object]] = []

    def record(priority: str, message: str, **fields: object) -> bool:
        said.append((priority, message.splitlines()[0], fields.get("resource")))
        return True

    monkeypatch.setattr(journal, "record", record)
    done = call("agent", "once", "--log")
    assert done == (0, "", "")
    changed = "file:/etc/motd changed: type, content, owner, group, mode"
    assert ("info", changed, "file:/etc/motd") in said
    assert said[-1][1].startswith("in sync at ")
    settle(machine, "intervall: 5s\n")
    said.clear()
    assert call("agent", "once", "--log") == (3, "", "")
    assert said[0][1].startswith("the settings are the last that could be used: ")
    said.clear()
    with alone(machine.places):
        assert call("agent", "once", "--log") == (9, "", "")
    assert said == [("info", "an agent is at work on this host already", None)]


def test_where_there_is_no_log_cron_sends_it_by_mail(call: Call, machine: Machine) -> None:
    done = call("agent", "once", "--log")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1].startswith("in sync at ")
