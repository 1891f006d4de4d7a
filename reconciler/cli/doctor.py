"""`reconciler doctor`: is this machine fit to run reconciler, and if not, what to do.

It only looks. A check that fails ends with exit code 3; warnings do not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import reconciler
from reconciler.cli.agentcheck import agent
from reconciler.cli.console import Output, Span
from reconciler.cli.finding import Finding, Patient
from reconciler.cli.options import repo_options, root_option
from reconciler.errors import ConfigError, ReconcilerError, UsageError
from reconciler.host import Host
from reconciler.safewrite import TEMP_MARK
from reconciler.words import counted

#: Free space below which a run may not get through, and below which it will not, in bytes.
LOW_SPACE, NO_SPACE = 200 << 20, 20 << 20
OLDEST_GIT = (2, 30)
DAY = 86400.0
STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    repo_options(parser)
    root_option(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Run every check; none of them can keep the others from running."""
    patient = Patient(args.root, args.repo, args.ref)
    findings = [finding for check in CHECKS for finding in _examine(check, patient)]
    failed = any(finding.status == "fail" for finding in findings)
    if out.as_json:
        out.document(
            {
                "schema": ["reconciler/doctor", 1],
                "checks": [finding._asdict() for finding in findings],
            }
        )
    else:
        _show(findings, out)
    return ConfigError.exit_code if failed else 0


def _show(findings: list[Finding], out: Output) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        out.line(
            Span(f"{finding.status:<4}", STYLES[finding.status]),
            f"  {finding.check:<{width}}  {finding.message}",
        )
        if finding.todo:
            out.line(" " * (width + 8), Span(finding.todo, "cyan"))
    counts = [f"{sum(f.status == status for f in findings)} {status}" for status in STYLES]
    out.line()
    out.line(f"doctor: {', '.join(counts)}")


def _examine(check: Callable[[Patient], Iterator[Finding]], patient: Patient) -> Iterator[Finding]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        yield from check(patient)
    except PermissionError as error:
        yield Finding(
            name, "warn", f"only root may look at {error.filename}", "run doctor with sudo"
        )
    except (OSError, ReconcilerError) as error:
        yield Finding(name, "fail", str(error))


