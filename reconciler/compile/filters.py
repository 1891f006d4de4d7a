"""The filters, tests and functions of Ansible that do not look at the machine or the clock.

Names, parameters and results are Ansible's. Two things differ: results that Ansible leaves to
chance (the order of sets) are in the order of the input, and there is no filter whose result
changes from run to run (`advice` says what to do instead).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import posixpath
import random
import re
import shlex
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import do_replace
from jinja2.utils import pass_context, pass_environment, pass_eval_context

from reconciler.compile import ipfilters, sandbox, units, versions
from reconciler.errors import YamlError
from reconciler.yamldoc import dump, load

#: Of Jinja2's own: their results are not the same every time.
REMOVED = ("random", "lipsum")
#: What Ansible calls a random UUID's name space.
NAMESPACE = uuid.UUID("361E6D51-FAEC-444A-9079-341386DA8E2E")


def plain(value: Any) -> Any:
    """Dicts, lists and scalars, whatever kind of them a template made. Undefined is an error."""
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(one) for one in value]
    raise TemplateRuntimeError(f"a {type(value).__name__} is no plain value")


# -- text --------------------------------------------------------------------------------


def _bytes(value: object, encoding: str = "utf-8") -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(encoding)


def b64encode(value: object, encoding: str = "utf-8") -> str:
    return base64.b64encode(_bytes(value, encoding)).decode()


def b64decode(value: object, encoding: str = "utf-8") -> str:
    return base64.b64decode(str(value)).decode(encoding)


def digest(value: object, hashtype: str = "sha1") -> str:
    if hashtype not in hashlib.algorithms_guaranteed or hashtype.startswith("shake"):
        raise TemplateRuntimeError(f"there is no hash '{hashtype}'")
    return hashlib.new(hashtype, _bytes(value), usedforsecurity=False).hexdigest()


def to_uuid(value: object, namespace: object = NAMESPACE) -> str:
    return str(uuid.uuid5(namespace if isinstance(namespace, uuid.UUID) else uuid.UUID(str(namespace)), str(value)))


def quote(value: object) -> str:
    return shlex.quote("" if value is None else str(value))


def _flags(ignorecase: bool, multiline: bool) -> int:
    return (re.IGNORECASE if ignorecase else 0) | (re.MULTILINE if multiline else 0)


def regex_replace(
    value: object, pattern: str = "", replacement: str = "", ignorecase: bool = False,
    multiline: bool = False, count: int = 0, mandatory_count: int = 0,
) -> str:  # fmt: skip
    result, changed = re.subn(str(pattern), str(replacement), str(value), count=count, flags=_flags(ignorecase, multiline))
    if mandatory_count and mandatory_count != changed:
        raise TemplateRuntimeError(f"{pattern!r} matches {changed} times, not {mandatory_count} times")
    return result


def regex_search(
    value: object, regex: str, *groups: str, ignorecase: bool = False, multiline: bool = False
) -> Any:
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


def regex_findall(value: object, regex: str, multiline: bool = False, ignorecase: bool = False) -> list[Any]:
    return re.findall(regex, str(value), _flags(ignorecase, multiline))


def regex_escape(value: object, re_type: str = "python") -> str:
    if re_type == "python":
        return re.escape(str(value))
    return re.sub(r"([].[^$*\\])", r"\\\1", str(value))


COMMENTS = {
    "plain": {"decoration": "# "},
    "erlang": {"decoration": "% "},
    "c": {"decoration": "// "},
    "cblock": {"beginning": "/*", "decoration": " * ", "end": " */"},
    "xml": {"beginning": "<!--", "decoration": " - ", "end": "-->"},
}


def comment(text: object, style: str = "plain", **options: Any) -> str:
    if style not in COMMENTS:
        raise TemplateRuntimeError(f"there is no comment style '{style}': {', '.join(COMMENTS)}")
    given = {**COMMENTS[style], **options}
    newline = str(given.get("newline", "\n"))
    decoration = str(given.get("decoration", "# "))
    prefix = str(given.get("prefix", decoration.rstrip())) * int(given.get("prefix_count", 1))
    postfix = str(given.get("postfix", decoration.rstrip())) * int(given.get("postfix_count", 1))
    lines = [f"{decoration}{line}".rstrip() for line in str(text).splitlines()]
    parts = [given.get("beginning", ""), prefix, *lines, postfix, given.get("end", "")]
    return newline.join(str(part) for part in parts if part)


@pass_eval_context
def replace(context: Any, value: Any, old: str, new: str, count: int | None = None) -> str:
    sandbox.check_replace(str(value), str(old), str(new))
    return do_replace(context, str(value), old, new, count)


def center(value: object, width: int = 80) -> str:
    if width > sandbox.MAX_BYTES:
        raise sandbox.too_large()
    return str(value).center(width)


def indent(value: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    space = width if isinstance(width, str) else " " * min(width, sandbox.MAX_BYTES)
    lines = str(value).split("\n")
    if len(space) * len(lines) > sandbox.MAX_BYTES:
        raise sandbox.too_large()
    return "\n".join(
        space + line if (line or blank) and (number or first) else line for number, line in enumerate(lines)
    )


@pass_environment
def join(environment: Any, value: Iterable[Any], d: object = "", attribute: str | None = None) -> str:
    if attribute is not None:
        value = [environment.getitem(one, attribute) for one in value]
    return sandbox.join(value, str(d))


# -- data formats ------------------------------------------------------------------------


def to_yaml(value: object, indent: int = 2, sort_keys: bool = True, default_flow_style: bool | None = None, **_: object) -> str:
    return dump(plain(value), indent=indent, flow=default_flow_style, sort_keys=sort_keys)


def to_nice_yaml(value: object, indent: int = 4, sort_keys: bool = True, **_: object) -> str:
    return dump(plain(value), indent=indent, sort_keys=sort_keys)


def to_json(value: object, indent: int | None = None, sort_keys: bool = False, ensure_ascii: bool = True, **_: object) -> str:
    return json.dumps(plain(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii)


def to_nice_json(value: object, indent: int = 4, sort_keys: bool = True, ensure_ascii: bool = True, **_: object) -> str:
    return json.dumps(plain(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii)


def from_json(text: object) -> Any:
    return json.loads(str(text))


def from_yaml(text: object) -> Any:
    try:
        return plain(load(str(text).encode(), ""))
    except YamlError as error:
        line = error.mark.line if error.mark else 0
        raise TemplateRuntimeError(f"this is not YAML: {error.message}, in line {line} of the text") from error


# -- lists and mappings ------------------------------------------------------------------


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise TemplateRuntimeError(f"{name} needs a list, not {type(value).__name__}")
    return list(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    kept: list[Any] = []
    for value in values:
        try:
            if value in seen:
                continue
            seen.add(value)
        except TypeError:
            if value in kept:
                continue
        kept.append(value)
    return kept


def union(one: Any, other: Any) -> list[Any]:
    return _distinct([*_listed(one, "union"), *_listed(other, "union")])


def intersect(one: Any, other: Any) -> list[Any]:
    others = _listed(other, "intersect")
    return _distinct(value for value in _listed(one, "intersect") if value in others)


def difference(one: Any, other: Any) -> list[Any]:
    others = _listed(other, "difference")
    return _distinct(value for value in _listed(one, "difference") if value not in others)


def symmetric_difference(one: Any, other: Any) -> list[Any]:
    return [*difference(one, other), *difference(other, one)]


def flatten(value: Any, levels: int | None = None, skip_nulls: bool = True) -> list[Any]:
    flat: list[Any] = []
    for one in _listed(value, "flatten"):
        if one is None and skip_nulls:
            continue
        if isinstance(one, (list, tuple)) and levels != 0:
            flat += flatten(one, None if levels is None else levels - 1, skip_nulls)
        else:
            flat.append(one)
    return flat


def zip_filter(one: Any, *others: Any) -> list[list[Any]]:
    return [list(group) for group in zip(one, *others, strict=False)]


def zip_longest(one: Any, *others: Any, fillvalue: Any = None) -> list[list[Any]]:
    return [list(group) for group in itertools.zip_longest(one, *others, fillvalue=fillvalue)]


@pass_environment
def product(environment: sandbox.Sandbox, *lists: Any, repeat: int = 1) -> list[list[Any]]:
    parts = [list(one) for one in lists] * repeat
    size = 1
    for part in parts:
        size *= len(part)
    environment.spend(size)
    return [list(group) for group in itertools.product(*parts)]


def subelements(value: Any, subelements: str | list[str], skip_missing: bool = False) -> list[list[Any]]:
    path = subelements.split(".") if isinstance(subelements, str) else subelements
    pairs: list[list[Any]] = []
    for element in value.values() if isinstance(value, Mapping) else _listed(value, "subelements"):
        inner: Any = element
        for step in path:
            if not isinstance(inner, Mapping) or step not in inner:
                if skip_missing:
                    inner = []
                    break
                raise TemplateRuntimeError(f"an element has no '{step}': write skip_missing=true where that is right")
            inner = inner[step]
        pairs += [[element, one] for one in _listed(inner, "subelements")]
    return pairs


def combine(*values: Any, recursive: bool = False, list_merge: str = "replace") -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for value in flatten(list(values)):
        if not isinstance(value, Mapping):
            raise TemplateRuntimeError(f"combine needs mappings, not {type(value).__name__}")
        result = _merged(result, value, recursive, list_merge)
    return result


def _merged(one: Mapping[Any, Any], other: Mapping[Any, Any], recursive: bool, lists: str) -> dict[Any, Any]:
    result = dict(one)
    for key, value in other.items():
        old = result.get(key)
        if recursive and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(old, value, recursive, lists)
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = _merged_lists(old, value, lists)
        else:
            result[key] = value
    return result


def _merged_lists(old: list[Any], new: list[Any], how: str) -> list[Any]:
    ways: dict[str, Callable[[], list[Any]]] = {
        "replace": lambda: new,
        "keep": lambda: old,
        "append": lambda: old + new,
        "prepend": lambda: new + old,
        "append_rp": lambda: [one for one in old if one not in new] + new,
        "prepend_rp": lambda: new + [one for one in old if one not in new],
    }
    if how not in ways:
        raise TemplateRuntimeError(f"there is no list_merge '{how}': {', '.join(ways)}")
    return ways[how]()


def dict2items(value: Any, key_name: str = "key", value_name: str = "value") -> list[dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise TemplateRuntimeError(f"dict2items needs a mapping, not {type(value).__name__}")
    return [{key_name: key, value_name: one} for key, one in value.items()]


def items2dict(value: Any, key_name: str = "key", value_name: str = "value") -> dict[Any, Any]:
    return {one[key_name]: one[value_name] for one in _listed(value, "items2dict")}


def rekey_on_member(value: Any, key: str, duplicates: str = "error") -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for one in value.values() if isinstance(value, Mapping) else value:
        if one[key] in result and duplicates == "error":
            raise TemplateRuntimeError(f"two elements have the {key} {one[key]!r}")
        result[one[key]] = one
    return result


@pass_environment
def extract(environment: Any, item: Any, container: Any, morekeys: Any = None) -> Any:
    for key in [item, *([] if morekeys is None else morekeys if isinstance(morekeys, list) else [morekeys])]:
        container = environment.getitem(container, key)
    return container


def seeded_random(value: Any, start: int = 0, step: int = 1, *, seed: object = None) -> Any:
    chance = _chance(seed, "random")
    if isinstance(value, int):
        return chance.randrange(start, value, step)
    return chance.choice(_listed(value, "random"))


def shuffle(value: Any, seed: object = None) -> list[Any]:
    values = _listed(value, "shuffle")
    _chance(seed, "shuffle").shuffle(values)
    return values


def _chance(seed: object, name: str) -> random.Random:
    if seed is None:
        raise TemplateRuntimeError(f"{name} needs a seed, or no two catalogs would be equal: {name}(seed=inventory_hostname)")
    return random.Random(str(seed))  # noqa: S311  # it spreads things evenly, it keeps no secret


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
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)


def strftime(pattern: str, second: object = None, utc: bool = True) -> str:  # noqa: ARG001  # it is always UTC
    if second is None:
        raise TemplateRuntimeError("the time is not known while compiling: give strftime the seconds since 1970")
    return time.strftime(pattern, time.gmtime(float(str(second))))


def to_datetime(text: str, format: str = "%Y-%m-%d %H:%M:%S") -> datetime:  # noqa: A002  # Ansible's name
    return datetime.strptime(text, format).replace(tzinfo=UTC)


def urlsplit(value: str, query: str = "") -> Any:
    parts = urllib.parse.urlsplit(value)
    names = ("scheme", "netloc", "path", "query", "fragment", "username", "password", "hostname", "port")
    found = {name: getattr(parts, name) for name in names}
    if not query:
        return found
    if query not in found:
        raise TemplateRuntimeError(f"a URL has no '{query}': {', '.join(names)}")
    return found[query]


# -- tests -------------------------------------------------------------------------------


def matches(how: Callable[..., Any]) -> Callable[..., bool]:
    """A test from one of re's functions."""

    def test(value: object, pattern: str = "", ignorecase: bool = False, multiline: bool = False) -> bool:
        return bool(how(pattern, str(value), _flags(ignorecase, multiline)))

    return test


