"""Runs on a directory in place of a machine: which commit is applied, which waits, which heals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.agent.config import Config
from reconciler.agent.contents import Contents
from reconciler.agent.hints import Watch, stamp
from reconciler.agent.outcome import Outcome
from reconciler.agent.override import let_through
from reconciler.agent.places import Places
from reconciler.agent.poll import ask, take_in
from reconciler.agent.state import State, resume, suspend
from reconciler.agent.status import Live, compose, oneline
from reconciler.agent.windows import DAYS, WEEK
from reconciler.agent.worker import Job, Run, is_delicate
from reconciler.catalog import Catalog, Declaration, Report
from reconciler.engine.ledger import Ledger, Takeover
from reconciler.errors import Mark, TransportError
from reconciler.source.mark import Marks
from source.conftest import Repo

#: Each run starts a provider, which fetches and compiles.
pytestmark = pytest.mark.slow

SITE = """\
- hosts: all
  resources:
    - {name: motd, copy: {dest: /etc/motd, content: "hello\\n"}}
    - {name: other, copy: {dest: /etc/other, content: "other\\n"}}
"""
BROKEN = SITE + "    - nonsense: {}\n"
#: A file below a file: that cannot be made.
FAILING = SITE + '    - {name: impossible, copy: {dest: /etc/motd/below, content: "x"}}\n'


class Machine:
    """A directory root with a state repo beside it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.repo = Repo(directory / "repo")
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (self.root / "etc/group").write_text("root:x:0:\n")
        self.places = Places(str(self.root))
        self.config = Config(remotes=({"url": str(self.repo), "name": "origin"},))
        Path(self.places.trust).mkdir(parents=True, mode=0o700)
        Marks(self.places.trust).enrol()

    def commit(self, site: str) -> str:
        return self.repo.commit({"site.yml": site})

    def run(self, kind: str = "sync", ids: tuple[str, ...] = (), *, fetch: bool = True) -> Outcome:
        """What came of it. fetch: after a poll, as the agent would have made it."""
        state = State.load(self.places)
        offer = self.poll(state) if fetch and not ids else None
        return Run(Job(kind, self.config, ids, offer), state, self.places, {}).carry_out()

    def poll(self, state: State) -> dict[str, Any] | None:
        """What the remotes offer; None if they do not answer."""
        found = ask(self.places, self.config)
        take_in(state, self.config, found, time.time())
        return None if "error" in found else found

    def motd(self) -> str:
        return (self.root / "etc/motd").read_text()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return Machine(tmp_path)


def pointers(state: State) -> tuple[str, str, str, str]:
    return state.trusted, state.candidate, state.applied, state.good


def test_a_commit_that_converged_whole_is_trusted_applied_and_good(machine: Machine) -> None:
    commit = machine.commit(SITE)
    outcome = machine.run()
    assert pointers(outcome.state) == (commit, "", commit, commit)
    assert outcome.state.held_by == ""
    assert machine.motd() == "hello\n"


def test_a_commit_that_does_not_compile_waits_and_healing_goes_on(machine: Machine) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(BROKEN)
    (machine.root / "etc/motd").write_text("by hand\n")
    outcome = machine.run()
    assert pointers(outcome.state) == (second, second, first, first)
    assert outcome.state.held_by == "CompileFailed"
    assert machine.motd() == "hello\n"
    fixed = machine.commit(SITE)
    assert pointers(machine.run().state) == (fixed, "", fixed, fixed)


def test_a_suspension_holds_the_commit_and_the_drift(machine: Machine) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning"))
    (machine.root / "etc/other").write_text("by hand\n")
    suspend(machine.places, "TICKET-7", 60, "alice")
    outcome = machine.run()
    assert pointers(outcome.state) == (second, second, first, first)
    assert outcome.state.held_by == "Suspended"
    assert outcome.state.drifted == ["file:/etc/other"]
    assert machine.motd() == "hello\n"
    resume(machine.places)
    assert pointers(machine.run("sweep", fetch=False).state) == (second, "", second, second)
    assert machine.motd() == "good morning\n"