def _python(_: Patient) -> Iterator[Finding]:
    yield Finding("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _root(patient: Patient) -> Iterator[Finding]:
    if not os.path.isdir(patient.root):
        yield Finding(
            "root", "fail", f"{patient.root} is not a directory", "name a directory with --root"
        )
    elif os.geteuid() == 0:
        yield Finding("root", "ok", "running as root")
    else:
        yield Finding(
            "root", "warn", f"running as uid {os.geteuid()}", "apply needs root: run it with sudo"
        )


def _systemd(patient: Patient) -> Iterator[Finding]:
    if patient.root != "/":
        yield Finding("systemd", "ok", "not needed in a directory root")
    elif os.path.isdir("/run/systemd/system"):
        yield Finding("systemd", "ok", "running")
    else:
        yield Finding(
            "systemd",
            "warn",
            "this machine was not booted with systemd",
            "service resources will fail here",
        )


def _git(_: Patient) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("git", "fail", "git is not installed", "install it: apt-get install git")
        return
    said = Host().probe(["git", "--version"], timeout=10).out.split()
    version = said[2] if len(said) > 2 else "of an unknown version"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_GIT:
        yield Finding("git", "warn", f"git {version} is old", "install git 2.30 or newer")
    else:
        yield Finding("git", "ok", version)


def _lock(patient: Patient) -> Iterator[Finding]:
    """Asks the kernel's list of locks: trying to take it would disturb a run that starts now."""
    from reconciler.engine.lock import PLACE

    path = os.path.join(patient.root, PLACE)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        yield Finding("lock", "ok", "free")
        return
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with open("/proc/locks", encoding="ascii") as locks:
        held = next(
            (words[4] for words in map(str.split, locks) if "FLOCK" in words and place in words),
            None,
        )
    if held is None:
        yield Finding("lock", "ok", "free")
    else:
        yield Finding(
            "lock",
            "warn",
            f"held by pid {held}: a run is going on",
            "wait for it, or use --lock-timeout",
        )


def _ledger(patient: Patient) -> Iterator[Finding]:
    from reconciler.engine.ledger import Ledger
    from reconciler.engine.ledgerfile import place

    path = place(patient.root)
    with Ledger.open_readonly(patient.root) as ledger:
        if ledger is not None:
            said = ledger.check()
            if said == "ok":
                yield Finding("ledger", "ok", "whole")
                yield from _leftovers(patient.root, list(ledger.images()))
                return
        elif not os.access(os.path.dirname(path), os.X_OK) and os.path.isdir(os.path.dirname(path)):
            yield Finding(
                "ledger", "warn", "only root may read it", "run doctor with sudo to check it"
            )
            return
        elif not os.path.lexists(path):
            yield Finding("ledger", "ok", "none yet: nothing was applied here")
            return
        else:
            said = "it is no ledger that can be read"
    yield Finding(
        "ledger", "fail", f"{path}: {said}", "the next apply puts it aside and begins a new one"
    )


def _leftovers(root: str, paths: list[str]) -> Iterator[Finding]:
    """What a killed run may have left beside the files that it was writing."""
    left: list[str] = []
    for directory in sorted({os.path.dirname(path) for path in paths}):
        try:
            names = os.listdir(root.rstrip("/") + directory)
        except OSError:
            continue
        left += [f"{directory}/{name}" for name in names if TEMP_MARK in name]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        yield Finding(
            "leftovers",
            "warn",
            f"temporary files of a killed run: {', '.join(left[:3])}{more}",
            "they can be removed while no run is going on",
        )
    else:
        yield Finding("leftovers", "ok", "no temporary files")


def _disk_space(patient: Patient) -> Iterator[Finding]:
    seen: set[int] = set()
    for path in ("", "etc", "var", "var/lib", "run", "tmp"):
        place = os.path.join(patient.root, path)
        try:
            device, room = os.stat(place).st_dev, os.statvfs(place)
        except OSError:
            continue
        if device in seen or not room.f_blocks:
            continue
        seen.add(device)
        free, inodes = room.f_bavail * room.f_frsize, room.f_favail if room.f_files else 1 << 20
        text = f"{place}: {free >> 20} MiB free"
        if free < NO_SPACE or inodes < 100:
            yield Finding(
                "disk space",
                "fail",
                f"{text}, {counted(inodes, 'inode')}",
                "free some space; until then runs will fail",
            )
        elif free < LOW_SPACE or inodes < 10_000:
            yield Finding(
                "disk space", "warn", f"{text}, {counted(inodes, 'inode')}", "free some space"
            )
        else:
            yield Finding("disk space", "ok", text)


def _clock(patient: Patient) -> Iterator[Finding]:
    behind = os.stat(reconciler.__file__).st_mtime - time.time()
    if behind > DAY:
        yield Finding(
            "clock",
            "fail",
            "the clock is behind the installation of reconciler",
            "set it: certificates and signatures depend on it",
        )
    elif (
        patient.root != "/"
        or os.path.exists("/run/systemd/timesync/synchronized")
        or os.path.exists("/run/chrony/chronyd.pid")
    ):
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))
    else:
        yield Finding(
            "clock",
            "warn",
            "nothing seems to keep the clock right",
            "install systemd-timesyncd or chrony",
        )


def _state_repo(patient: Patient) -> Iterator[Finding]:
    from reconciler.agent.places import Places
    from reconciler.cli.desired import open_repo
    from reconciler.cli.followed import is_at_hand
    from reconciler.cli.render import commit_text

    if not is_at_hand(patient.repo) and os.path.exists(Places().config):
        return  # nobody has asked, and what is followed here was looked at
    try:
        tree = open_repo(patient.repo, patient.ref)
    except UsageError as error:
        yield Finding("state repo", "warn", error.message, error.hint)
        return
    yield Finding("state repo", "ok", f"{patient.repo}: {commit_text(tree.commit, tree.dirty)}")


def _cache(_: Patient) -> Iterator[Finding]:
    from reconciler.compile.cache import CatalogCache, cache_home

    with closing(CatalogCache()) as cache:
        if cache.usable:
            yield Finding("cache", "ok", cache_home())
        else:
            yield Finding(
                "cache",
                "warn",
                f"{cache_home()} cannot be used",
                "make it yours, and writable by nobody else: chmod 700; until then every run compiles",
            )


#: The state repo comes last: who looks into a mirror of the agent is root no longer.
CHECKS = (
    *(_python, _root, _systemd, _git, _lock, _ledger, _disk_space, _clock, _cache, agent),
    _state_repo,
)
