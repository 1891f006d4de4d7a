"""The agent on a machine that does not run systemd, such as a container: started by cron."""

from __future__ import annotations

import re
import sys

import pytest

from hosts.agents import text
from hosts.booted import BootedHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SITE = '- hosts: all\n  resources:\n    - copy: {dest: /etc/converged, content: "by cron\\n"}\n'
MAKE = """\
set -e
git init -q -b main /root/work && cd /root/work && cat > site.yml
git add -A && git -c user.name=a -c user.email=a@example.org commit -q -m first
git clone -q --bare /root/work /srv/state.git
ssh-keygen -q -t ed25519 -N '' -f /root/key && cat /root/key.pub >> /root/.ssh/authorized_keys
ssh-keyscan 127.0.0.1 > /root/known_hosts 2>/dev/null
"""
#: What systemd has in /run is not there, and so neither is systemd for who looks for it.
WITHOUT = 'mount -t tmpfs none /run/systemd && exec "$@"'


def test_it_is_installed_run_and_removed_without_systemd(fresh_host: BootedHost) -> None:
    host = fresh_host
    host.run(["sh", "-c", MAKE], input=SITE)

    def agent(*args: str, code: int = 0) -> str:
        words = [f"{sys.prefix}/bin/reconciler", "agent", *args]
        done = host.run(
            ["unshare", "--mount", "sh", "-c", WITHOUT, "sh", *words],
            check=False,
        )
        assert done.returncode == code, done
        return done.stdout + done.stderr

    repo = ["--repo", "ssh://root@127.0.0.1/srv/state.git", "--deploy-key", "/root/key"]
    repo += ["--known-hosts", "/root/known_hosts"]
    assert "install says how cron runs it" in agent("install", *repo, "--timer", code=3)
    assert text(host, "/etc/reconciler/agent.yml") == ""
    said = agent("install", *repo)
    assert "made the user reconciler" in said
    assert agent("install", *repo).strip() == "0 changes"
    units = ["find", "/etc/systemd/system", "-name", "*reconciler*"]
    assert host.run(units).stdout == ""
    (command,) = re.findall(r"reconciler: \* \* \* \* \* root (sleep \d+; .*)", said)
    for _ in range(2):
        awake = f"sleep() {{ :; }}; {command}"
        words = ["unshare", "--mount", "sh", "-c", WITHOUT, "sh", "sh", "-c", awake]
        # It has no journal, and /dev/log leads to that: cron would send a mail.
        done = host.run(words)
        assert (done.stdout, done.stderr.splitlines()[-1][:11]) == ("", "in sync at ")
        assert text(host, "/etc/converged") == "by cron\n"
        host.run(["rm", "/etc/converged"])
    assert host.run(["stat", "-c", "%a", "/run/reconciler"]).stdout == "755\n"
    # A key that only root can read: it was handed to the user that fetches.
    assert host.run(["stat", "-c", "%U %a", "/etc/reconciler/deploy_key"]).stdout == "root 600\n"
    assert "the agent is gone" in agent("uninstall", "--purge")
    left = "ls -d /etc/reconciler /var/lib/reconciler* /run/reconciler; id reconciler"
    gone = host.run(["sh", "-c", left], check=False)
    assert gone.stdout == ""
    assert agent("uninstall", "--purge").strip() == "0 changes"
