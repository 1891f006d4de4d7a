"""`reconciler agent` without an agent: what is read, what is kept, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from behaviour.world import NOTE, WORDS, World
from cli.conftest import Call
from cli.test_json_documents import documented, fields
from reconciler.agent import journal
from reconciler.agent import status as status_module
from reconciler.agent.override import overridden
from reconciler.agent.places import Places
from reconciler.agent.state import State, suspend, suspension
from reconciler.agent.status import Live, compose, publish
from reconciler.catalog import Catalog, dumps
from reconciler.cli import agent, agentsync
from reconciler.cli.console import Output
from reconciler.engine.ledger import Ledger
from reconciler.engine.lock import lock

GOOD = "a" * 40
SETTLED = State(
    trusted=GOOD,
    applied=GOOD,
    good=GOOD,
    resources={"total": 3},
    subject={"subject": "first", "author": "Alice"},
    source={"last_success": time.time(), "remote": "origin"},
    last_run={"id": "r", "kind": "sync", "outcome": "ok", "started": time.time(), "duration_s": 1},
)

Put = Callable[..., None]
Recorded = Callable[[], list[str]]


@pytest.fixture
def places(root: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A host of which we are root."""
    places = Places(str(root))
    for name in ("agent", "agentstatus"):
        monkeypatch.setattr(f"reconciler.cli.{name}.Places", lambda: places)
    monkeypatch.setattr("reconciler.cli.agent.os.geteuid", lambda: 0)
    monkeypatch.setattr(status_module, "REBOOT", str(root / "nothing"))
    for name in ("JOURNAL", "SYSLOG"):
        monkeypatch.setattr(journal, name, str(root / "no log"))
    return places


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places) -> Iterator[Recorded]:
    """What is in the journal by now."""
    path = str(tmp_path / "journal")
    monkeypatch.setattr(journal, "JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(path)
        link.setblocking(False)

        def read() -> list[str]:
            found: list[str] = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    entry = link.recv(1 << 16).decode()
                    found.append(entry.splitlines()[0].removeprefix("MESSAGE="))
            return found

        yield read


@pytest.fixture
def put(places: Places) -> Put:
    """Publish a status, as the agent does."""

    def publish_one(state: State = SETTLED, /, ago: float = 0.0, **live_too: Any) -> None:
        live = replace(Live("idle", state_since=1.0, started=1.0), **live_too)
        document = compose(state, live, suspension(places), now=time.time() - ago)
        state.save(places)
        publish(places, document, {})

    return publish_one


# -- status ------------------------------------------------------------------------------


def test_a_host_that_is_as_it_should_be_is_one_green_line(call: Call, put: Put) -> None:
    put()
    done = call("agent", "status", "--oneline")
    assert (done.code, done.out) == (0, f"in sync at {GOOD[:12]}, 3 resources\n")


def test_the_whole_status_says_it_in_words(call: Call, put: Put) -> None:
    put()
    lines = call("agent", "status").out.splitlines()
    assert lines[0] == f"in sync at {GOOD[:12]}, 3 resources"
    assert f"  trusted    {GOOD[:12]}  first (Alice)" in lines
    assert "  resources  3: 3 in sync" in lines
    assert "  InSync         True    Converged" in lines
    assert any(line.startswith("  last run   sync, ok, ") for line in lines)


def test_what_is_wrong_is_listed_with_its_reason(call: Call, put: Put) -> None:
    state = State.from_json(SETTLED.to_json())
    state.failed, state.blocked = {"file:/a": "no space"}, {"file:/b": "waits for file:/a"}
    state.drifted = ["file:/c"]
    state.prune = {"held": "many left at once", "failed": ["file:/d: it is a directory now"]}
    state.problem(
        "trust", {"type": "BadSignature", "message": "not signed", "hint": "do this"}, 1.0
    )
    state.source["refused"] = "c" * 40
    put(state)
    done = call("agent", "status")
    assert done.code == 10
    for line in (
        "  failed     file:/a: no space",
        "  blocked    file:/b: waits for file:/a",
        "  drifted    file:/c",
        "  not pruned file:/d: it is a directory now",
        "  prune      held: many left at once; see: reconciler prune --dry-run",
        f"  not used   {'c' * 12}  BadSignature: not signed",
        "  Trusted        False   BadSignature  not signed",
        "      do this",
        "  resources  3: 0 in sync, 1 drifted, 1 failed, 1 blocked",
    ):
        assert line in done.out.splitlines()


def test_a_commit_that_a_person_lets_through_its_window_is_shown(
    call: Call, put: Put, places: Places
) -> None:
    put()
    document = json.loads(Path(places.status).read_text())
    said = {"commit": GOOD, "reason": "TICKET-7", "by": "alice", "since": 1.0}
    Path(places.status).write_text(json.dumps({**document, "override": said}))
    lines = call("agent", "status").out.splitlines()
    assert f"  override   {GOOD[:12]} passes its window: TICKET-7 (alice)" in lines


def test_what_the_process_cannot_see_or_read_is_said(call: Call, put: Put) -> None:
    limit = "inotify watch limit reached: sysctl fs.inotify.max_user_watches"
    wrong = "agent.yml:4:1: unknown, after https://ann:s3cret@git.example.org/x"
    put(watch_mode="partial", unwatched=limit, unread=wrong)
    done = call("agent", "status")
    # That events are missing makes healing slower, and nothing wrong.
    assert done.code == 3
    assert f"  watching   partial: {limit}" in done.out.splitlines()
    assert "Ready=False (BadSettings)" in done.out
    assert "agent.yml:4:1: unknown" in done.out
    # Everybody may read a status.
    assert "s3cret" not in done.out


def test_the_document_is_that_of_the_file(call: Call, put: Put, places: Places) -> None:
    put()
    done = call("agent", "status", "--json")
    assert done.code == 0
    assert done.json() == json.loads(Path(places.status).read_text())


def test_no_status_and_an_old_one_are_no_success(call: Call, put: Put) -> None:
    done = call("agent", "status")
    assert done.code == 3
    assert "agent install --repo" in done.err
    put(ago=3600)
    done = call("agent", "status", "--oneline")
    assert done.code == 3
    assert "Ready=False (Silent)" in done.out


def test_watching_shows_each_change_once_and_ends_with_ctrl_c(
    call: Call, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    failed = State.from_json({**SETTLED.to_json(), "failed": {"file:/a": "no"}})
    looks = iter([SETTLED, SETTLED, failed, failed])

    def sleep(seconds: float) -> None:
        state = next(looks, None)
        if state is None:
            raise KeyboardInterrupt
        put(state)

    monkeypatch.setattr("reconciler.cli.agentstatus.time.sleep", sleep)
    done = call("agent", "status", "--watch", "--oneline")
    told = [line for line in done.out.splitlines() if ":" not in line[:3]]
    assert done.code == 4
    assert [line.split()[0] for line in told] == ["in", "InSync=False"]
    assert "error" not in done.err


def test_watching_ends_when_nobody_reads_any_more(put: Put, places: Places) -> None:
    put()
    code = (
        "import sys; from reconciler.agent.places import Places\n"
        "import reconciler.cli.agentstatus as a\n"
        f"a.Places = lambda: Places({places.root!r})\n"
        "from reconciler.cli.main import main\n"
        "sys.exit(main(['agent', 'status', '--watch', '--oneline']))"
    )
    watcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    watcher.stdout.readline()
    watcher.stdout.close()
    put(State.from_json({**SETTLED.to_json(), "failed": {"file:/a": "no"}}))
    assert watcher.wait(20) in (0, 4)


def test_every_field_of_a_status_is_documented(put: Put, places: Places) -> None:
    state = State.from_json(SETTLED.to_json())
    state.heard([{"url": "/srv/x"}], {"remote": "origin", "commit": GOOD}, 1.0)
    state.trusted = "b" * 40
    state.problem("trust", {"type": "BadSignature", "message": "not signed"}, 1.0)
    state.source["refused"] = "c" * 40
    state.prune = {"held": "many", "kept": [], "waiting": [], "ready": [], "failed": ["x"]}
    suspend(places, "TICKET-7", 60, "alice")
    put(state)
    document = json.loads(Path(places.status).read_text())
    assert set(fields(document)) <= documented("status")


# -- suspend, resume, sync ---------------------------------------------------------------


def test_who_logged_in_said_it_whoever_they_have_become_since(
    call: Call, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = tmp_path / "loginuid"
    monkeypatch.setattr(agent, "LOGIN", str(login))
    monkeypatch.setenv("SUDO_USER", "alice")
    for uid, by in ((pwd.getpwnam("daemon").pw_uid, "daemon"), (0xFFFFFFFF, "alice")):
        login.write_text(str(uid))
        assert call("agent", "suspend", "--reason", "x", "--json").json()["by"] == by


def test_a_suspension_has_a_reason_an_end_and_somebody(
    call: Call, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    document = call("agent", "suspend", "--reason", "TICKET-7", "--json").json()
    assert document["schema"] == ["reconciler/suspension", 1]
    assert (document["reason"], document["by"]) == ("TICKET-7", "alice")
    assert document["until"] - document["since"] == 4 * 3600
    assert call("agent", "suspend", "--reason", "x", "--for", "7d").code == 0
    held = suspension(places)
    assert held is not None
    assert held.until - held.since == 7 * 86400
    assert call("agent", "resume").out == "resumed\n"
    assert suspension(places) is None
    assert call("agent", "resume").out == "it was not suspended\n"
    assert call("agent", "resume", "--json").json()["was_suspended"] is False


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "--reason"),
        (("--reason", " "), "why?"),
        (("--reason", "x", "--for", "8d"), "7 days at most"),
        (("--reason", "x", "--for", "0"), "7 days at most"),
        (("--reason", "x", "--for", "soon"), "is no time"),
        (("--reason", "x", "--for=-1h"), "is no time"),
    ],
)
def test_a_suspension_that_says_too_little_is_refused(
    call: Call, places: Places, words: tuple[str, ...], said: str
) -> None:
    done = call("agent", "suspend", *words)
    assert done.code == 3
    assert said in done.err
    assert suspension(places) is None


def test_a_suspended_host_is_not_green_even_before_the_next_run(
    call: Call, put: Put, places: Places, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    put(ago=100)
    before = json.loads(Path(places.status).read_text())
    call("agent", "suspend", "--reason", "TICKET-7")
    done = call("agent", "status", "--oneline")
    assert done.code == 7
    assert "InSync=Unknown (Suspended), Suspended=True (Suspended)" in done.out
    assert recorded() == ["suspended by alice: TICKET-7"]
    now = json.loads(Path(places.status).read_text())
    assert {name for name in now if now[name] != before[name]} == {"conditions", "suspensions"}
    assert "reconciler_suspended 1" in Path(places.metrics).read_text()
    monkeypatch.setenv("SUDO_USER", "bob")
    call("agent", "resume")
    assert call("agent", "status", "--oneline").code == 0
    assert json.loads(Path(places.status).read_text()) == before
    assert recorded() == ["resumed by bob"]
    call("agent", "resume")
    assert recorded() == []


def test_who_logs_in_is_told_of_a_suspension_until_it_is_over(
    call: Call, put: Put, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    put()
    motd = Path(places.motd)
    assert not motd.exists()
    call("agent", "suspend", "--reason", "TICKET-7\x1b[2J\nall is well")
    first, second = motd.read_text().splitlines()
    assert first.startswith("reconciler is suspended until 20")
    assert first.endswith(" by alice: TICKET-7?[2J?all is well")
    assert "reconciler agent resume" in second
    assert motd.stat().st_mode & 0o777 == 0o644
    call("agent", "resume")
    assert not motd.exists()


def test_the_agent_that_runs_is_the_one_who_says_it(
    call: Call, put: Put, places: Places, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    looks: list[float] = []

    def be_the_agent(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) % 3 == 0:
            put()

    monkeypatch.setattr("reconciler.cli.agent.nudge", lambda *_: True)
    monkeypatch.setattr("reconciler.cli.agent.restate", pytest.fail)
    monkeypatch.setattr("reconciler.cli.agent.time.sleep", be_the_agent)
    call("agent", "suspend", "--reason", "TICKET-7")
    assert (call("agent", "status").code, len(looks)) == (7, 3)
    call("agent", "resume")
    assert (call("agent", "status").code, len(looks)) == (0, 6)
    assert [text.split()[0] for text in recorded()] == ["resumed"]


# -- notify ------------------------------------------------------------------------------


def test_a_test_of_notifications_says_what_arrives_and_what_does_not(
    call: Call, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    SETTLED.save(places)
    config = Path(places.config)
    config.parent.mkdir(parents=True)
    config.write_text("repo: /srv/state.git\n")
    nobody = call("agent", "notify", "--test")
    assert (nobody.code, "names nobody to notify" in nobody.err) == (3, True)
    assert call("agent", "notify").code == 3
    told = tmp_path / "told"
    sinks = f"repo: /srv/state.git\nnotify:\n- command: [tee, {told}]\n"
    config.write_text(sinks)
    done = call("agent", "notify", "--test")
    assert (done.code, done.out) == (0, "1 notification arrived\n")
    message = json.loads(told.read_text())
    assert message["title"].endswith(": a test, and nothing is wrong")
    assert "alice wants to know whether this arrives" in message["text"]
    assert "suspend" not in message["text"]
    (notice,) = message["notices"]
    assert (notice["event"], notice["commit"]) == ("test", GOOD)
    config.write_text(f"{sinks}- webhook: http://127.0.0.1:1/t0ken\n")
    failed = call("agent", "notify", "--test")
    assert failed.code == 5
    assert failed.out.splitlines() == [
        "notification 2 (webhook) did not arrive: Connection refused",
        "of 2 notifications not all arrived",
    ]
    assert "t0ken" not in failed.out + failed.err
    document = call("agent", "notify", "--test", "--json").json()
    assert set(fields(document)) <= documented("agent-notify") | {"schema"}
    assert (document["sent"], document["arrived"], len(document["messages"])) == (2, False, 1)


def test_there_is_no_sync_without_an_agent(call: Call, put: Put) -> None:
    put()
    done = call("agent", "sync")
    assert done.code == 3
    assert "the agent does not run" in done.err


@pytest.mark.parametrize("action", ["sync", "once"])
@pytest.mark.parametrize(
    "words", [("--override-window",), ("--reason", "x"), ("--override-window", "--reason", " ")]
)
def test_who_passes_a_window_says_so_and_why(
    call: Call, put: Put, action: str, words: tuple[str, ...]
) -> None:
    put()
    done = call("agent", action, *words)
    assert done.code == 3
    assert "--override-window and --reason go together" in done.err


class Resident:
    """An agent that does one of its steps whenever who waits for it sleeps."""

    def __init__(self, put: Put) -> None:
        self.put = put
        self.pid = 7
        self.clock = 0.0
        self.signals: list[int] = []
        self.steps: list[Callable[[], None]] = []

    def hear(self, pid: int, number: int) -> None:
        assert pid == self.pid
        self.signals.append(number)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        if self.steps:
            self.steps.pop(0)()

    def run(self, kind: str, began: float, **state: Any) -> Callable[[], None]:
        """A step: a run is at its end."""
        last = {**SETTLED.last_run, "kind": kind, "started": began}
        document = {**SETTLED.to_json(), "last_run": last, **state}
        return lambda: self.put(State.from_json(document))

    def die(self, then: int = 0) -> None:
        self.pid = then


@pytest.fixture
def resident(put: Put, monkeypatch: pytest.MonkeyPatch) -> Resident:
    made = Resident(put)
    module = "reconciler.cli.agentsync"
    monkeypatch.setattr(f"{module}.pid_of_agent", lambda _: made.pid)
    monkeypatch.setattr(f"{module}.os.kill", made.hear)
    # Its own clock, and not that of all who wait: what it starts is real.
    clock = SimpleNamespace(time=time.time, sleep=made.sleep, monotonic=lambda: made.clock)
    monkeypatch.setattr(f"{module}.time", clock)
    put()
    return made


def test_sync_waits_for_a_run_that_began_after_it_was_asked_for(
    call: Call, resident: Resident
) -> None:
    later = time.time() + 60
    resident.steps = [
        resident.run("sync", 1.0),
        resident.run("heal", later),
        resident.run("sync", later, failed={"file:/a": "no"}),
    ]
    done = call("agent", "sync")
    assert (done.code, done.err) == (4, "")
    assert done.out.startswith("InSync=False (Failed)")
    assert (resident.signals, resident.steps) == ([signal.SIGUSR1], [])


def test_sync_waits_as_long_as_a_fetch_and_a_run_may_take_or_as_it_is_told(
    call: Call, resident: Resident, places: Places
) -> None:
    settings = Path(places.config)
    settings.parent.mkdir(parents=True)
    settings.write_text("remotes: [/srv/a, /srv/b]\nlimits: {fetch: 1m}\nrun_limit: 10m\n")
    for words, waited in ((), 720), (("--timeout", "90s"), 90):
        resident.clock = 0.0
        done = call("agent", "sync", *words)
        assert (done.code, done.out) == (7, "")
        assert "the agent is still at work after" in done.err
        assert "(fetching), and goes on" in done.err
        assert "agent status --watch" in done.err
        assert waited <= resident.clock < waited + 1
    assert call("agent", "sync", "--timeout", "soon").code == 3
    assert len(resident.signals) == 2


def test_a_commit_that_waits_for_its_window_is_let_through_and_applied_by_a_second_run(
    call: Call, resident: Resident, places: Places, recorded: Recorded
) -> None:
    later, urgent = time.time() + 60, "c" * 40
    waiting = {"trusted": urgent, "held_by": "Window", "held_until": later}
    done_with = {"trusted": urgent, "applied": urgent, "good": urgent}
    words = ("agent", "sync", "--override-window", "--reason", "TICKET-7")

    def wait() -> None:
        resident.run("sync", time.time(), **waiting)()

    def apply() -> None:
        assert overridden(places, urgent)
        resident.run("sync", later, **done_with)()

    resident.steps = [wait, lambda: None, apply]
    done = call(*words)
    assert (done.code, done.out[:24]) == (0, f"in sync at {urgent[:12]},")
    assert len(resident.signals) == 2
    (said,) = recorded()
    assert said.endswith(f" lets {urgent[:12]} through its window: TICKET-7")
    again = call(*words)
    assert (again.code, again.err) == (0, "no commit waits for a window\n")
    assert len(resident.signals) == 3


@pytest.mark.parametrize("then, said", [(0, "has ended"), (8, "was started anew")])
def test_sync_waits_for_no_agent_that_is_gone(
    call: Call, resident: Resident, then: int, said: str
) -> None:
    resident.steps = [lambda: None, lambda: resident.die(then)]
    done = call("agent", "sync")
    assert (done.code, done.out) == (5, "")
    assert f"the agent {said} before it had done" in done.err
    assert "journalctl -u reconciler-agent.service" in done.err
    assert resident.clock < 1


def test_sync_shows_a_person_what_the_agent_is_at(
    resident: Resident, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    out = Output()

    @contextlib.contextmanager
    def progress(verb: str) -> Iterator[Callable[[dict[str, str]], None]]:
        yield lambda event: shown.append(f"{verb} {event['id']}")

    monkeypatch.setattr(out, "progress", progress)
    resident.steps = [
        lambda: resident.put(SETTLED, state="applying"),
        resident.run("sync", time.time() + 60),
    ]
    assert agentsync.sync(places, out, 60.0)["state"] == "idle"
    assert shown == ["sync fetching", "sync applying"]


@pytest.mark.parametrize(
    "action",
    [
        "run",
        "once",
        "sync",
        "resume",
        "suspend --reason x",
        "notify --test",
        "install",
        "uninstall",
    ],
)
def test_what_changes_the_host_takes_root(
    call: Call, places: Places, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = call("agent", *action.split())
    assert done.code == 3
    assert "this takes root" in done.err


def test_a_ledger_that_only_root_can_read_is_no_empty_history(
    call: Call, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("history", "--root", root).out.startswith("nothing: no run")
    (root / "var/lib/reconciler").mkdir(parents=True)
    (root / "var/lib/reconciler/ledger.db").write_text("garbage" * 100)
    done = call("history", "--root", root)
    assert done.code == 1
    assert "is damaged" in done.err
    monkeypatch.setattr("reconciler.cli.history.os.access", lambda *_: False)
    done = call("history", "--root", root)
    assert done.code == 3
    assert "this takes root" in done.err


@pytest.mark.parametrize(
    "asked", [["-n", "9" * 20], ["--runs", "-n", "9" * 20], ["file:/etc/\udcff"]]
)
def test_a_history_of_more_than_there_can_be_or_of_no_text_is_empty(
    call: Call, root: Path, asked: list[str]
) -> None:
    with Ledger.open(str(root)):
        pass
    done = call("history", "--root", root, *asked)
    assert (done.code, done.out, done.err) == (0, "nothing that fits\n", "")


def test_prune_knows_the_types_of_the_state_repos_own(
    call: Call, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.cli.prune.Places", lambda: places)
    monkeypatch.setattr("reconciler.cli.prune.nudge", lambda number: None)
    Path(places.config).parent.mkdir(parents=True)
    Path(places.config).write_text("repo: /srv/state.git\nprune: delete\n")
    world = World(Path(places.root))
    world.modules.update(note=NOTE, _words=WORDS)
    world.declare("note", "/etc/a", {"path": "/etc/a"})
    assert world.apply().changed
    left = Catalog("web1", (), commit=GOOD, modules=world.modules)
    Path(places.catalog).write_bytes(dumps(left.to_json()))
    SETTLED.save(places)
    with lock(places.root, "r1", "agent", command="reconciler agent"):
        busy = call("prune", "--lock-timeout", "0")
        assert (busy.code, "agent run r1, pid" in busy.err) == (9, True)
        waited = call("prune", "--lock-timeout", "0.2")
        assert waited.code == 9
        assert waited.err.startswith("waiting for another run, at most 0 s: agent run r1")
    assert "0 removed, 0 ready, 1 waiting" in call("prune").out
    assert "1 removed" in call("prune").out
    assert not world.path("/etc/a").exists()


def test_nothing_is_pruned_while_the_agent_is_suspended_or_not_done(
    call: Call, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.cli.prune.Places", lambda: places)
    Path(places.config).parent.mkdir(parents=True)
    Path(places.config).write_text("repo: /srv/state.git\n")
    assert call("prune").code == 3
    Path(places.catalog).parent.mkdir(parents=True)
    Path(places.catalog).write_bytes(dumps(Catalog("web1", (), commit=GOOD).to_json()))
    State.from_json({**SETTLED.to_json(), "good": ""}).save(places)
    done = call("prune")
    assert (done.code, "has not converged whole" in done.err) == (7, True)
    SETTLED.save(places)
    suspend(places, "TICKET-7", 60, "alice")
    done = call("prune")
    assert (done.code, "the agent is suspended" in done.err) == (7, True)
