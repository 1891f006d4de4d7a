"""The objects of a repository, each of them what its id says.

git gives the bytes and is not believed: it reads what a pack has under an id and does not look whether
that is its content. Whoever could once write into a repository could so put something else under an
id that is trusted. Here each content is hashed while it streams.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.errors import ConfigError, Damaged, ReconcilerError
from reconciler.source.git import CHUNK, TIMEOUT, Git, end, explain, pipes, too_slow
from reconciler.source.refs import is_id

#: Bytes of requests that are sent before their answers are read: no pipe holds less.
_AHEAD = 4096


class Object(NamedTuple):
    """The head of a Git object; its content follows in the stream."""

    id: str
    kind: str
    size: int


class Objects:
    """Objects by name, through one `git cat-file --batch` process that lives as long as this."""

    def __init__(self, git: Git) -> None:
        self._directory = git.directory
        process = git.start("cat-file", "--batch")
        self._stdin, self._stdout, self._stderr = pipes(process)
        self._buffer = bytearray()
        self._left = 0
        self._id = ""
        self._digest = hashlib.sha256()
        self.close = weakref.finalize(self, end, process)

    def find(self, name: str) -> Object | None:
        """Ask for an object; None if it is not there. Raises SourceError.

        name: an expression of git without line breaks; how git reads it is not checked unless it is a
        full id. The content of the one before is dropped.
        """
        for _ in self.content():
            pass
        self._ask([name])
        return self._answer(name)

    def need(self, id_: str) -> Object:
        """Ask for an object that must be there. Raises SourceError, Damaged if it is not."""
        found = self.find(id_)
        if found is None:
            raise self._forged(f"{id_} is missing")
        return found

    def content(self) -> Iterator[bytes]:
        """The content of the object that was found last, in pieces.

        Raises SourceError; Damaged in the place of the last piece if it is not what the id says.
        """
        while self._left > 0:
            # Its end comes with the line feed behind it: nobody has all of it before the verdict.
            while len(self._buffer) in (0, self._left - 1):
                self._fill()
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
            self._left -= len(piece)
            if not self._left:
                piece = piece[:-1]
            self._digest.update(piece)
            if not self._left and self._digest.hexdigest() != self._id:
                raise self._forged(f"{self._id} is not what its id says")
            yield piece

    def read(self, name: str, cap: int) -> tuple[Object, bytes] | None:
        """An object and its content. Raises SourceError, ConfigError for more than `cap` bytes."""
        found = self.find(name)
        return None if found is None else (found, self._whole(found, cap))

    def read_all(self, ids: Sequence[str], cap: int) -> Iterator[tuple[Object, bytes]]:
        """Objects and their contents, in their order; to be used up before the next request.

        Raises SourceError, Damaged where one is missing, ConfigError for more than `cap` bytes.
        """
        for _ in self.content():
            pass
        step = _AHEAD // (max(map(len, ids), default=0) + 1)
        for start in range(0, len(ids), step):
            some = ids[start : start + step]
            self._ask(some)
            for id_ in some:
                found = self._answer(id_)
                if found is None:
                    raise self._forged(f"{id_} is missing")
                yield found, self._whole(found, cap)

    def _ask(self, names: Sequence[str]) -> None:
        try:
            for name in names:
                self._stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
            self._stdin.flush()
        except OSError:
            raise self._ended() from None

    def _answer(self, name: str) -> Object | None:
        head = self._line().decode("utf-8", "surrogateescape")
        found = re.fullmatch(r"([0-9a-f]{40,64}) (\w+) ([0-9]+)", head)
        if found is None:
            return None
        if is_id(name) and found[1] != name:
            raise self._forged(f"{name} is given as {found[1]}")
        self._id, self._left = found[1], int(found[3]) + 1
        self._digest = hashlib.new(
            "sha1" if len(self._id) == 40 else "sha256",
            b"%s %s\0" % (found[2].encode(), found[3].encode()),
            usedforsecurity=False,
        )
        return Object(found[1], found[2], int(found[3]))

    def _whole(self, found: Object, cap: int) -> bytes:
        if found.size > cap:
            raise ConfigError(f"{found.id}: {found.size} bytes are more than the limit of {cap}")
        return b"".join(self.content())

    def _line(self) -> bytes:
        while (length := self._buffer.find(b"\n")) < 0:
            self._fill()
        line = bytes(self._buffer[:length])
        del self._buffer[: length + 1]
        return line

    def _fill(self) -> None:
        fd = self._stdout.fileno()
        ready, _, _ = select.select([fd], [], [], TIMEOUT)
        if not ready:
            raise too_slow(self._directory, TIMEOUT)
        data = os.read(fd, CHUNK)
        if not data:
            raise self._ended()
        self._buffer += data

    def _ended(self) -> ReconcilerError:
        return explain(self._stderr.read(CHUNK).decode("utf-8", "replace"), self._directory)

    def _forged(self, what: str) -> Damaged:
        return Damaged(
            f"the repository {self._directory} is damaged, or somebody has written into it: "
            f"the object {what}",
            hint="of the agent's mirror, the next fetch makes another; of one of yours, "
            f"git -C {self._directory} fsck tells more",
        )
