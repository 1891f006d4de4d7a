"""What goes wrong between a Git server and a host, with a whole agent on a booted host.

Servers that vanish, hang, break off or send rubbish; a mirror that is damaged in each of its
parts; a disk that is full; a memory of trust that is damaged in each way. Three things hold in all
of them: nothing is half done, the host is healed by the last trusted commit meanwhile, and when the
fault is over the host converges without a person, or by the one command that the message names.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

import pytest

from hosts.agents import conditions, in_sync_at, small_disk, status, wait_for
from hosts.booted import BootedHost
from hosts.forge import MIRROR, STATE, Follower, Forge, configure, put, recovers, shell, sync
from hosts.lab import Lab
from source.servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def one_of(kinds: Iterable[object], kept: object) -> list[object]:
    """All of them; but one stands for the others where there is no time for all."""
    return [kind if kind == kept else pytest.param(kind, marks=pytest.mark.soak) for kind in kinds]


@pytest.fixture(scope="module")
def origin(forge: Forge) -> Server:
    return forge.serve()


@pytest.fixture(scope="module")
def subject(lab: Lab, forge: Forge, origin: Server) -> Iterator[Follower]:
    with lab.lend("subject") as (host,):
        follower = Follower(host, forge.repo(), origin)
        follower.commit()
        forge.install(host, origin)
        follower.settled()
        yield follower


@pytest.fixture(autouse=True)
def mended(subject: Follower) -> Iterator[None]:
    """A test that failed leaves no fault to the next."""
    yield
    subject.server.fault = ("", 0)


# the server


@pytest.mark.soak
def test_a_server_that_is_gone_is_waited_for_ever_longer_and_nothing_else_stops(
    forge: Forge, subject: Follower
) -> None:
    host = subject.host
    subject.server.stop()
    wait_for(lambda: conditions(host)["SourceFresh"] == "False", "saying so", host)
    told = host.reconciler("agent", "status", check=False)
    assert told.returncode == 5
    assert f"cannot reach {forge.address}" in told.stdout
    attempts = {status(host)["source"]["last_attempt"]}
    end = time.monotonic() + 40
    while time.monotonic() < end:
        subject.heals()
        attempts.add(status(host)["source"]["last_attempt"])
        time.sleep(6)
    print(f"{len(attempts)} attempts in 40 s, at an interval of 5 s")
    assert len(attempts) <= 6
    commit = subject.commit()
    subject.server = forge.serve(int(subject.server.server_address[1]))
    subject.converges(commit)
    recovers(host, "SourceFresh")


@pytest.mark.soak
def test_a_person_who_syncs_while_the_server_hangs_keeps_nobody_from_healing(
    subject: Follower,
) -> None:
    host, head = subject.host, subject.trusted
    subject.server.fault = ("hang", 0.5)
    commit = subject.commit(noise=30_000)
    host.run(["systemctl", "kill", "-s", "USR1", "reconciler-agent"])
    wait_for(lambda: subject.server.hanging > 0, "hanging", host)
    subject.heals()
    assert subject.server.hanging > 0, "it was healed only after the fetch had ended"
    wait_for(lambda: conditions(host)["SourceFresh"] == "False", "giving up", host)
    said = host.reconciler("agent", "status", check=False).stdout
    assert "too slow" in said, said
    assert subject.trusted == head
    subject.server.fault = ("", 0)
    subject.converges(commit)


def test_a_server_that_hangs_in_mid_pack_costs_neither_healing_nor_the_commit(
    forge: Forge, subject: Follower
) -> None:
    host, ca = subject.host, "/etc/reconciler/ca.pem"
    backup = forge.serve()
    remotes = [
        {"name": "origin", "url": subject.url, "ca_file": ca},
        {"name": "backup", "url": f"{backup.url}/state.git", "ca_file": ca},
    ]
    configure(host, remotes=remotes)
    subject.settled()
    try:
        subject.server.fault = ("hang", 0.5)
        started = time.monotonic()
        commit = subject.commit(noise=30_000)
        wait_for(lambda: subject.server.hanging > 0, "hanging", host)
        healed = subject.heals()
        assert subject.server.hanging > 0, "it was healed only after the fetch had ended"
        wait_for(in_sync_at(host, commit), "converging by the backup", host, 90)
        print(f"healed in {healed:.1f} s, converged after {time.monotonic() - started:.0f} s")
        counted = shell(host, "cat /run/reconciler/metrics.prom")
        assert 'fetch_total{remote="backup",result="ok"} 1\n' in counted
        assert 'fetch_total{remote="origin",result="error"}' in counted
        assert subject.content == subject.text
    finally:
        subject.server.fault = ("", 0)
        configure(host, remotes=remotes[:1])
    subject.settled()
    subject.mirror_is_sound()


def test_the_status_says_which_remotes_do_not_answer(subject: Follower) -> None:
    host, ca = subject.host, "/etc/reconciler/ca.pem"
    origin = {"name": "origin", "url": subject.url, "ca_file": ca}
    gone = {"name": "gone", "url": f"https://{subject.server.server_address[0]}:1/x.git"}
    configure(host, remotes=[gone, origin])
    try:
        code, said = sync(host)
        assert code == 0, said
        source = status(host)["source"]
        errors = {one["name"]: one["error"] for one in source["remotes"]}
        assert source["remote"] == "origin"
        assert errors["origin"] is None
        assert "cannot reach" in errors["gone"]
        assert "cannot reach" in said
    finally:
        configure(host, remotes=[origin])
        shell(host, f"rm -rf {MIRROR}/mirror-*")  # of another first remote
    subject.settled()


@pytest.mark.parametrize("tenth", one_of(range(10), 5))
def test_a_connection_that_is_reset_in_a_pack_leaves_the_mirror_as_it_was(
    subject: Follower, tenth: int
) -> None:
    head = subject.trusted
    subject.server.fault = ("cut", tenth / 10)
    commit = subject.commit(noise=30_000)
    code, said = sync(subject.host)
    assert code == 5, said
    assert subject.trusted == head
    subject.mirror_is_sound()
    subject.heals()
    subject.server.fault = ("", 0)
    subject.converges(commit)


@pytest.mark.parametrize("share", one_of([0.3, 0.6, 0.9999], 0.6))
def test_a_pack_with_a_flipped_byte_is_refused(subject: Follower, share: float) -> None:
    head = subject.trusted
    subject.server.fault = ("flip", share)
    commit = subject.commit(noise=30_000)
    code, said = sync(subject.host)
    assert code == 5, said
    assert subject.trusted == head
    subject.mirror_is_sound()
    subject.server.fault = ("", 0)
    subject.converges(commit)


def test_malformed_objects_of_a_server_are_refused(subject: Follower) -> None:
    """A tree with an entry `.git`, as exploits of clients have it."""
    repo, head = subject.repo, subject.trusted
    blob = repo.object(b"[core]\n", "blob")
    tree = repo.object(b"100644 .git\0" + bytes.fromhex(blob), "tree")
    bad = repo.git("commit-tree", "-p", head, "-m", "planted", tree)
    repo.git("update-ref", "refs/heads/main", bad)
    try:
        code, said = sync(subject.host)
        assert code == 5
        assert "damaged or malformed" in said
        assert subject.trusted == head
        subject.mirror_is_sound()
        subject.heals()
    finally:
        repo.git("update-ref", "refs/heads/main", head)
    subject.converges(head)


# the mirror

#: What power loss and bad disks leave of the parts of a mirror.
DAMAGES = {
    "a loose object is empty": "mkdir -p objects/ab; : > objects/ab/$(printf 'c%.0s' $(seq 38))",
    "a pack is empty": "for f in objects/pack/*.pack; do chmod u+w $f; : > $f; done",
    "a pack is cut": "for f in objects/pack/*.pack; do chmod u+w $f; truncate -s 100 $f; done",
    "packs are gone": "rm -f objects/pack/*.pack",
    "an index is empty": "for f in objects/pack/*.idx; do chmod u+w $f; : > $f; done",
    "an index is garbage": "for f in objects/pack/*.idx; do chmod u+w $f; echo xx > $f; done",
    "objects are gone": "rm -rf objects",
    "refs are garbage": "for f in $(find refs -type f); do echo xx > $f; done",
    "refs are gone": "rm -rf refs packed-refs",
    "packed-refs are garbage": "echo xx > packed-refs",
    "HEAD is empty": ": > HEAD",
    "HEAD is gone": "rm HEAD",
    "the configuration is empty": ": > config",
    "the configuration is somebody's": "printf '[core]\\n\\tfsmonitor = touch /tmp/x\\n' > config",
}


@pytest.mark.parametrize("how", one_of(DAMAGES, "a pack is cut"))
def test_a_damaged_mirror_is_made_anew_without_a_person(subject: Follower, how: str) -> None:
    """The next commit finds it, and the host is healed meanwhile."""
    host = subject.host
    script = f"cd {MIRROR}/mirror-*.git; {DAMAGES[how]}"
    host.run(["runuser", "-u", "reconciler", "--", "sh", "-c", script])
    subject.heals()
    subject.converges(subject.commit())
    subject.mirror_is_sound()


def test_damage_that_only_a_compile_finds_is_mended_by_the_next_fetch(subject: Follower) -> None:
    """Nothing new comes from the server, and what was compiled is lost as well."""
    host, site = subject.host, subject.repo.git("rev-parse", "HEAD:site.yml")
    script = f"""cd {MIRROR}/mirror-*.git/objects/pack; chmod u+w *.pack
