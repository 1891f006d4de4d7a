"""Fleet runs on a real scheduler and two real workers, each a process of its own on loopback."""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import reconciler
from push.cluster import Cluster, certificates
from push.openings import PLACE, Broken, Files, Missing
from push.test_fleet import Quiet, states
from reconciler.engine.wire import Message
from reconciler.errors import (
    ConfigError,
    ConfigErrors,
    HostUnreachable,
    InventoryError,
    UsageError,
)
from reconciler.push.fleet import Course, Fleet, Terms
from reconciler.push.host import Options
from reconciler.push.order import Opening, Order, code_digest
from reconciler.push.rollout import Batch, Limits
from reconciler.push.task import Manner
from reconciler.push.workers import Keys, Workers, WorkerWork

pytestmark = pytest.mark.timeout(120)
NO_KEYS = Keys()


def order(**other: Any) -> Order:
    known: dict[str, Any] = {
        "id": os.urandom(8).hex(), "commit": "c" * 40, "inventories": (), "tags": (),
        "skip_tags": (), "allow_empty": False, "manner": Manner("apply", Options()),
        "events": True, "code": code_digest(), "desired": "",
    }  # fmt: skip
    return Order(**{**known, **other})


class World:
    """Hosts that are files, and runs over them."""

    def __init__(self, path: Path, cluster: Cluster) -> None:
        self.path = path
        self.cluster = cluster
        self.listener = Quiet()

    def run(
        self,
        *hosts: str,
        keys: Keys = NO_KEYS,
        orders: Order | None = None,
        opening: Opening = Files,
        **terms: Any,
    ) -> Course:
        known: dict[str, Any] = {"limits": Limits(), "host_timeout": 60.0, **terms}
        with (
            Workers(self.cluster.address, keys) as workers,
            WorkerWork(workers, opening, orders or order()) as work,
        ):
            fleet = Fleet(work, Terms(len(hosts), **known), self.listener, workers)

            def heard(message: Message) -> None:
                host = str(message["host"])
                if message["event"] == "begun":
                    fleet.begun(host)
                else:
                    fleet.tell(host, message)

            workers.listen(heard)
            return fleet.run([Batch(hosts)])

    def worker_of(self, host: str) -> int:
        """The number of the worker that a host began on."""
        pid = self.told(host)[0][1]
        pids = [str(worker.pid) for worker in self.cluster.workers]
        return pids.index(pid)

    def told(self, host: str) -> list[list[str]]:
        """What a host remembers."""
        return [line.split() for line in (self.path / host).read_text().splitlines()]

    def when(self, host: str, act: Callable[[], None]) -> None:
        """Do something as soon as a host has begun."""

        def wait() -> None:
            while not (self.path / host).exists() or "begin" not in (self.path / host).read_text():
                time.sleep(0.02)
            act()

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Cluster]]:
    path = tmp_path_factory.mktemp("cluster")
    hosts = path / "hosts"
    hosts.mkdir()
    with Cluster(path, settings={PLACE: str(hosts)}) as cluster:
        yield hosts, cluster


@pytest.fixture
def world(shared: tuple[Path, Cluster]) -> World:
    path, cluster = shared
    for file in path.iterdir():
        file.unlink()
    return World(path, cluster)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """With a cluster that may be broken."""
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    with Cluster(tmp_path, settings={PLACE: str(hosts)}) as cluster:
        yield World(hosts, cluster)


# -- what a task is --------------------------------------------------------------------------


def test_hosts_run_in_other_processes_and_their_outcomes_come_back(world: World) -> None:
    course = world.run("a", "slow0.2-b", "slow0.2-c", "slow0.2-d", "slow0.2-e", "wrong-f")
    assert set(states(course).values()) == {"ok", "failed"}
    wrong = course.outcomes[-1].error
    assert isinstance(wrong, ConfigErrors)
    assert [str(error) for error in wrong.errors] == [
        "site.yml:1:1: 1 is wrong", "site.yml:2:1: 2 is wrong",
    ]  # fmt: skip
    pids = {world.told(host)[0][1] for host in ("a", "slow0.2-b", "slow0.2-c", "slow0.2-d")}
    assert pids <= {str(worker.pid) for worker in world.cluster.workers}
    assert len(pids) == 2, "both workers had something to do"


def test_what_hosts_are_at_is_heard_but_not_every_word(world: World) -> None:
    world.run("a")
    events = [told[2] for told in world.listener.told if told[0] == "event"]
    assert [event["resource"] for event in events] == ["file:/a"]


def test_at_its_end_a_run_is_closed_on_the_workers(world: World) -> None:
    world.run("slow0.3-a", "slow0.3-b", "slow0.3-c", "slow0.3-d", "slow0.3-e")
    closed = {f"closed-{worker.pid}" for worker in world.cluster.workers}
    for _ in range(100):
        if closed <= {file.name for file in world.path.iterdir()}:
            return
        time.sleep(0.05)
    pytest.fail(str(list(world.path.iterdir())))


