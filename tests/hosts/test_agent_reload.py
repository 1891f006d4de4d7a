"""A reload under a systemd that waits for it. Debian 12, on which the agents of these tests run, does not;
so one that only reloads speaks in its place, by our words and in our unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts.booted import BootedHost
from reconciler.agent import journal
from reconciler.agent.places import UNIT
from reconciler.agent.units import units

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STAND_IN = """\
import os, signal, sys, time
sys.path.insert(0, "/root")
import journal
os.makedirs("/run/reconciler", exist_ok=True)
@journal.reloading()
def reload(*_):
    time.sleep(1)
    with open("/run/reconciler/reloaded", "a") as file:
        file.write("once\\n")
signal.signal(signal.SIGHUP, reload)
journal.notify("READY=1")
while True:
    signal.pause()
"""


def test_a_reload_ends_when_the_settings_hold(trixie_host: BootedHost) -> None:
    host = trixie_host
    version = int(host.run(["systemctl", "--version"]).stdout.split()[1].partition(".")[0])
    assert version >= 253
    text = units(timer=False, interval=60, memory=1 << 30, systemd=version)[UNIT]
    began = text.partition("ExecStart=")[2].partition("\n")[0]
    text = text.replace(began, "/usr/bin/python3 -B /root/stand_in.py")
    host.copy(Path(journal.__file__), "/root/journal.py")
    for path, content in (
        ("/root/stand_in.py", STAND_IN),
        (f"/etc/systemd/system/{UNIT}", text),
        ("/etc/reconciler/agent.yml", "repo: /srv/state.git\n"),
    ):
        host.run(["install", "-D", "-m", "600", "/dev/stdin", path], input=content)
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", UNIT])
    for times in (1, 2):
        host.run(["systemctl", "reload", UNIT])
        assert host.run(["cat", "/run/reconciler/reloaded"]).stdout == "once\n" * times
    assert host.run(["systemctl", "is-active", UNIT]).stdout == "active\n"
