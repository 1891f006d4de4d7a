"""Where a call works: the root file system that it is about, and the cache of this user."""

from __future__ import annotations

import os

from reconciler.cli.console import Output
from reconciler.compile.cache import CatalogCache, cache_home
from reconciler.errors import UsageError


def open_cache(out: Output) -> CatalogCache:
    """The cache; where it is not safe to use, a word about that."""
    cache = CatalogCache()
    if not cache.usable:
        out.note(
            f"warning: {cache_home()} is not used as a cache: it must be yours, and writable by nobody else"
        )
    return cache


def directory_root(root: str) -> str:
    """The root to work on, absolute. Raises UsageError if it is no directory."""
    path = os.path.abspath(root)
    if not os.path.isdir(path):
        raise UsageError(
            f"--root {root} is not a directory",
            hint="name a directory that holds a root file system",
        )
    return path
