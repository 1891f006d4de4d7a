"""Inventory programs of the operator: run without a shell, with limits, in a clean environment.

Only what the operator names on the command line gets here; a state repo's own files do not.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence

from reconciler.errors import InventoryError, Mark
from reconciler.source.process import Ended, run

#: Seconds that one call may take.
SECONDS = 60.0
#: Most bytes that one call may print: an inventory of 50,000 hosts fits.
CAP = 32 << 20
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_program(path: str, arguments: Sequence[str]) -> bytes:
    """What an inventory program prints. Raises InventoryError for one that fails or must not run."""
    called = Mark(" ".join([path, *arguments[:1]]))
    absolute = os.path.abspath(path)
    try:
        _check(absolute, called)
        ended = run(
            [absolute, *arguments], _environment(), seconds=SECONDS, cap=CAP, cwd=os.getcwd()
        )
    except OSError as error:
        raise InventoryError(
            f"the program cannot be run: {error.strerror}",
            mark=called,
            hint="is what its first line names installed?",
        ) from error
    if not ended.ok:
        raise InventoryError(_failure(ended), mark=called, hint=_said(ended))
    return ended.out


def _check(path: str, called: Mark) -> None:
    found = os.stat(path)
    if found.st_mode & stat.S_IWOTH:
        raise InventoryError(
            "everybody may change this program, so it is not run",
            mark=called,
            hint=f"chmod o-w {path}",
        )
    if os.geteuid() == 0 and found.st_uid != 0:
        raise InventoryError(
            "root does not run a program that belongs to another user",
            mark=called,
            hint="run as that user, or give the program to root",
        )


def _environment() -> dict[str, str]:
    """Who the operator is, and nothing that the calling shell happens to carry."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/"}
    return {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
    }


def _failure(ended: Ended) -> str:
    if ended.stopped == "time":
        return f"the program took more than {SECONDS:g} s"
    if ended.stopped == "output":
        return f"the program printed more than {CAP >> 20} MiB"
    return f"the program ended with code {ended.code}"


def _said(ended: Ended) -> str:
    """The end of what it complained about; its output may hold secrets and is not shown."""
    lines = ended.err.decode("utf-8", "replace").strip().splitlines()
    return f"it said: {lines[-1][:300]}" if lines else "it said nothing; run it by hand"
