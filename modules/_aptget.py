"""apt-get, carefully: its locks, its lists, and the answers that it would ask a person for."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reconciler.errors import CommandFailed, ResourceError, Unsupported
from reconciler.host import Completed, Host
from reconciler.safewrite import Attributes

ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_MODE": "l",
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
}
LISTS = "/var/lib/apt/lists"
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
STAMPS = (LISTS, "/var/lib/apt/periodic/update-success-stamp")
BUSY = (
    "Could not get lock",
    "Unable to lock directory",
    "Unable to acquire the dpkg",
    "is another process using it",
)
#: Keeps apt from writing caches and logs: whoever only looks changes nothing.
TRACELESS = (
    *("-o", "Dir::Cache::pkgcache="),
    *("-o", "Dir::Cache::srcpkgcache="),
    *("-o", "Dir::Log::Planner="),
    *("-o", "Dir::Log::Solver="),
)
#: Without this, apt-get takes an unknown name with a dot in it for a regular expression.
EXACT = ("-o", "APT::Cmd::Pattern-Only=true")
UPGRADES = {
    "no": ("upgrade", "--with-new-pkgs"),
    "yes": ("upgrade", "--with-new-pkgs"),
    "safe": ("upgrade", "--with-new-pkgs"),
    "full": ("dist-upgrade",),
    "dist": ("dist-upgrade",),
}
POLICY = "/usr/sbin/policy-rc.d"
POLICY_MARK = b"# for the length of one package transaction\n"
PAUSE = 0.5


def require(host: Host) -> None:
    """Raise Unsupported where there is no apt-get."""
    if host.memo("package", "apt-get", lambda: host.lstat("/usr/bin/apt-get")) is None:
        raise Unsupported("this host has no apt-get")


def declare(host: Host, names: set[str]) -> None:
    """Remember which packages this run wants installed."""
    declared(host).update(names)


def declared(host: Host) -> set[str]:
    """The packages that this run wants installed: no transaction may take them away."""
    return host.memo("package", "declared", set)


def changed(host: Host) -> None:
    """Packages have changed: what was read is void, what is declared is not."""
    names = declared(host)
    host.forget()
    declare(host, names)


def release(name: str | None) -> tuple[str, ...]:
    """The options that prefer a release."""
    return ("-t", name) if name else ()


# -- the lists ---------------------------------------------------------------------------


def lists_time(host: Host) -> float | None:
    """When the package lists were refreshed; None if there are none."""
    if not any(
        name.endswith(("_InRelease", "_Release", "_Packages")) for name in host.listdir(LISTS)
    ):
        return None
    found = (host.lstat(path) for path in STAMPS)
    return max(entry.st_mtime for entry in found if entry is not None)


def lists_outdated(host: Host, age: int | None) -> bool:
    """Whether there are none, or a source was declared since, or they are older than `age`."""
    made = lists_time(host)
    if made is None:
        return True
    directory = "/etc/apt/sources.list.d"
    sources = [
        "/etc/apt/sources.list",
        *(f"{directory}/{name}" for name in host.listdir(directory)),
    ]
    entries = (host.lstat(path) for path in sources)
    if any(entry is not None and made < entry.st_mtime <= time.time() for entry in entries):
        return True
    return age is not None and time.time() - made > age


def update(host: Host, patience: float) -> ResourceError | None:
    """Refresh the package lists; what went wrong, if anything: old lists may still do."""
    try:
        run(host, ["update"], patience, wait_for=LOCKS[2:3])
    except CommandFailed as error:
        said = complaints(error.output) or [error.message]
        return ResourceError(f"the package lists could not be refreshed: {said[0]}")
    # apt leaves the time of the lists alone when there was nothing new in them.
    now = time.time_ns()
    host.set_times(LISTS, now, now)
    return None


# -- running -----------------------------------------------------------------------------


def run(
    host: Host,
    words: Sequence[str],
    patience: float,
    *,
    dpkg_options: str = "",
    wait_for: Sequence[str] = LOCKS,
) -> Completed:
    """Run `apt-get`, waiting up to `patience` seconds for its locks.

    Raises CommandFailed; ResourceError that names the owner of a lock that never came free.
    """
    end = time.monotonic() + min(patience, host.remaining())
    while True:
        wait_for_locks(host, end, wait_for)
        left = max(int(end - time.monotonic()), 0)
        options = [
            "-y",
            "-q",
            "-o",
            f"DPkg::Lock::Timeout={left}",
            "-o",
            "Acquire::Retries=2",
            *EXACT,
        ]
        for option in filter(None, dpkg_options.split(",")):
            options += ["-o", f"DPkg::Options::=--{option.strip()}"]
        done = host.run(["apt-get", *options, *words], env=ENVIRONMENT, check=False)
        if done.ok:
            return done
        # What dpkg and the packages' scripts say comes through apt's standard output.
        output = f"{done.out}\n{done.err}"
        if not any(phrase in output for phrase in BUSY) or time.monotonic() > end:
            raise CommandFailed(done.argv, done.code, output)
        # Somebody took a lock between our look and our act.
        time.sleep(PAUSE)


def simulate(host: Host, words: Sequence[str]) -> Completed:
    """What apt-get says that it would do, within a run that acts."""
    return host.run(
        ["apt-get", "-s", "-y", "-q", "-o", "Debug::NoLocking=true", *EXACT, *words],
        env=ENVIRONMENT,
        check=False,
    )


def repair(host: Host, patience: float, dpkg_options: str) -> None:
    """Let dpkg finish what it was interrupted in."""
    wait_for_locks(host, time.monotonic() + min(patience, host.remaining()), LOCKS[:2])
    forces = [f"--{option.strip()}" for option in dpkg_options.split(",") if option.strip()]
    host.run(["dpkg", *forces, "--configure", "-a"], env=ENVIRONMENT, check=False)


def complaints(output: str) -> list[str]:
    """The errors in what apt-get said."""
    return [line[3:] for line in output.splitlines() if line.startswith("E: ")]


# -- locks -------------------------------------------------------------------------------


def wait_for_locks(host: Host, end: float, paths: Sequence[str]) -> None:
    """Return when nobody holds the locks. apt itself waits for one of them only.

    Raises ResourceError with the owner when the time is over.
    """
    while True:
        taken = next(((path, pid) for path in paths for pid in [owner(host, path)] if pid), None)
        if taken is None:
            return
        if time.monotonic() >= end:
            path, pid = taken
            raise ResourceError(
                f"apt is busy: {path} is held by {_process(host, pid)}",
                hint="the next run tries again; lock_timeout says how long one waits",
            )
        time.sleep(PAUSE)


def owner(host: Host, path: str) -> int:
    """The process that holds a lock; 0 if nobody does, -1 if it is outside our sight."""
    try:
        with host.files.open(path) as fd:
            # struct flock: type, whence, start, length, pid.
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    except (OSError, ResourceError):
        return 0
    return 0 if kind == fcntl.F_UNLCK else pid or -1


def _process(host: Host, pid: int) -> str:
    if pid < 0:
        return "a process outside this container"
    try:
        words = host.read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
    except ResourceError:
        return f"process {pid}"
    command = b" ".join(words).decode("utf-8", "backslashreplace")[:200]
    return f"process {pid} ({command})" if command else f"process {pid}"


# -- services ----------------------------------------------------------------------------


@contextmanager
def service_policy(host: Host, code: int | None) -> Iterator[None]:
    """Within this, maintainer scripts get `code` as the answer to "may I start a service?".

    In a directory root they must not start any: they would run outside of it.
    """
    if code is None and host.root != "/":
        code = 101
    _restore_policy(host)
    if code is None:
        yield
        return
    if host.lstat(POLICY) is not None:
        host.hardlink(f"{POLICY}.saved", POLICY)
    host.write(
        POLICY, [b"#!/bin/sh\n" + POLICY_MARK + b"exit %d\n" % code], Attributes(0, 0, 0o755)
    )
    try:
        yield
    finally:
        _restore_policy(host)


def _restore_policy(host: Host) -> None:
    """Put back what was there before; also after a run that was killed."""
    if host.lstat(POLICY) is None or POLICY_MARK not in host.read(POLICY):
        return
    if host.lstat(f"{POLICY}.saved") is None:
        host.remove(POLICY)
        return
    host.hardlink(POLICY, f"{POLICY}.saved")
    host.remove(f"{POLICY}.saved")