@pytest.mark.parametrize("kind", ["scheduler", "worker"])
@pytest.mark.parametrize("code", ["other", "none"])
def test_a_part_of_the_cluster_with_other_code_is_found_before_anything_begins(
    tmp_path: Path, kind: str, code: str
) -> None:
    """dask itself would end each worker that is given a task which it cannot read."""
    package = tmp_path / "before/reconciler"
    if code == "other":
        shutil.copytree(Path(reconciler.__file__).parent, package)
        with (package / "errors.py").open("a") as file:
            file.write("# patched\n")
    else:
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    with Cluster(tmp_path, 1, paths={kind: tmp_path / "before"}) as cluster:
        with pytest.raises(ConfigError, match="does not run the same reconciler") as raised:
            Workers(cluster.address, NO_KEYS)
        assert raised.value.message.startswith("the scheduler" if kind == "scheduler" else "tcp://")
        assert ("No module named" in raised.value.message) == (code == "none")
        assert cluster.workers[0].poll() is None


def test_a_worker_that_came_later_with_other_code_refuses_its_tasks(world: World) -> None:
    course = world.run("a", orders=order(code="0" * 64))
    assert "runs other code than the controller" in str(course.outcomes[0].error)
    assert course.outcomes[0].exit_code == 3
    assert not (world.path / "a").exists()


def test_what_cannot_be_opened_is_tried_once_on_each_worker_and_said_for_every_host(
    world: World,
) -> None:
    hosts = [f"h{number}" for number in range(6)]
    course = world.run(*hosts, opening=Broken)
    assert set(states(course).values()) == {"unreachable"}
    said = [(one.error.host, one.error.message) for one in course.outcomes if one.error]
    assert said == [(host, "the state repo is out of reach") for host in hosts]
    assert len(list(world.path.glob("tried-*"))) <= 2


def test_why_it_cannot_be_opened_is_one_error_for_the_first_host_and_for_the_last(
    world: World,
) -> None:
    course = world.run(*(f"h{number}" for number in range(6)), opening=Missing)
    said = [
        (type(one.error), one.error.message, one.error.hint) for one in course.outcomes if one.error
    ]
    assert said == [(InventoryError, "there is no hosts.yml", "name another one")] * 6
    assert {one.exit_code for one in course.outcomes} == {3}


def test_a_task_is_the_name_of_a_host_and_digests(world: World) -> None:
    """What a task holds is spelled out, so that who adds to it thinks of secrets."""
    assert set(Order.__annotations__) == {
        "id", "commit", "inventories", "tags", "skip_tags", "allow_empty", "manner", "events",
        "code", "desired",
    }  # fmt: skip
    with Workers(world.cluster.address, NO_KEYS) as workers:
        task = WorkerWork(workers, Files, order(desired="d" * 64)).run
    sent = pickle.dumps((task, "web1"))
    assert b"d" * 64 in sent
    assert len(sent) < 2048


# -- being lost ------------------------------------------------------------------------------


def test_a_killed_workers_hosts_are_done_by_the_other_and_never_twice_at_once(own: World) -> None:
    hosts = [f"slow1-{number}" for number in range(6)]
    own.when("slow1-0", lambda: own.cluster.kill(own.worker_of("slow1-0")))
    course = own.run(*hosts)
    assert set(states(course).values()) == {"ok"}
    killed = own.worker_of("slow1-0")
    other = str(own.cluster.workers[1 - killed].pid)
    assert [line[0] for line in own.told("slow1-0")] == ["begin", "begin", "end"]
    for host in hosts:
        # The last attempt is the other's, and it alone came to an end.
        assert own.told(host)[-2][:2] == ["begin", other]
        assert [line[0] for line in own.told(host)].count("end") == 1


@pytest.mark.soak
def test_a_host_whose_lost_engine_is_still_at_work_is_waited_for(own: World) -> None:
    """The lock of the lost attempt stays: this process takes it over, as the engine on a host."""
    lock = (own.path / "slow3-a").open("a")

    def lose() -> None:
        threading.Timer(0.3, lambda: own.cluster.kill(own.worker_of("slow3-a"))).start()
        fcntl.flock(lock, fcntl.LOCK_EX)
        time.sleep(1.0)
        lock.write("engine ended\n")
        lock.close()

    own.when("slow3-a", lose)
    course = own.run("slow3-a", host_timeout=30.0)
    assert states(course) == {"slow3-a": "ok"}
    told = own.told("slow3-a")
    assert [line[0] for line in told] == ["begin", "engine", "begin", "end"]
    assert told[2][2] == "True", "the attempt that got the lock had been told to wait"