def regex_test(value: object, pattern: str = "", ignorecase: bool = False, multiline: bool = False, match_type: str = "search") -> bool:
    how = {"search": re.search, "match": re.match, "fullmatch": re.fullmatch}[match_type]
    return bool(how(pattern, str(value), _flags(ignorecase, multiline)))


def is_subset(one: Any, other: Any) -> bool:
    return all(value in other for value in one)


def truthy(value: Any, convert_bool: bool = False) -> bool:
    return bool(to_bool(value) if convert_bool and isinstance(value, (str, int)) else value)


# -- functions ---------------------------------------------------------------------------


def functions(lookup: Callable[..., object]) -> dict[str, Callable[..., object]]:
    """The global functions; `lookup` is called with (scope, kind, arguments, options)."""

    @pass_context
    def lookup_function(context: Any, kind: str, *args: Any, **options: Any) -> object:
        found = lookup(context.scope, kind, args, options)
        if options.get("wantlist"):
            return found
        return found[0] if isinstance(found, list) and len(found) == 1 else ",".join(map(str, found))  # type: ignore[arg-type]

    @pass_context
    def query_function(context: Any, kind: str, *args: Any, **options: Any) -> object:
        return lookup(context.scope, kind, args, options)

    return {"lookup": lookup_function, "query": query_function, "q": query_function}


