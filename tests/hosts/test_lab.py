"""The lab keeps its word: real hosts, quick, and not a trace afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts import network, session, snapshot
from hosts.booted import BootedHost, RemoteError
from hosts.lab import Lab

TESTS = Path(__file__).parents[1]


def traces(of: session.Session) -> list[str]:
    """Everything on this machine that carries a session's id."""
    table = ["nft", "list", "table", "ip", f"reconciler_lab_{of.id}"]
    firewall = subprocess.run(table, check=False, capture_output=True).returncode == 0
    paths = [of.state, of.overlays, Path("/sys/class/net", of.bridge), *of.cgroups()]
    processes = [
        path.parent
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if of.id.encode() in _read(path)
    ]
    found = [*filter(Path.exists, paths), *session.mounts(of.overlays), *processes]
    return [*map(str, found), *(["firewall"] if firewall else [])]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_systemd_is_pid_1_and_the_host_is_up(host: BootedHost) -> None:
    assert host.run(["cat", "/proc/1/comm"]).stdout == "systemd\n"
    state = host.run(["systemctl", "is-system-running"], check=False).stdout
    failed = host.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout
    assert state == "running\n", failed
    assert host.run(["hostname"]).stdout == "host\n"
    assert Path(f"/proc/{host.leader}/comm").read_text() == "systemd\n"


def test_a_program_gets_its_arguments_and_input_as_they_are(host: BootedHost) -> None:
    odd = ["two words", "$HOME", "'", "*", ""]
    assert host.run(["printf", "%s\\n", *odd]).stdout.splitlines() == odd
    assert host.run(["cat"], input="line\n").stdout == "line\n"


def test_a_failed_program_says_what_it_said(host: BootedHost) -> None:
    with pytest.raises(RemoteError, match="No such file"):
        host.run(["ls", "/nowhere"])


def test_files_and_directories_are_copied(host: BootedHost, tmp_path: Path) -> None:
    """Links as links: a state repo may hold them."""
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("/etc/passwd")
    host.copy(tmp_path, "/srv/new/tree")
    host.copy(tmp_path / "file", "/srv/renamed")
    listed = host.run(["find", "/srv", "-type", "l", "-printf", "%P %l %u"]).stdout
    assert listed == "new/tree/link /etc/passwd root"
    assert host.run(["cat", "/srv/new/tree/file", "/srv/renamed"]).stdout == "contentcontent"


def test_a_package_installs_from_the_mirrors(host: BootedHost) -> None:
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    host.run([*install, "hello"])  # lies in the image
    host.run([*install, "sl"])  # does not
    assert host.run(["hello"]).stdout == "Hello, world!\n"


def test_testinfra_looks_at_the_same_host(host: BootedHost) -> None:
    seen = host.testinfra()
    assert seen.service("ssh").is_running
    assert seen.package("openssh-server").is_installed
    assert seen.file("/etc/hostname").content_string == "host\n"


def test_a_snapshot_is_stable_and_sees_every_attribute(fresh_host: BootedHost) -> None:
    before = fresh_host.snapshot()
    fresh_host.run(["systemctl", "is-active", "ssh"])
    assert snapshot.differences(before, fresh_host.snapshot()) == {}

    fresh_host.run(["touch", "-d", "2001-01-01", "/etc/issue"])
    fresh_host.run(["chmod", "0600", "/etc/issue.net"])
    fresh_host.run(["chown", "daemon", "/etc/debian_version"])
    fresh_host.run(["setfattr", "-n", "user.x", "-v", "y", "/etc/fstab"])
    fresh_host.run(["sed", "-i", "s/Debian/debian/", "/usr/lib/os-release"])
    fresh_host.run(["rm", "/etc/host.conf"])
    changed = snapshot.differences(before, fresh_host.snapshot())
    assert changed["/etc/issue"] == ["mtime_ns"]
    assert changed["/etc/issue.net"] == ["mode"]
    assert changed["/etc/debian_version"] == ["uid"]
    assert changed["/etc/fstab"] == ["xattrs"]
    assert "content" in changed["/usr/lib/os-release"]
    assert changed["/etc/host.conf"] == ["removed"]


def test_the_product_runs_on_a_host(host: BootedHost) -> None:
    python = ["-I", "-c", "import reconciler; print(reconciler.__version__)"]
    assert host.run([f"{sys.prefix}/bin/python", *python]).stdout == "0.1.0\n"


def test_older_and_newer_pythons(bullseye_host: BootedHost, trixie_host: BootedHost) -> None:
    for old_or_new, version in [(bullseye_host, "3.9"), (trixie_host, "3.13")]:
        assert old_or_new.run(["python3", "--version"]).stdout.startswith(f"Python {version}.")


def test_a_host_comes_back_with_its_disk(fresh_host: BootedHost) -> None:
    """After a shutdown in order, and after the plug was pulled."""
    fresh_host.run(["touch", "/root/kept", "/run/lost"])
    for stop in (fresh_host.poweroff, fresh_host.kill):
        stop()
        fresh_host.start()
        assert fresh_host.run(["ls", "/root/kept"]).stdout
        assert not (Path(f"/proc/{fresh_host.leader}/root") / "run/lost").exists()


def test_hosts_reach_each_other_and_are_told_apart(lab: Lab) -> None:
    one, two = lab.boot_many(["one", "two"])
    banner = f"exec 3<>/dev/tcp/{two.address}/22; head -c 4 <&3"
    assert one.run(["bash", "-c", banner]).stdout == "SSH-"
    keys = [host.root / "etc/ssh/ssh_host_ed25519_key.pub" for host in (one, two)]
    assert len({key.read_text() for key in keys}) == 2
    lab.discard(one)
    lab.discard(two)


def test_a_closed_lab_leaves_nothing(lab: Lab) -> None:
    """With another lab at work, which must not lose anything."""
    with Lab() as other:
        other.boot("short-lived").run(["true"])
        assert len(traces(other.session)) > 4
    assert traces(other.session) == []
    assert network.exists(lab.session.bridge)


ABANDONED = """
import sys, time
from hosts.lab import Lab
with Lab() as lab:
    lab.boot("abandoned").run(["true"])
    print(lab.session.id, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def another(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """Another process with a lab and a booted host."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    python = [sys.executable, "-P", "-c", ABANDONED]
    with subprocess.Popen(
        python, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_lab_cleans_up(another: subprocess.Popen[str], number: int) -> None:
    assert another.stdout
    its = session.Session(another.stdout.readline().strip())
    assert len(traces(its)) > 4
    another.send_signal(number)
    another.wait(timeout=30)
    assert traces(its) == []


def test_the_next_session_clears_what_a_killed_one_left(another: subprocess.Popen[str]) -> None:
    assert another.stdout
    its = session.Session(another.stdout.readline().strip())
    another.kill()
    another.wait(timeout=30)
    assert len(traces(its)) > 4
    with session.exclusively():
        assert its in session.sweep()
    assert traces(its) == []
