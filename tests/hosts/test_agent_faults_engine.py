"""Whole agents on booted hosts: killed, stopped, starved, and robbed of their memory.

The state repo is on the host's own disk, with one commit for each version of what is declared; a
test moves the branch on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import program
from hosts import debs
from hosts.agents import conditions, main_pid, small_disk, spoken, status, text, verdicts, wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
SEED = int(os.environ.get("CRASH_SEED", "20261"))
VERSIONS = 1200
#: One in so many versions declares a package that takes its time.
RARE, LONG = 50, 25
#: Restart at once: what is to be found is not how long systemd waits.
DROP_IN = "[Service]\nRestartSec=100ms\n"
RING = "#!/bin/sh\nhead -n 1 /srv/app/f1 >>/srv/rung\n"
#: The package `long` takes its time; while it is configured /run/long exists.
POSTINST = "touch /run/long; sleep 5; rm /run/long; echo whole >>/srv/long"
SITE = """\
- hosts: all
  vars: {v: VERSION}
  resources:
    - file: {path: /srv/app, state: directory, mode: "0755"}
    - loop: "{{ range(20) | list }}"
      copy:
        dest: "/srv/app/f{{ item }}"
        content: "{{ ('version ' ~ v ~ ', file ' ~ item ~ '\\n') * (40000 if item % 7 == 3 else 1) }}"
        mode: "0640"
      notify: ring
    - lineinfile: {path: /srv/stamp, regexp: "^V=", line: "V={{ v }}"}
    - user: {name: walker, shell: /bin/sh}
    - package: {name: payload, state: "{{ 'present' if v % 4 < 2 else 'absent' }}"}
    - package: {name: "long=1.{{ v }}"}
      when: v % 50 == 25
    - copy:
        dest: /etc/systemd/system/steady.service
        content: "[Service]\\nExecStart=/bin/sh -c 'echo {{ v }} >/run/steady; exec sleep infinity'\\n"
      notify: restart steady
    - service: {name: steady, state: started}
  handlers:
    - name: ring
      command: {argv: [/usr/local/bin/ring]}
    - name: restart steady
      service: {name: steady, state: restarted}
"""
#: What an operator declares beside the agent; it must never find itself within the agent's run.
OTHER = """\
- hosts: all
  resources:
    - command: {argv: [sh, -c, "test ! -e /run/long || touch /srv/overlap; touch /srv/by-hand"], creates: /srv/by-hand}
