"""File modes as chmod(1) reads them: octal digits, or clauses like `u=rwX,g-w,o=`."""

from __future__ import annotations

import re

from reconciler.errors import SchemaError

CLAUSE = re.compile(r"(?P<who>[ugoa]*)(?P<acts>([-+=]([ugo]|[rwxXst]*))+)\Z")
ACT = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
SHIFT = {"u": 6, "g": 3, "o": 0}
AFFECTED = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
#: A clause that names nobody, such as `+w`, does not give what this takes away.
UMASK = 0o022


def is_mode(text: str) -> bool:
    """Whether `text` is a mode: three or four octal digits, or symbolic clauses."""
    if text.isdigit():
        return re.fullmatch(r"[0-7]{3,4}", text) is not None
    return all(CLAUSE.match(clause) for clause in text.split(","))


def check_mode(text: str | None) -> None:
    """Raise SchemaError for a mode that is none."""
    if text is not None and not is_mode(text):
        raise SchemaError(
            f"{text!r} is not a mode", hint='write octal digits in quotes ("0644") or u=rw,g=r,o='
        )


def mode_text(text: str) -> str:
    """A mode as it is shown: octal with four digits, symbolic as it is."""
    return text.zfill(4) if text.isdigit() else text


def mode_bits(text: str, now: int, directory: bool) -> int:
    """The bits that `text` asks for, given the bits of `now`."""
    if text.isdigit():
        return int(text, 8)
    bits = now
    for clause in text.split(","):
        who, acts = re.match(r"([ugoa]*)(.*)", clause).groups()  # type: ignore[union-attr]  # always matches
        for act, what in ACT.findall(acts):
            bits = _act(bits, who, act, what, directory)
    return bits


def _act(bits: int, who: str, act: str, what: str, directory: bool) -> int:
    everyone = "ugo" if "a" in who else who
    affected = sum(AFFECTED[one] for one in set(everyone)) or 0o7777
    triple = _triple(bits, what, directory)
    value = triple << 6 | triple << 3 | triple
    value |= (0o6000 if "s" in what else 0) | (0o1000 if "t" in what else 0)
    value &= affected if who else ~UMASK
    # chmod leaves setuid and setgid of directories alone unless they are named.
    omitted = 0o6000 & ~value if directory else 0
    if act == "+":
        return bits | value
    if act == "-":
        return bits & ~value
    return bits & (~affected | omitted) | value


def _triple(bits: int, what: str, directory: bool) -> int:
    if what in SHIFT:
        return (bits >> SHIFT[what]) & 7
    runs = "x" in what or ("X" in what and (directory or bool(bits & 0o111)))
    return 4 * ("r" in what) + 2 * ("w" in what) + runs
