"""`reconciler plan|apply -i INVENTORY` against booted hosts, as an operator calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hosts.booted import BootedHost

SITE = """\
- hosts: web
  resources:
    - file: {path: /srv/site, state: directory, mode: "0755"}
    - copy: {dest: "/srv/site/index", content: "{{ inventory_hostname }} {{ facts.os_family }}\\n"}
      notify: say so
  handlers:
    - name: say so
      command: touch /srv/notified
"""


@pytest.fixture
def repo(tmp_path: Path, host: BootedHost) -> Path:
    (tmp_path / "site.yml").write_text(SITE)
    (tmp_path / "hosts").write_text(
        f"[web]\n{host.name}\n[gone]\nnowhere ansible_host=127.0.0.1 ansible_port=1\n"
        "[web:children]\ngone\n"
    )
    return tmp_path


def call(repo: Path, host: BootedHost, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [f"{sys.prefix}/bin/reconciler", *words, "-C", ".", "-i", "hosts"]
    if not Path(argv[0]).exists():
        code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
        argv[:1] = [sys.executable, "-c", code]
    return subprocess.run(
        [*argv, "--ssh-config", str(host.access.config)],
        cwd=repo,
        env={**os.environ, "XDG_CACHE_HOME": str(repo / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_an_operator_plans_applies_and_applies_again(repo: Path, host: BootedHost) -> None:
    one = ("--limit", host.name)
    planned = call(repo, host, "plan", *one, "--detailed-exitcode")
    assert planned.returncode == 2, planned.stderr
    assert not (host.root / "srv/site").exists()
    applied = call(repo, host, "apply", *one)
    assert applied.returncode == 0, applied.stderr
    assert (host.root / "srv/site/index").read_text() == f"{host.name} Debian\n"
    assert (host.root / "srv/notified").exists()
    again = call(repo, host, "apply", *one, "--detailed-exitcode")
    assert again.returncode == 0
    assert "0 changes" in again.stdout


def test_one_host_that_is_down_does_not_keep_the_others_from_converging(
    repo: Path, host: BootedHost
) -> None:
    done = call(repo, host, "apply", "--json")
    assert done.returncode == 5
    hosts = json.loads(done.stdout)["hosts"]
    assert hosts[host.name]["schema"] == ["reconciler/report", 1]
    assert hosts["nowhere"]["exit"] == 5
    assert hosts["nowhere"]["errors"][0]["kind"] in ("HostUnreachable", "HostKeyRefused")


def test_variables_that_say_how_a_host_is_reached_may_be_templates(
    repo: Path, host: BootedHost
) -> None:
    (repo / "hosts").write_text(
        f"[web]\nalias ansible_host='{{{{ where }}}}' where={host.name}\n"
        "wrong ansible_host='{{ nothing }}'\n"
    )
    assert call(repo, host, "plan", "--limit", "alias").returncode == 0
    wrong = call(repo, host, "plan", "--limit", "wrong")
    assert wrong.returncode == 3
    assert "nothing" in wrong.stderr


def test_a_selection_of_nothing_is_an_error(repo: Path, host: BootedHost) -> None:
    assert call(repo, host, "plan", "--limit", "nosuch").returncode == 3