def test_a_busy_lock_is_not_waited_for_where_nothing_was_lost(world: World) -> None:
    with (world.path / "a").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        course = world.run("a")
    assert course.outcomes[0].exit_code == 9


@pytest.mark.soak
def test_without_a_worker_left_a_host_is_out_of_reach_at_its_time_limit(own: World) -> None:
    def all_die() -> None:
        own.cluster.kill(0)
        own.cluster.kill(1)

    own.when("slow30-a", all_die)
    begun = time.monotonic()
    course = own.run("slow30-a", host_timeout=1.5)
    assert states(course) == {"slow30-a": "unreachable"}
    assert time.monotonic() - begun < 20


@pytest.mark.soak
def test_without_its_scheduler_a_run_ends(own: World) -> None:
    def die() -> None:
        own.cluster.scheduler.kill()

    own.when("slow60-a", die)
    begun = time.monotonic()
    course = own.run("slow60-a", "slow60-b")
    assert set(states(course).values()) == {"unreachable"}
    assert "the scheduler was lost" in str(course.outcomes[0].error)
    assert time.monotonic() - begun < 50


def test_limits_are_held_against_all_workers_together(world: World) -> None:
    course = world.run("a", "wrong-b", "c", parallel=1, limits=Limits(failed=0))
    assert states(course) == {"a": "ok", "wrong-b": "failed", "c": "held"}
    assert course.stopped == "1 of 3 hosts failed, and 0 may be"


# -- being told to stop ------------------------------------------------------------------------


def test_ctrl_c_stops_hosts_on_workers_at_their_boundary(world: World) -> None:
    world.when("slow60-a", lambda: os.kill(os.getpid(), signal.SIGINT))
    course = world.run("slow60-a", "slow60-b")
    assert course.interrupted
    assert set(states(course).values()) == {"interrupted"}
    assert world.told("slow60-a")[-1] == ["stopped"]


@pytest.mark.soak
def test_a_host_that_is_over_its_time_is_hung_up_on_and_its_time_counts_from_its_beginning(
    world: World,
) -> None:
    """Eight threads, each busy for 1.5 of the 2 seconds: the ninth host begins late, and is in time."""
    early = [f"slow1.5-{number}" for number in range(8)]
    course = world.run(*early, "slow1.5-late", "slow60-hangs", host_timeout=2.0)
    assert states(course) == {
        **dict.fromkeys([*early, "slow1.5-late"], "ok"), "slow60-hangs": "unreachable",
    }  # fmt: skip
    for _ in range(100):
        if (world.path / "slow60-hangs.abandoned").exists():
            return
        time.sleep(0.05)
    pytest.fail("the worker was not told")


# -- who may speak -----------------------------------------------------------------------------


def test_over_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    keys, others = certificates(tmp_path / "keys"), certificates(tmp_path / "others")
    with Cluster(tmp_path, keys=keys, settings={PLACE: str(hosts)}) as cluster:
        world = World(hosts, cluster)
        assert cluster.address.startswith("tls://")
        assert states(world.run("a", "b", keys=keys)) == {"a": "ok", "b": "ok"}
        with pytest.raises(HostUnreachable, match="no scheduler answers at tls://"):
            world.run("c", keys=others)
        with pytest.raises(UsageError, match="takes TLS"):
            world.run("c")
        cluster.address = cluster.address.replace("tls://", "dask://")
        with pytest.raises(HostUnreachable, match="no scheduler answers at tcp://"):
            world.run("c")
        assert not (hosts / "c").exists()


@pytest.mark.parametrize(
    "address",
    ["dask://10.1.2.3:8786", "dask://dask.example", "tls://127.0.0.1", "dask://[2001:db8::1]"],
)
def test_without_certificates_only_this_machine_is_spoken_to(address: str) -> None:
    with pytest.raises(UsageError, match="there are no certificates for it") as raised:
        Workers(address, NO_KEYS)
    assert "--tls-ca-file" in raised.value.hint


def test_certificates_that_cannot_be_used_are_said_so(tmp_path: Path) -> None:
    keys = certificates(tmp_path / "keys")
    with pytest.raises(UsageError, match=r"cannot be used: .*No such file"):
        Workers("dask://127.0.0.1:9", keys._replace(key=str(tmp_path / "nosuch")))
    with pytest.raises(UsageError, match="cannot be used"):
        Workers("dask://127.0.0.1:9", keys._replace(cert=keys.key))


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "dask://", "dask://a b", "dask://a:99999"]
)
def test_what_is_no_address_is_said_so(address: str) -> None:
    with pytest.raises(UsageError, match="is no executor"):
        Workers(address, NO_KEYS)


def test_where_nobody_listens_there_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.push.workers.PATIENCE", 1.0)
    with pytest.raises(HostUnreachable, match="no scheduler answers at tcp://") as raised:
        Workers("dask://127.0.0.1:9", NO_KEYS)
    assert "dask scheduler" in raised.value.hint
