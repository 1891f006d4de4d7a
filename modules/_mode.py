"""File modes as chmod(1) reads them: octal digits, or clauses like `u=rwX,g-w,o=`."""

from __future__ import annotations

import re

CLAUSE = re.compile(r"(?P<who>[ugoa]*)(?P<acts>([-+=]([rwxXst]*|[ugo]))+)\Z")
ACT = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
SHIFT = {"u": 6, "g": 3, "o": 0}
SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}


def is_mode(text: str) -> bool:
    """Whether `text` is a mode: three or four octal digits, or symbolic clauses."""
    if re.fullmatch(r"[0-7]{3,4}", text):
        return True
    return all(CLAUSE.match(clause) for clause in text.split(","))


def mode_bits(text: str, now: int, directory: bool) -> int:
    """The bits that `text` asks for, given the bits of `now`."""
    if text.isdigit():
        return int(text, 8)
    bits = now
    for clause in text.split(","):
        match = CLAUSE.match(clause)
        if match is None:
            raise ValueError(f"{text!r} is not a mode")
        who = match["who"].replace("a", "ugo") or "ugo"
        for act, what in ACT.findall(match["acts"]):
            bits = _act(bits, who, act, what, directory)
    return bits


def mode_holds(text: str, now: int, directory: bool) -> bool:
    """Whether the bits are already what `text` asks for."""
    return mode_bits(text, now, directory) == now


def _act(bits: int, who: str, act: str, what: str, directory: bool) -> int:
    for one in dict.fromkeys(who):
        shift = SHIFT[one]
        if what in SHIFT:
            triple, special = (bits >> SHIFT[what]) & 7, 0
        else:
            runs = "x" in what or ("X" in what and (directory or bool(bits & 0o111)))
            triple = 4 * ("r" in what) + 2 * ("w" in what) + runs
            special = SPECIAL[one] if "s" in what else 0
        if act == "=":
            # chmod keeps setuid and setgid of directories unless they are named.
            keep = SPECIAL[one] if directory else 0
            bits = (bits & ~(7 << shift) & ~(SPECIAL[one] & ~keep)) | triple << shift | special
        elif act == "+":
            bits |= triple << shift | special
        else:
            bits &= ~(triple << shift | special)
    if "t" in what:
        bits = bits & ~0o1000 if act == "-" else bits | 0o1000
    return bits
