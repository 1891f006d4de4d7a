"""An argv as one line for a login shell that may be any: sh, bash, zsh, csh, tcsh, fish.

They agree on little: words, and single quotes around text without quotes, backslashes,
exclamation marks and line ends. So only such words are sent. Nothing of a state repo or a fact
is ever among them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reconciler.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]+")
_QUOTABLE = re.compile(r"[^'\\!\x00-\x1f\x7f]*")
_NESTED = re.compile(r"[^\\!\x00-\x1f\x7f]*")


def shell_line(argv: Sequence[str]) -> str:
    """The words, quoted, behind `exec`. Raises ConfigError for a word that cannot be sent."""
    return " ".join(["exec", *map(quoted, argv)])


def quoted(word: str) -> str:
    """One word so that every shell takes it as it is. Raises ConfigError."""
    if _PLAIN.fullmatch(word):
        return word
    if _QUOTABLE.fullmatch(word):
        return f"'{word}'"
    if _NESTED.fullmatch(word):
        # A quote between two quoted parts is itself quoted, the other way.
        return "'" + word.replace("'", "'\"'\"'") + "'"
    raise ConfigError(
        f"{word[:60]!r} cannot be sent to a remote shell",
        hint="it has a backslash, an exclamation mark or a control character",
    )
