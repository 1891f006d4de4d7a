"""The state repos that are measured: the same two that the peers were measured with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hosts.booted import BootedHost

SERVICES = [f"bench-{number:02}" for number in range(10)]
UNIT = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
#: Part of every Debian root, so that nothing is installed before the first measurement.
PACKAGES = [
    "apt",
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "gpgv",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libacl1",
    "libattr1",
    "libbz2-1.0",
    "login",
    "mawk",
    "mount",
    "ncurses-base",
    "passwd",
    "perl-base",
    "sed",
    "tar",
    "util-linux",
    "zlib1g",
]

Resource = dict[str, object]


def files(count: int) -> list[Resource]:
    """`count` files of 200 bytes, ten to a directory."""
    directories = [
        {"file": {"path": f"/srv/bench/d{number:03}", "state": "directory", "mode": "0755"}}
        for number in range(count // 10)
    ]
    content = [
        {
            "copy": {
                "dest": f"/srv/bench/d{number // 10:03}/f{number:04}",
                "content": f"file {number:04}\n".ljust(199, ".") + "\n",
                "owner": "root" if number % 2 else "daemon",
                "mode": "0640" if number % 3 else "0644",
                "force": True,
            }
        }
        for number in range(count)
    ]
    return [*directories, *content]


def mixed() -> list[Resource]:
    """231 resources of all common kinds."""
    lines = {
        "lineinfile": {
            "path": "/etc/bench.conf",
            "regexp": "^{{ item.key }}=",
            "line": "{{ item.key }}={{ item.value }}",
            "create": True,
        },
        "loop": [{"key": f"key{number:02}", "value": str(number)} for number in range(20)],
    }
    return [
        {"file": {"path": "/srv/bench/templates", "state": "directory", "mode": "0755"}},
        *files(100),
        {
            "template": {"src": "page.j2", "dest": "/srv/bench/templates/{{ item }}.conf"},
            "loop": [f"page{number:02}" for number in range(50)],
        },
        {"package": {"name": PACKAGES}},
        {"service": {"name": "{{ item }}", "state": "started", "enabled": True}, "loop": SERVICES},
        lines,
        {"group": {"name": "bench{{ item }}"}, "loop": ["0", "1", "2", "3", "4"]},
        {
            "user": {"name": "user{{ item }}", "group": "bench{{ item }}", "shell": "/bin/sh"},
            "loop": ["0", "1", "2", "3", "4"],
        },
    ]


WORKLOADS: dict[str, Callable[[], list[Resource]]] = {"w1000": lambda: files(1000), "w12": mixed}


def write(name: str, directory: Path) -> None:
    """Write the state repo of a workload. JSON is YAML, too."""
    directory.mkdir(parents=True)
    (directory / "templates").mkdir()
    (directory / "templates/page.j2").write_text(
        "{% for n in range(20) %}\noption{{ n }} = {{ item }} on {{ facts.hostname }}\n{% endfor %}\n"
    )
    play = {"hosts": "all", "resources": WORKLOADS[name]()}
    (directory / "site.yml").write_text(json.dumps([play], indent=1) + "\n")


def put(host: BootedHost, name: str, repo: str) -> None:
    """A workload on a host, as a state repo with one commit, and the units that it wants."""
    with tempfile.TemporaryDirectory() as directory:
        write(name, Path(directory) / name)
        host.copy(Path(directory) / name, repo)
    for service in SERVICES if name == "w12" else ():
        host.run(["tee", f"/etc/systemd/system/{service}.service"], input=UNIT)
    git = ["git", "-C", repo, "-c", "user.name=bench", "-c", "user.email=bench@example.test"]
    host.run([*git, "init", "-q", "--initial-branch=main"])
    host.run([*git, "add", "."])
    host.run([*git, "commit", "-qm", "all"])
