"""What messages are made of: counts, and names that were probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

#: Known names that are looked at: a fleet has very many hosts, and each costs 50 microseconds.
MOST = 5000


def counted(number: int, what: str) -> str:
    """`1 host`, `3 hosts`. what: a word whose plural takes an s."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def did_you_mean(
    word: str, known: Iterable[object], *, likeness: float = 0.6, most: int = MOST
) -> str:
    """A hint with the known names that are most like a word; "" if none is.

    likeness: of a name, at least, from 0 to 1 for the word itself. most: names that are looked at.
    """
    import difflib  # takes milliseconds, and mostly nothing is wrong

    texts = [one for one in islice(known, most) if isinstance(one, str)]
    close = difflib.get_close_matches(word, texts, cutoff=likeness)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