for f in *.pack; do
  git verify-pack -v ${{f%.pack}}.idx | grep ^{site} | while read -r id kind size packed at rest; do
    printf '\\377\\000\\377' | dd of=$f bs=1 seek=$((at + 20)) conv=notrunc status=none; echo hit
  done
done"""
    spoilt = host.run(["runuser", "-u", "reconciler", "--", "sh", "-c", script]).stdout
    assert "hit" in spoilt
    host.run(["systemctl", "stop", "reconciler-agent"])
    host.run(["rm", f"{STATE}/applied.json", "/etc/followed"])
    host.run(["systemctl", "start", "reconciler-agent"])
    wait_for(lambda: subject.content == subject.text, "converging by a new mirror", host, 90)
    wait_for(in_sync_at(host, subject.repo.head), "being in sync", host)
    subject.mirror_is_sound()
    assert "was damaged and made anew" in shell(host, "journalctl --no-pager -u reconciler-agent")


# the disk

#: All but so many KiB are taken.
FILL = """cd {path}; rm -f filler; sync
free=$(df --output=avail -k . | tail -n 1)
dd if=/dev/zero of=filler bs=1024 count=$((free - {left})) status=none
df --output=avail -k . | tail -n 1"""


@pytest.fixture
def small_mirror(subject: Follower) -> Iterator[Follower]:
    yield from small(subject, MIRROR)


@pytest.fixture
def small_state(subject: Follower) -> Iterator[Follower]:
    yield from small(subject, STATE)


def small(subject: Follower, path: str) -> Iterator[Follower]:
    """8 MiB are a disk that one can fill in no time."""
    with small_disk(subject.host, path, "8m"):
        subject.settled()
        yield subject
    subject.settled()


@pytest.mark.parametrize("left", one_of([0, 4, 16, 64, 128], 16))
def test_a_disk_that_is_full_for_the_mirror_stops_the_fetch_and_nothing_else(
    small_mirror: Follower, left: int
) -> None:
    subject = small_mirror
    host, head = subject.host, subject.trusted
    shell(host, FILL.format(path=MIRROR, left=left))
    commit = subject.commit(noise=150_000)
    code, said = sync(host)
    assert code == 5, said
    assert "space" in said or "full" in said
    assert subject.trusted == head
    subject.heals()
    shell(host, f"rm {MIRROR}/filler")
    subject.converges(commit)
    subject.mirror_is_sound()


@pytest.mark.parametrize("left", one_of([0, 4, 8, 16, 32, 64, 128], 0))
def test_a_disk_that_is_full_for_the_state_loses_neither_trust_nor_the_host(
    small_state: Follower, left: int
) -> None:
    subject = small_state
    host, before = subject.host, subject.content
    pid = status(host)["agent"]["pid"]
    shell(host, FILL.format(path=STATE, left=left))
    commit = subject.commit()
    code, said = sync(host)
    print(f"{left} KiB left: {code}, {said.splitlines()[0]}")
    assert subject.content in (before, subject.text)
    assert host.reconciler("trust", "show").returncode == 0
    if code:
        assert "space" in said or "full" in said
    assert status(host)["agent"]["pid"] == pid
    shell(host, f"rm {STATE}/filler")
    subject.converges(commit)
    assert status(host)["agent"]["pid"] == pid
    names = shell(host, f"ls -A {STATE}").split()
    assert not [name for name in names if name.endswith(".new") or name.startswith(".trust")]


# the memory of trust

FILES = ("trust.json", "trust.json.bak")
#: What happens to one file. $f is its name.
SPOILS = {
    "missing": "rm $f",
    "empty": ": > $f",
    "cut off": "truncate -s 100 $f",
    "garbage": "echo garbage > $f",
    "another commit in it": 'sed -i \'s/"commit": "...../"commit": "00000/\' $f',
    "writable by others": "chmod 0666 $f",
    "of another user": "chown nobody $f",
    "a link": "mv $f /root/elsewhere.$f; ln -s /root/elsewhere.$f $f",
    "a directory": "rm $f; mkdir $f; touch $f/x",
    "a pipe": "rm $f; mkfifo $f",
}


@pytest.mark.parametrize("how", one_of(SPOILS, "garbage"))
@pytest.mark.parametrize("file", one_of(FILES, FILES[0]))
def test_one_damaged_copy_of_the_mark_is_mended_from_the_other(
    subject: Follower, file: str, how: str
) -> None:
    shell(subject.host, f"cd {STATE}; f={file}; {SPOILS[how]}")
    subject.converges(subject.commit())
    both = shell(subject.host, f"cd {STATE}; sha256sum {FILES[0]} {FILES[1]}").split()
    assert both[0] == both[2]


@pytest.mark.parametrize("how", one_of(SPOILS, "missing"))
def test_with_both_copies_damaged_nothing_new_is_trusted_and_healing_goes_on(
    subject: Follower, how: str
) -> None:
    host, head, before = subject.host, subject.trusted, subject.content
    shell(host, f"cd {STATE}; for f in {FILES[0]} {FILES[1]}; do {SPOILS[how]}; done")
    commit = subject.commit()
    code, said = sync(host)
    assert code == 10
    assert "reconciler trust reset --to" in said
    assert subject.trusted == head
    assert subject.content == before
    subject.heals()
    shown = host.reconciler("trust", "show", check=False)
    assert shown.returncode == 10
    assert "reconciler trust reset --to" in shown.stdout
    host.reconciler("trust", "reset", "--to", commit, "--reason", "the disk was bad")
    subject.converges(commit)
    subject.converges(subject.commit())


def test_an_older_copy_and_a_damaged_newer_one_never_lead_back(subject: Follower) -> None:
    """A power cut between the two writes, and a bad block in the first."""
    host = subject.host
    shell(host, f"cp -a {STATE}/{FILES[1]} /root/older")
    old = subject.trusted
    newer = subject.commit()
    subject.converges(newer)
    shell(host, f"cd {STATE}; cp -a /root/older {FILES[1]}; echo garbage > {FILES[0]}")
    # What is known for certain is the older mark, which what the server offers is on top of.
    subject.converges(newer)
    subject.repo.git("update-ref", "refs/heads/main", old)
    try:
        code, said = sync(host)
        assert code == 10
        assert "is older than" in said
    finally:
        subject.repo.git("update-ref", "refs/heads/main", newer)
    subject.converges(newer)


def test_a_lost_mark_is_told_before_the_next_commit_needs_it(subject: Follower) -> None:
    host = subject.host
    shell(host, f"cd {STATE}; rm {FILES[0]} {FILES[1]}")
    host.run(["systemctl", "kill", "-s", "USR2", "reconciler-agent"])
    wait_for(lambda: conditions(host)["Trusted"] == "False", "telling it in a sweep", host)
    assert host.reconciler("agent", "status", check=False).returncode == 10
    host.reconciler("trust", "reset", "--to", subject.repo.head, "--reason", "it was lost")
    recovers(host, "Trusted")


# the clock

#: Runs a module of ours with a clock that is so many seconds off as /etc/clock says.
SHIFTED = """\
import runpy, sys, time
real = time.time
def shifted():
    with open("/etc/clock") as file:
        return real() + float(file.read())
