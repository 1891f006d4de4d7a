"""Files that say whom to trust: keys of signers and of servers, certificates of authorities."""

from __future__ import annotations

import os
import stat

from reconciler.errors import TrustError


def check_key_file(path: str) -> None:
    """Refuse a file of trusted keys that somebody else could change. Raises TrustError.

    Somebody else is everybody but root and us, and whoever may put another file in its place.
    """
    try:
        found, above = os.stat(path), os.stat(os.path.dirname(path) or "/")
    except OSError as error:
        raise TrustError(
            f"cannot read the trusted keys {path}: {error.strerror}",
            hint="put the file there, owned by root, mode 0644",
        ) from error
    if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
        raise TrustError(f"{path} is no file of keys that can be read", hint=f"chmod 0644 {path}")
    for at, one in ((path, found), (os.path.dirname(path), above)):
        sticky = stat.S_ISDIR(one.st_mode) and one.st_mode & stat.S_ISVTX
        if one.st_uid not in (0, os.geteuid()) or (one.st_mode & 0o022 and not sticky):
            raise TrustError(
                f"{at} can be changed by others, so it says nothing about whom to trust",
                hint=f"chown root {at}; chmod go-w {at}",
            )