def test_a_window_holds_the_commit_and_not_the_healing(machine: Machine) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning"))
    (machine.root / "etc/motd").write_text("by hand\n")
    shut = {"kind": "deny", "days": list(DAYS), "from": "00:00", "seconds": WEEK, "zone": "UTC"}
    machine.config = replace(machine.config, windows=(shut,))
    outcome = machine.run()
    assert pointers(outcome.state) == (second, second, first, first)
    assert outcome.state.held_by == "Window"
    assert outcome.state.held_until > time.time()
    assert machine.motd() == "hello\n"
    status = compose(outcome.state, Live(), None, now=time.time())
    assert let_through(machine.places, status, "TICKET-7", "alice")
    passed = machine.run("sweep", fetch=False).state
    assert pointers(passed) == (second, "", second, second)
    assert machine.motd() == "good morning\n"
    second = machine.commit(SITE.replace("hello", "good evening"))
    assert machine.run().state.held_by == "Window"
    machine.config = replace(machine.config, windows=({**shut, "kind": "allow"},))
    opened = machine.run("sweep", fetch=False).state
    assert pointers(opened) == (second, "", second, second)
    assert (opened.held_by, opened.held_until) == ("", 0.0)


def test_while_suspended_no_window_is_waited_for(machine: Machine) -> None:
    machine.commit(SITE)
    machine.run()
    machine.commit(SITE.replace("hello", "good morning"))
    shut = {"kind": "deny", "days": list(DAYS), "from": "00:00", "seconds": WEEK, "zone": "UTC"}
    machine.config = replace(machine.config, windows=(shut,))
    assert machine.run().state.held_until > time.time()
    suspend(machine.places, "TICKET-7", 60, "alice")
    state = machine.run("sweep", fetch=False).state
    assert (state.held_by, state.held_until) == ("Suspended", 0.0)


