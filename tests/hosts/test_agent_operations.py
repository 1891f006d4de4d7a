"""What an operator does with an installed agent, and what the agent tells, on booted hosts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.exposition import parse
from hosts.agents import (
    INVENTORY,
    StateRepo,
    conditions,
    in_sync_at,
    status,
    text,
    wait_for,
)
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOSTS = "all: {hosts: {operated: {}}}\n"
SITE = """\
- hosts: all
  resources:
    - name: the message of the day
      copy: {dest: /etc/motd, content: "hello\\n", mode: "0644"}
"""
#: One of each type that prune knows, and one of the same that is to stay.
GUESTS = """\
    - {group: {name: guests}, prune: delete}
    - {user: {name: guest, group: guests}}
    - {lineinfile: {path: /etc/conf, line: "ours=1"}}
    - {lineinfile: {path: /etc/conf, regexp: "^theirs=", line: "theirs=2"}}
    - {cron: {name: guest, job: /bin/true, user: root, cron_file: /etc/cron-of-guests}}
    - {copy: {dest: /etc/guest, content: "ours\\n"}}
    - {copy: {dest: /etc/kept, content: "ours\\n"}, prune: keep}
    - {file: {path: /srv/guest, state: directory}}
"""
TOKEN = "t0ken-9f2c"
POLICY = "prune: {default: restore, user: delete}\n"
NOTIFY = f"""\
notify:
- command: [tee, -a, /root/told]
- webhook: http://127.0.0.1:9/{TOKEN}
- apprise: json://127.0.0.1:9/{TOKEN}
"""


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Iterator[list[BootedHost]]:
    with lab.lend("depot", "operated") as found:
        yield found


@pytest.fixture(scope="module")
def repo(lab: Lab, hosts: list[BootedHost], tmp_path_factory: pytest.TempPathFactory) -> StateRepo:
    made = StateRepo(lab, hosts[0], tmp_path_factory.mktemp("state"))
    made.commit({"site.yml": SITE, INVENTORY: HOSTS})
    made.enrol(hosts[1])
    return made


@pytest.fixture(scope="module")
def bare(repo: StateRepo, hosts: list[BootedHost]) -> BootedHost:
    """Before the agent is there."""
    return hosts[1]


@pytest.fixture(scope="module")
def one(repo: StateRepo, bare: BootedHost) -> BootedHost:
    """With an agent in sync."""
    repo.install(bare)
    wait_for(in_sync_at(bare, repo.git("rev-parse", "HEAD")), "converging", bare)
    return bare


def add_settings(host: BootedHost, settings: str) -> None:
    host.run(["tee", "-a", "/etc/reconciler/agent.yml"], input=settings)
    host.run(["systemctl", "reload", "reconciler-agent"])
    time.sleep(1)


def journal(host: BootedHost, *match: str) -> list[dict[str, Any]]:
    """Entries with these fields, oldest first."""
    said = host.run(["journalctl", "--no-pager", "-o", "json", *match]).stdout
    return [json.loads(line) for line in said.splitlines()]


# -- install -----------------------------------------------------------------------------


def test_a_wrong_wish_is_refused_before_anything_is_changed(
    repo: StateRepo, bare: BootedHost
) -> None:
    known = ["--repo", repo.url, "--known-hosts", "/root/known_hosts"]
    bare.run(["sh", "-c", "cp /root/deploy_key /root/open; chmod 644 /root/open; mkdir /srv/plain"])
    bare.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "locked", "-f", "/root/locked"])
    wrong = {
        "which state repo": [],
        "no address of a state repo": ["--repo", "ftp://x/y"],
        "holds a user or password": ["--repo", "https://u:pw@h/x"],
        "sees nothing below /root/": ["--repo", "/root/state.git"],
        "no Git repository": ["--repo", "/srv/plain"],
        "an unknown server is never trusted": ["--repo", repo.url],
        "no name of a branch": [*known, "--branch", "a b"],
        "is no time": [*known, "--interval", "soon"],
        "nobody may sign": [*known, "--trust", "head"],
        "cannot read /nope": [*known, "--deploy-key", "/nope"],
        "others can read it": [*known, "--deploy-key", "/root/open"],
        "has a passphrase": [*known, "--deploy-key", "/root/locked"],
        "is a public key": [*known, "--deploy-key", "/root/deploy_key.pub"],
        "does not say who may sign": [*known, "--allowed-signers", "/etc/hostname"],
        "holds no certificate": ["--repo", "https://h/x", "--ca-file", "/root/known_hosts"],
    }
    for said, options in wrong.items():
        done = bare.reconciler("agent", "install", *options, check=False)
        assert (done.returncode, done.stdout) == (3, ""), options
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    left = bare.run(["sh", "-c", "ls -d /etc/reconciler /etc/systemd/system/reconciler*; id reconciler"], check=False)  # fmt: skip
    assert left.stdout == ""


def test_a_branch_that_is_not_there_is_said_at_once_and_tried_again(
    repo: StateRepo, bare: BootedHost
) -> None:
    keys = ["--deploy-key", "/root/deploy_key", "--known-hosts", "/root/known_hosts"]
    wish = ["--repo", repo.url, *keys, "--inventory", INVENTORY, "--interval", "5s"]
    done = bare.reconciler("agent", "install", *wish, "--branch", "later", check=False)
    assert done.returncode == 5
    assert "there is no refs/heads/later" in done.stderr
    assert "goes on trying" in done.stdout
    repo.git("push", "--quiet", "origin", "HEAD:later")
    commit = repo.git("rev-parse", "HEAD")
    wait_for(in_sync_at(bare, commit), "converging the branch", bare, 60)
    assert bare.reconciler("agent", "install", *wish, "--branch", "main").returncode == 0
    wait_for(in_sync_at(bare, commit), "converging main", bare)


def test_what_the_agent_would_refuse_or_cannot_compile_is_said_at_once(bare: BootedHost) -> None:
    def install(*options: str) -> tuple[int, bool, str]:
        done = bare.reconciler("agent", "install", *options, check=False)
        return done.returncode, "goes on trying" in done.stdout, done.stderr

    code, tries, said = install("--host", "nobody")
    assert (code, tries, f"{INVENTORY} has no host nobody" in said) == (3, True, True)
    code, tries, said = install("--host", "operated", "--inventory", "nowhere")
    assert (code, tries, "nowhere" in said) == (3, True, True)
    key = text(bare, "/root/deploy_key.pub")
    bare.run(["tee", "/root/signers"], input=f"alice@example.org {key}")
    signed = ("--inventory", INVENTORY, "--trust", "head", "--allowed-signers", "/root/signers")
    code, tries, said = install(*signed)
    assert (code, tries, "is not signed" in said) == (10, True, True)
    assert install("--trust", "none")[0] == 0


def test_installing_again_changes_nothing_and_one_wish_keeps_the_others(
    repo: StateRepo, one: BootedHost
) -> None:
    assert repo.install(one).strip() == "0 changes"
    assert one.reconciler("agent", "install").stdout.strip() == "0 changes"
    add_settings(one, POLICY)
    before = text(one, "/etc/reconciler/agent.yml")
    said = one.reconciler("agent", "install", "--interval", "6s").stdout
    assert "wrote /etc/reconciler/agent.yml" in said
    after = text(one, "/etc/reconciler/agent.yml")
    assert "interval: 6s" in after
    assert "restore" in after
    assert INVENTORY in after
    assert "deploy_key: /etc/reconciler/deploy_key" in before
    assert "deploy_key: /etc/reconciler/deploy_key" in after
    one.reconciler("agent", "install", "--interval", "5s")


def test_systemd_understands_the_units_and_finds_them_closed(one: BootedHost) -> None:
    units = "$(find /etc/systemd/system -maxdepth 1 -type f -name 'reconciler-*')"
    verify = f"systemd-analyze verify {units}"
    done = one.run(["sh", "-c", verify], check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    look = ["systemd-analyze", "security", "--no-pager", "reconciler-deadman.service"]
    assert float(one.run(look).stdout.rsplit(": ", 1)[1].split()[0]) <= 6.5


# -- what it says ------------------------------------------------------------------------


def test_the_journal_has_fields_to_search_by(one: BootedHost) -> None:
    one.run(["sh", "-c", "echo x > /etc/motd"])
    wait_for(lambda: text(one, "/etc/motd") == "hello\n", "healing", one)
    query = ["RECONCILER_RESOURCE=file:/etc/motd", "RECONCILER_CAUSE=corrective"]
    wait_for(lambda: bool(journal(one, *query)), "the entry", one)
    entry = journal(one, *query)[-1]
    assert entry["MESSAGE"] == "file:/etc/motd drift corrected: content"
    assert entry["SYSLOG_IDENTIFIER"] == "reconciler"
    assert entry["PRIORITY"] == "5"
    assert entry["RECONCILER_COMMIT"] == status(one)["source"]["applied"]["commit"]
    runs = json.loads(one.reconciler("history", "--cause", "corrective", "--json").stdout)
    assert entry["RECONCILER_RUN"] == runs["changes"][0]["run"]
    assert entry["_SYSTEMD_UNIT"] == "reconciler-agent.service"


def test_status_and_metrics_tell_the_same_to_everybody(repo: StateRepo, one: BootedHost) -> None:
    # A whole run that is at work would correct it itself, which is no heal.
    wait_for(lambda: status(one)["state"] == "idle", "rest", one)
    before = status(one)["last_run"]["started"]
    one.run(["sh", "-c", "echo x > /etc/motd"])
    wait_for(lambda: status(one)["last_run"]["started"] > before, "healing", one)
    assert status(one)["last_run"]["kind"] == "heal"
    wait_for(lambda: conditions(one)["InSync"] == "True", "being in sync", one)
    document = status(one)
    assert document["schema"] == "status/1"
    assert all(
        (kind in ("Suspended", "RebootRequired", "Stalled")) == (said == "False")
        for kind, said in conditions(one).items()
    )
    (remote,) = document["source"]["remotes"]
    assert remote["error"] is None
    assert remote["head"] == document["source"]["good"]["commit"]
    trusted = document["source"]["trusted"]
    assert trusted["author"] == "Alice"
    assert trusted["tree"] == repo.git("rev-parse", f"{trusted['commit']}^{{tree}}")
    assert document["proof"]["deep_verified_at"] > 0
    assert document["valid_until"] > document["written"]
    one.run(["useradd", "nobodyspecial"])
    look = ["su", "nobodyspecial", "-s", "/bin/cat", "--", "/run/reconciler/metrics.prom"]
    idle = {"reconciler_state": {(("state", "idle"),): 1}}
    wait_for(lambda: parse(one.run(look).stdout).items() >= idle.items(), "rest", one)
    found = parse(one.run(look).stdout)
    assert found["reconciler_condition"][(("type", "InSync"), ("status", "True"))] == 1
    assert found["reconciler_fetch_total"][(("remote", "origin"), ("result", "ok"))] > 0
    assert found["reconciler_changes_total"][(("cause", "corrective"), ("type", "file"))] > 0
    assert found["reconciler_heal_latency_seconds_count"][()] > 0
    assert found["reconciler_heal_latency_seconds_sum"][()] > 0
    runs = found["reconciler_last_run_timestamp_seconds"]
    assert runs[(("kind", "heal"),)] > runs[(("kind", "sync"),)]
    written = found["reconciler_status_valid_until_timestamp_seconds"][()]
    assert abs(written - document["valid_until"]) < 60


def test_watching_shows_what_happens_while_it_happens(one: BootedHost) -> None:
    watch = f"timeout -s INT 8 {sys.prefix}/bin/reconciler agent status --watch --oneline"
    change = "(sleep 2; echo x > /etc/motd) & "
    done = one.run(["sh", "-c", change + watch], check=False)
    lines = [line for line in done.stdout.splitlines() if "resource" in line]
    assert lines[0].startswith("in sync at ")
    assert len(done.stdout.splitlines()) >= 3, done.stdout
    assert "error" not in done.stderr


def test_sync_waits_for_its_run_and_says_what_came_of_it(repo: StateRepo, one: BootedHost) -> None:
    commit = repo.commit({"site.yml": SITE.replace("hello", "good morning")})
    done = one.reconciler("agent", "sync")
    assert done.stdout == f"in sync at {commit[:12]}, 1 resource\n"
    assert text(one, "/etc/motd") == "good morning\n"
    assert json.loads(one.reconciler("agent", "sync", "--json").stdout)["state"] == "idle"
    repo.commit({"site.yml": SITE + "    - nonsense: {}\n"})
    refused = one.reconciler("agent", "sync", check=False)
    assert refused.returncode == 3
    assert "Ready=False (CompileFailed)" in refused.stdout
    (bad,) = status(one)["source"]["quarantine"]
    assert bad["commit"] == repo.git("rev-parse", "HEAD")
    repo.commit({"site.yml": SITE})
    assert one.reconciler("agent", "sync").returncode == 0


def test_a_plan_of_another_commit_and_drift_are_looks_only(
    repo: StateRepo, one: BootedHost
) -> None:
    # One for each branch that was followed; this one's was written last.
    newest = "ls -td /var/lib/reconciler-fetch/*.git/refs | head -1"
    mirror = one.run(["sh", "-c", newest]).stdout.strip().removesuffix("/refs")
    commit = repo.git("rev-parse", "HEAD")
    older = repo.git("rev-parse", "HEAD~2")  # says good morning
    words = ["plan", "--local", "-C", mirror, "-i", INVENTORY, "--detailed-exitcode"]
    plan = one.reconciler(*words, "--ref", older, check=False)
    assert plan.returncode == 2, plan.stdout + plan.stderr
    assert "+good morning" in plan.stdout
    assert one.reconciler(*words, "--ref", commit, check=False).returncode == 0
    assert text(one, "/etc/motd") == "hello\n"
    assert one.reconciler(*words, "--ref", "nope", check=False).returncode == 3
    assert one.reconciler("drift", "--detailed-exitcode").returncode == 0


# -- suspension --------------------------------------------------------------------------


def test_a_suspension_shows_in_the_very_next_status_and_so_does_its_end(one: BootedHost) -> None:
    one.reconciler("agent", "suspend", "--reason", "TICKET-7")
    held = one.reconciler("agent", "status", "--oneline", check=False)
    assert (held.returncode, "Suspended=True" in held.stdout) == (7, True)
    assert text(one, "/run/motd.d/reconciler").startswith("reconciler is suspended until 20")
    # Who logs in is mostly not root.
    assert (
        one.run(["stat", "-c", "%a", "/run/motd.d", "/run/motd.d/reconciler"]).stdout
        == "755\n644\n"
    )
    one.reconciler("agent", "resume")
    assert one.reconciler("agent", "status", "--oneline").stdout.startswith("in sync at ")
    assert one.run(["ls", "/run/motd.d"]).stdout == ""
    said = [str(entry["MESSAGE"]) for entry in journal(one, "SYSLOG_IDENTIFIER=reconciler")]
    assert any(line.startswith("suspended by ") and "TICKET-7" in line for line in said)
    assert any(line.startswith("resumed by ") for line in said)


# -- trust -------------------------------------------------------------------------------


def test_rewritten_history_waits_for_a_persons_word(repo: StateRepo, one: BootedHost) -> None:
    old = repo.git("rev-parse", "HEAD")
    repo.git("reset", "--quiet", "--hard", "HEAD~3")
    new = repo.commit({"site.yml": SITE.replace("hello", "anew")}, push=False)
    repo.push("--force")
    refused = one.reconciler("agent", "sync", check=False)
    assert refused.returncode == 10
    assert text(one, "/etc/motd") == "hello\n"
    told = one.reconciler("agent", "status", check=False).stdout
    assert f"reconciler trust reset --to {new} --reason 'why'" in told
    assert f"not used   {new[:12]}  NotFastForward" in told
    one.reconciler("trust", "reset", "--to", new, "--reason", "it was rewritten")
    assert one.reconciler("agent", "sync").returncode == 0
    assert text(one, "/etc/motd") == "anew\n"
    shown = one.reconciler("trust", "show").stdout
    assert f"from {old[:12]} to {new[:12]}: it was rewritten" in shown
    again = repo.commit({"site.yml": SITE})
    assert one.reconciler("agent", "sync").stdout.startswith(f"in sync at {again[:12]}")


def test_an_agent_whose_memory_is_gone_heals_and_trusts_nothing_new_until_told(
    repo: StateRepo, one: BootedHost
) -> None:
    since = one.run(["date", "+%s"]).stdout.strip()
    one.run(["rm", "-rf", "/var/lib/reconciler"])
    one.run(["sh", "-c", "echo x > /etc/motd"])
    wait_for(lambda: text(one, "/etc/motd") == "hello\n", "healing", one)
    new = repo.commit({"site.yml": SITE.replace("hello", "anew")})
    lost = one.reconciler("agent", "sync", check=False)
    assert (lost.returncode, "Trusted=False (StateLost)" in lost.stdout) == (10, True)
    assert text(one, "/etc/motd") == "hello\n"
    told = one.reconciler("agent", "status", check=False).stdout
    assert "reconciler trust reset --to COMMIT --reason" in told
    one.reconciler("trust", "reset", "--to", new, "--reason", "the disk was replaced")
    assert one.reconciler("agent", "sync").stdout.startswith(f"in sync at {new[:12]}")
    assert text(one, "/etc/motd") == "anew\n"
    assert one.run(["stat", "-c", "%a", "/var/lib/reconciler"]).stdout == "700\n"
    said = one.run(["journalctl", "--no-pager", "-o", "cat", f"--since=@{since}"]).stdout
    assert "Traceback" not in said
    back = repo.commit({"site.yml": SITE})
    assert one.reconciler("agent", "sync").stdout.startswith(f"in sync at {back[:12]}")


# -- prune -------------------------------------------------------------------------------


def test_what_left_git_leaves_the_host_as_each_policy_says(
    repo: StateRepo, one: BootedHost
) -> None:
    one.run(["sh", "-c", "echo theirs > /etc/guest; printf 'theirs=1\\n' > /etc/conf"])
    repo.commit({"site.yml": SITE + GUESTS})
    assert one.reconciler("agent", "sync").returncode == 0
    assert text(one, "/etc/conf") == "theirs=2\nours=1\n"
    repo.commit({"site.yml": SITE})
    refused = one.reconciler("agent", "sync", check=False)
    assert (refused.returncode, "InSync=False (PruneHeld)" in refused.stdout) == (7, True)
    listed = json.loads(one.reconciler("prune", "--dry-run", "--json", check=False).stdout)
    assert [one_["id"] for one_ in listed["kept"]] == [
        "file:/etc/kept",
        "lineinfile:/etc/conf#^theirs=",
    ]
    assert len(listed["ready"]) == 6
    # More than five at once is held, and said.
    assert "6 resources left the state repo at once" in listed["held"]
    assert one.reconciler("agent", "sync", check=False).returncode == 7
    assert one.run(["id", "guest"], check=False).returncode == 0
    held = one.reconciler("prune", check=False)
    assert held.returncode == 7
    assert "reconciler prune --over-budget" in held.stdout
    assert "held" in status(one)["prune"]
    done = one.reconciler("prune", "--over-budget")
    assert "prune: 6 removed, 0 ready, 0 waiting, 2 kept" in done.stdout
    assert text(one, "/etc/guest") == "theirs\n"
    assert text(one, "/etc/kept") == "ours\n"
    assert text(one, "/etc/conf") == "theirs=2\n"
    gone = ["/srv/guest", "/etc/cron-of-guests"]
    assert one.run(["ls", *gone], check=False).stdout == ""
    for look in (["id", "guest"], ["getent", "group", "guests"]):
        assert one.run(look, check=False).returncode != 0
    history = one.reconciler("history", "--cause", "prune").stdout
    assert "file:/etc/guest" in history
    # The agent hears of what a person has pruned.
    wait_for(lambda: conditions(one)["InSync"] == "True", "being in sync", one, 30)
    again = one.reconciler("prune")
    assert "prune: 0 removed, 0 ready, 0 waiting, 2 kept" in again.stdout


# -- notifications -----------------------------------------------------------------------


def test_people_are_told_once_that_something_is_wrong_and_once_that_it_is_over(
    repo: StateRepo, one: BootedHost
) -> None:
    add_settings(one, NOTIFY)
    one.run(["sh", "-c", "chattr +i /etc/motd 2>/dev/null; rm -f /root/told"])
    good = repo.commit({"site.yml": SITE}, push=True)
    wait_for(in_sync_at(one, good), "being in sync", one)
    repo.commit({"site.yml": SITE + "    - nonsense: {}\n"})
    wait_for(lambda: '"problem"' in text(one, "/root/told"), "telling", one, 90)
    time.sleep(12)  # two more polls, and a try
    fixed = repo.commit({"site.yml": SITE})
    wait_for(in_sync_at(one, fixed), "being in sync again", one)
    wait_for(lambda: '"resolved"' in text(one, "/root/told"), "telling the end", one)
    decoder, told, rest = json.JSONDecoder(), [], text(one, "/root/told")
    while rest:
        message, end = decoder.raw_decode(rest)
        told.append(message)
        rest = rest[end:].lstrip()
    events = [(n["event"], n["type"], n["reason"]) for m in told for n in m["notices"]]
    assert events.count(("problem", "Ready", "CompileFailed")) == 1
    assert [kind for event, kind, _ in events if event == "resolved"].count("Ready") == 1
    first = told[0]
    assert first["host"] == "operated"
    assert first["title"].startswith("operated: ")
    assert "nonsense" in first["text"]
    assert "reconciler agent suspend" in first["text"]


def test_no_secret_of_an_address_is_anywhere_but_in_the_settings(one: BootedHost) -> None:
    failures = [
        entry["MESSAGE"]
        for entry in journal(one, "-u", "reconciler-agent")
        if "did not arrive" in str(entry["MESSAGE"])
    ]
    assert "notification 2 (webhook) did not arrive: Connection refused" in failures
    assert any(
        message.startswith("notification 3 (apprise) did not arrive: ") for message in failures
    )
    everywhere = "journalctl --no-pager -o json; cat /run/reconciler/*.json /run/reconciler/*.prom; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; find /var/lib/reconciler -name '*.json' ! -name settings.json -exec cat {} +"  # fmt: skip
    assert TOKEN not in one.run(["sh", "-c", everywhere], check=False).stdout
    for settings in ("/etc/reconciler/agent.yml", "/var/lib/reconciler/settings.json"):
        assert TOKEN in text(one, settings)
        assert one.run(["stat", "-c", "%a", settings]).stdout == "600\n"


# -- the end -----------------------------------------------------------------------------


def test_a_dead_agent_is_not_green_and_somebody_else_says_so(one: BootedHost) -> None:
    assert one.run(["systemctl", "start", "reconciler-deadman"], check=False).returncode == 0
    one.run(["systemctl", "stop", "reconciler-agent"])
    dead = one.reconciler("agent", "status", "--oneline", check=False)
    assert dead.returncode == 3
    assert "Ready=False (Stopped)" in dead.stdout
    assert one.reconciler("agent", "sync", check=False).returncode == 3
    alarm = one.run(["systemctl", "start", "reconciler-deadman"], check=False)
    assert alarm.returncode != 0
    said = one.run(["journalctl", "--no-pager", "-o", "cat", "-u", "reconciler-deadman"]).stdout
    assert "the agent is silent" in said
    assert one.run(["systemctl", "is-active", "reconciler-deadman.timer"]).stdout == "active\n"


def test_uninstalling_leaves_what_was_managed_and_no_word_of_the_agent(one: BootedHost) -> None:
    one.reconciler("agent", "uninstall")
    assert text(one, "/etc/motd") == "hello\n"
    units = one.run(["systemctl", "list-unit-files", "--no-legend", "reconciler*"], check=False)
    assert units.stdout == ""
    done = one.reconciler("agent", "status", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert one.reconciler("agent", "uninstall").stdout.strip() == "0 changes"
    one.reconciler("agent", "uninstall", "--purge")
    assert one.run(["ls", "/var/lib/reconciler"], check=False).returncode != 0
    assert one.run(["id", "reconciler"], check=False).returncode != 0
