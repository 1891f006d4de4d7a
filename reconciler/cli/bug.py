"""An exception that is no `ReconcilerError` is a bug of ours, and is called that.

The user gets one line; the traceback goes into a private file that can be attached to a report.
"""

from __future__ import annotations

import os
import time
import traceback

from reconciler.cli.console import Output, Span
from reconciler.cli.failure import show_errors
from reconciler.errors import ReconcilerError

#: Reports of bugs that are kept.
KEEP = 10


def report_bug(out: Output, error: BaseException, *, debug: bool) -> None:
    """Say it, and keep or show the traceback."""
    text = "".join(traceback.format_exception(error))
    if debug:
        for row in text.splitlines():
            out.note(Span(row, "dim"))
        hint = "please report it with the traceback above"
    else:
        path = _keep(text)
        hint = (
            f"please report it with {path}"
            if path
            else "run it again with --debug, and report what it shows"
        )
    show_errors(
        out,
        ReconcilerError(f"this is a bug in reconciler: {type(error).__name__}: {error}", hint=hint),
    )


def _keep(text: str) -> str | None:
    """Write it where only we can read it; None where that is not possible."""
    from reconciler.compile.cache import private_directory

    directory = private_directory("crashes")
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    if directory is None or not directory.write(name, text.encode("utf-8", "backslashreplace")):
        return None
    directory.keep_newest(KEEP)
    return os.path.join(directory.path, name)
