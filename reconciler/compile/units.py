"""Sizes for people, and logarithms, as Ansible's filters write them."""

from __future__ import annotations

import math
import re

from jinja2.exceptions import TemplateRuntimeError

UNITS = {
    "Y": 1 << 80,
    "Z": 1 << 70,
    "E": 1 << 60,
    "P": 1 << 50,
    "T": 1 << 40,
    "G": 1 << 30,
    "M": 1 << 20,
    "K": 1 << 10,
    "B": 1,
}
SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*\Z")


def human_readable(size: float, isbits: bool = False, unit: str | None = None) -> str:
    """`10.00 GB`."""
    base = "bits" if isbits else "Bytes"
    for name, limit in UNITS.items():
        if (unit is None and size >= limit) or (unit is not None and unit.upper()[0] == name):
            break
    else:
        name, limit = "B", 1
    suffix = base if limit == 1 else name + base[0]
    return f"{size / limit:.2f} {suffix}"


def human_to_bytes(size: object, default_unit: str | None = None, isbits: bool = False) -> int:
    """`10 MB` as a number."""
    found = SIZE.match(str(size))
    if found is None:
        raise TemplateRuntimeError(f"{size!r} is no size: write 10M or 1.5 GB")
    unit = (found[2] or default_unit or "B").upper()
    word = "b" if isbits else "B"
    if unit[0] not in UNITS or unit[1:] not in ("", "B", "IB", "ITS", "YTES", "BIT", "BYTES"):
        raise TemplateRuntimeError(
            f"{unit!r} is no unit of size: K, M, G, T, with or without {word}"
        )
    return round(float(found[1]) * UNITS[unit[0]])


def logarithm(value: float, base: float = math.e) -> float:
    """The logarithm of a number."""
    return math.log10(value) if base == 10 else math.log(value, base)
