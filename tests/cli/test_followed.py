"""The state repo of this host's agent: what runs of it is trusted, and nobody has to look it up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.test_worker import Machine
from cli.conftest import Call, Done
from reconciler.agent.places import Places
from reconciler.agent.state import State
from reconciler.source.mirror import Mirror, mirror_path
from source.forging import forge

#: Each of them starts a provider.
pytestmark = pytest.mark.slow

SITE = """\
- hosts: lab
  resources:
    - {name: motd, copy: {dest: /etc/motd, content: "hello\\n"}}
"""
INVENTORY = "[lab]\nnode1\nnode2\n"
#: A type of the state repo's own that leaves a trace wherever anybody looks with it.
EVIL = '''\
"""A trace.

    - evil: {trace: /tmp/x}
"""

from dataclasses import dataclass

from reconciler.resource import Resource


@dataclass(frozen=True)
class Evil(Resource):
    trace: str  #: Where.

    def claims(self):
        return (f"trace:{self.trace}",)

    def desired(self):
        return {"there": True}

    def actual(self, host):
        open(self.trace, "a").close()
        return {"there": True}
'''


class Host(Machine):
    """A host with an agent, which has applied one commit and refused the next."""

    def __init__(self, directory: Path, call: Call) -> None:
        super().__init__(directory)
        self._call = call
        self.trace = directory / "trace"
        Path(self.places.config).parent.mkdir(parents=True)
        Path(self.places.config).write_text(
            f"repo: {self.repo}\nhost: node1\ninventory: inventories/hosts\n"
        )
        self.config = self.config.from_json(
            {**self.config.to_json(), "host": "node1", "inventory": "inventories/hosts"}
        )
        self.older = self.repo.commit({"site.yml": "[]\n", "inventories/hosts": INVENTORY})
        self.trusted = self.commit(SITE)
        self.run()
        self.repo.git("reset", "--quiet", "--hard", self.older)
        site = f"{SITE}    - {{name: evil, evil: {{trace: {self.trace}}}}}\n"
        self.refused = self.repo.commit({"site.yml": site, "modules/evil.py": EVIL})
        self.run()

    @property
    def mirror(self) -> Mirror:
        return Mirror(mirror_path(self.places.mirrors, str(self.repo), "main"))

    def __call__(self, *words: object) -> Done:
        return self._call(*words)

    def plan(self, *words: object, verb: str = "plan") -> Done:
        return self(verb, "--root", self.root, *words)


@pytest.fixture
def host(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    places = Places(str(tmp_path / "root"))
    monkeypatch.setattr("reconciler.cli.followed.Places", lambda: places)
    monkeypatch.setattr("reconciler.cli.followed.os.geteuid", lambda: 0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return Host(tmp_path, call)


# -- what is trusted -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_refused_commit_does_not_run_as_root_unless_a_person_means_it(
    host: Host, verb: str
) -> None:
    named = ("-C", host.mirror.path, "--local", "--ref")
    for ref in (host.refused, host.refused[:10], "origin/main", "main"):
        done = host.plan(*named, ref, verb=verb)
        assert done.code == 10, done
        assert f"this host does not trust commit {host.refused[:12]}" in done.err
        assert "--allow-untrusted" in done.err
    assert not host.trace.exists()
    done = host.plan(*named, host.refused, "--allow-untrusted", verb=verb)
    assert done.code == 0, done
    assert host.trace.exists()


def test_pointers_of_the_one_who_owns_the_mirror_say_nothing_about_trust(host: Host) -> None:
    host.mirror.point("trusted", host.refused)
    assert host.plan("--ref", host.refused).code == 10
    assert host.plan("--ref", "agent/trusted").code == 10
    assert host.trusted[:12] in host.plan("--ref", "trusted").out
    assert not host.trace.exists()


def test_nor_does_what_he_makes_of_the_trusted_commit_itself(host: Host) -> None:
    """Another parent in it, and git takes what was refused for older than it."""
    raw = host.repo.git("cat-file", "commit", host.trusted) + "\n"
    forged = raw.replace("\nparent ", f"\nparent {host.refused}\nparent ")
    forge(host.mirror.path, host.trusted, forged.encode())
    assert host.mirror.git.run("rev-list", "--ancestry-path", host.trusted, f"^{host.refused}")
    done = host.plan("-C", host.mirror.path, "--local", "--ref", host.refused)
    assert done.code == 5
    assert "somebody has written into it" in done.err
    assert not host.trace.exists()


def test_without_a_memory_of_what_was_trusted_nothing_is(host: Host) -> None:
    for name in ("trust.json", "trust.json.bak"):
        Path(host.places.trust, name).write_text("garbage")
    done = host.plan("--ref", host.trusted)
    assert done.code == 10
    assert "reconciler trust reset" in done.err


def test_a_mirror_of_something_else_and_other_hosts_are_not_served(host: Host) -> None:
    other = Mirror(mirror_path(host.places.mirrors, str(host.repo), "other"))
    other.create()
    done = host.plan("--local", "-C", other.path, "--ref", "main")
    assert done.code == 3
    assert host.mirror.path in done.err
    done = host("plan", "-C", host.mirror.path, "-i", "inventories/hosts", "--ref", "trusted")
    assert done.code == 3
    assert "--local" in done.err


def test_a_way_around_by_a_link_is_none(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(host.mirror.path)
    assert host.plan("--local", "-C", tmp_path / "link", "--ref", host.refused).code == 10
    assert host.plan("--local", "-C", f"{host.mirror.path}/refs", "--ref", host.refused).code == 3
    os.rename(host.mirror.path, tmp_path / "moved")
    Path(host.mirror.path).symlink_to(tmp_path / "moved")
    for path in (host.mirror.path, f"{host.mirror.path}/", f"{host.mirror.path}/."):
        assert host.plan("--local", "-C", path, "--ref", host.refused).code == 10
    assert not host.trace.exists()


# -- what is taken from the agent ----------------------------------------------------------------


def test_a_plan_needs_no_more_than_a_name(host: Host) -> None:
    (host.root / "etc/motd").write_text("by hand\n")
    for words in ((), ("--ref", "applied"), ("--ref", "good"), ("--ref", host.trusted[:10])):
        done = host.plan(*words)
        assert done.code == 0, done
        assert done.out.startswith(f"plan for node1, commit {host.trusted[:12]}")
        assert "-by hand" in done.out
    done = host.plan("--ref", "candidate")
    assert (done.code, "no candidate commit" in done.err) == (3, True)
    done = host.plan("--ref", "nonsense")
    assert (done.code, "origin/main" in done.err) == (3, True)
    done = host.plan("--ref", host.older, "--host", "node2")
    assert (done.code, "no play of site.yml is for node2" in done.err) == (3, True)


def test_an_apply_wants_to_be_told_which_commit(host: Host) -> None:
    (host.root / "etc/motd").write_text("by hand\n")
    assert host.plan(verb="apply").code == 3
    assert host.motd() == "by hand\n"
    assert host.plan("--ref", "applied", verb="apply").code == 0
    assert host.motd() == "hello\n"


def test_tags_and_limits_select(host: Host) -> None:
    assert "nothing on node1 has the tag 'web'" in host.plan("--tags", "web").err
    assert "leaves out node1" in host.plan("--limit", "node2").err
    assert host.plan("--limit", "node1").code == 0


def test_why_tells_of_what_is_applied(host: Host) -> None:
    done = host("why", "file:/etc/motd")
    assert done.code == 0, done
    assert f"file:/etc/motd  on node1, commit {host.trusted[:12]}" in done.out
    assert f"{host.trusted[:12]}  2026-01-02  Ada <ada@example.org>  a change" in done.out
    assert "facts: last contact" in done.out


def test_diff_tells_what_a_refused_commit_would_change_and_runs_none_of_it(host: Host) -> None:
    done = host("diff", "applied", "origin/main")
    assert done.code == 0, done
    assert done.out.startswith("diff from applied to origin/main\n\n1 host: node1\n")
    assert f"+ evil:{host.trace}" in done.out
    assert not host.trace.exists()


def test_a_state_repo_at_hand_is_what_is_meant(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host.repo.path)
    done = host.plan("--local", "--host", "node2", "-i", "inventories/hosts", "--ref", host.older)
    assert "no play of site.yml is for node2" in done.err
    Path(host.places.config).unlink()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "is no state repo" in host.plan().err


def test_who_is_not_root_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.cli.followed.os.geteuid", lambda: 1000)
    done = host("plan")
    assert (done.code, "sudo reconciler" in done.err) == (3, True)


def test_before_the_first_fetch_there_is_nothing(host: Host) -> None:
    os.rename(host.mirror.path, f"{host.mirror.path}.away")
    assert "the agent has fetched nothing yet" in host.plan().err


# -- rights --------------------------------------------------------------------------------------

LOOK = """\
import os, sys
from reconciler.agent.places import Places
from reconciler.cli import followed
from reconciler.cli.desired import open_repo

followed.Places = lambda: Places(sys.argv[1])
tree = open_repo(sys.argv[2], sys.argv[3])
print(os.getresuid(), os.getresgid(), os.getgroups(), tree.read("site.yml").decode()[:7])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_compiles_a_mirror_is_no_more_than_its_owner(host: Host) -> None:
    subprocess.run(["chown", "-R", "65534:65534", host.places.mirrors], check=True)
    for path in (host.root, *host.root.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    argv = [sys.executable, "-c", LOOK, str(host.root), host.mirror.path, host.refused]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    nobody = "(65534, 65534, 65534)"
    assert done.stdout == f"{nobody} {nobody} [] - hosts\n"


def test_the_state_of_the_host_is_as_the_tests_say(host: Host) -> None:
    state = State.load(host.places)
    assert (state.trusted, state.applied) == (host.trusted, host.trusted)
    assert "is not on top of" in state.problems["trust"]["message"]
    assert host.mirror.has(host.refused)
