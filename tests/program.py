"""The program under test in a process of its own, as a person calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def start(
    path: Path,
    *words: str,
    kept: Path | None = None,
    stdin: int | None = None,
    environment: Mapping[str, str] = {},
) -> subprocess.Popen[str]:
    """Begin a call in a directory, with nothing of our user's own caches and runs.

    kept: where its caches and runs are, if not in that directory. stdin: a terminal to type on,
    which then is the only one it has.
    """
    code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
    kept = kept or path
    places = {"XDG_CACHE_HOME": str(kept / "cache"), "XDG_STATE_HOME": str(kept / "state")}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=path,
        env={**os.environ, **places, **environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=stdin is not None,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, str]:
    """Its exit code, and what it said on both; one that takes longer is killed, and an error."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return process.returncode, out, err
