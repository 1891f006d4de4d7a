"""Boot real systemd hosts in seconds, on a plain Debian machine with root.

    with Lab() as lab:
        web = lab.boot("web")
        web.run(["systemctl", "is-active", "ssh"])

A host is a systemd-nspawn container over an overlay of a cached base image: systemd is its PID 1,
it has an address, sshd, apt, and disappears without a trace. `python -m hosts.lab` has what scripts
need: `check` (can hosts be booted here?), `images`, `sweep`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Self

from hosts import image, network, session
from hosts.access import Access
from hosts.booted import BootedHost, overlay
from hosts.image import SUITES, Image, Suite

SIGNALS = [signal.SIGINT, signal.SIGTERM]
PROGRAMS = ["systemd-nspawn", "mmdebstrap", "nft", "ip", "ssh", "ssh-keygen"]
#: The suite whose Python is the one that our virtual environment was made with.
OURS: Suite = "bookworm"


class Lab:
    """A session of booted hosts on a bridge of their own, all gone at its end."""

    def __init__(self) -> None:
        if reason := obstacle():
            raise RuntimeError(f"hosts cannot be booted here: {reason}")
        self._images = contextlib.ExitStack()
        self._held: dict[Suite, Image] = {}
        self._lock = threading.Lock()
        self.hosts: dict[str, BootedHost] = {}
        self.session = session.begin()
        atexit.register(self.close)
        self._addresses = network.addresses(self.session.bridge)
        self.access = Access(self.session.state)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # SIGTERM unwinds the stack, and so removes the hosts, as Ctrl-C does.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def boot(self, name: str, suite: Suite = OURS, binds: Sequence[Path] = ()) -> BootedHost:
        """Boot a host. `binds` are seen on it, read-only, at the same path."""
        base = self._image(suite)
        with self._lock:
            if name in self.hosts:
                raise ValueError(f"there is a host {name!r} already")
            ours = product() if suite == OURS else []
            host = BootedHost(
                name, base, self.session, next(self._addresses), self.access, [*ours, *binds]
            )
            self.hosts[name] = host
        host.boot()
        return host

    def boot_many(
        self, names: Iterable[str], suite: Suite = OURS, binds: Sequence[Path] = ()
    ) -> list[BootedHost]:
        """Boot hosts side by side."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            return list(pool.map(lambda name: self.boot(name, suite, binds), names))

    @contextlib.contextmanager
    def lend(self, *names: str, suite: Suite = OURS) -> Iterator[list[BootedHost]]:
        """Hosts that are booted side by side, and gone at the end, whatever comes."""
        found = self.boot_many(names, suite)
        try:
            yield found
        finally:
            for host in found:
                self.discard(host)

    def discard(self, host: BootedHost) -> None:
        """Remove one host; its name is free again."""
        host.discard()
        del self.hosts[host.name]

    def close(self) -> None:
        """Remove every trace of the session."""
        with _uninterrupted():
            session.end(self.session)
            for host in self.hosts.values():
                host.reap()
            self._images.close()
        atexit.unregister(self.close)

    def _image(self, suite: Suite) -> Image:
        with self._lock:
            if suite not in self._held:
                self._held[suite] = self._images.enter_context(image.hold(suite))
            return self._held[suite]


@functools.cache
def obstacle() -> str:
    """Why hosts cannot be booted here; "" if they can."""
    if os.geteuid() != 0:
        return "this takes root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (`make` does it)"
    if not session.HIERARCHIES:
        return "no cgroup hierarchy is mounted below /sys/fs/cgroup"
    return _overlay_obstacle()


def _overlay_obstacle() -> str:
    """Whether an overlay can be laid: a container may not, nor can one lie on another."""
    session.cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=session.cache()) as scratch:
        for name in ("lower", "upper", "work", "root"):
            Path(scratch, name).mkdir()
        mount = overlay(Path(scratch, "lower"), Path(scratch))
        tried = subprocess.run(mount, check=False, capture_output=True, text=True)
        if tried.returncode:
            return f"no overlay below {session.cache()}: {tried.stderr.strip()}"
        session.unmount(Path(scratch, "root"))
    return ""


def product() -> list[Path]:
    """What a host with our Python needs to run the `reconciler` under test."""
    if Path(sys.base_prefix) != Path("/usr"):
        return []  # another Python than Debian's: not on the host
    paths = [Path(sys.prefix)]
    with contextlib.suppress(metadata.PackageNotFoundError):
        origin = metadata.distribution("reconciler").read_text("direct_url.json") or "{}"
        url = json.loads(origin)
        if url.get("dir_info", {}).get("editable"):
            paths.append(Path(url["url"].removeprefix("file://")))
    return paths


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not stop the cleaning up that the first one started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str]) -> int:
    """`check`, `ready`, `images [SUITE...]` or `sweep`; `ready` asks for `images` by its code."""
    command, *suites = argv or ["check"]
    if reason := obstacle():
        print(f"hosts cannot be booted here: {reason}", file=sys.stderr)
        return 1
    if command == "ready":
        return 0 if all(map(image.ready, SUITES)) else 1
    if command == "sweep":
        with session.exclusively():
            swept = session.sweep()
        print(f"{len(swept)} sessions were left behind and are gone now")
    if command == "images":
        wanted = [suite for suite in SUITES if suite in (suites or SUITES)]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_make, wanted))
    return 0


def _make(suite: Suite) -> None:
    with image.hold(suite) as made:
        print(f"{suite}: {made.root.name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
