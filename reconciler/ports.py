"""Whole numbers and ports, as inventories, variables and jump hosts give them: as texts."""

from __future__ import annotations

import re

from reconciler.errors import InventoryError, Mark

MAX_PORT = 65535
_WHOLE = re.compile(r"[0-9]{1,9}")


def check_port(text: str, what: str, mark: Mark | None = None) -> int:
    """The port that a text is. what: names it in the InventoryError that is raised for any other."""
    port = whole_number(text, MAX_PORT)
    if not port:
        raise InventoryError(
            f"{what}: {text[:20]!r} is not a port between 1 and {MAX_PORT}", mark=mark
        )
    return port


def whole_number(text: str, most: int) -> int:
    """The number from 1 to `most` that a text is, in nine digits at most; 0 for any other text."""
    number = int(text) if _WHOLE.fullmatch(text) else 0
    return number if number <= most else 0
