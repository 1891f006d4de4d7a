"""`--executor dask://` as a person calls it, over directory roots that workers converge."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import program
from push.cluster import Cluster
from reconciler.cli.console import Output
from reconciler.cli.desired import Desired
from reconciler.cli.workers import Site, order_of
from reconciler.compile.cache import CatalogCache
from reconciler.errors import ConfigError, SourceError
from reconciler.push.host import Options
from reconciler.push.nearby import check_settings, repo_with
from reconciler.push.task import Manner
from reconciler.push.worker import perform
from source.conftest import Repo
from source.servers import https_server, make_certificate

SITE = """\
- hosts: all
  resources:
    - file: {path: /srv/site, state: directory, mode: "0755"}
    - copy: {dest: /srv/site/index, content: "{{ inventory_hostname }}\\n", mode: "0644"}
    - command:
        argv: [sh, -c, "echo begin >>/srv/log; sleep {{ slow }}; echo end >>/srv/log; : >/srv/{{ item }}"]
        creates: "/srv/{{ item }}"
      loop: [one, two, three]
"""
SECRET = "hunter2-of-the-inventory"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a chroot takes root"),
    pytest.mark.timeout(240),
]


class World:
    """A state repo, the roots of hosts h0 to h3 and a cluster whose workers know the repo."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repo = Repo(path / "repo")
        self.hosts = {f"h{number}": self._root(f"h{number}") for number in range(4)}
        self.declare(slow=0.05)
        self.settings = {
            "DASK_RECONCILER__REPO": str(self.repo),
            "XDG_CACHE_HOME": str(path / "cache-of-workers"),
        }

    def _root(self, name: str) -> dict[str, Any]:
        root = self.path / name
        for directory in ("srv", "etc", "bin"):
            (root / directory).mkdir(parents=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        for name in ("sh", "sleep"):
            _install(name, root)
        return {"ansible_connection": "chroot", "ansible_host": str(root)}

    def declare(self, *, slow: float, **more: dict[str, Any]) -> str:
        """Commit what is wanted; the id of the commit."""
        variables = {"slow": slow, "ansible_password": SECRET}
        hosts = {"all": {"hosts": {**self.hosts, **more}, "vars": variables}}
        return self.repo.commit({"site.yml": SITE, "hosts.yml": json.dumps(hosts)})

    def start(self, *words: str, inventory: str = "hosts.yml") -> subprocess.Popen[str]:
        verb, *rest = words
        return program.start(self.path, verb, "-C", "repo", "-i", inventory, *rest)

    def call(self, *words: str, inventory: str = "hosts.yml") -> tuple[int, str, str]:
        return program.ended(self.start(*words, inventory=inventory), 100)

    def log(self, host: str) -> list[str]:
        """What the commands on a host wrote."""
        file = self.path / host / "srv/log"
        return file.read_text().split() if file.exists() else []

    def wait_until_at_work(self) -> None:
        for _ in range(1200):
            if all(map(self.log, self.hosts)):
                return
            time.sleep(0.05)
        raise TimeoutError("no host begins")


def _install(name: str, root: Path) -> None:
    """A program and the libraries that it needs."""
    path = shutil.which(name)
    assert path
    shutil.copy(path, root / "bin" / name)
    for word in subprocess.check_output(["ldd", path], text=True).split():
        if word.startswith("/"):
            library = root / word.lstrip("/")
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, library)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def cluster(world: World, tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    with Cluster(tmp_path / "cluster", threads=2, settings=world.settings) as cluster:
        yield cluster


# -- runs --------------------------------------------------------------------------------------


def test_workers_converge_hosts_and_a_second_run_changes_nothing(
    world: World, cluster: Cluster
) -> None:
    there = ["--executor", cluster.address, "--json"]
    code, out, err = world.call("apply", *there)
    assert code == 0, err
    assert {one["state"] for one in json.loads(out)["states"].values()} == {"changed"}
    assert (world.path / "h2/srv/site/index").read_text() == "h2\n"
    code, out, err = world.call("apply", *there, "--detailed-exitcode")
    assert (code, json.loads(out)["summary"]["ok"]) == (0, 4), err
    assert not (world.path / "cache/reconciler/engines").exists(), "hosts are not reached from here"
    said = [cluster.log(name) for name in ("scheduler", "w0", "w1")]
    assert SECRET not in "".join([out, err, *said])
    assert len(list((world.path / "cache/reconciler/facts").iterdir())) == 4, "for check and diff"
    commit = world.repo.commit({"site.yml": SITE.replace("{{ slow }}", "{{ nosuch }}")})
    code, out, err = world.call("plan", *there)
    assert code == 3, "what is wrong is found by the workers"
    errors = [one["errors"][0] for one in json.loads(out)["hosts"].values()]
    assert {(error["kind"], error["source"][0]) for error in errors} == {
        ("TemplateError", "site.yml")
    }
    code, out, err = world.call("plan", *there, "--ref", f"{commit}~1", "--detailed-exitcode")
    assert code == 0


@pytest.mark.timeout(60)
def test_an_expression_without_end_costs_its_own_host_seconds_and_no_other(
    world: World, cluster: Cluster
) -> None:
    endless = "      when: inventory_hostname != 'h2' or (40 * 'a' ~ '!') is match('(a+)+$')\n"
    world.repo.commit({"site.yml": SITE + endless})
    code, out, err = world.call("apply", "--executor", cluster.address, "--json")
    assert code == 3, err
    found = json.loads(out)
    states = {host: one["state"] for host, one in found["states"].items()}
    assert states == {"h0": "changed", "h1": "changed", "h2": "failed", "h3": "changed"}
    assert "'(a+)+$' took more than 2 s" in found["hosts"]["h2"]["errors"][0]["message"]
    code, out, err = world.call("apply", "--executor", cluster.address, "--limit", "!h2", "--json")
    assert code == 0, "the workers go on"


def test_with_a_worker_killed_in_mid_run_every_host_ends_converged_and_none_runs_twice_at_once(
    world: World, cluster: Cluster
) -> None:
    """The commands on a host write when they begin and end. The engine of a lost worker ends the
    one that it is at, so whoever did not wait for its lock would begin in between."""
    world.declare(slow=1.5)
    process = world.start("apply", "--executor", cluster.address, "--json", "--diff")
    world.wait_until_at_work()
    # Both are busy with two hosts each; with a third one the lost hosts begin again at once.
    cluster.add()
    cluster.kill(0)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, (out, err)
    # Who was lost after its last change and before its report is found in sync.
    states = {host: one["state"] for host, one in json.loads(out)["states"].items()}
    assert set(states.values()) <= {"changed", "ok"}
    for host in world.hosts:
        assert world.log(host) == ["begin", "end"] * 3
    assert world.call("apply", "--detailed-exitcode")[0] == 0, "all is as it is to be"


def test_ctrl_c_reaches_the_engines_of_workers(world: World, cluster: Cluster) -> None:
    world.declare(slow=2.0)
    process = world.start("apply", "--executor", cluster.address, "--json")
    world.wait_until_at_work()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert {one["state"] for one in json.loads(out)["states"].values()} == {"interrupted"}
    for host in world.hosts:
        done = len(world.log(host)) // 2
        assert world.log(host) == ["begin", "end"] * done, "no resource was cut off"
        assert done < 3


@pytest.mark.soak
def test_without_its_controller_hosts_at_work_are_finished_and_the_run_is_resumed(
    world: World, cluster: Cluster
) -> None:
    world.declare(slow=1.0)
    process = world.start("apply", "--executor", cluster.address, "--parallel", "2")
    for _ in range(1200):
        if sum(bool(world.log(host)) for host in world.hosts) == 2:
            break
        time.sleep(0.05)
    process.kill()
    process.communicate()
    for _ in range(1200):
        if sum(len(world.log(host)) == 6 for host in world.hosts) == 2:
            break
        time.sleep(0.05)
    time.sleep(1.0)
    assert sorted(len(world.log(host)) for host in world.hosts) == [0, 0, 6, 6]
    code, out, err = world.call(
        "apply", "--executor", cluster.address, "--resume", "last", "--json"
    )
    assert code == 0, err
    assert sorted(one["state"] for one in json.loads(out)["states"].values()) == [
        "changed", "changed", "ok", "ok",
    ]  # fmt: skip


# -- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        (["--ask-pass"], "--ask-pass does not reach workers"),
        (["--become-password-file", "x"], "--become-password-file does not reach workers"),
        (["--ssh-config", "x"], "--ssh-config does not reach workers"),
        (["--executor", "dask://10.0.0.1"], "there are no certificates"),
        (["--executor", "processes"], "'processes' is no executor"),
        (["--limit", "here"], "ansible_connection=local is this machine"),
        (["--tls-cert", "x"], "there are no certificates"),
    ],
)
def test_what_workers_cannot_do_is_refused(world: World, words: list[str], said: str) -> None:
    world.declare(slow=0, here={"ansible_connection": "local"})
    limit = [] if "--limit" in words else ["--limit", "h1"]
    code, out, err = world.call("apply", "--executor", "dask://127.0.0.1:9", *limit, *words)
    assert code == 3, out
    assert said in err