time.time = shifted
sys.argv[:] = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
UNITS = {
    "reconciler-agent.service": "reconciler.agent",
    "reconciler-provider@.service": f"reconciler.agent.provider {MIRROR}",
}
YEAR = 365 * 86400


@pytest.fixture
def faked(subject: Follower) -> Iterator[Follower]:
    """An agent with a clock of its own; what the kernel counts since boot is true."""
    host = subject.host
    put(host, "/etc/clock", "0", "0644")
    put(host, "/etc/shifted.py", SHIFTED, "0644")
    for unit, module in UNITS.items():
        start = f"{sys.prefix}/bin/python3 -I -B /etc/shifted.py {module}"
        text = f"[Service]\nExecStart=\nExecStart={start}\n"
        put(host, f"/etc/systemd/system/{unit}.d/clock.conf", text, "0644")
    shell(host, "systemctl daemon-reload; systemctl restart reconciler-agent")
    subject.settled()
    yield subject
    for unit in UNITS:
        shell(host, f"rm -r /etc/systemd/system/{unit}.d")
    shell(host, "systemctl daemon-reload; systemctl restart reconciler-agent")
    subject.settled()


def runs(host: BootedHost) -> float:
    """How many runs of any kind there were."""
    lines = shell(host, "cat /run/reconciler/metrics.prom").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("reconciler_runs_"))


