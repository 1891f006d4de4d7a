"""Notices that did not arrive are sent again, to whom they did not come, and not for ever."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from reconciler.agent import outbox as module
from reconciler.agent.outbox import CAP, FIRST, MOST, OLD, Outbox
from reconciler.agent.places import Places
from reconciler.agent.schedule import NEVER

NOW = 1_795_000_000.0
TOKEN = "t0ken-9f2c"
STATUS: dict[str, Any] = {
    "host": "web1",
    "agent": {"id": "0123abcd"},
    "source": {"trusted": {}},
    "next": {"fetch": NOW + 60},
    **{name: [] for name in ("failed", "drifted", "contended")},
}
NOTICE = {
    "type": "SourceFresh", "status": "False", "reason": "FetchFailed", "message": "no route",
    "since": NOW, "commit": "a" * 40, "event": "problem", "missed": 0,
}  # fmt: skip


class Office:
    """An outbox, a place that takes everything, and one that takes nothing until it is open."""

    def __init__(self, directory: Path) -> None:
        self.places = Places(str(directory))
        self.open, self.taken = directory / "open", directory / "taken"
        takes = f"cat >> {self.taken}; echo >> {self.taken}"
        # The last word makes it as secret as the address of a webhook.
        later = f"cat > /dev/null; test -e {self.open} && echo later >> {self.taken}"
        self.sinks = [
            {"command": ["sh", "-c", takes]},
            {"command": ["sh", "-c", later, TOKEN]},
        ]
        self.box = Outbox.load(self.places.outbox)

    def post(self, now: float = NOW) -> None:
        self.box.post([NOTICE], STATUS, self.sinks, now)

    def wait(self, now: float) -> list[str]:
        return [one["message"] for one in self.box.wait(self.sinks, now)]

    def arrived(self) -> list[str]:
        lines = self.taken.read_text().splitlines() if self.taken.exists() else []
        return [line if line == "later" else json.loads(line)["host"] for line in lines if line]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_what_did_not_arrive_is_sent_again_to_whom_it_did_not_come(office: Office) -> None:
    office.post()
    assert office.wait(NOW) == ["it is sent again, ever more slowly, for a day"]
    assert office.arrived() == ["web1"]
    assert office.box.due == NOW + FIRST
    assert office.wait(NOW + FIRST - 1) == []
    assert office.wait(NOW + FIRST) == []
    assert office.box.due == NOW + FIRST + 2 * FIRST
    office.open.touch()
    assert office.wait(NOW + 3 * FIRST) == ["a notification has arrived after all"]
    assert office.arrived() == ["web1", "later"]
    assert office.box.due == NEVER


def test_a_restart_forgets_no_message_and_sends_none_twice(office: Office) -> None:
    office.post()
    office.wait(NOW)
    office.box = Outbox.load(office.places.outbox)
    office.open.touch()
    office.wait(NOW + FIRST)
    assert office.arrived() == ["web1", "later"]
    assert Outbox.load(office.places.outbox).parcels == []


def test_after_a_day_nobody_is_bothered_any_more(office: Office) -> None:
    office.post()
    now, waits = NOW, []
    said: list[str] = []
    while office.box.due != NEVER:
        said += office.wait(now)
        waits.append(office.box.due - now)
        now = office.box.due if office.box.due != NEVER else now
    assert OLD < now - NOW <= OLD + CAP
    assert waits[:7] == [60, 120, 240, 480, 960, 1920, CAP]
    assert said[-1] == "a notification has not arrived for a day and is given up"


def test_who_is_not_in_the_settings_any_more_gets_nothing(office: Office) -> None:
    office.post()
    office.wait(NOW)
    office.open.touch()
    office.sinks = office.sinks[:1]
    assert office.wait(NOW + FIRST) == []
    assert office.arrived() == ["web1"]
    assert office.box.due == NEVER


def test_no_address_is_in_what_is_kept_which_only_its_owner_can_read(office: Office) -> None:
    office.post()
    office.wait(NOW)
    file = Path(office.places.outbox)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "no route" in file.read_text()
    assert TOKEN not in file.read_text()


def test_a_sender_that_was_killed_has_sent_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.sinks = [{"command": ["sleep", "15"]}, {"command": ["sleep", "16"]}]
    office.post()
    office.box.send(office.sinks, NOW)
    assert office.box._sender is not None
    office.box._sender.kill()
    office.box._sender.wait()
    office.box.take(NOW)
    assert len(office.box.parcels[0].to) == 2

    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module.subprocess, "Popen", full)
    with pytest.raises(BlockingIOError):
        office.wait(NOW + FIRST)
    assert office.box.due == NOW + 2 * FIRST


def test_of_too_many_messages_the_newest_are_kept(office: Office) -> None:
    for number in range(MOST + 5):
        office.post(NOW + number)
    assert len(office.box.parcels) == MOST
    assert office.box.parcels[0].since == NOW + 5


def test_what_was_left_out_while_it_was_sent_is_no_trouble(office: Office) -> None:
    office.open.touch()
    office.post()
    office.box.send(office.sinks, NOW)
    for number in range(MOST):
        office.post(NOW + 1 + number)
    sender = office.box._sender
    assert sender is not None
    sender.wait()
    assert office.box.take(NOW + 200) == []
    assert len(office.box.parcels) == MOST
    assert office.arrived() == ["web1", "later"]


def test_settings_that_change_meanwhile_change_nothing_of_what_arrived(office: Office) -> None:
    office.post()
    office.box.send(office.sinks, NOW)
    sender = office.box._sender
    assert sender is not None
    sender.wait()
    office.sinks.reverse()
    office.box.take(NOW)
    office.open.touch()
    office.wait(NOW + FIRST)
    assert office.arrived() == ["web1", "later"]
    assert office.box.due == NEVER


def test_a_clock_that_was_set_back_makes_nothing_wait_for_years(office: Office) -> None:
    ahead = NOW + 365 * 86400
    office.post(ahead)
    office.wait(ahead)
    assert office.wait(NOW) == []
    assert office.box.due == NOW + CAP
    assert office.box.parcels[0].since == NOW
    office.open.touch()
    office.wait(NOW + CAP)
    assert office.arrived() == ["web1", "later"]


def test_what_is_over_is_not_told_before_it_has_begun(office: Office) -> None:
    def told() -> list[str]:
        lines = office.taken.read_text().splitlines()
        return [json.loads(line)["notices"][0]["event"] for line in lines if line]

    sink = office.sinks[0]["command"]
    sink[2] = f"test -e {office.open} || exit 1; cat >> {office.taken}; echo >> {office.taken}"
    office.sinks = office.sinks[:1]
    office.post()
    now = NOW
    for _ in range(5):
        office.wait(now)
        now = office.box.due
    over = {**NOTICE, "event": "resolved", "status": "True"}
    office.box.post([over], STATUS, office.sinks, now - 600)
    # Both are tried, and both come to nothing; when the newer one is due, the older one is as well.
    office.wait(now - 600)
    assert [one.tried for one in office.box.parcels] == [now - 600] * 2
    office.open.touch()
    office.wait(now - 600 + FIRST)
    assert told() == ["problem", "resolved"]
    assert office.box.due == NEVER


def test_who_waits_for_deliveries_does_not_wait_for_all_that_fail(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run by a timer keeps the next one from healing."""
    monkeypatch.setattr(module, "ENOUGH", 0.0)
    for number in range(5):
        office.post(NOW + number)
    office.wait(NOW + 5)
    assert sum(one.tries for one in office.box.parcels) == 1
    assert office.box.due == NOW + 1


@pytest.mark.parametrize("damage", ["", "[]", '{"parcels": [7, {"x": 1}, []]}'])
def test_lost_memory_starts_anew(office: Office, damage: str) -> None:
    Path(office.places.outbox).parent.mkdir(parents=True)
    Path(office.places.outbox).write_text(damage)
    assert Outbox.load(office.places.outbox).parcels == []
