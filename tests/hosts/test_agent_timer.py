"""The agent without a resident process: a timer, and a state repo on the host's own disk."""

from __future__ import annotations

import json

import pytest

from hosts.agents import spoken, status, text, verdicts, wait_for
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
        lambda: status(fresh_host)["last_run"].get("outcome") in ("ok", "changed"),
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


def test_with_the_server_gone_it_heals_and_at_boot_before_it_asks(fresh_host: BootedHost) -> None:
    host = fresh_host
    host.run(["sh", "-c", MAKE], input=SITE)
    host.reconciler("agent", "install", "--repo", "/srv/state.git", "--timer", "--interval", "5s")

    def there() -> bool:
        return text(host, "/etc/timed") == "by a timer\n"

    def asked() -> float:
        return spoken(host).get("source", {}).get("last_attempt") or 0.0

    wait_for(there, "converging", host, 60)
    wait_for(lambda: verdicts(spoken(host)).get("InSync") == "True", "saying so", host)
    found = host.reconciler("doctor", "--json", check=False).stdout
    agent = [one for one in json.loads(found)["checks"] if one["check"].startswith("agent")]
    assert len(agent) == 9
    assert {one["status"] for one in agent} == {"ok"}, agent

    host.run(["mv", "/srv/state.git", "/srv/gone.git"])
    wait_for(lambda: verdicts(spoken(host))["SourceFresh"] == "False", "missing the server", host)
    host.run(["rm", "/etc/timed"])
    wait_for(there, "healing without the server", host)

    host.reconciler("agent", "suspend", "--reason", "TICKET-7")
    host.run(["rm", "/etc/timed"])
    before = asked()
    # Ever less often, since nobody answers.
    wait_for(lambda: asked() > before + 6, "asking, though suspended", host, 120)
    assert not there()
    assert host.reconciler("agent", "status", "--oneline", check=False).returncode == 7
    host.reboot()
    wait_for(lambda: spoken(host) != {}, "a run after the reboot", host, 60)
    assert not there()
    host.reconciler("agent", "resume")
    wait_for(there, "healing when it may", host)

    host.run(["rm", "/etc/timed"])
    host.reboot()
    wait_for(there, "healing at boot", host, 60)
    changes = json.loads(host.reconciler("history", "--json").stdout)["changes"]
    wait_for(lambda: asked() > changes[0]["at"], "asking after that", host, 60)