"""


def history(versions: int) -> str:
    """A stream for `git fast-import`: one commit per version, on the branch `all`."""
    stream: list[str] = []
    for version in range(versions):
        site = SITE.replace("VERSION", str(version))
        stream.append("commit refs/heads/all\ncommitter a <a@example.org> 1700000000 +0000\n")
        stream.append(f"data {len(str(version))}\n{version}\n")
        stream.append(f"M 100644 inline site.yml\ndata {len(site)}\n{site}\n")
    return "".join(stream)


class Victim:
    """A host whose agent follows a state repo on its own disk. version: the one that is offered."""

    def __init__(self, host: BootedHost, packages: Path) -> None:
        self.host = host
        self.version = 0
        files = {f"/opt/payload/{n}": f"{n}\n" * 999 for n in range(200)}
        postinst = "echo >>/srv/tries; test ! -e /srv/broken; sleep 0.3"
        scripts = {"postinst": postinst, "prerm": "sleep 0.1"}
        debs.build(packages, "payload", files=files, scripts=scripts)
        for version in range(LONG, VERSIONS, RARE):
            debs.build(packages, "long", f"1.{version}", scripts={"postinst": POSTINST})
        debs.publish(host, packages)
        host.run(["apt-get", "update", "-q"])
        self.sh("cat >/usr/local/bin/ring; chmod 755 /usr/local/bin/ring", RING)
        self.sh("printf 'V=\\nkept\\n' >/srv/stamp")
        host.run(["useradd", "--create-home", "keeper"])
        self.sh("install -d -o keeper /srv/state.git")
        self.git("init --quiet --bare --initial-branch=main")
        self.git("fast-import --quiet", history(VERSIONS))
        self.commits = self.git("rev-list --reverse all").split()
        self.offer(0)
        self.sh("mkdir -p /etc/systemd/system/reconciler-agent.service.d")
        host.run(["tee", "/etc/systemd/system/reconciler-agent.service.d/fast.conf"], input=DROP_IN)
        host.reconciler("agent", "install", "--repo", "/srv/state.git", "--interval", "5s")
        self.wait_in_sync()

    def sh(self, script: str, text: str = "", *, check: bool = True) -> str:
        """What a script on the host says."""
        return self.host.run(["sh", "-c", script], check=check, input=text).stdout

    def git(self, words: str, text: str = "") -> str:
        return self.sh(f"runuser -u keeper -- git -C /srv/state.git {words}", text)

    def offer(self, version: int) -> None:
        self.version = version
        self.git(f"update-ref refs/heads/main {self.commits[version]}")

    def offered(self) -> None:
        """Take up what others have offered."""
        self.version = self.commits.index(self.git("rev-parse main").strip())

    def next(self, kind: int = 0) -> None:
        """Offer the next version; LONG: the next that takes a package transaction of seconds, and
        wait until that is under way."""
        if kind == LONG == self.version % RARE:
            self.next()
            self.wait_in_sync()
        version = self.version + 1
        while (version % RARE == LONG) != (kind == LONG):
            version += 1
        self.offer(version)
        self.sync()
        if kind == LONG:
            self.wait(
                lambda: (self.host.root / "run").exists() and self.is_there("/run/long"), "dpkg"
            )

    def sync(self) -> None:
        """Ask the agent for a run, if it is there."""
        self.sh("systemctl kill -s USR1 --kill-who=main reconciler-agent", check=False)

    def is_there(self, path: str) -> bool:
        return self.host.run(["test", "-e", path], check=False).returncode == 0

    def wait(self, happened: Callable[[], bool], what: str, seconds: float = 90) -> None:
        wait_for(happened, what, self.host, seconds)

    def is_in_sync(self) -> bool:
        found = spoken(self.host)
        if not found:
            return False
        good = verdicts(found)
        return (
            found["source"]["good"]["commit"] == self.commits[self.version]
            and good.get("InSync") == good.get("Ready") == "True"
            and found["state"] == "idle"
        )

    def wait_in_sync(self) -> None:
        """Until it is; then everything is as declared, and nothing is left behind."""
        self.wait(self.is_in_sync, f"converging version {self.version}")
        assert self.text("/srv/stamp") == f"V={self.version}\nkept\n"
        assert self.text("/srv/app/f19") == f"version {self.version}, file 19\n"
        assert self.sh("dpkg --audit") == ""
        assert (
            self.sh("find /srv/app /etc /var/lib/reconciler -name '*.rec-*' -o -name '*.new'") == ""
        )

    def text(self, path: str) -> str:
        return text(self.host, path)

    def journal(self, since: str = "") -> str:
        options = ["--since", since] if since else ["-n", "80"]
        show = ["journalctl", "--no-pager", "-o", "short-precise", "-u", "reconciler*", *options]
        return self.host.run(show).stdout

    def now(self) -> str:
        return self.sh("date '+%F %T'").strip()


@pytest.fixture(scope="module")
def victim(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with lab.lend("victim") as (host,):
        yield Victim(host, tmp_path_factory.mktemp("debs"))


@pytest.fixture(autouse=True)
def _nobody_sees_a_traceback(victim: Victim) -> Iterator[None]:
    since = victim.now()
    yield
    said = victim.journal(since)
    for word in ("Traceback", "bug in reconciler"):
        at = said.find(word)
        assert at < 0, said[at : at + 3000]


MANY = pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])


@pytest.mark.parametrize("kills", [30, MANY])
def test_an_agent_killed_at_any_instant_comes_back_and_converges(
    victim: Victim, kills: int
) -> None:
    victim.host.copy(HERE / "killing.py", "/srv/killing.py")
    kill = ["python3", "-B", "/srv/killing.py", str(SEED), str(kills)]
    done = victim.host.run(kill, check=False, timeout=7000)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + victim.journal()
    victim.offered()


# -- stopped while dpkg is at work -------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        "stop reconciler-agent",
        "restart reconciler-agent",
        "kill -s TERM --kill-who=main reconciler-agent",
        "kill -s KILL --kill-who=all reconciler-agent",
    ],
)
def test_who_stops_the_agent_does_not_stop_dpkg(victim: Victim, how: str) -> None:
    before = victim.text("/srv/long").count("whole")
    victim.next(LONG)
    victim.host.run(["systemctl", *how.split()])
    victim.wait(lambda: not victim.is_there("/run/long"), "the end of dpkg", 20)
    assert victim.text("/srv/long").count("whole") == before + 1
    version = victim.sh("dpkg-query -W -f '${Status} ${Version}' long")
    assert version == f"install ok installed 1.{victim.version}"
    victim.host.run(["systemctl", "start", "reconciler-agent"])
    victim.wait_in_sync()
    assert victim.text("/srv/long").count("whole") == before + 1


def test_a_package_that_breaks_is_not_tried_without_end(victim: Victim) -> None:
    """Each try writes the package database, whose change is an event."""
    while not victim.is_there("/opt/payload") or not victim.is_in_sync():
        victim.next()
        victim.wait_in_sync()
    victim.host.reconciler("agent", "sync")
    try:
        victim.sh("touch /srv/broken; dpkg --purge payload")
        victim.wait(lambda: "package:payload" in status(victim.host)["failed"], "failing")
        before = len(victim.text("/srv/tries"))
        time.sleep(12)
        # A try configures it twice: by itself, and when dpkg is made to finish.
        assert len(victim.text("/srv/tries")) - before <= 8
    finally:
        victim.sh("rm /srv/broken")
    victim.sync()
    victim.wait_in_sync()
    assert victim.is_there("/opt/payload")


# -- the host goes down ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "reboot"])
def test_a_host_that_goes_down_in_mid_run_heals_before_it_asks_anybody(
    victim: Victim, how: str
) -> None:
    before = victim.version
    victim.next(LONG)
    repo = victim.host.root / "srv/state.git"
    away = victim.host.root / "srv/away.git"
    if how == "kill":
        victim.host.kill()
    else:
        victim.host.poweroff()
        state = (victim.host.root / "var/lib/dpkg/status").read_text()
        assert "half-configured" not in state, "dpkg was cut off by an orderly reboot"
    (victim.host.root / "srv/app/f19").write_text("drift\n")
    repo.rename(away)
    try:
        victim.host.start()
        whole = [f"version {version}, file 19\n" for version in range(before, victim.version + 1)]
        victim.wait(lambda: victim.text("/srv/app/f19") in whole, "healing from the mirror")
        assert not repo.exists()
    finally:
        away.rename(repo)
    victim.wait_in_sync()


# -- two at once -------------------------------------------------------------------------


def test_of_two_runs_one_waits_or_says_who_the_other_is(victim: Victim, tmp_path: Path) -> None:
    victim.sh("mkdir -p /srv/other; cat >/srv/other/site.yml", OTHER)
    (tmp_path / "site.yml").write_text(OTHER)
    (tmp_path / "hosts").write_text(f"{victim.host.name}\n")
    victim.next(LONG)
    local = ["apply", "-C", "/srv/other", "--local"]
    at_once = ["--lock-timeout", "0"]
    refused = victim.host.reconciler(*local, *at_once, check=False)
    config = ["--ssh-config", str(victim.host.access.config)]
    push = program.start(tmp_path, "apply", "-C", ".", "-i", "hosts", *config, *at_once)
    pushed, out, err = program.ended(push, 120)
    assert victim.is_there("/run/long")
    for code, said in (
        (refused.returncode, refused.stdout + refused.stderr),
        (pushed, out + err),
    ):
        assert code == 9, said
        assert "another run holds the lock: agent run" in said
        assert "by root (reconciler agent)" in said
    assert not victim.is_there("/srv/by-hand")
    waited = victim.host.reconciler(*local, check=False)
    assert waited.returncode == 0, waited.stderr
    assert "waiting for another run, at most 60 s: agent run" in waited.stderr
    assert victim.is_there("/srv/by-hand")
    assert not victim.is_there("/srv/overlap")
    victim.wait_in_sync()


def test_an_agent_waits_for_an_operator(victim: Victim) -> None:
    slow = OTHER.replace(
        "touch /srv/by-hand", "touch /srv/begun; sleep 6; touch /srv/slow"
    ).replace("creates: /srv/by-hand", "creates: /srv/slow")
    victim.sh("mkdir -p /srv/slower; cat >/srv/slower/site.yml", slow)
    start = f"{sys.prefix}/bin/reconciler apply -C /srv/slower --local"
    victim.sh(f"{start} >/srv/said 2>&1 &")
    victim.wait(lambda: victim.is_there("/srv/begun"), "the operator's run")
    before = victim.version
    victim.next()
    time.sleep(3)
    assert victim.text("/srv/stamp").startswith(f"V={before}\n")
    assert not victim.is_there("/srv/slow")
    victim.wait_in_sync()
    assert victim.is_there("/srv/slow")


# -- its memory --------------------------------------------------------------------------

DAMAGE = {
    "gone": "rm $L $L-wal $L-shm",
    "empty": ": >$L; rm -f $L-wal",
    "cut": "rm -f $L-wal; truncate -s 5000 $L",
    "garbage": "head -c 20000 /dev/urandom >$L; rm -f $L-wal",
    "a directory": "rm $L*; mkdir $L",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_an_agent_whose_ledger_is_damaged_heals_and_says_so(victim: Victim, how: str) -> None:
    # A run that is under way has read the ledger already.
    victim.host.reconciler("agent", "sync")
    trusted = mark(victim)
    since = victim.now()
    victim.sh(
        f"L=/var/lib/reconciler/ledger.db; {DAMAGE[how].replace('rm ', 'rm -f ')}; echo x >/srv/app/f2"
    )
    victim.sh("systemctl kill -s USR2 --kill-who=main reconciler-agent")
    victim.wait(lambda: "LedgerLost" in victim.text("/run/reconciler/status.json"), "saying it")
    told = victim.host.reconciler("agent", "status", check=False)
    assert told.returncode == 3
    assert "begun anew" in told.stdout
    victim.wait(lambda: "begun anew" in victim.journal(since), "telling the journal", 10)
    victim.wait(lambda: victim.text("/srv/app/f2").startswith("version"), "healing", 20)
    assert mark(victim) == trusted
    victim.host.reconciler("agent", "sync")
    victim.wait_in_sync()
    assert victim.host.reconciler("agent", "status").returncode == 0
    kept = victim.sh("ls -d /var/lib/reconciler/ledger.db.bad-* 2>/dev/null || true")
    assert bool(kept) or how in ("gone", "empty")


def mark(victim: Victim) -> tuple[str, int]:
    """What is trusted, and how often that has changed."""
    document = json.loads(victim.text("/var/lib/reconciler/trust.json"))
    return document["commit"], document["sequence"]


# -- no space ----------------------------------------------------------------------------


def fill(path: str, left: int) -> str:
    """A script that leaves so many KiB free on the file system at a path."""
    filler = f"{path}/filler"
    all_of_it = f"dd if=/dev/zero of={filler} bs=1k 2>/dev/null || true"
    return f"{all_of_it}; truncate -s -{left}k {filler}"


@pytest.mark.parametrize("left", [0, 4, 64, 600])
def test_a_full_disk_below_managed_files_leaves_each_of_them_whole(
    victim: Victim, left: int
) -> None:
    """left: KiB that are free. A new version takes three megabytes beside the old one."""
    app = "/srv/app"
    before = victim.version
    with small_disk(victim.host, app, "5M", "0755", fill(app, left)):
        victim.next()
        victim.wait(lambda: conditions(victim.host).get("InSync") == "False"
                    and bool(status(victim.host)["failed"]), "failing")  # fmt: skip
        for id_, reason in status(victim.host)["failed"].items():
            assert id_.startswith(f"file:{app}/"), (id_, reason)
            assert "No space left on device" in reason
            assert app in reason
        for number in range(20):
            text = victim.text(f"{app}/f{number}")
            times = 40000 if number % 7 == 3 else 1
            whole = [f"version {v}, file {number}\n" * times for v in (before, victim.version)]
            assert text in whole, number
        victim.sh(f"rm {app}/filler")
        victim.sync()
        victim.wait_in_sync()
    victim.wait_in_sync()


@pytest.mark.parametrize("left", [0, 8, 40, 200])
def test_a_full_disk_below_the_memory_of_the_agent_loses_nothing(victim: Victim, left: int) -> None:
    """left: KiB that are free when a new version comes."""
    place = "/var/lib/reconciler"
    with small_disk(victim.host, place, "64M", then=fill(place, left)):
        victim.next()
        time.sleep(6)
        victim.sh("echo x >/srv/app/f2")
        time.sleep(4)
        document = status(victim.host)
        assert victim.sh("systemctl is-active reconciler-agent") == "active\n"
        good = victim.is_in_sync()
        print(f"{left} KiB: in sync {good}, {document['conditions']}")
        if not good:
            said = json.dumps(document["conditions"]) + json.dumps(document["failed"])
            assert "space" in said or "full" in said, said
            assert place in said
        victim.sh(f"rm {place}/filler")
        victim.sync()
        victim.wait_in_sync()
        assert victim.sh(f"ls {place} | grep bad || true") == victim.sh(
            "ls /root/kept | grep bad || true"
        )
    victim.wait_in_sync()


# -- no memory ---------------------------------------------------------------------------


def test_a_run_that_is_killed_for_its_memory_is_said_and_tried_again(victim: Victim) -> None:
    memory = Path("/sys/fs/cgroup/memory")
    if not (memory / "cgroup.procs").exists():
        pytest.skip("the memory controller of cgroup v1 is not here")
    small = memory / f"{victim.host.session.machine(victim.host.name)}-small"
    small.mkdir()
    try:
        pid = supervisor(victim)
        (small / "memory.limit_in_bytes").write_text(str(64 << 20))
        (small / "cgroup.procs").write_text(str(pid))
        (small / "memory.force_empty").write_text("0")
        used = int((small / "memory.usage_in_bytes").read_text())
        (small / "memory.limit_in_bytes").write_text(str(used + (1 << 20)))
        since = victim.now()
        victim.next()
        victim.wait(lambda: kills(small) > 0, "a kill for want of memory", 60)
        victim.wait(
            lambda: "SIGKILL" in victim.journal(since) or "9/KILL" in victim.journal(since),
            "saying so",
        )
        (small / "memory.limit_in_bytes").write_text("-1")
        victim.wait_in_sync()
    finally:
        for line in (small / "cgroup.procs").read_text().split():
            (memory / "cgroup.procs").write_text(line)
        small.rmdir()


def supervisor(victim: Victim) -> int:
    """Its pid as we see it."""
    inner = main_pid(victim.host)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            lines = (
                (entry / "status").read_text().splitlines() if (entry / "status").exists() else []
            )
            spaces = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
            if (
                spaces[1:] == [inner]
                and victim.host.session.machine(victim.host.name) in (entry / "cgroup").read_text()
            ):
                return int(entry.name)
    raise AssertionError("the supervisor is not to be seen")


def kills(group: Path) -> int:
    """How many were killed there for want of memory."""
    lines = (group / "memory.oom_control").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
