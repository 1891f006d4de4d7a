"""A value against a field: converts what is clear, refuses what YAML made of something else.

Conversions are those that cannot surprise: `5` for text is "5", `"yes"` for a truth value is
true, `a,b` for a list is two items. What YAML has changed on the way (`0644` is the number 420,
`1.10` is 1.1, `no` is false) is refused where text is wanted, with the way to write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconciler.catalog import encode_param
from reconciler.compile.schema import Field, Kind
from reconciler.errors import Mark
from reconciler.resource import Content, plain_path
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Seq, raw_number

TRUTH = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}
SHOWN = 60


class Misfit(Exception):  # it is data on its way to becoming a SchemaError
    """A value that does not fit. path: keys and indexes below the parameter."""

    def __init__(self, message: str, hint: str = "", path: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path


def no_text(name: str, value: str) -> str:
    """What is wrong with a text that has no bytes, as a template can make one; "" for any other."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"{name} has {value[error.start]!r}, which is no character of UTF-8"
    return ""


def fit(field: Field, value: object) -> object:
    """The value as the field wants it. Raises Misfit."""
    return _fit(field.kind, value, field.name, ())


def _fit(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if value is None:
        if kind.optional or kind.name == "object":
            return None
        raise Misfit(
            f"{name} is empty, expected {kind}", "give it a value, or leave the key out", path
        )
    odd = no_text(name, value) if isinstance(value, str) else ""
    if odd:
        raise Misfit(odd, "no file and no program can be given that", path)
    if kind.name == "union":
        return _fit_union(kind, value, name, path)
    return _FITTERS[kind.name](kind, value, name, path)


def _fit_union(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    first: Misfit | None = None
    # A list or mapping is meant where one is written, text where text is.
    exact = [one for one in kind.of if isinstance(value, _NATURAL.get(one.name, ()))]
    for one in [*exact, *kind.of]:
        try:
            return _fit(one, value, name, path)
        except Misfit as error:
            first = first or error
    raise first or Misfit(f"{name} is {_what(value)}, expected {kind}", "", path)


def _text(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        word = "true" if value else "false"
        written = "yes, on or true" if value else "no, off or false"
        raise Misfit(
            f"{name} is the truth value {word}, expected text",
            f'YAML reads {written} so; put the word in quotes: {name}: "{"yes" if value else "no"}"',
            path,
        )
    if isinstance(value, (int, float)):
        raw = raw_number(value)
        if raw is not None:
            raise Misfit(f"{name}: {raw} is the number {value!r}", f'write {name}: "{raw}"', path)
        return repr(value)
    raise Misfit(f"{name} is {_what(value)}, expected text", _single(value, name), path)


def _path(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    return plain_path(str(_text(kind, value, name, path)))


def _single(value: object, name: str) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return f"write {name}: {value[0]}"
    return ""


def _whole(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        try:
            return int(value.strip(), 10)
        except ValueError:
            pass
    raise Misfit(f"{name} is {_what(value)}, expected a whole number", "", path)


def _number(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            pass
        else:
            if found - found == 0:  # neither infinite nor NaN, which JSON cannot say
                return found
    raise Misfit(f"{name} is {_what(value)}, expected a number", "", path)


def _truth(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in TRUTH:
        return TRUTH[value.lower()]
    raise Misfit(f"{name} is {_what(value)}, expected true or false", "", path)


def _choice(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    for choice in kind.choices:
        if type(choice) is type(value) and choice == value:
            return choice
    if isinstance(value, bool):
        # `upgrade: no` and `state: yes` are words that YAML took for truth values.
        for word in ("yes", "true", "on") if value else ("no", "false", "off"):
            if word in kind.choices:
                return word
    elif isinstance(value, (int, float)) and str(value) in kind.choices:
        return str(value)
    shown = _what(value) if not isinstance(value, str) else repr(value[:SHOWN])
    guess = did_you_mean(str(value), [str(choice) for choice in kind.choices])
    raise Misfit(f"{name} is {shown}, expected {kind}", guess, path)


def _list(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, str):
        value = split_words(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise Misfit(
            f"{name} is {_what(value)}, expected {kind}", f"write {name}: [item, item]", path
        )
    return [
        _fit(kind.of[0], item, f"item {index + 1} of {name}", (*path, index))
        for index, item in enumerate(value)
    ]


def split_words(text: str) -> list[str]:
    """`a,b` and `a, b` are two items; a text with blanks in a part, such as a command, is one."""
    parts = [part.strip() for part in text.split(",")]
    if all(part and " " not in part for part in parts):
        return parts
    return [text] if text else []


def _dict(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if not isinstance(value, Mapping):
        raise Misfit(
            f"{name} is {_what(value)}, expected {kind}", f"write {name}: {{key: value}}", path
        )
    return {
        _text(kind, key, f"a key of {name}", path): _fit(
            kind.of[0], item, f"{name}.{key}", (*path, key)
        )
        for key, item in value.items()
    }


def _content(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, Content):
        return encode_param(value)
    raise Misfit(f"{name} cannot be written here", "declare copy or template instead", path)


def _anything(kind: Kind, value: object, name: str, path: tuple[object, ...]) -> object:
    if isinstance(value, Mapping):
        return {
            _text(kind, key, f"a key of {name}", path): _anything(kind, item, name, (*path, key))
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_anything(kind, item, name, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise Misfit(f"{name} is {_what(value)}, which is no plain value", "", path)


_FITTERS = {
    "str": _text, "Path": _path, "Secret": _text, "int": _whole, "float": _number, "bool": _truth, "choice": _choice,
    "list": _list, "dict": _dict, "Content": _content, "object": _anything,
}  # fmt: skip
_NATURAL: Mapping[str, type | tuple[type, ...]] = {
    "str": str, "Path": str, "Secret": str, "int": int, "float": float, "bool": bool, "list": list, "dict": Mapping,
    "Content": Content,
}  # fmt: skip


def _what(value: object) -> str:
    """A value in a few words, for an error."""
    if isinstance(value, bool):
        return "the truth value " + ("true" if value else "false")
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the text {value[:SHOWN]!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"


def place(raw: object, mark: Mark, path: Iterable[object]) -> Mark:
    """The mark of what lies at `path` below a value as written; as deep as it was written."""
    for step in path:
        if isinstance(raw, Map) and step in raw:
            mark = raw.place(step)
            raw = raw[step]
        elif isinstance(raw, Seq):
            index = step if isinstance(step, int) else len(raw)
            if index >= len(raw):
                break
            mark = raw.place(index)
            raw = raw[index]
        else:
            break
    return mark
