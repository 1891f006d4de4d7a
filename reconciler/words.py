"""What messages are made of."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """`1 host`, `3 hosts`. what: a word whose plural takes an s."""
    return f"{number} {what}{'' if number == 1 else 's'}"
