"""Filters that make text: encodings, digests, comments, YAML and JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError
from jinja2.filters import do_replace
from jinja2.utils import pass_environment, pass_eval_context

from reconciler.compile import sandbox
from reconciler.errors import YamlError
from reconciler.yamldoc import dump, load

#: The name space of Ansible's UUIDs.
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
    return str(
        uuid.uuid5(
            namespace if isinstance(namespace, uuid.UUID) else uuid.UUID(str(namespace)), str(value)
        )
    )


def quote(value: object) -> str:
    return shlex.quote("" if value is None else str(value))


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
        space + line if (line or blank) and (number or first) else line
        for number, line in enumerate(lines)
    )


@pass_environment
def join(
    environment: Any, value: Iterable[Any], d: object = "", attribute: str | None = None
) -> str:
    if attribute is not None:
        value = [environment.getitem(one, attribute) for one in value]
    return sandbox.join(value, str(d))


# -- data formats ------------------------------------------------------------------------


def to_yaml(
    value: object,
    indent: int = 2,
    sort_keys: bool = True,
    default_flow_style: bool | None = None,
    **_: object,
) -> str:
    return dump(plain(value), indent=indent, flow=default_flow_style, sort_keys=sort_keys)


def to_nice_yaml(value: object, indent: int = 4, sort_keys: bool = True, **_: object) -> str:
    return dump(plain(value), indent=indent, sort_keys=sort_keys)


def to_json(
    value: object,
    indent: int | None = None,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    **_: object,
) -> str:
    return json.dumps(plain(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii)


def to_nice_json(
    value: object, indent: int = 4, sort_keys: bool = True, ensure_ascii: bool = True, **_: object
) -> str:
    return json.dumps(plain(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii)


def from_json(text: object) -> Any:
    return json.loads(str(text))


def from_yaml(text: object) -> Any:
    try:
        return plain(load(str(text).encode(), ""))
    except YamlError as error:
        line = error.mark.line if error.mark else 0
        raise TemplateRuntimeError(
            f"this is not YAML: {error.message}, in line {line} of the text"
        ) from error


FILTERS: dict[str, Any] = {
    "b64encode": b64encode,
    "b64decode": b64decode,
    "hash": digest,
    "checksum": digest,
    "sha1": digest,
    "md5": lambda value: digest(value, "md5"),
    "to_uuid": to_uuid,
    "quote": quote,
    "comment": comment,
    "replace": replace,
    "center": center,
    "indent": indent,
    "join": join,
    "_concat": sandbox.join,
    "split": lambda value, separator=None, count=-1: str(value).split(separator, count),
    "to_yaml": to_yaml,
    "to_nice_yaml": to_nice_yaml,
    "to_json": to_json,
    "tojson": to_json,
    "to_nice_json": to_nice_json,
    "from_json": from_json,
    "from_yaml": from_yaml,
}
