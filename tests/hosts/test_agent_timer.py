"""The agent without a resident process: a timer, and a state repo on the host's own disk."""

from __future__ import annotations

import pytest

from hosts.agents import status, wait_for
from hosts.booted import BootedHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SITE = '- hosts: all\n  resources:\n    - copy: {dest: /etc/timed, content: "by a timer\\n"}\n'  # fmt: skip
MAKE = """\
set -e
git init -q -b main /root/work && cd /root/work && cat > site.yml
git add -A && git -c user.name=a -c user.email=a@example.org commit -q -m first
git clone -q --bare /root/work /srv/state.git && useradd keeper && chown -R keeper: /srv/state.git
"""


def test_a_timer_converges_the_host_and_heals_it(fresh_host: BootedHost) -> None:
    fresh_host.run(["sh", "-c", MAKE], input=SITE)
    fresh_host.reconciler(
        "agent", "install", "--repo", "/srv/state.git", "--timer", "--interval", "5s"
    )

    def there() -> bool:
        return fresh_host.run(["cat", "/etc/timed"], check=False).stdout == "by a timer\n"

    wait_for(there, "converging", fresh_host, 60)
    written = ["test", "-e", "/run/reconciler/status.json"]
    wait_for(lambda: not fresh_host.run(written, check=False).returncode, "a status", fresh_host)
    wait_for(
        lambda: status(fresh_host)["last_run"]["outcome"] in ("ok", "changed"),
        "saying so",
        fresh_host,
    )
    fresh_host.run(["rm", "/etc/timed"])
    wait_for(there, "healing", fresh_host, 60)
    assert (
        fresh_host.run(["systemctl", "is-enabled", "reconciler-agent.timer"]).stdout == "enabled\n"
    )
    fresh_host.reconciler("agent", "install", "--repo", "/srv/state.git", "--interval", "5s")
    assert fresh_host.run(["systemctl", "is-active", "reconciler-agent"]).stdout == "active\n"
    assert (
        fresh_host.run(
            ["systemctl", "is-enabled", "reconciler-agent.timer"], check=False
        ).returncode
        != 0
    )
