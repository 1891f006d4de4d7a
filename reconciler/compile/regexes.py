"""The filters and tests that take a regular expression, with a limit for what it may cost.

The expression is from Git, but what it goes over may be a fact that a hostile host reports.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

from reconciler import patience
from reconciler.compile import sandbox

#: Seconds of processor time that one use of an expression may take.
LIMIT = 2.0


def replace(
    value: object, pattern: str = "", replacement: str = "", ignorecase: bool = False,
    multiline: bool = False, count: int = 0, mandatory_count: int = 0,
) -> str:  # fmt: skip
    text, put = str(value), str(replacement)
    size = 0

    def counted(found: re.Match[str]) -> str:
        nonlocal size
        new = found.expand(put)
        size += len(new)
        if size > sandbox.MAX_BYTES:
            raise sandbox.too_large()
        return new

    regex = re.compile(str(pattern), _flags(ignorecase, multiline))
    regex.sub(put, "")  # a bad replacement is an error even where nothing matches
    with _bounded(pattern):
        result, changed = regex.subn(counted, text, count)
    if mandatory_count and mandatory_count != changed:
        raise TemplateRuntimeError(
            f"{pattern!r} matches {changed} times, not {mandatory_count} times"
        )
    return result


def search(
    value: object, regex: str, *groups: str, ignorecase: bool = False, multiline: bool = False
) -> Any:
    with _bounded(regex):
        found = re.search(regex, str(value), _flags(ignorecase, multiline))
    if found is None:
        return None
    if not groups:
        return found.group()
    chosen: list[str | Any] = []
    for group in groups:
        name = re.fullmatch(r"\\(?:g<(\w+)>|(\d+))", group)
        if name is None:
            raise TemplateRuntimeError(f"{group!r} is no group: write '\\\\1' or '\\\\g<name>'")
        key = name[1] or name[2]
        chosen.append(found.group(int(key) if key.isdigit() else key))
    return chosen


def findall(
    value: object, regex: str, multiline: bool = False, ignorecase: bool = False
) -> list[Any]:
    with _bounded(regex):
        return re.findall(regex, str(value), _flags(ignorecase, multiline))


def escape(value: object, re_type: str = "python") -> str:
    if re_type == "python":
        return re.escape(str(value))
    return re.sub(r"([].[^$*\\])", r"\\\1", str(value))


def holds(
    value: object,
    pattern: str = "",
    ignorecase: bool = False,
    multiline: bool = False,
    match_type: str = "search",
) -> bool:
    how = {"search": re.search, "match": re.match, "fullmatch": re.fullmatch}[match_type]
    with _bounded(pattern):
        return bool(how(pattern, str(value), _flags(ignorecase, multiline)))


def _only(match_type: str) -> Callable[..., bool]:
    """The test that is always of this kind."""

    def test(
        value: object, pattern: str = "", ignorecase: bool = False, multiline: bool = False
    ) -> bool:
        return holds(value, pattern, ignorecase, multiline, match_type)

    return test


def _flags(ignorecase: bool, multiline: bool) -> int:
    return (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)


def _bounded(pattern: object) -> AbstractContextManager[None]:
    return patience.bounded(
        LIMIT,
        lambda: TemplateRuntimeError(
            f"the regular expression {pattern!r} took more than {LIMIT:g} s: {patience.HINT}"
        ),
    )


FILTERS: dict[str, Any] = {
    "regex_replace": replace,
    "regex_search": search,
    "regex_findall": findall,
    "regex_escape": escape,
}
TESTS: dict[str, Any] = {"match": _only("match"), "search": _only("search"), "regex": holds}