def _named(table: Mapping[str, Any], *collections: str) -> dict[str, Any]:
    """Every name also with the collections that Ansible has it in."""
    return {f"{prefix}{name}": value for name, value in table.items() for prefix in ("", *collections)}


def _path(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, *args: function(str(value), *args)


def path_join(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else posixpath.join(*value)


FILTERS: dict[str, Any] = _named(
    {
        "b64encode": b64encode, "b64decode": b64decode, "hash": digest, "checksum": digest, "sha1": digest,
        "md5": lambda value: digest(value, "md5"), "to_uuid": to_uuid, "quote": quote,
        "regex_replace": regex_replace, "regex_search": regex_search, "regex_findall": regex_findall,
        "regex_escape": regex_escape, "comment": comment, "replace": replace, "center": center,
        "indent": indent, "join": join, "_concat": sandbox.join,
        "to_yaml": to_yaml, "to_nice_yaml": to_nice_yaml, "to_json": to_json, "tojson": to_json,
        "to_nice_json": to_nice_json, "from_json": from_json, "from_yaml": from_yaml,
        "union": union, "intersect": intersect, "difference": difference,
        "symmetric_difference": symmetric_difference, "flatten": flatten, "zip": zip_filter,
        "zip_longest": zip_longest, "product": product, "subelements": subelements, "combine": combine,
        "dict2items": dict2items, "items2dict": items2dict, "rekey_on_member": rekey_on_member,
        "extract": extract, "random": seeded_random, "shuffle": shuffle,
        "bool": to_bool, "mandatory": mandatory, "ternary": ternary, "type_debug": type_debug,
        "strftime": strftime, "to_datetime": to_datetime,
        "basename": _path(posixpath.basename), "dirname": _path(posixpath.dirname),
        "splitext": lambda value: list(posixpath.splitext(str(value))), "normpath": _path(posixpath.normpath),
        "relpath": _path(posixpath.relpath), "path_join": path_join,
        "commonpath": lambda values: posixpath.commonpath(list(values)),
        "urlsplit": urlsplit, "urldecode": lambda value: urllib.parse.unquote_plus(str(value)),
        "human_readable": units.human_readable, "human_to_bytes": units.human_to_bytes,
        "pow": lambda value, power: float(value) ** float(power),
        "root": lambda value, base=2: float(value) ** (1.0 / float(base)),
        "log": units.logarithm, "split": lambda value, separator=None, count=-1: str(value).split(separator, count),
        **ipfilters.FILTERS,
    },
    "ansible.builtin.", "ansible.utils.", "ansible.netcommon.", "community.general.",
)  # fmt: skip

TESTS: dict[str, Any] = _named(
    {
        "match": matches(re.match), "search": matches(re.search), "regex": regex_test,
        "version": versions.compare, "version_compare": versions.compare,
        "subset": is_subset, "issubset": is_subset,
        "superset": lambda one, other: is_subset(other, one),
        "issuperset": lambda one, other: is_subset(other, one),
        "contains": lambda values, value: value in values,
        "any": lambda values: any(values), "all": lambda values: all(values),
        "truthy": truthy, "falsy": lambda value, convert_bool=False: not truthy(value, convert_bool),
        "abs": lambda value: posixpath.isabs(str(value)),
        "nan": lambda value: value != value,  # noqa: PLR0124  # only NaN differs from itself
    },
    "ansible.builtin.",
)  # fmt: skip
