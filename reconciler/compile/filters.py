"""The filters, tests and functions of Ansible that do not look at the machine or the clock.

Names, parameters and results are Ansible's. Two things differ: results that Ansible leaves to
chance (the order of sets) are in the order of the input, and there is no filter whose result
changes from run to run (`advice` says what to do instead).
"""

from __future__ import annotations

import posixpath
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.utils import pass_context

from reconciler.compile import (
    ipfilters,
    listfilters,
    regexes,
    sandbox,
    textfilters,
    units,
    versions,
)

#: Of Jinja2's own: their results are not the same every time.
REMOVED = ("random", "lipsum")
#: Where Ansible has them; a filter may be written with this in front.
COLLECTIONS = ("ansible.builtin.", "ansible.utils.", "ansible.netcommon.", "community.general.")


# -- values ------------------------------------------------------------------------------


def to_bool(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    return str(value).lower() in ("yes", "on", "1", "true", "t", "y")


def mandatory(value: Any, msg: str | None = None) -> Any:
    if isinstance(value, Undefined):
        if msg is None:
            return str(value)
        raise TemplateRuntimeError(str(msg))
    return value


def ternary(value: Any, true_val: Any, false_val: Any, none_val: Any = None) -> Any:
    if value is None and none_val is not None:
        return none_val
    return true_val if value else false_val


def type_debug(value: Any) -> str:
    names = {bool: "bool", str: "str", int: "int", float: "float", dict: "dict", list: "list"}
    return next(
        (name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__
    )


def strftime(pattern: str, second: object = None, utc: bool = True) -> str:  # it is always UTC
    if second is None:
        raise TemplateRuntimeError(
            "the time is not known while compiling: give strftime the seconds since 1970"
        )
    return time.strftime(pattern, time.gmtime(float(str(second))))


def to_datetime(text: str, format: str = "%Y-%m-%d %H:%M:%S") -> datetime:  # noqa: A002  # Ansible's name
    return datetime.strptime(text, format).replace(tzinfo=UTC)


def urlsplit(value: str, query: str = "") -> Any:
    parts = urllib.parse.urlsplit(value)
    names = (
        "scheme",
        "netloc",
        "path",
        "query",
        "fragment",
        "username",
        "password",
        "hostname",
        "port",
    )
    found = {name: getattr(parts, name) for name in names}
    if not query:
        return found
    if query not in found:
        raise TemplateRuntimeError(f"a URL has no '{query}': {', '.join(names)}")
    return found[query]


# -- tests -------------------------------------------------------------------------------


def is_subset(one: Any, other: Any) -> bool:
    return all(value in other for value in one)


def truthy(value: Any, convert_bool: bool = False) -> bool:
    return bool(to_bool(value) if convert_bool and isinstance(value, (str, int)) else value)


# -- functions ---------------------------------------------------------------------------


def functions(lookup: Callable[..., list[object]]) -> dict[str, Callable[..., object]]:
    """The global functions; `lookup` is called with (scope, kind, arguments, options)."""

    @pass_context
    def lookup_function(context: Any, kind: str, *args: Any, **options: Any) -> object:
        found = lookup(context.scope, kind, args, options)
        if options.get("wantlist"):
            return found
        return found[0] if len(found) == 1 else ",".join(map(str, found))

    @pass_context
    def query_function(context: Any, kind: str, *args: Any, **options: Any) -> object:
        return lookup(context.scope, kind, args, options)

    return {"lookup": lookup_function, "query": query_function, "q": query_function}


def _named(table: Mapping[str, Any], *collections: str) -> dict[str, Any]:
    """Every name also with the collections that Ansible has it in."""
    return {
        f"{prefix}{name}": value for name, value in table.items() for prefix in ("", *collections)
    }


def _path(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, *args: function(str(value), *args)


def path_join(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else posixpath.join(*value)


FILTERS: dict[str, Any] = _named(
    {
        "_counted": sandbox.counted,
        **textfilters.FILTERS,
        **regexes.FILTERS,
        **listfilters.FILTERS,
        **ipfilters.FILTERS,
        "bool": to_bool,
        "mandatory": mandatory,
        "ternary": ternary,
        "type_debug": type_debug,
        "strftime": strftime,
        "to_datetime": to_datetime,
        "basename": _path(posixpath.basename),
        "dirname": _path(posixpath.dirname),
        "normpath": _path(posixpath.normpath),
        "relpath": _path(posixpath.relpath),
        "splitext": lambda value: list(posixpath.splitext(str(value))),
        "path_join": path_join,
        "commonpath": lambda values: posixpath.commonpath(list(values)),
        "urlsplit": urlsplit,
        "urldecode": lambda value: urllib.parse.unquote_plus(str(value)),
        "human_readable": units.human_readable,
        "human_to_bytes": units.human_to_bytes,
        "log": units.logarithm,
        "pow": lambda value, power: float(value) ** float(power),
        "root": lambda value, base=2: float(value) ** (1.0 / float(base)),
    },
    *COLLECTIONS,
)
TESTS: dict[str, Any] = _named(
    {
        **regexes.TESTS,
        "version": versions.compare, "version_compare": versions.compare,
        "subset": is_subset, "issubset": is_subset,
        "superset": lambda one, other: is_subset(other, one),
        "issuperset": lambda one, other: is_subset(other, one),
        "contains": lambda values, value: value in values,
        "any": any, "all": all,
        "truthy": truthy, "falsy": lambda value, convert_bool=False: not truthy(value, convert_bool),
        "abs": lambda value: posixpath.isabs(str(value)),
        "nan": lambda value: value != value,  # only NaN differs from itself
    },
    *COLLECTIONS,
)  # fmt: skip
