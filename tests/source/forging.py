"""What somebody can do who may write into a mirror: other content under an id that is trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from pathlib import Path

from source.signers import git_environment


def forge(repository: str, id_: str, content: bytes, kind: str = "") -> None:
    """Put another content in the place of an object, in a pack like those of a fetch.

    kind: of the other object, if it is not the same.
    """
    objects = Path(repository, "objects")
    kind = kind or _git(repository, "cat-file", "-t", id_).decode().strip()
    for pack in (objects / "pack").glob("*.pack"):
        aside = Path(repository, pack.name)
        pack.rename(aside)
        pack.with_suffix(".idx").unlink()
        _git(repository, "unpack-objects", "-q", stdin=aside.read_bytes())
        aside.unlink()
    loose = objects / id_[:2] / id_[2:]
    loose.unlink()
    loose.write_bytes(zlib.compress(b"%s %d\0%s" % (kind.encode(), len(content), content)))
    ids = [path.parent.name + path.name for path in objects.glob("[0-9a-f][0-9a-f]/*")]
    _git(repository, "pack-objects", "-q", "objects/pack/pack", stdin="\n".join(ids).encode())
    for path in objects.glob("[0-9a-f][0-9a-f]"):
        shutil.rmtree(path)
    assert _git(repository, "cat-file", kind, id_) == content


def _git(repository: str, *args: str, stdin: bytes = b"") -> bytes:
    owner = os.stat(repository)
    done = subprocess.run(
        ["git", *args],
        cwd=repository,
        env=git_environment(),
        input=stdin,
        capture_output=True,
        check=True,
        user=owner.st_uid,
        group=owner.st_gid,
    )
    return done.stdout
