"""The unit that runs packages and commands for the agent: what their scripts need works in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hosts.agents import spoken, text, verdicts, wait_for
from hosts.booted import BootedHost
from hosts.debs import build, publish

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Each line is something that scripts of Debian's packages do.
POSTINST = """\
said=/root/said
umask > $said
su -s /bin/sh -c 'id -un' nobody >> $said
install -m 4755 /bin/true /usr/local/bin/setuid
python3 -c 'import socket as s
s.socket().bind(("", 80))
s.socket(s.AF_PACKET, s.SOCK_RAW).close()
s.socket(s.AF_INET, s.SOCK_RAW, 1).close()'
readlink /proc/1/exe >> $said
mkdir -p /mnt/made && mount -t tmpfs none /mnt/made && touch /mnt/made/here
systemctl is-active dbus >> $said
unshare --user true 2>> $said || echo no other users >> $said
ulimit -c >> $said
"""
SITE = "- hosts: all\n  resources:\n    - package: {name: needs-much, state: present}\n"
MAKE = """\
set -e
git init -q -b main /root/work && cd /root/work && cat > site.yml
git add -A && git -c user.name=a -c user.email=a@example.org commit -q -m first
git clone -q --bare /root/work /srv/state.git
"""


def test_a_package_whose_scripts_need_much_is_installed_by_the_agent(
    fresh_host: BootedHost, tmp_path: Path
) -> None:
    host = fresh_host
    build(tmp_path, "needs-much", scripts={"postinst": POSTINST})
    publish(host, tmp_path)
    host.run(["unshare", "--user", "true"])
    host.run(["sh", "-c", MAKE], input=SITE)
    host.reconciler("agent", "install", "--repo", "/srv/state.git", "--interval", "5s")
    wait_for(lambda: verdicts(spoken(host)).get("InSync") == "True", "installing it", host, 90)
    lines = text(host, "/root/said").splitlines()
    assert lines[:4] == ["0022", "nobody", "/usr/lib/systemd/systemd", "active"]
    assert lines[-2:] == ["no other users", "0"]
    assert host.run(["stat", "-c", "%a", "/usr/local/bin/setuid"]).stdout == "4755\n"
    host.run(["test", "-e", "/mnt/made/here"])
