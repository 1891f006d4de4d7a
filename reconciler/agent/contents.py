"""Contents by digest, kept by root: what was written once is put back without compiling again.

The engine checks each digest, so a damaged file costs one failed resource, and is removed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator

from reconciler.agent.places import write

#: Larger contents are asked for again each time.
LARGEST = 1 << 20
#: All of them together.
ROOM = 256 << 20

Fetch = Callable[[str], Iterable[bytes]]


class Contents:
    """The directory of kept contents. secret: digests of what must not be kept."""

    def __init__(self, directory: str, secret: Iterable[str] = ()) -> None:
        self._directory = directory
        self._secret = set(secret)

    def get(self, sha256: str, fetch: Fetch) -> Iterable[bytes]:
        """The content, from here or by `fetch`, and then it is here the next time."""
        path = os.path.join(self._directory, sha256)
        try:
            with open(path, "rb") as file:
                kept = file.read(LARGEST + 1)
        except OSError:
            kept = None
        if kept is not None:
            if hashlib.sha256(kept).hexdigest() == sha256:
                return [kept]
            with contextlib.suppress(OSError):
                os.unlink(path)
        return self._passed_on(path, fetch(sha256), keep=sha256 not in self._secret)

    def _passed_on(self, path: str, pieces: Iterable[bytes], *, keep: bool) -> Iterator[bytes]:
        """The pieces as they come; at their end they are kept, unless they are too many."""
        content = bytearray()
        for piece in pieces:
            keep = keep and len(content) + len(piece) <= LARGEST
            if keep:
                content += piece
            yield piece
        if keep:
            # Not durable: what is lost or half is asked for again.
            with contextlib.suppress(OSError):
                write(path, bytes(content), durable=False)

    def keep_only(self, wanted: Iterable[str]) -> None:
        """Forget all others, and everything if it has become too much."""
        keep, size = set(wanted) - self._secret, 0
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory):
                size += entry.stat().st_size
                if entry.name not in keep or size > ROOM:
                    os.unlink(entry.path)
