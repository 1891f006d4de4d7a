"""Files that say whom to trust: keys of signers and of servers, certificates of authorities."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from reconciler.errors import TrustError


def check_key_file(path: str) -> None:
    """Refuse a file of trusted keys that somebody else could change. Raises TrustError.

    Somebody else is everybody but root and us, and whoever may put another file in its place: by any
    directory on the way to it, and to where a link leads.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) or not os.access(path, os.R_OK):
            raise TrustError(
                f"{path} is no file of keys that can be read", hint=f"chmod 0644 {path}"
            )
        for at in dict.fromkeys([*_way(os.path.abspath(path)), *_way(os.path.realpath(path))]):
            _check(at, os.stat(at))
    except OSError as error:
        raise TrustError(
            f"cannot read the trusted keys {path}: {error.strerror}",
            hint="put the file there, owned by root, mode 0644",
        ) from error


def _way(path: str) -> Iterator[str]:
    """A path, and every directory above it."""
    yield path
    while (above := os.path.dirname(path)) != path:
        yield (path := above)


def _check(at: str, found: os.stat_result) -> None:
    # In a directory such as /tmp nobody can replace what is not theirs.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky):
        raise TrustError(
            f"{at} can be changed by others, so it says nothing about whom to trust",
            hint=f"chown root {at}; chmod go-w {at}",
        )
