"""Where a call works, and what it knows of hosts: the root, the cache of this user, the facts."""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from reconciler.cli.console import Output
from reconciler.cli.sample import sample_facts
from reconciler.compile.cache import CatalogCache, cache_home
from reconciler.errors import UsageError

Facts = dict[str, object]


class Known(NamedTuple):
    """What a host says about itself, and where that is from: `file`, `last contact`, `sample`."""

    facts: Facts
    origin: str


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


def is_state_repo(repo: str) -> bool:
    """Whether a directory holds a state repo, so that reading all of it is what is wanted."""
    return any(os.path.lexists(os.path.join(repo, name)) for name in ("site.yml", "HEAD"))


def facts_of(host: str, given: Known | None, cache: CatalogCache) -> Known:
    """Facts of a host that is not asked: those that were given, else what is at hand."""
    if given is not None:
        return given
    kept = cache.facts(host)
    return Known(sample_facts(host), "sample") if kept is None else Known(kept, "last contact")


def read_facts(path: str) -> Known:
    """The facts in a file: those alone, or the document of `facts --json`. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the facts {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"the facts {path} are not JSON: {error}",
            hint="make them with: reconciler facts --json",
        ) from error
    if isinstance(document, dict) and isinstance(document.get("facts"), dict):
        document = document["facts"]
    if not isinstance(document, dict):
        raise UsageError(
            f"the facts {path} are not an object", hint="make them with: reconciler facts --json"
        )
    return Known(document, "file")
