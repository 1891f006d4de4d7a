"""Base images: one minimal Debian per suite, built once and shared by every session.

An image is a directory that nothing writes to: hosts lay an overlay above it. Its name is a digest
of what it was made from, so a changed recipe makes a new image and never an old one with a new name.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hosts.session import cache

Suite = Literal["bookworm", "bullseye", "trixie"]
SUITES: tuple[Suite, ...] = get_args(Suite)
RECIPE = 1
PACKAGES = [
    *["systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "sudo", "git"],
    *["iproute2", "ca-certificates", "curl", "cron", "acl", "attr", "e2fsprogs"],
]
#: Lie in the image's apt cache: tests install them without a download each.
FETCHED = ["nginx", "nginx-light", "less", "logrotate", "tree", "hello"]
#: They take locks, processor time or a terminal that a throwaway host does not have.
MASKED = [
    *["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"],
    *["e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "console-getty.service"],
]
HOOKS = [
    'chroot "$1" apt-get clean',
    f'chroot "$1" apt-get install --yes --download-only {" ".join(FETCHED)}',
    'chroot "$1" systemctl enable systemd-networkd.service',
    f'chroot "$1" systemctl mask {" ".join(MASKED)}',
    'rm -f "$1"/etc/ssh/ssh_host_*',
    # Newer than /usr, or the first boot would rebuild ld.so.cache, the journal catalog and so on.
    'touch "$1/etc/.updated" "$1/var/.updated"',
]
#: An image that was not used for so long is removed.
KEPT_DAYS = 21


@dataclass(frozen=True)
class Image:
    """A base image that is ready, and stays so while it is held."""

    suite: Suite
    root: Path

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 by path, filled by snapshots: what comes from the image never changes."""
        return {}


def key(suite: Suite) -> str:
    """What an image is made of. The week is part of it: a package index gets stale."""
    year, week, _ = datetime.datetime.now(tz=datetime.UTC).isocalendar()
    recipe = json.dumps([RECIPE, suite, PACKAGES, HOOKS, year, week])
    return f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ready(suite: Suite) -> bool:
    return (_images() / key(suite)).is_dir()


@contextlib.contextmanager
def hold(suite: Suite) -> Iterator[Image]:
    """The image of a suite, built if it is not there; not removed by others while it is held."""
    images = _images()
    images.mkdir(parents=True, exist_ok=True)
    name = key(suite)
    with (images / f"{name}.lock").open("w") as lock:
        if not ready(suite):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready(suite):
                _build(suite, images / name)
                _prune(images, keep=name)
        fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(images / f"{name}.lock")
        yield Image(suite, images / name)


def _build(suite: Suite, target: Path) -> None:
    """Build beside the target and rename: an image is whole or not there."""
    building = target.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    # Left as apt-get made them: a host can install a package at once.
    kept = ["--skip=cleanup/apt/lists", "--skip=cleanup/apt/cache"]
    include = f"--include={','.join(PACKAGES)}"
    done = subprocess.run(
        ["mmdebstrap", "--variant=minbase", include, *kept, *hooks, suite, str(building)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(building, ignore_errors=True)
        raise RuntimeError(f"no {suite} image, mmdebstrap said:\n{done.stdout[-3000:]}")
    building.rename(target)


def _prune(images: Path, keep: str) -> None:
    """Remove images that nobody holds and nobody used for weeks."""
    oldest = time.time() - KEPT_DAYS * 86400
    for path in images.glob("*.lock"):
        if path.stem == keep or path.stat().st_mtime > oldest:
            continue
        with path.open() as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(images / path.stem, ignore_errors=True)
            path.unlink()


def _images() -> Path:
    return cache() / "images"