def test_files_that_are_no_commit_and_inventories_outside_of_it_are_refused(world: World) -> None:
    executor = ["--executor", "dask://127.0.0.1:9"]
    (world.path / "outside.yml").write_text("all: {hosts: {a: {}}}\n")
    code, _, err = world.call("apply", *executor, inventory="outside.yml")
    assert (code, "is not a part of the commit" in err) == (3, True)
    world.repo.commit({"made.yml": "plugin: constructed\ngroups: {x: true}\n"})
    code, _, err = world.call("apply", *executor, "-i", "made.yml")
    assert (code, "made from facts" in err) == (3, True), err
    world.repo.write({"site.yml": "- hosts: all\n"})
    code, _, err = world.call("apply", *executor)
    assert (code, "workers apply commits" in err) == (3, True)


def test_without_the_extra_it_is_said_what_to_install(world: World) -> None:
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from reconciler.cli.main import main; sys.exit(main())"
    )
    words = ["plan", "-C", "repo", "-i", "hosts.yml", "--executor", "dask://127.0.0.1:9"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=world.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "pip install 'reconciler[fleet]'" in done.stderr


def test_certificates_without_workers_are_refused(world: World) -> None:
    code, _, err = world.call("plan", "--tls-cert", "x")
    assert code == 3
    assert "certificates are for workers" in err


def test_dask_is_imported_for_workers_only(world: World) -> None:
    code = (
        "import sys; from reconciler.cli.main import main; code = main()\n"
        "print({'dask', 'distributed'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", "-C", "repo", "-i", "hosts.yml"],
        cwd=world.path,
        env={**os.environ, "XDG_CACHE_HOME": str(world.path / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("set()\n")


# -- the two sides -----------------------------------------------------------------------------


def test_no_secret_is_in_a_task_though_the_inventory_has_one(world: World) -> None:
    cache, out = CatalogCache(str(world.path / "cache")), Output()
    commit = world.repo.git("rev-parse", "HEAD")
    args = Namespace(inventories=["hosts.yml"], tags=[], skip_tags=[], allow_empty=False)
    desired = Desired(str(world.repo), commit, ["hosts.yml"], cache, out)
    assert desired.inventory.variables("h1")["ansible_password"] == SECRET
    order = order_of(args, desired, Manner("apply", Options()), events=True)
    sent = pickle.dumps((perform, Site, order, "h1"))
    assert commit.encode() in sent
    assert order.desired.encode() in sent
    assert SECRET.encode() not in sent


def test_a_worker_refuses_a_tree_that_is_not_the_coordinators(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(world.path / "cache"))
    args = Namespace(inventories=["hosts.yml"], tags=[], skip_tags=[], allow_empty=False)
    commit = world.repo.git("rev-parse", "HEAD")
    desired = Desired(str(world.repo), commit, ["hosts.yml"], CatalogCache(), Output())
    good = order_of(args, desired, Manner("apply", Options()), events=True)
    settings = {"repo": str(world.repo)}
    Site(good, settings, lambda host, event: None).close()
    other = world.declare(slow=7)
    wrong = order_of(args, desired, Manner("apply", Options()), events=True)
    object.__setattr__(wrong, "commit", other)
    with pytest.raises(ConfigError, match="is not the controller's"):
        Site(wrong, settings, lambda host, event: None)


def test_a_worker_with_an_address_fetches_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    repo = Repo(tmp_path / "state.git", "--bare")
    work = Repo(tmp_path / "work")
    (tmp_path / "tls").mkdir()
    certificate = make_certificate(tmp_path / "tls")
    with https_server(tmp_path, certificate) as server:
        settings = {"repo": f"{server.url}/state.git", "ca_file": certificate[0]}
        for subject in ("first", "second"):
            commit = work.commit({"site.yml": f"# {subject}\n"})
            with pytest.raises(SourceError):
                repo_with(settings, commit)
            work.git("push", "--quiet", str(repo), "HEAD:main")
            directory = repo_with(settings, commit)
            assert Path(directory).is_relative_to(tmp_path / "cache")
        work.git("push", "--quiet", str(repo), "HEAD:other")
        elsewhere = work.commit({"site.yml": "# elsewhere\n"})
        work.git("push", "--quiet", str(repo), "HEAD:other")
        with pytest.raises(SourceError, match="is not on main of") as raised:
            repo_with(settings, elsewhere)
        assert "push it to main" in raised.value.hint
    repo_with(settings, commit)  # it is here by now, and nobody is asked


def test_a_worker_with_a_directory_takes_what_is_there(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    commit = repo.commit({"site.yml": ""})
    assert repo_with({"repo": str(repo)}, commit) == str(repo)
    with pytest.raises(SourceError, match="commit cccccccccccc is not in") as raised:
        repo_with({"repo": str(repo)}, "c" * 40)
    assert f"git -C {repo} fetch" in raised.value.hint


def test_settings_of_a_worker_are_checked() -> None:
    with pytest.raises(ConfigError, match="does not know where the state repo is"):
        check_settings({})
    with pytest.raises(ConfigError, match=r"no setting reconciler\.brnch") as raised:
        check_settings({"repo": "/x", "brnch": "main"})
    assert "branch" in raised.value.hint