@pytest.mark.soak
def test_a_clock_that_jumps_brings_no_storm_and_ends_no_suspension(faked: Follower) -> None:
    subject, host = faked, faked.host
    for jump in (YEAR, -YEAR, 0):
        before, polls = runs(host), len(subject.server.seen)
        put(host, "/etc/clock", str(jump), "0644")
        time.sleep(20)
        polls, new = len(subject.server.seen) - polls, runs(host) - before
        ahead = status(host)["written"] - time.time()
        print(f"the agent is {ahead:.0f} s ahead; {polls} requests, {new} runs in 20 s")
        assert abs(ahead - jump) < 120
        assert before > 0
        assert 2 <= polls <= 2 * 6
        # A sweep at once, and a run by what the poll brought, where that did not come before it.
        assert 1 <= new <= 2
        assert conditions(host)["SourceFresh"] == "True"
        subject.heals()
        commit = subject.commit()
        wait_for(in_sync_at(host, commit), "converging as ever", host)
        assert conditions(host)["Trusted"] == "True"


@pytest.mark.soak
def test_a_suspension_outlives_jumps_of_the_clock_and_ends_in_time(faked: Follower) -> None:
    host, started = faked.host, time.monotonic()
    host.reconciler("agent", "suspend", "--for", "25s", "--reason", "TICKET-7")
    for jump in (YEAR, -YEAR):
        put(host, "/etc/clock", str(jump), "0644")
        time.sleep(6)
        assert conditions(host)["Suspended"] == "True"
    wait_for(lambda: conditions(host)["Suspended"] == "False", "ending it", host)
    took = time.monotonic() - started
    assert 25 <= took < 40
    recovers(host, "InSync")
