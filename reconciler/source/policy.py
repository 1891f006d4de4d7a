"""What a host asks of a commit before it uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reconciler.source.signature import Keys

Mode = Literal["none", "head", "every"]


@dataclass(frozen=True)
class Policy:
    """What a host asks of a commit.

    mode: `none` asks for order only, `head` for a signature of what the ref names, `every` for
    signatures of all commits since the last trusted one. repository: the `name` that
    reconciler.yml must have, "" for any. max_age, max_quiet: seconds until silence is an alarm,
    0 for never. protected: globs of paths whose changes `approvals` people must have signed.
    """

    mode: Mode = "head"
    keys: Keys = field(default_factory=Keys)
    repository: str = ""
    max_age: float = 0.0
    max_quiet: float = 0.0
    protected: tuple[str, ...] = ()
    approvals: int = 2
