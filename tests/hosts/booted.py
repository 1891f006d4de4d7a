"""One booted host: a systemd machine with its own address, reached through real ssh."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from hosts import network, snapshot
from hosts import session as sessions
from hosts.access import Access, generate_key
from hosts.image import Image
from hosts.session import Session

#: Joins the cgroups named before `--` and becomes the program after it.
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
NETWORK_UNIT = """\
[Match]
Name=host0

[Network]
Address={address}
Gateway={gateway}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


class RemoteError(subprocess.CalledProcessError):
    """A program on a host failed; the message has what it said."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stdout or ''}{self.stderr or ''}".rstrip()


@dataclass
class BootedHost:
    """A running host. `root` is its disk as seen from our side, `address` its IP address."""

    name: str
    image: Image
    session: Session
    interface: IPv4Interface
    access: Access
    binds: Sequence[Path]
    _container: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return str(self.interface.ip)

    @property
    def disk(self) -> Path:
        """The overlay: `upper` is what differs from the image, `root` the whole."""
        return self.session.overlays / self.name

    @property
    def root(self) -> Path:
        return self.disk / "root"

    @property
    def console(self) -> Path:
        """What the host printed while it booted."""
        return self.session.state / f"{self.name}.console"

    @property
    def leader(self) -> int:
        """The pid of the host's PID 1, as we see it."""
        container = self._running()
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text()
        for pid in children.split():
            status = Path(f"/proc/{pid}/status").read_text()
            if any(line.split()[2:] == ["1"] for line in status.splitlines() if "NSpid" in line):
                return int(pid)
        raise RuntimeError(f"{self.name} has no PID 1")

    # --- programs and files ---

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host, as root, over ssh."""
        ssh = ["ssh", "-F", str(self.access.config), self.name, "--", shlex.join(argv)]
        done = subprocess.run(
            ssh, check=False, capture_output=True, text=True, timeout=timeout, input=input or ""
        )
        if check and done.returncode:
            command = f"{self.name}: {shlex.join(argv)}"
            raise RemoteError(done.returncode, command, done.stdout, done.stderr)
        return done

    def reconciler(
        self, *args: str, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run the `reconciler` under test on the host (bookworm only: it has our Python)."""
        if Path(sys.prefix) not in self.binds:
            raise RuntimeError(f"{self.name} ({self.image.suite}) does not have our environment")
        return self.run([f"{sys.prefix}/bin/reconciler", *args], check=check, timeout=timeout)

    def copy(self, source: Path | str, target: str) -> None:
        """Copy a file or a directory to the host as `target`, links as links, owned by root."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(source, arcname=target.lstrip("/"), filter=_of_root)
        ssh = ["ssh", "-F", str(self.access.config), self.name, "--", "tar", "-x", "-C", "/"]
        subprocess.run(ssh, check=True, input=packed.getvalue())

    def testinfra(self) -> Any:
        """A testinfra host: what our own code says about a machine is checked by others' code."""
        import testinfra  # boots without it, in the demo

        return testinfra.get_host(f"ssh://{self.name}", ssh_config=str(self.access.config))

    def snapshot(self) -> snapshot.Snapshot:
        """Every path with its attributes and digest, but for the volatile places."""
        return snapshot.take(self.root, self.disk / "upper", self.image)

    # --- on and off ---

    def boot(self) -> None:
        """Lay the overlay over the image, give the host its identity and start it."""
        for name in ("upper", "work", "root"):
            (self.disk / name).mkdir(parents=True)
        subprocess.run(overlay(self.image.root, self.disk), check=True)
        self._identify()
        self.start()

    def start(self) -> None:
        """Start a host that is off, and wait until systemd is done and ssh answers."""
        nspawn = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot"]
        nspawn += [f"--machine={self.session.machine(self.name)}", f"--hostname={self.name}"]
        nspawn += ["--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"]
        nspawn += [f"--network-bridge={self.session.bridge}"]
        nspawn += [f"--bind-ro={path}" for path in self.binds]
        cgroups = map(str, self.session.make_cgroups(self.name))
        with self.console.open("ab") as console:
            self._container = subprocess.Popen(
                ["/bin/sh", "-c", JOIN, "sh", *cgroups, "--", *nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end our hosts ourselves
            )
        self.wait_for_ssh()
        self._wait("did not finish booting", self._settled, timeout=60)

    def wait_for_ssh(self) -> None:
        """Until sshd answers: a reload leaves a moment in which it does not."""
        self._wait("does not answer on port 22", self._answers)

    def poweroff(self) -> None:
        """Shut the host down in order; its disk stays, `start` boots it again."""
        container = self._running()
        # A host that goes down takes the connection with it: there is no exit code to look at.
        self.run(["systemctl", "poweroff"], check=False, timeout=30)
        container.wait(timeout=60)
        self._off()

    def reboot(self) -> None:
        """Shut down and boot again."""
        self.poweroff()
        self.start()

    def kill(self) -> None:
        """Pull the plug: every process ends at once, nothing is told. `start` boots again."""
        self._off()

    def discard(self) -> None:
        """Remove the host and its disk."""
        self._off()
        self.access.remove(self.name)
        sessions.unmount(self.root)
        shutil.rmtree(self.disk)

    # --- how ---

    def _identify(self) -> None:
        """What makes this host itself: name, address, keys, machine id."""
        etc = self.root / "etc"
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")  # else a first boot resets presets
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        (etc / "resolv.conf").write_text(network.resolver())
        unit = etc / "systemd/network/10-lab.network"  # before 80-container-host0.network
        gateway = self.interface.network[1]
        unit.write_text(NETWORK_UNIT.format(address=self.interface, gateway=gateway))
        public = generate_key(etc / "ssh/ssh_host_ed25519_key", self.name)
        self.access.add(self.name, self.address, public)
        authorized = self.root / "root/.ssh/authorized_keys"
        authorized.parent.mkdir(mode=0o700, exist_ok=True)
        authorized.write_text(self.access.key.with_suffix(".pub").read_text())

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.address, 22), 1) as link:
            return link.recv(4) == b"SSH-"
        return False

    def _settled(self) -> bool:
        state = self.run(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()
        return state in {"running", "degraded"}

    def _wait(self, failure: str, happened: Callable[[], bool], timeout: float = 30) -> None:
        """Wait for a step of booting; when it does not come, say what the console said."""
        deadline = time.monotonic() + timeout
        while not happened():
            if self._running().poll() is not None or time.monotonic() > deadline:
                said = self.console.read_text(errors="replace")[-2000:]
                self._off()
                raise RuntimeError(f"{self.name} {failure}; its console:\n{said}")
            time.sleep(0.05)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._container is None:
            raise RuntimeError(f"{self.name} is off")
        return self._container

    def _off(self) -> None:
        """Leave nothing of a running host but its disk."""
        self.access.hang_up(self.name)  # or the next command would wait on a dead connection
        sessions.kill(self.session, self.name)
        self.reap()

    def reap(self) -> None:
        """Take leave of the container's process, which has ended."""
        if self._container is not None:
            self._container.wait(timeout=20)
        self._container = None


def overlay(lower: Path, disk: Path) -> list[str]:
    """The command that lays a writable layer, in `disk`, over `lower`; the whole is `disk/root`.

    volatile: fsync costs nothing, and the page cache outlives a host that is killed.
    """
    layers = f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work,volatile"
    return ["mount", "-t", "overlay", "overlay", "-o", layers, f"{disk}/root"]


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
