"""What a check of `reconciler doctor` looks at, and what it finds."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """What one check found. todo: what to do about it, empty if nothing."""

    check: str
    status: Literal["ok", "warn", "fail"]
    message: str
    todo: str = ""


class Patient(NamedTuple):
    """What is examined: a root file system, and a state repo at one place."""

    root: str
    repo: str
    ref: str | None
