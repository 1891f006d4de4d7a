"""What a lab session puts on the machine, and its removal, whoever is left to do it.

Every bridge, nft table, cgroup, mount and directory of a session carries the session's id, so
`destroy` needs nothing but the id: the session itself calls it at its end, and the next session
calls it for those whose owner was killed. The table of who is alive is `/run/reconciler-lab/ID/owner`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hosts import network

STATE = Path("/run/reconciler-lab")
#: Each host gets a cgroup of its own in these hierarchies: the unified one, or its hybrid names.
HIERARCHIES = [
    path
    for path in map(Path, ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"])
    if (path / "cgroup.procs").exists()
]


def cache() -> Path:
    """Where base images and the hosts' overlays live: on disk, outside of any checkout."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "reconciler-lab"


@dataclass(frozen=True)
class Session:
    """The names that belong to one lab."""

    id: str

    @property
    def state(self) -> Path:
        """Keys, control sockets and consoles: small, private, with a short path for sockets."""
        return STATE / self.id

    @property
    def overlays(self) -> Path:
        """The hosts' disks."""
        return cache() / "hosts" / self.id

    @property
    def bridge(self) -> str:
        return f"rl-{self.id}"

    def machine(self, host: str) -> str:
        """The name of a host's container, which is also the name of its cgroups."""
        return f"rl-{self.id}-{host}"

    def cgroups(self, host: str = "*") -> list[Path]:
        """The cgroups of one host, or of all."""
        name = self.machine(host)
        return [path for root in HIERARCHIES for path in sorted(root.glob(name))]

    def make_cgroups(self, host: str) -> list[Path]:
        """Make a host's cgroups: hosts that shared one would fight for its children."""
        for root in HIERARCHIES:
            (root / self.machine(host)).mkdir(exist_ok=True)
        return self.cgroups(host)


def begin() -> Session:
    """Claim a session id for this process, after the dead ones have been cleared away."""
    with exclusively():
        sweep()
        session = Session(secrets.token_hex(3))
        session.state.mkdir(mode=0o700)
        (session.state / "owner").write_text(f"{os.getpid()} {_started(os.getpid())}")
        session.overlays.mkdir(parents=True)
        network.create(session.bridge, STATE)
    return session


def destroy(session: Session) -> None:
    """Remove everything that the session made. Does nothing the second time."""
    for host in {path.name for path in session.cgroups()}:
        kill(session, host.removeprefix(session.machine("")))
    for socket in filter(Path.is_socket, session.state.glob("*")):
        hang_up = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "none"]
        subprocess.run(hang_up, check=False, capture_output=True)
    for point in reversed(mounts(session.overlays)):
        unmount(point)
    network.remove(session.bridge)
    shutil.rmtree(session.overlays, ignore_errors=True)
    shutil.rmtree(session.state, ignore_errors=True)
    for left in Path("/run/systemd/nspawn/propagate").glob(session.machine("*")):
        left.rmdir()
    if not live():
        network.restore_forwarding(STATE)


def end(session: Session) -> None:
    """Destroy a session while no other one begins."""
    with exclusively():
        destroy(session)


def sweep() -> list[Session]:
    """Destroy the sessions whose owner is gone; says which they were."""
    named = {path.name for path in STATE.glob("*/")} | {
        path.name for path in (cache() / "hosts").glob("*/")
    }
    dead = [Session(name) for name in sorted(named - {session.id for session in live()})]
    for session in dead:
        destroy(session)
    return dead


def live() -> list[Session]:
    """The sessions whose owner still runs."""
    return [Session(p.parent.name) for p in sorted(STATE.glob("*/owner")) if _owned(p)]


def kill(session: Session, host: str) -> None:
    """End every process of a host at once, as a power cut does, and wait until they are gone."""
    deadline = time.monotonic() + 20
    while pids := _processes(session.cgroups(host)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of {host} survive SIGKILL: {sorted(pids)}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for top in session.cgroups(host):
        for path in sorted(top.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
            path.rmdir()
        top.rmdir()


def mounts(below: Path) -> list[Path]:
    """Mount points below a directory, in the order in which they were made."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    points = [line.split()[1].replace("\\040", " ") for line in lines]
    return [Path(point) for point in points if point.startswith(f"{below}/")]


def unmount(point: Path) -> None:
    """Unmount; a file still open on our side must not keep the mount point busy for ever."""
    if subprocess.run(["umount", str(point)], check=False, stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextlib.contextmanager
def exclusively() -> Iterator[None]:
    """One session at a time begins, ends or sweeps."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _processes(cgroups: list[Path]) -> set[int]:
    """Every process in these cgroups and below them."""
    found: set[int] = set()
    for top in cgroups:
        for procs in [top / "cgroup.procs", *top.rglob("cgroup.procs")]:
            with contextlib.suppress(FileNotFoundError, OSError):
                found.update(map(int, procs.read_text().split()))
    return found


def _owned(owner: Path) -> bool:
    """Whether the process that wrote this file still runs; a recycled pid has another start."""
    pid, _, started = owner.read_text().partition(" ")
    return bool(pid) and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
