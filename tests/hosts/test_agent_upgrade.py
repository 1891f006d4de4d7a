"""Another version is installed under an agent that runs: it starts anew, and goes on."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from hosts.agents import main_pid, spoken, text, verdicts, wait_for
from hosts.booted import BootedHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
OURS = f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
THEIRS = OURS.replace(sys.prefix, "/opt/reconciler")
NEW = "999.0"
SITE = "- hosts: all\n  resources:\n    - copy: {dest: /etc/said, content: one}\n"
SLOW = (
    SITE.replace("one", "two")
    + "    - command: {cmd: sh -c 'sleep 10; echo ran >> /root/ran', creates: /root/ran}\n"
)
MAKE = """\
set -e
git init -q -b main /root/work && git init -q --bare -b main /srv/state.git
cd /root/work && git remote add origin /srv/state.git
git config user.name a && git config user.email a@example.org
"""
COMMIT = (
    "cd /root/work && cat > site.yml && git add -A && git commit -qm x && git push -q origin main"
)


def wheels(directory: Path) -> tuple[Path, Path]:
    """The wheel that is tested, and the same as another version."""
    url = json.loads(metadata.distribution("reconciler").read_text("direct_url.json") or "{}")
    old = Path(str(url["url"]).removeprefix("file://"))
    version = metadata.version("reconciler")
    new = directory / old.name.replace(version, NEW)
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(new, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(("reconciler/__init__.py", "/METADATA", "/RECORD")):
                content = content.replace(version.encode(), NEW.encode())
            target.writestr(name.replace(f"-{version}.dist", f"-{NEW}.dist"), content)
    return old, new


def needed() -> list[str]:
    """What the product needs beside itself, by the names in its directory."""
    said = (ROOT / "requirements/product.txt").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==", said, re.MULTILINE))
    here = [one for one in metadata.distributions(path=[OURS]) if plain(one.name) in pinned]
    return sorted({file.parts[0] for one in here for file in one.files or ()} - {".."})


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def install(host: BootedHost, wheel: Path) -> None:
    host.copy(wheel, f"/root/{wheel.name}")
    pip = [f"{sys.prefix}/bin/python", "-m", "pip", "--python", "/opt/reconciler/bin/python"]
    options = ["--quiet", "--no-index", "--no-deps", "--force-reinstall"]
    host.run([*pip, "install", *options, f"/root/{wheel.name}"])


def test_it_starts_anew_and_goes_on_and_a_run_at_work_is_not_lost(
    fresh_host: BootedHost, tmp_path: Path
) -> None:
    host = fresh_host
    old, new = wheels(tmp_path)
    host.run(["python3", "-m", "venv", "--without-pip", "/opt/reconciler"])
    host.run(["sh", "-c", f'cd {OURS} && cp -a "$@" {THEIRS}', "sh", *needed()])
    install(host, old)
    host.run(["sh", "-c", MAKE])
    host.run(["sh", "-c", COMMIT], input=SITE)
    command = "/opt/reconciler/bin/reconciler"
    host.run([command, "agent", "install", "--repo", "/srv/state.git", "--interval", "5s"])
    wait_for(lambda: verdicts(spoken(host)).get("InSync") == "True", "converging", host)
    first = main_pid(host)

    host.run(["sh", "-c", COMMIT], input=SLOW)
    wait_for(lambda: text(host, "/etc/said") == "two", "beginning a run", host)
    assert text(host, "/root/ran") == ""
    install(host, new)

    def version() -> str:
        return str(spoken(host).get("agent", {}).get("version"))

    wait_for(lambda: version() == NEW, "starting anew", host, 60)
    assert main_pid(host) != first
    wait_for(lambda: verdicts(spoken(host)).get("InSync") == "True", "going on", host, 60)
    assert text(host, "/root/ran") == "ran\n"
    host.run(["rm", "/etc/said"])
    wait_for(lambda: text(host, "/etc/said") == "two", "healing", host)
    host.run(["sh", "-c", COMMIT], input=SITE)
    wait_for(lambda: text(host, "/etc/said") == "one", "following", host)
    restarts = ["systemctl", "show", "-P", "NRestarts", "reconciler-agent"]
    assert host.run(restarts).stdout == "1\n"
