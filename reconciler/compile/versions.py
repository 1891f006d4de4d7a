"""The test `version`: which of two version numbers is the newer one."""

from __future__ import annotations

import operator
import re
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

OPERATORS = {
    "==": operator.eq, "=": operator.eq, "eq": operator.eq,
    "!=": operator.ne, "<>": operator.ne, "ne": operator.ne,
    "<": operator.lt, "lt": operator.lt, "<=": operator.le, "le": operator.le,
    ">": operator.gt, "gt": operator.gt, ">=": operator.ge, "ge": operator.ge,
}  # fmt: skip
PART = re.compile(r"\d+|[a-z]+", re.IGNORECASE)
SEMVER = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?\Z")

Key = list[tuple[int, int, str]]


def compare(
    value: object,
    version: object,
    operator: str = "==",
    strict: bool | None = None,
    version_type: str | None = None,
) -> bool:
    """Whether `value` is related so to `version`. Raises TemplateRuntimeError."""
    if operator not in OPERATORS:
        raise TemplateRuntimeError(f"there is no comparison '{operator}': {', '.join(OPERATORS)}")
    if str(value) == "":
        raise TemplateRuntimeError("the version to compare is empty")
    semantic = version_type in ("semver", "semantic") or (strict and version_type is None)
    key = _semantic if semantic else _loose
    result: Any = OPERATORS[operator](key(str(value)), key(str(version)))
    return bool(result)


def _loose(text: str) -> Key:
    """Numbers and words in turn; a word (`1.0rc1`) is older than a number in its place."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in PART.findall(text)]


def _semantic(text: str) -> Key:
    found = SEMVER.match(text)
    if found is None:
        raise TemplateRuntimeError(f"{text!r} is no semantic version: 1.2.3")
    core: Key = [(1, int(part), "") for part in found.groups()[:3]]
    if found[4] is None:
        return [*core, (2, 0, "")]
    release = [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in found[4].split(".")
    ]
    return [*core, (1, 0, ""), *release]
