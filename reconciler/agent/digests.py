"""Whose digests we have: Python's own in the process that stays, OpenSSL's in one that reads files.

OpenSSL's are several times as fast, and its library takes 4 MiB of the memory of whoever loads it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.util import find_spec

#: Python's own; who built it may have left them out, as for FIPS 140.
OWN = ("_md5", "_sha1", "_blake2", "_sha3")


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Who imports `hashlib` within this first gets Python's own digests."""
    able = all(map(find_spec, OWN)) and "hashlib" not in sys.modules
    if able:
        sys.modules["_hashlib"] = None  # type: ignore[assignment]  # so says the language: not to be found
    try:
        yield
    finally:
        if able:
            del sys.modules["_hashlib"]


def fast() -> None:
    """From here on, and for whoever has imported `hashlib` already, OpenSSL's."""
    if "hashlib" in sys.modules and "_hashlib" not in sys.modules:
        importlib.reload(sys.modules["hashlib"])
