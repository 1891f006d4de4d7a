"""Thirty ways to change a host by hand: one sweep finds and heals all of them, a second none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hosts.agents import INVENTORY, StateRepo, in_sync_at, status, wait_for
from hosts.booted import BootedHost
from hosts.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

INVENTORY_TEXT = "all:\n  hosts:\n    drifter:\n"
UNIT = "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
SITE = (
    """\
- hosts: all
  resources:
    - name: files
      loop: [edited, emptied, appended, chmod, chown, chgrp, linked, a-directory, deleted, moved, suid, swapped, fifo, immutable-mode, hardlinked]
      copy: {dest: "/etc/files/{{ item }}", content: "{{ item }}\\n", mode: "0644", owner: root, group: root, force: true}
    - name: links
      loop: [retargeted, unlinked, filed]
      file: {path: "/etc/links/{{ item }}", state: link, src: /etc/hostname, force: true}
    - name: directories
      loop: [removed, opened, given]
      file: {path: "/srv/{{ item }}", state: directory, mode: "0750", owner: root}
    - name: nothing there
      file: {path: /etc/unwanted, state: absent}
    - name: line
      lineinfile: {path: /etc/environment, line: "LEVEL=production"}
    - name: group
      group: {name: crew}
    - name: users
      loop: [shelled, membered, removed-user]
      user: {name: "{{ item }}", shell: /bin/sh, groups: [crew]}
    - name: units
      loop: [stopped, disabled, altered]
      copy: {dest: "/etc/systemd/system/{{ item }}.service", content: "UNIT"}
    - name: a unit as a package brings it
      copy: {dest: /lib/systemd/system/masked.service, content: "UNIT"}
    - name: services
      loop: [stopped, disabled, masked, altered]
      service: {name: "{{ item }}", state: started, enabled: true, masked: false}
"""
).replace("UNIT", UNIT)

DRIFTS = {
    "edited": "echo other > /etc/files/edited",
    "emptied": ": > /etc/files/emptied",
    "appended": "echo more >> /etc/files/appended",
    "chmod": "chmod 0600 /etc/files/chmod",
    "chown": "chown daemon /etc/files/chown",
    "chgrp": "chgrp daemon /etc/files/chgrp",
    "linked": "ln -sf /etc/passwd /etc/files/linked",
    "a directory": "rm /etc/files/a-directory && mkdir /etc/files/a-directory",
    "deleted": "rm /etc/files/deleted",
    "moved": "mv /etc/files/moved /etc/files/elsewhere",
    "suid": "chmod u+s /etc/files/suid",
    "swapped": "cp /etc/passwd /etc/files/new && mv /etc/files/new /etc/files/swapped",
    "fifo": "rm /etc/files/fifo && mkfifo /etc/files/fifo",
    "world writable": "chmod 0666 /etc/files/immutable-mode",
    "hard linked and written": "ln /etc/files/hardlinked /root/other && echo x > /root/other",
    "link retargeted": "ln -sfn /etc/shadow /etc/links/retargeted",
    "link removed": "rm /etc/links/unlinked",
    "link made a file": "rm /etc/links/filed && echo x > /etc/links/filed",
    "directory removed": "rmdir /srv/removed",
    "directory opened": "chmod 0777 /srv/opened",
    "directory given away": "chown daemon /srv/given",
    "unwanted file": "echo x > /etc/unwanted",
    "line removed": "sed -i /LEVEL/d /etc/environment",
    "shell changed": "usermod -s /bin/bash shelled",
    "member removed": "gpasswd -d membered crew",
    "user removed": "userdel removed-user",
    "unit stopped": "systemctl stop stopped",
    "unit disabled": "systemctl disable disabled",
    "unit masked": "systemctl mask masked",
    "unit file altered": "echo '# x' >> /etc/systemd/system/altered.service",
}


@pytest.fixture(scope="module")
def drifter(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedHost]:
    forge, host = lab.boot_many(["hub", "drifter"])
    repo = StateRepo(lab, forge, tmp_path_factory.mktemp("state"))
    commit = repo.commit({"site.yml": SITE, INVENTORY: INVENTORY_TEXT})
    host.run(["sh", "-c", "mkdir -p /etc/files /etc/links; touch /etc/environment"])
    repo.enrol(host)
    repo.install(host)
    wait_for(in_sync_at(host, commit), "converging", host, 90)
    yield host
    lab.discard(host)
    lab.discard(forge)


def test_thirty_kinds_of_drift_are_healed_in_one_sweep(drifter: BootedHost) -> None:
    assert len(DRIFTS) == 30
    drifter.run(["systemctl", "stop", "reconciler-agent"])
    for what, command in DRIFTS.items():
        done = drifter.run(["sh", "-c", command], check=False)
        assert done.returncode == 0, (what, done.stderr)
    plan = drifter.reconciler("drift", "--detailed-exitcode", check=False)
    assert plan.returncode == 2, plan.stdout + plan.stderr
    first = drifter.reconciler("agent", "once", check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    healed = status(drifter)["last_run"]["cause"]["corrective"]
    assert healed >= len(DRIFTS) - 2, first.stdout  # a unit's file and its service may be one
    second = drifter.reconciler("agent", "once")
    assert status(drifter)["last_run"]["outcome"] == "ok", second.stdout
    causes = drifter.reconciler("history", "--cause", "corrective", "-n", "100").stdout
    assert "file:/etc/files/edited" in causes


def test_a_stopped_unit_a_lost_user_and_a_mask_are_healed_by_their_events(
    drifter: BootedHost,
) -> None:
    drifter.run(["systemctl", "start", "reconciler-agent"])
    wait_for(lambda: status(drifter)["state"] == "idle", "starting", drifter)
    tries = {
        "systemctl stop stopped": "systemctl is-active stopped",
        "systemctl disable disabled": "systemctl is-enabled disabled",
        "gpasswd -d membered crew": "id -nG membered | grep -w crew",
    }
    for change, look in tries.items():
        drifter.run(["sh", "-c", change], check=False)
        wait_for(
            lambda command=look: drifter.run(["sh", "-c", command], check=False).returncode == 0,
            change,
            drifter,
            20,
        )
