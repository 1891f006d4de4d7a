"""A push to real hosts: what it does, and what every kind of host that is not ready gets told."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from hosts import pushing
from hosts.access import generate_key
from hosts.booted import BootedHost
from hosts.lab import Lab
from hosts.pushing import on_host, wish
from reconciler.errors import (
    ConnectionLost,
    HostKeyRefused,
    HostUnfit,
    HostUnreachable,
    ReconcilerError,
)
from reconciler.push.host import Options, fetch_history, open_engine
from reconciler.transport.connect import Connector
from reconciler.transport.remote import Limits
from reconciler.transport.target import Target

BOTH = pytest.mark.parametrize("way", ["ssh", "openssh"])


# -- it works ----------------------------------------------------------------------------------


@BOTH
def test_plan_shows_what_apply_then_does_and_a_second_run_changes_nothing(
    host: BootedHost, way: str
) -> None:
    to = pushing.target(host, ansible_connection=way)
    wanted = wish(f"way-{way}")
    assert pushing.plan(to, wanted).counts()["pending"] == 1
    assert not on_host(host, f"/srv/way-{way}").exists()
    report = pushing.apply(to, wanted)
    assert (report.counts()["changed"], report.mode) == (1, "push")
    assert on_host(host, f"/srv/way-{way}").read_text() == f"this is way-{way}\n"
    assert not pushing.apply(to, wanted).changed


@pytest.mark.parametrize("suite", ["bullseye_host", "trixie_host"])
def test_old_and_new_pythons_of_hosts_are_served(
    suite: str, request: pytest.FixtureRequest
) -> None:
    host: BootedHost = request.getfixturevalue(suite)
    assert pushing.apply(pushing.target(host), wish("py")).changed
    assert not pushing.apply(pushing.target(host), wish("py")).changed


def test_a_plan_writes_nothing_to_the_disk_of_the_host(fresh_host: BootedHost) -> None:
    pushing.plan(pushing.target(fresh_host), wish("warm"))
    before = fresh_host.snapshot()
    pushing.plan(pushing.target(fresh_host), wish("dry"))
    assert fresh_host.snapshot() == before


def test_the_engine_is_kept_in_a_directory_for_root_only(host: BootedHost) -> None:
    pushing.plan(pushing.target(host), wish("kept"))
    shown = host.run(["stat", "-c", "%a %U", "/run/reconciler/engine"]).stdout.split()
    assert shown == ["700", "root"]


def test_with_no_cache_nothing_stays_behind(fresh_host: BootedHost) -> None:
    pushing.plan(pushing.target(fresh_host), wish("none"), keep_engine=False)
    assert fresh_host.run(["ls", "/run/reconciler"], check=False).returncode != 0


def test_a_cache_that_others_can_write_or_that_is_damaged_is_not_believed(
    host: BootedHost,
) -> None:
    pushing.plan(pushing.target(host), wish("squat"))
    shelf = "/run/reconciler/engine"
    host.run(["sh", "-c", f"for f in {shelf}/*; do printf x >> $f; done"])
    assert pushing.plan(pushing.target(host), wish("squat")).differs
    host.run(["chmod", "0777", shelf])
    assert pushing.plan(pushing.target(host), wish("squat")).differs
    host.run(["chown", "daemon", shelf])
    assert pushing.plan(pushing.target(host), wish("squat")).differs
    host.run(["rm", "-r", shelf])


def test_a_full_disk_costs_the_cache_and_not_the_run(host: BootedHost) -> None:
    host.run(["rm", "-rf", "/run/reconciler/engine"])
    host.run(["install", "-d", "-m", "0700", "/run/reconciler/engine"])
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "tmpfs", "/run/reconciler/engine"]
    host.run(mount)
    try:
        assert pushing.plan(pushing.target(host), wish("full")).differs
        assert host.run(["ls", "-A", "/run/reconciler/engine"]).stdout == ""
    finally:
        host.run(["umount", "/run/reconciler/engine"])


@pytest.mark.parametrize("place", ["/var/lib/reconciler", "/srv/full"])
def test_a_host_without_room_says_so_and_is_as_it_was(fresh_host: BootedHost, place: str) -> None:
    fill = f"mkdir -p {place} && mount -t tmpfs -o size=32k,mode=0700 tmpfs {place}"
    fresh_host.run(["sh", "-c", f"{fill} && cat /dev/zero >{place}/all"], check=False)
    wanted = pushing.Wish({"/srv/full/big": bytes(100_000), "/srv/other": b"other\n"})
    on_host(fresh_host, "/srv/full").mkdir(exist_ok=True)
    to = pushing.target(fresh_host)
    if place == "/srv/full":
        report = pushing.apply(to, wanted)
        (failed,) = [one for one in report.results if one.status == "failed"]
        assert (failed.id, report.counts()["changed"]) == ("file:/srv/full/big", 1)
        assert "No space left on device" in failed.reason
        assert fresh_host.run(["ls", "-A", place]).stdout == "all\n", "nothing half"
    else:
        with pytest.raises(ReconcilerError) as failure:
            pushing.apply(to, wanted)
        assert "No space left" in str(failure.value) or "full" in str(failure.value)
        assert not on_host(fresh_host, "/srv/other").exists()
    fresh_host.run(["umount", place])
    assert pushing.apply(to, wanted).changed


# -- whose key is that? ------------------------------------------------------------------------


@BOTH
def test_an_unknown_host_key_is_refused_with_the_command_that_shows_and_adds_it(
    host: BootedHost, tmp_path: Path, way: str
) -> None:
    to = _with_known_hosts(host, tmp_path, "", way)
    with pytest.raises(HostKeyRefused) as failure:
        pushing.plan(to, wish("never"))
    assert "unknown" in failure.value.message
    assert f"ssh-keyscan {host.address} | ssh-keygen -lf -" in failure.value.hint
    assert failure.value.host == host.name


@BOTH
def test_a_changed_host_key_is_refused_loudly(host: BootedHost, tmp_path: Path, way: str) -> None:
    other = generate_key(tmp_path / "other", "other")
    to = _with_known_hosts(host, tmp_path, f"{host.address} {other}", way)
    with pytest.raises(HostKeyRefused, match="HAS CHANGED"):
        pushing.plan(to, wish("never"))


@BOTH
def test_a_revoked_key_is_refused_though_it_is_known(
    host: BootedHost, tmp_path: Path, way: str
) -> None:
    key = _public_key(host)
    lines = f"{host.address} {key}\n@revoked * {key}\n"
    with pytest.raises(HostKeyRefused):
        pushing.plan(_with_known_hosts(host, tmp_path, lines, way), wish("never"))


@BOTH
def test_a_key_pinned_in_the_inventory_is_the_only_one_that_counts(
    host: BootedHost, tmp_path: Path, way: str
) -> None:
    kind, text = _public_key(host).split()[:2]
    unknown = _with_known_hosts(host, tmp_path, "", way, host_keys=[f"{kind} {text}"])
    assert pushing.plan(unknown, wish("pin")).differs
    other = " ".join(generate_key(tmp_path / "other", "other").split()[:2])
    known = f"{host.address} {kind} {text}"
    with pytest.raises(HostKeyRefused, match="CHANGED"):
        pushing.plan(
            _with_known_hosts(host, tmp_path, known, way, host_keys=[other]), wish("never")
        )


@BOTH
def test_a_host_certificate_is_honoured(fresh_host: BootedHost, tmp_path: Path, way: str) -> None:
    ca = generate_key(tmp_path / "ca", "ca")
    (tmp_path / "ca.pub").chmod(0o600)
    key = on_host(fresh_host, "/etc/ssh/ssh_host_ed25519_key.pub")
    _sign(tmp_path / "ca", key, fresh_host.address)
    config = on_host(fresh_host, "/etc/ssh/sshd_config.d/cert.conf")
    config.write_text("HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n")
    fresh_host.run(["systemctl", "restart", "ssh"])
    lines = f"@cert-authority 10.* {ca}"
    to = _with_known_hosts(fresh_host, tmp_path, lines, way)
    assert pushing.plan(to, wish("cert")).differs
    _sign(tmp_path / "ca", key, "192.0.2.1")
    fresh_host.run(["systemctl", "restart", "ssh"])
    with pytest.raises(HostKeyRefused):
        pushing.plan(to, wish("never"))


def _sign(ca: Path, key: Path, principal: str) -> None:
    sign = ["ssh-keygen", "-q", "-s", str(ca), "-I", "lab", "-h", "-n", principal, str(key)]
    subprocess.run(sign, check=True)


def _public_key(host: BootedHost) -> str:
    return on_host(host, "/etc/ssh/ssh_host_ed25519_key.pub").read_text().strip()


def _with_known_hosts(
    host: BootedHost, directory: Path, lines: str, way: str, **variables: object
) -> Target:
    known = directory / "known"
    known.write_text(lines)
    config = directory / "config"
    config.write_text(
        f"IdentityFile {host.access.key}\nIdentitiesOnly yes\nUser root\n"
        f"UserKnownHostsFile {known}\nGlobalKnownHostsFile /dev/null\n"
    )
    return Target.of(
        host.name,
        {"ansible_connection": way, "ansible_host": host.address, **variables},
        ssh_config=str(config),
    )


# -- hosts that are not ready ------------------------------------------------------------------


def test_a_host_without_python_is_told_apart(fresh_host: BootedHost) -> None:
    fresh_host.run(["sh", "-c", "rm /usr/bin/python3*"])
    with pytest.raises(HostUnfit, match="there is no python3") as failure:
        pushing.plan(pushing.target(fresh_host), wish("never"))
    assert "ansible_python_interpreter" in failure.value.hint


def test_a_python_that_is_too_old_is_told_apart(host: BootedHost) -> None:
    # What an old Python does with what it is sent: it runs the first statements.
    old = on_host(host, "/usr/local/bin/python3-old")
    old.write_text(
        "#!/usr/bin/python3\n"
        "import sys\n"
        "at = sys.argv.index('-c')\n"
        "code = sys.argv.pop(at + 1)\n"
        "del sys.argv[:at]\n"
        "sys.version_info = (3, 6, 8, 'final', 0)\n"
        "exec(code, {'__name__': '__main__'})\n"
    )
    old.chmod(0o755)
    to = pushing.target(host, ansible_python_interpreter="/usr/local/bin/python3-old")
    with pytest.raises(HostUnfit, match=r"Python 3\.6\.8 of the host is too old"):
        pushing.plan(to, wish("never"))


def test_a_chatty_profile_and_message_of_the_day_are_ignored(host: BootedHost) -> None:
    pushing.login(host, "chatty")
    on_host(host, "/etc/motd").write_text("J\0\0\0\2{}\nhello\n")
    noise = "head -c 300000 /dev/zero | tr '\\0' J; echo; echo oops >&2\n"
    rc = on_host(host, "/home/chatty/.bashrc")
    rc.write_text(noise)
    on_host(host, "/home/chatty/.profile").write_text(noise)
    plan = pushing.plan(pushing.target(host, ansible_user="chatty"), wish("chatty"))
    assert plan.differs


def test_a_profile_that_never_stops_talking_costs_its_host_only(host: BootedHost) -> None:
    pushing.login(host, "endless")
    on_host(host, "/home/endless/.bashrc").write_text("cat /dev/zero\n")
    with pytest.raises(HostUnfit, match="login shell says"):
        pushing.plan(pushing.target(host, ansible_user="endless"), wish("never"))


def test_a_login_that_hangs_ends_at_our_time_limit(host: BootedHost) -> None:
    pushing.login(host, "hanging")
    on_host(host, "/home/hanging/.bashrc").write_text("sleep 100\n")
    started = time.monotonic()
    with pytest.raises(HostUnfit, match="did not start in time"):
        pushing.plan(pushing.target(host, ansible_user="hanging"), wish("never"), start_timeout=1.0)
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("shell", ["fish", "tcsh", "zsh", "dash"])
def test_strange_login_shells_work(host: BootedHost, shell: str) -> None:
    if host.run(["which", shell], check=False).returncode:
        host.run(["apt-get", "install", "-qy", "--no-install-recommends", shell], timeout=300)
    path = host.run(["which", shell]).stdout.strip()
    pushing.login(host, f"of-{shell}", shell=path)
    on_host(host, "/etc/sudoers.d/shells").write_text("ALL ALL=(ALL) NOPASSWD: ALL\n")
    to = pushing.target(host, ansible_user=f"of-{shell}")
    assert pushing.plan(to, wish(shell)).differs
    to = pushing.target(host, ansible_user=f"of-{shell}", ansible_become=True)
    assert pushing.apply(to, wish(shell)).changed
    on_host(host, "/etc/sudoers.d/shells").unlink()


def test_a_login_shell_that_runs_nothing_is_told_apart(host: BootedHost) -> None:
    pushing.login(host, "nobodyin", shell="/usr/sbin/nologin")  # noqa: S604  a login shell
    with pytest.raises(HostUnfit, match="login shell ended with code 1"):
        pushing.plan(pushing.target(host, ansible_user="nobodyin"), wish("never"))


# -- jump hosts --------------------------------------------------------------------------------


@BOTH
def test_hosts_behind_a_jump_host_are_reached_through_it(
    lab: Lab, host: BootedHost, way: str
) -> None:
    behind = lab.boot(f"behind-{way}")
    try:
        to = pushing.target(behind, ansible_connection=way, via=[host.name])
        assert pushing.apply(to, wish("behind")).changed
        seen = behind.run(["sh", "-c", "journalctl -u ssh -o cat | grep Accepted"]).stdout
        assert f"from {host.address} " in seen
        common = f"-o ProxyJump={host.name}"
        jumped = pushing.target(behind, ansible_connection=way, ansible_ssh_common_args=common)
        assert not pushing.apply(jumped, wish("behind")).changed
    finally:
        lab.discard(behind)


def test_two_hosts_share_one_connection_to_their_jump_host(lab: Lab, host: BootedHost) -> None:
    behind = lab.boot_many(["behind-1", "behind-2"])
    before = _logins(host)
    try:
        with Connector() as connector:
            for one in behind:
                to = pushing.target(one, via=[host.name])
                connector.open(to).close()
            assert _logins(host) == before + 1
    finally:
        for one in behind:
            lab.discard(one)


def test_the_key_of_a_jump_host_is_checked_too(host: BootedHost, lab: Lab, tmp_path: Path) -> None:
    other = generate_key(tmp_path / "other", "other")
    to = _with_known_hosts(host, tmp_path, f"{host.address} {other}", "ssh")
    beyond = Target.of(
        "beyond", {"ansible_host": "192.0.2.7", "via": host.address}, ssh_config=to.ssh_config
    )
    with pytest.raises(HostKeyRefused, match="CHANGED"), Connector() as connector:
        connector.open(beyond)


def _logins(host: BootedHost) -> int:
    found = host.run(["sh", "-c", "journalctl -u ssh -o cat | grep -c Accepted"], check=False)
    return int(found.stdout or 0)


# -- a connection that breaks off --------------------------------------------------------------


@BOTH
def test_after_a_lost_connection_the_lock_is_free_and_the_next_run_converges(
    host: BootedHost, way: str
) -> None:
    wanted = pushing.Wish({}, f"touch /srv/started-{way}; sleep 2", f"touch /srv/second-{way}")
    to = pushing.target(host, ansible_connection=way)
    cut = threading.Thread(target=_cut_when, args=(host, f"/srv/started-{way}"))
    cut.start()
    with pytest.raises(ConnectionLost) as failure:
        pushing.apply(to, wanted)
    cut.join()
    assert failure.value.exit_code == 5
    assert "run again" in failure.value.hint
    time.sleep(3)
    assert not on_host(host, f"/srv/second-{way}").exists(), "the engine went on without us"
    with Connector() as connector:
        (cut_off, *_) = fetch_history(to, connector)["runs"]
    assert (cut_off["mode"], cut_off["summary"]["changed"]) == ("push", 1)
    report = pushing.apply(to, wanted)
    assert (report.counts()["ok"], report.counts()["changed"]) == (1, 1)


def _cut_when(host: BootedHost, path: str) -> None:
    """End all sessions of sshd once `path` is there, as a dead network would."""
    for _ in range(200):
        if on_host(host, path).exists():
            break
        time.sleep(0.05)
    host.access.hang_up(host.name)
    host.run(["sh", "-c", "(sleep 0.2; pkill -9 -f 'sshd: root@') >/dev/null 2>&1 &"])


@BOTH
def test_a_run_that_is_told_to_stop_ends_at_a_boundary_and_still_reports(
    host: BootedHost, way: str
) -> None:
    wanted = pushing.Wish({}, f"touch /srv/first-{way}; sleep 1", f"touch /srv/then-{way}")
    to = pushing.target(host, ansible_connection=way)
    with Connector() as connector, open_engine(to, connector, Options()) as engine:
        stop = threading.Timer(0.5, engine.stop)
        stop.start()
        report = engine.apply(
            wanted.catalog(host.name, {}), content=lambda sha256: [], secrets=dict, mode="push"
        )
        stop.join()
    assert report.interrupted
    assert on_host(host, f"/srv/first-{way}").exists()
    assert not on_host(host, f"/srv/then-{way}").exists()


@BOTH
def test_a_host_that_stops_answering_costs_its_time_limit(host: BootedHost, way: str) -> None:
    wanted = pushing.Wish({}, f"touch /srv/long-{way}; sleep 60")
    started = time.monotonic()
    with pytest.raises(HostUnreachable, match="not done within 2 s"):
        pushing.apply(
            pushing.target(host, ansible_connection=way), wanted, limits=Limits(seconds=2.0)
        )
    assert time.monotonic() - started < 8
    host.run(["pkill", "-x", "sleep"])


@BOTH
def test_a_host_that_freezes_in_the_middle_is_noticed(host: BootedHost, way: str) -> None:
    wanted = pushing.Wish({}, f"touch /srv/frozen-{way}; sleep 60")
    alive = "-o ServerAliveInterval=1 -o ServerAliveCountMax=2"
    to = pushing.target(host, ansible_connection=way, ansible_ssh_common_args=alive)
    before = _sessions(host)
    freezing = threading.Thread(target=_freeze_when, args=(host, f"/srv/frozen-{way}", before))
    freezing.start()
    started = time.monotonic()
    with pytest.raises(ConnectionLost) as failure:
        pushing.apply(to, wanted)
    assert time.monotonic() - started < 15
    assert "run again" in failure.value.hint
    freezing.join()
    host.run(["sh", "-c", "pkill -CONT sshd; pkill -x sleep"], check=False)


def _sessions(host: BootedHost) -> set[str]:
    return set(host.run(["pgrep", "-f", "sshd: root@"], check=False).stdout.split())


def _freeze_when(host: BootedHost, path: str, before: set[str]) -> None:
    """Stop the sshd of the new session once `path` is there."""
    for _ in range(200):
        if on_host(host, path).exists():
            break
        time.sleep(0.05)
    host.run(["kill", "-STOP", *sorted(_sessions(host) - before)])