def test_until_a_run_of_a_commit_has_come_to_its_end_the_last_one_heals(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning"))

    def break_off(*_: object) -> Report:
        raise TransportError("the engine was killed by SIGKILL")

    with monkeypatch.context() as broken:
        broken.setattr(Run, "_apply", break_off)
        outcome = machine.run()
    assert pointers(outcome.state) == (second, second, first, first)
    assert outcome.state.held_by == "RunFailed"
    (machine.root / "etc/motd").write_text("by hand\n")
    healed = machine.run("heal", ("file:/etc/motd",))
    assert machine.motd() == "hello\n"
    assert pointers(healed.state) == (second, second, first, first)
    assert pointers(machine.run("retry", fetch=False).state) == (second, "", second, second)
    assert machine.motd() == "good morning\n"


def test_a_commit_of_which_one_resource_fails_is_applied_and_not_good(machine: Machine) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(FAILING.replace("hello", "good morning"))
    outcome = machine.run()
    assert pointers(outcome.state) == (second, "", second, first)
    assert outcome.failed
    assert list(outcome.state.failed) == ["file:/etc/motd/below"]
    (machine.root / "etc/motd").write_text("by hand\n")
    machine.run("heal", ("file:/etc/motd",))
    assert machine.motd() == "good morning\n"


def test_a_commit_that_is_trusted_is_applied_at_boot_though_no_remote_answers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    with monkeypatch.context() as broken:
        broken.setattr(Run, "_converge", lambda *_: None)
        machine.run()
    machine.repo.path.rename(machine.repo.path.with_name("gone"))
    outcome = machine.run("boot", fetch=False)
    assert outcome.state.applied == outcome.state.trusted != ""
    assert machine.motd() == "hello\n"


def test_a_catalog_that_was_lost_is_compiled_again_from_the_mirror(machine: Machine) -> None:
    commit = machine.commit(SITE)
    machine.run()
    Path(machine.places.catalog).write_bytes(b"\0" * 100)
    (machine.root / "etc/motd").unlink()
    assert machine.run("sweep", fetch=False).corrected == ["file:/etc/motd"]
    assert State.load(machine.places).applied == commit


def test_what_is_applied_stays_in_the_mirror_whatever_becomes_of_the_branch(
    machine: Machine,
) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(BROKEN)
    machine.run()
    (mirror,) = Path(machine.places.mirrors).glob("mirror-*.git")
    listed = subprocess.run(
        ["git", "-C", str(mirror), "for-each-ref", "--format=%(refname) %(objectname)", "refs/agent"],
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert dict(line.split() for line in listed.stdout.splitlines()) == {
        "refs/agent/trusted": second,
        "refs/agent/candidate": second,
        "refs/agent/applied": first,
        "refs/agent/good": first,
    }


def test_the_mirror_of_a_branch_that_is_followed_no_more_goes_once_the_new_one_is_here(
    machine: Machine,
) -> None:
    def mirrors() -> set[str]:
        return {path.name for path in Path(machine.places.mirrors).iterdir()}

    machine.commit(SITE)
    machine.run()
    before = mirrors()
    machine.config = replace(machine.config, branch="production")
    assert "fetch" in machine.run().state.problems
    assert before <= mirrors()
    machine.repo.git("branch", "production")
    assert machine.run().state.problems == {}
    assert len(mirrors()) == len(before) == 2
    assert before.isdisjoint(mirrors())


def test_what_runs_programs_itself_or_by_a_handler_is_not_ended_with_the_agent() -> None:
    def catalog(*resources: Declaration) -> Catalog:
        return Catalog("web1", resources)

    here = Mark("site.yml", 1, 1)
    file = Declaration("file", "/etc/motd", {}, here, notify=("handler:say so",))
    handler = Declaration("command", "x", {}, here, "say so", handler=True)
    assert is_delicate(catalog(Declaration("package", "nginx", {}, here)))
    assert is_delicate(catalog(file, handler))
    assert not is_delicate(catalog(replace(file, notify=()), handler))
    assert not is_delicate(catalog(file, replace(handler, type="service")))


def test_a_handler_that_was_notified_and_could_not_run_is_owed(machine: Machine) -> None:
    told = SITE.replace("{name: motd,", "{name: motd, notify: tell,")
    handler = "  handlers:\n    - {name: tell, copy: {dest: /etc/motd/below, content: x}}\n"
    machine.commit(told + handler)
    outcome = machine.run()
    assert len(outcome.state.owed) == 1
    assert set(outcome.state.owed) == set(outcome.state.failed)
    machine.commit(told + handler.replace("/etc/motd/below", "/etc/told"))
    assert machine.run().state.owed == []


def test_a_debt_of_a_handler_that_left_git_is_forgotten_by_a_whole_run_and_no_heal(
    machine: Machine,
) -> None:
    machine.commit(SITE)
    machine.run()
    with Ledger.open(str(machine.root)) as ledger:
        debts = Takeover({"handler:gone": ["file:/etc/other"]}, ())
        ledger.begin("r", "agent", "h", "c", False, [], debts)
    (machine.root / "etc/motd").write_text("by hand\n")
    healed = machine.run("heal", ("file:/etc/motd",))
    assert machine.motd() == "hello\n"
    assert healed.state.owed == ["handler:gone"]
    machine.commit(SITE.replace("hello", "good morning"))
    whole = machine.run()
    assert whole.state.owed == []
    assert any("handler:gone is declared no more" in one["message"] for one in whole.messages)


def test_what_was_undone_can_be_looked_up_and_is_told_to_nobody_else(machine: Machine) -> None:
    machine.commit(SITE)
    machine.run()
    (machine.root / "etc/motd").write_text("hello\nby hand\n")
    healed = machine.run("heal", ("file:/etc/motd",))
    with Ledger.open_readonly(str(machine.root)) as ledger:
        assert ledger is not None
        (change,) = ledger.changes(cause="corrective")
    assert change["diff"] == (
        "--- /etc/motd (actual)\n+++ /etc/motd (desired)\n@@ -1,2 +1 @@\n hello\n-by hand\n"
    )
    told = json.dumps([healed.to_json(), compose(healed.state, Live(), None, now=time.time())])
    assert "by hand" not in told


def test_each_kind_of_run_has_its_own_time_in_the_metrics(machine: Machine) -> None:
    machine.commit(SITE)
    machine.run()
    asked = round(time.time(), 3)  # as the metrics are
    machine.run("sweep", fetch=False)
    totals = machine.run("heal", ("file:/etc/motd",)).state.totals
    times = [
        totals[f'last_run_timestamp_seconds{{kind="{kind}"}}'] for kind in ("sync", "sweep", "heal")
    ]
    assert times == sorted(times)
    assert times[0] < asked <= times[1]


def test_who_made_the_trusted_commit_and_of_what_is_known(machine: Machine) -> None:
    machine.commit(SITE)
    subject = machine.run().state.subject
    assert subject == {
        "tree": machine.repo.git("rev-parse", "HEAD^{tree}"),
        "author": "Ada",
        "date": "2026-01-02T03:04:05+02:00",
        "subject": "a change",
        "signer": "",
        "verified": "order-only",
        "commit": machine.repo.git("rev-parse", "HEAD"),
    }


def test_a_heal_looks_only_at_what_it_is_about(machine: Machine) -> None:
    machine.commit(SITE)
    machine.run()
    for name in ("motd", "other"):
        (machine.root / "etc" / name).write_text("by hand\n")
    outcome = machine.run("heal", ("file:/etc/motd",))
    assert outcome.corrected == ["file:/etc/motd"]
    assert (machine.root / "etc/other").read_text() == "by hand\n"


def test_who_comes_between_our_change_and_the_end_of_the_run_is_not_taken_for_us(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    machine.run()
    motd = machine.root / "etc/motd"
    motd.write_text("by hand\n")
    counted = Outcome.count

    def meddle(outcome: Outcome, *found: Any) -> None:
        counted(outcome, *found)
        motd.write_text("by hand, again\n")

    monkeypatch.setattr(Outcome, "count", meddle)
    outcome = machine.run("sweep", fetch=False)
    assert outcome.corrected == ["file:/etc/motd"]
    watches = outcome.watches or {}
    assert watches[str(motd)] != Watch(stamp(str(motd)), ("file:/etc/motd",))
    other = str(machine.root / "etc/other")
    assert watches[other] == Watch(stamp(other), ("file:/etc/other",))


def test_a_sweep_without_drift_is_a_look_and_nothing_more(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    machine.run()
    applied: list[Catalog] = []
    monkeypatch.setattr(Run, "_apply", lambda _, __, catalog, ___: applied.append(catalog))
    outcome = machine.run("sweep", fetch=False)
    assert applied == []
    assert outcome.state.last_run["outcome"] == "ok"
    assert outcome.state.resources["total"] == 2


def said(where: str, word: str) -> tuple[str, dict[str, str]]:
    """What site.yml and the host's settings say, for one word at one of three places."""
    if where == "resource":
        return SITE.replace("{name: motd,", f"{{name: motd, drift: {word},"), {}
    if where == "tag":
        return SITE.replace("{name: motd,", "{name: motd, tags: [loose],"), {"loose": word}
    return SITE.replace("{name: other,", "{name: other, drift: heal,"), {"default": word}


@pytest.mark.parametrize(
    "where, word",
    [("resource", "warn"), ("resource", "ignore"), ("tag", "warn"), ("tag", "ignore"),
     ("host", "heal"), ("host", "warn"), ("host", "ignore")],
)  # fmt: skip
def test_drift_is_healed_said_or_left_alone_as_resource_tag_or_host_say(
    machine: Machine, where: str, word: str
) -> None:
    site, policy = said(where, word)
    machine.config = Config(remotes=machine.config.remotes, drift=policy)
    machine.commit(site)
    machine.run()
    for name in ("motd", "other"):
        (machine.root / "etc" / name).write_text("by hand\n")
    outcome = machine.run("sweep", fetch=False)
    assert (machine.root / "etc/other").read_text() == "other\n"
    assert machine.motd() == ("hello\n" if word == "heal" else "by hand\n")
    assert outcome.state.drifted == (["file:/etc/motd"] if word == "warn" else [])
    watched = str(machine.root / "etc/motd") in (outcome.watches or {})
    assert watched == (word != "ignore")
    # What Git changes is applied, whatever the word.
    machine.commit(site.replace("hello", "good morning"))
    machine.run()
    assert machine.motd() == "good morning\n"


def test_groups_are_constructed_from_the_facts_of_this_host(machine: Machine) -> None:
    plugin = (
        "plugin: constructed\nstrict: true\nkeyed_groups: [{key: facts.kernel, prefix: runs}]\n"
    )
    machine.repo.write(
        {
            "inventories/hosts.yml": "all:\n  hosts:\n    here: {}\n",
            "inventories/kernel.constructed.yml": plugin,
        }
    )
    kernel = re.sub(r"\W", "_", os.uname().release)
    machine.config = replace(machine.config, host="here", inventory="inventories")
    machine.commit(SITE.replace("hosts: all", f"hosts: runs_{kernel}"))
    outcome = machine.run()
    assert outcome.state.problems == {}
    assert machine.motd() == "hello\n"


def test_a_run_that_is_told_to_stop_ends_after_the_resource_at_work_and_that_is_no_failure(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine.commit(SITE)
    machine.run()
    second = machine.commit(SITE.replace("hello", "good morning").replace("other\\n", "new\\n"))
    state = State.load(machine.places)
    run = Run(Job("sync", machine.config, offer=machine.poll(state)), state, machine.places)
    with monkeypatch.context() as patched:
        stop_at_the_first_content(patched, run)
        outcome = run.carry_out()
    assert machine.motd() == "good morning\n"
    assert (machine.root / "etc/other").read_text() == "other\n"
    assert not outcome.failed
    assert outcome.state.problems == {}
    assert pointers(outcome.state) == (second, second, first, first)
    assert pointers(machine.run().state) == (second, "", second, second)
    assert (machine.root / "etc/other").read_text() == "new\n"


def test_what_a_run_did_not_reach_because_it_was_told_to_stop_is_not_in_sync(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.commit(SITE)
    proven = machine.run().state.proven_at
    for name in ("motd", "other"):
        (machine.root / "etc" / name).write_text("by hand\n")
    run = Run(Job("sweep", machine.config), State.load(machine.places), machine.places)
    with monkeypatch.context() as patched:
        stop_at_the_first_content(patched, run)
        outcome = run.carry_out()
    assert outcome.corrected == ["file:/etc/motd"]
    assert outcome.state.drifted == ["file:/etc/other"]
    assert outcome.state.proven_at == proven
    document = compose(outcome.state, Live(), None, now=time.time())
    assert oneline(document).startswith("InSync=False (Drifted)")
    state = machine.run("sweep", fetch=False).state
    assert state.drifted == []
    assert state.proven_at > proven


def stop_at_the_first_content(patched: pytest.MonkeyPatch, run: Run) -> None:
    get = Contents.get

    def stop_then_get(contents: Contents, *args: Any) -> Any:
        run.stop()
        return get(contents, *args)

    patched.setattr(Contents, "get", stop_then_get)


def test_a_suspension_stops_a_run_that_no_resident_process_could_tell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("motd", "other", "third", "fourth")
    more = '    - {name: x, copy: {dest: /etc/x, content: "x\\n"}}\n'
    machine.commit(SITE + "".join(more.replace("x", name) for name in names[2:]))
    machine.run()
    for name in names:
        (machine.root / "etc" / name).write_text("by hand\n")
    get = Contents.get

    def suspend_then_get(contents: Contents, *args: Any) -> Any:
        suspend(machine.places, "TICKET-7", 60, "alice")
        return get(contents, *args)

    monkeypatch.setattr(Contents, "get", suspend_then_get)
    outcome = machine.run("sweep", fetch=False)
    assert machine.motd() == "hello\n"
    # The engine may have begun the next one already.
    assert (machine.root / "etc/fourth").read_text() == "by hand\n"
    assert "file:/etc/fourth" in outcome.state.drifted
    assert outcome.state.last_run["outcome"] == "held"


def test_who_says_stop_while_an_engine_is_started_is_heard(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word went to the engine that only looks; the one that changes has not heard it."""
    machine.commit(SITE)
    machine.run()
    (machine.root / "etc/motd").write_text("by hand\n")
    ready = Run._engine_to_change

    def stop_first(run: Run, *about: Any) -> Any:
        run._stopped = True
        return ready(run, *about)

    monkeypatch.setattr(Run, "_engine_to_change", stop_first)
    outcome = machine.run("sweep", fetch=False)
    assert machine.motd() == "by hand\n"
    assert outcome.state.drifted == ["file:/etc/motd"]
    assert outcome.state.problems == {}
