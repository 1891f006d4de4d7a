"""Compiled catalogs, and the facts of the last contact, kept between runs.

A catalog depends on the state repo, the inventory, the facts and our own code, and on nothing
else; so under a key made of these it never grows stale, and a run that brings nothing new
compiles nothing. Content is never kept, nor a catalog that speaks of secrets.

Root believes what it reads here. So the directory is opened once, its owner and mode are checked
on the descriptor, and everything else is relative to that: who can rename the directory cannot
slip in another one. Nothing here imports YAML or Jinja2: not doing so is what a hit is worth.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import reconciler
from reconciler.catalog import dumps

#: Catalogs that are kept, or two for each host of a larger fleet; the one that was used the
#: longest time ago goes first.
KEEP = 200
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What the code of a catalog consists of, relative to the package.
CODE = (".", "compile", "inventory", "source", "modules")

Facts = dict[str, object]


class PrivateDirectory:
    """A directory that nobody else can write to. Files in it are written whole or not at all."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    @classmethod
    def open(cls, path: str, parent: PrivateDirectory | None = None) -> PrivateDirectory | None:
        """Make it if need be; None where it is somebody else's, or cannot be used.

        parent: the directory that `path` is relative to.
        """
        at = None if parent is None else parent.fd
        try:
            if at is None:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700, dir_fd=at)
            fd = os.open(path, DIRECTORY, dir_fd=at)
        except OSError:
            return None
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            os.close(fd)
            return None
        return cls(fd, path if parent is None else os.path.join(parent.path, path))

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.fd)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if there is none that is ours."""
        try:
            fd = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd
            )
        except OSError:
            return None
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            return file.read() if ours else None

    def write(self, name: str, content: bytes) -> bool:
        """Put a file in place; False where that is not possible: a full disk is no failure."""
        temp = f".{name}.{os.getpid()}"
        try:
            fd = os.open(
                temp,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self.fd,
            )
            with open(fd, "wb") as file:
                file.write(content)
            os.rename(temp, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:
            with suppress(OSError):
                os.unlink(temp, dir_fd=self.fd)
            return False
        return True

    def touch(self, name: str) -> None:
        """Mark a file as used now."""
        with suppress(OSError):
            os.utime(name, dir_fd=self.fd)

    def keep_newest(self, count: int) -> None:
        """Remove all but the `count` files that were used last."""
        ages: list[tuple[int, str]] = []
        for name in os.listdir(self.fd):
            with suppress(OSError):
                ages.append(
                    (os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime_ns, name)
                )
        for _, name in sorted(ages, reverse=True)[count:]:
            with suppress(OSError):
                os.unlink(name, dir_fd=self.fd)


def cache_home(environment: Mapping[str, str] = os.environ) -> str:
    """Where this user's cache is: `$XDG_CACHE_HOME/reconciler`, else `~/.cache/reconciler`."""
    base = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "reconciler")


def catalogs_home(environment: Mapping[str, str] = os.environ) -> str:
    """Where catalogs are kept: for root in `/run`, so that a plan of this very machine leaves its
    disk as it is; for others, and where `$XDG_CACHE_HOME` says so, in the cache."""
    if os.geteuid() == 0 and not environment.get("XDG_CACHE_HOME") and os.access("/run", os.W_OK):
        return "/run/reconciler/cache"
    return cache_home(environment)


def private_directory(name: str, home: str | None = None) -> PrivateDirectory | None:
    """A part of the cache; None where the cache cannot be trusted or written."""
    top = PrivateDirectory.open(cache_home() if home is None else home)
    if top is None:
        return None
    try:
        return PrivateDirectory.open(name, top)
    finally:
        top.close()


def facts_digest(facts: Mapping[str, object]) -> str:
    """Equal for equal facts only."""
    return hashlib.sha256(dumps(facts)).hexdigest()


def catalog_key(
    *,
    tree: str,
    commit: str,
    dirty: bool,
    inventory: str,
    host: str,
    facts: Mapping[str, object],
    choice: Sequence[Sequence[str]] = (),
) -> str:
    """The name under which the catalog of `host` is kept: all that it depends on, digested.

    choice: the tags that select, and those that skip.
    """
    code = [reconciler.__version__, code_digest()]
    parts = [tree, commit, dirty, inventory, host, facts_digest(facts), choice, code]
    return hashlib.sha256(dumps(parts)).hexdigest()


def code_digest() -> str:
    """Changes with our own files, so that a developer never meets the catalog of other code."""
    top = os.path.dirname(os.path.abspath(reconciler.__file__))
    seen: list[tuple[str, str, int, int]] = []
    for part in CODE:
        with suppress(OSError), os.scandir(os.path.join(top, part)) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    found = entry.stat()
                    seen.append((part, entry.name, found.st_size, found.st_mtime_ns))
    return hashlib.sha256(repr(sorted(seen)).encode()).hexdigest()


class CatalogCache:
    """The catalogs and facts that are kept below `home`, or nothing where that is not safe."""

    def __init__(self, home: str | None = None) -> None:
        self._home = home
        self._keep = KEEP
        self._new = 0
        self._catalogs = private_directory("catalogs", home or catalogs_home())

    @cached_property
    def _facts(self) -> PrivateDirectory | None:
        """Made when it is first needed: a plan that needs no facts must not make it."""
        return private_directory("facts", self._home)

    def close(self) -> None:
        """Let go of the directories."""
        self._forget()
        for directory in (self._catalogs, self.__dict__.get("_facts")):
            if directory is not None:
                directory.close()

    @property
    def usable(self) -> bool:
        """False: nothing is kept, because others could write there, or nobody can."""
        return self._catalogs is not None

    def make_room(self, hosts: int) -> None:
        """Keep enough for a fleet of so many hosts to find all of its catalogs next time."""
        self._keep = max(self._keep, 2 * hosts)

    def catalog(self, key: str) -> bytes | None:
        """The catalog's bytes; None if it is not there or is damaged."""
        if self._catalogs is None:
            return None
        digest, _, body = (self._catalogs.read(key) or b"").partition(b"\n")
        if not body or hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        self._catalogs.touch(key)
        return body

    def keep_catalog(self, key: str, catalog: bytes) -> None:
        """Keep a catalog; one that was not used for long makes room for it."""
        if self._catalogs is None:
            return
        digest = hashlib.sha256(catalog).hexdigest().encode()
        if self._catalogs.write(key, digest + b"\n" + catalog):
            self._new += 1
            # All of them are looked at for that, so not each time.
            if self._new > self._keep // 4:
                self._forget()

    def _forget(self) -> None:
        if self._catalogs is not None and self._new:
            self._catalogs.keep_newest(self._keep)
        self._new = 0

    def facts(self, host: str) -> Facts | None:
        """What `host` said about itself at the last contact; None if there was none."""
        if self._facts is None:
            return None
        try:
            document = json.loads(self._facts.read(_name(host)) or b"null")
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def keep_facts(self, host: str, facts: Mapping[str, object]) -> None:
        """Remember what `host` says; written only if it says something new."""
        if self._facts is not None and self.facts(host) != facts:
            self._facts.write(_name(host), dumps(facts))


def _name(host: str) -> str:
    """A host's name may hold anything; a file's name must not."""
    return hashlib.sha256(host.encode("utf-8", "surrogateescape")).hexdigest()
