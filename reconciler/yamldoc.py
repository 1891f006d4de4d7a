"""YAML as plain Python values that remember where they were written.

The only file that imports yaml. Values are built from the parser's events, in one pass without
recursion, so every limit holds before anything is built: bytes, depth, events, aliases, and
the nodes that aliases and merge keys stand for.

Plain scalars are read as Ansible reads them (YAML 1.1: `yes` is true, `0644` is 420), with two
exceptions that surprise everybody: `22:22` and `2024-01-01` stay text. What was written is
kept (`Map.raw`), so that an error can say `0644 is the number 420`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import yaml

from reconciler.errors import Mark, YamlError

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Limits:
    """size: bytes of one file. nodes: what aliases and merge keys expand to, all together."""

    size: int = 2 << 20
    depth: int = 64
    events: int = 200_000
    aliases: int = 1000
    nodes: int = 400_000


LIMITS = Limits()
NOWHERE = Mark("")


class Unsafe(str):
    """Text that is never a template: `!unsafe` in YAML, and everything a host says about itself."""

    __slots__ = ()


class _WrittenInt(int):
    """A whole number that reads otherwise than it was written: `0644`, `0x1F`, `1_000`."""

    raw: str


class _WrittenFloat(float):
    """A number that reads otherwise than it was written: `1.10`."""

    raw: str


def raw_number(value: object) -> str | None:
    """How a number was written, if it reads otherwise: `0644` is 420. It stays known on the
    way through variables, lists and `default(...)`, but not through arithmetic."""
    return value.raw if isinstance(value, (_WrittenInt, _WrittenFloat)) else None


class _Place(NamedTuple):
    """Lines and columns of a key and its value, from 1; what a scalar looked like in the file."""

    line: int
    column: int
    raw: str | None = None
    quoted: bool = False
    key_line: int = 0
    key_column: int = 0
    file: str = ""


class Map(dict[Any, Any]):
    """A mapping; `mark` is where it starts."""

    def __init__(self, values: Any = (), mark: Mark = NOWHERE) -> None:
        super().__init__(values)
        self.mark = mark
        self.places: dict[Any, _Place] = {}

    def place(self, key: object) -> Mark:
        """Where the value of `key` is written."""
        place = self.places.get(key)
        return Mark(place.file, place.line, place.column) if place else self.mark

    def key_place(self, key: object) -> Mark:
        """Where `key` itself is written."""
        place = self.places.get(key)
        return Mark(place.file, place.key_line, place.key_column) if place else self.mark

    def raw(self, key: object) -> str | None:
        """The text of a scalar value as written; None for anything else."""
        place = self.places.get(key)
        return place.raw if place else None

    def quoted(self, key: object) -> bool:
        """Whether the value was written in quotes, or as a block of text."""
        place = self.places.get(key)
        return place is not None and place.quoted


class Seq(list[Any]):
    """A sequence; `mark` is where it starts."""

    def __init__(self, values: Any = (), mark: Mark = NOWHERE) -> None:
        super().__init__(values)
        self.mark = mark
        self.places: list[_Place] = []

    def place(self, index: int) -> Mark:
        """Where the item is written."""
        if index < len(self.places):
            place = self.places[index]
            return Mark(place.file, place.line, place.column)
        return self.mark

    def raw(self, index: int) -> str | None:
        """The text of a scalar item as written; None for anything else."""
        return self.places[index].raw if index < len(self.places) else None

    def quoted(self, index: int) -> bool:
        """Whether the item was written in quotes, or as a block of text."""
        return index < len(self.places) and self.places[index].quoted


def load(text: bytes, file: str, limits: Limits = LIMITS) -> object:
    """The one document of a file; None if it is empty. Raises YamlError with the place."""
    source = decode(text, file, limits.size)
    builder = _Builder(file, limits)
    parser = _Parser(source)
    try:
        while True:
            event = parser.get_event()
            if event is None:
                return builder.root
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _explain(error, file, source) from error
    except yaml.YAMLError as error:
        raise YamlError(f"this is not YAML: {_one_line(str(error))}", mark=Mark(file)) from error
    finally:
        parser.dispose()


def dump(
    value: object, *, indent: int = 2, flow: bool | None = False, sort_keys: bool = True
) -> str:
    """Plain values as YAML. flow: None writes the innermost lists and mappings on one line."""
    return yaml.dump(
        value,
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        indent=indent,
        default_flow_style=flow,
        sort_keys=sort_keys,
        allow_unicode=True,
    )


#: What YAML calls printable. A byte order mark is not among it.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
#: What YAML 1.1 calls a line break.
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def check_size(size: int, file: str, limit: int = LIMITS.size) -> None:
    """Raises YamlError for a file with more bytes than the limit; it need not be read for that."""
    if size > limit:
        raise YamlError(
            f"the file has {size} bytes, more than the limit of {limit}",
            mark=Mark(file),
            hint="split it, or put large content into a file of its own under files/",
        )


def decode(text: bytes, file: str, size: int = LIMITS.size) -> str:
    """The text of a file of the state repo. Raises YamlError for what is no plain UTF-8 text."""
    check_size(len(text), file, size)
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise YamlError(
            "the file starts with a byte order mark",
            mark=Mark(file, 1, 1),
            hint="save it as UTF-8 without BOM",
        )
    try:
        source = text.decode("utf-8")
    except UnicodeDecodeError as error:
        good = text[: error.start].decode("utf-8")
        line, column = _position(good)
        raise YamlError(
            f"byte 0x{text[error.start]:02x} is not UTF-8",
            mark=Mark(file, line, column),
            hint="save the file as UTF-8",
        ) from error
    odd = _UNPRINTABLE.search(source)
    if odd is not None:
        line, column = _position(source[: odd.start()])
        raise YamlError(
            f"character U+{ord(odd[0]):04X} is not allowed in YAML",
            mark=Mark(file, line, column),
            hint=f'write it as an escape in double quotes: "\\u{ord(odd[0]):04x}"',
        )
    return source


def _position(before: str) -> tuple[int, int]:
    lines = LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


# -- scalars -----------------------------------------------------------------------------

_TRUE = {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
_FALSE = {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
_NULL = {"", "~", "null", "Null", "NULL"}
_NUMBER_START = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_CORE = "tag:yaml.org,2002:"


def scalar(text: str) -> object:
    """A plain scalar by the rules of YAML 1.1. Raises ValueError for a number beyond all use."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in _NULL:
        return None
    if text[0] not in _NUMBER_START:
        return text
    if _INT.match(text):
        return _written(_WrittenInt(_integer(text.replace("_", ""))), text)
    if _FLOAT.match(text):
        if text.lower().endswith(("inf", "nan")):
            raise ValueError("infinity and NaN are no values here")
        return _written(_WrittenFloat(text.replace("_", "")), text)
    return text


def _written(number: _WrittenInt | _WrittenFloat, text: str) -> int | float:
    plain = int(number) if isinstance(number, int) else float(number)
    if repr(plain) == text:
        return plain
    number.raw = text
    return number


def _integer(text: str) -> int:
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    if digits[0] == "0" and digits[1:2] not in ("b", "x"):
        return sign * int(digits, 8)
    return sign * int(digits, 0)


# -- building ----------------------------------------------------------------------------


class _Open:
    """A mapping or sequence that is not closed yet."""

    __slots__ = ("anchor", "key", "merges", "nodes_before", "place", "value")

    def __init__(self, value: Map | Seq, place: _Place, anchor: str | None, nodes: int) -> None:
        self.value = value
        self.place = place
        self.anchor = anchor
        self.nodes_before = nodes
        self.key: tuple[Any, _Place] | None = None
        self.merges: list[tuple[Any, _Place]] = []


#: Stands for a plain `<<` where a key is expected.
_MERGE = object()


@dataclass
class _Builder:
    file: str
    limits: Limits
    root: object = None
    _stack: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[object, int] | None] = field(default_factory=dict)
    _events: int = 0
    _aliases: int = 0
    _nodes: int = 0
    _documents: int = 0

    def take(self, event: Any) -> None:
        self._events += 1
        if self._events > self.limits.events:
            self._fail(event, f"the file holds more than {self.limits.events} values", "split it")
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._start(event, kind is yaml.MappingStartEvent)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._end()
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                self._fail(
                    event,
                    "a second document starts here",
                    "put each document into a file of its own",
                )

    def _scalar(self, event: Any) -> None:
        mark = event.start_mark
        text: str = event.value
        plain: bool = event.implicit[0]
        place = _Place(mark.line + 1, mark.column + 1, text, not plain, file=self.file)
        value: object
        if plain and event.tag is None:
            if text == "<<" and self._wants_key():
                value = _MERGE
            else:
                try:
                    value = scalar(text)
                except ValueError:
                    self._fail(
                        event,
                        f"{text[:40]!r} is no number that can be used",
                        "put it in quotes to make it text",
                    )
        elif event.tag is None:
            value = text
        else:
            value = self._tagged(event, text)
        self._count(event, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._put(value, place, event)

    def _tagged(self, event: Any, text: str) -> object:
        tag: str = event.tag
        if tag == "!unsafe":
            return Unsafe(text)
        if tag == _CORE + "str":
            return text
        wanted = {"int": int, "float": (float, int), "bool": bool, "null": type(None)}.get(
            tag.removeprefix(_CORE)
        )
        if wanted is None or not tag.startswith(_CORE):
            self._refuse_tag(event)
        try:
            value = scalar(text)
        except ValueError:
            value = text
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            self._fail(
                event, f"{text[:40]!r} is not of the type that its tag says", "leave the tag out"
            )
        return float(value) if tag == _CORE + "float" else value  # type: ignore[arg-type]  # a number by now

    def _refuse_tag(self, event: Any) -> NoReturn:
        tag = event.tag.replace(_CORE, "!!")
        hint = {
            "!vault": "values encrypted by ansible-vault cannot be read; leave the secret out of Git",
            "!!binary": "put the bytes into a file under files/ and use copy",
        }.get(tag, "leave the tag out")
        self._fail(event, f"the tag {_one_line(tag)} is refused", hint)

    def _start(self, event: Any, is_map: bool) -> None:
        if len(self._stack) >= self.limits.depth:
            self._fail(
                event, f"nested deeper than {self.limits.depth} levels", "flatten the structure"
            )
        if event.tag is not None and event.tag != _CORE + ("map" if is_map else "seq"):
            self._refuse_tag(event)
        mark = event.start_mark
        if self._wants_key():
            self._fail(
                event,
                "a list or mapping cannot be a key",
                'a value that starts with {{ needs quotes: "{{ name }}"'
                if is_map
                else "write a plain name",
            )
        place = _Place(mark.line + 1, mark.column + 1, file=self.file)
        where = Mark(self.file, place.line, place.column)
        opened = _Open(
            Map(mark=where) if is_map else Seq(mark=where), place, event.anchor, self._nodes
        )
        self._count(event, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(opened)

    def _end(self) -> None:
        done = self._stack.pop()
        if done.merges and isinstance(done.value, Map):
            self._merge(done.value, done.merges)
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._nodes - done.nodes_before)
        self._put(done.value, done.place, None)

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > self.limits.aliases:
            self._fail(event, f"more than {self.limits.aliases} aliases", "use variables instead")
        if event.anchor not in self._anchors:
            self._fail(
                event,
                f"the anchor &{event.anchor} is not defined above",
                "define it before it is used",
            )
        found = self._anchors[event.anchor]
        if found is None:
            self._fail(event, f"*{event.anchor} stands inside of itself", "take it out")
        value, nodes = found
        self._count(event, nodes)
        mark = event.start_mark
        if self._wants_key() and isinstance(value, (Map, Seq)):
            self._fail(event, "a list or mapping cannot be a key", "write a plain name")
        raw = value if isinstance(value, str) else None
        self._put(
            value, _Place(mark.line + 1, mark.column + 1, raw, quoted=True, file=self.file), event
        )

    def _wants_key(self) -> bool:
        return (
            bool(self._stack)
            and self._stack[-1].key is None
            and isinstance(self._stack[-1].value, Map)
        )

    def _put(self, value: Any, place: _Place, event: Any) -> None:
        if not self._stack:
            self.root = value
            return
        top = self._stack[-1]
        target = top.value
        if isinstance(target, Seq):
            target.append(value)
            target.places.append(place)
        elif top.key is None:
            if value in target:
                first = target.key_place(value)
                self._fail(
                    event,
                    f"the key {_one_line(str(value))!r} is already at line {first.line}",
                    f"line {first.line} would be lost without a word: keep one of the two",
                )
            top.key = (value, place)
        else:
            key, key_place = top.key
            top.key = None
            if key is _MERGE:
                top.merges.append((value, place))
                return
            target[key] = value
            target.places[key] = place._replace(
                key_line=key_place.line, key_column=key_place.column
            )

    def _merge(self, target: Map, merges: list[tuple[Any, _Place]]) -> None:
        """Keys of the mapping itself win over merged ones, earlier merged ones over later."""
        own, own_places = dict(target), dict(target.places)
        target.clear()
        for value, place in merges:
            for source in value if isinstance(value, Seq) else [value]:
                mark = Mark(self.file, place.line, place.column)
                if not isinstance(source, Map):
                    raise YamlError("<< merges mappings only", mark=mark, hint="write <<: *name")
                self._nodes += len(source)
                if self._nodes > self.limits.nodes:
                    raise YamlError("the merge keys of this file expand to too much", mark=mark)
                for key, one in source.items():
                    if key not in target:
                        target[key] = one
                        target.places[key] = source.places[key]
        target.update(own)
        target.places.update(own_places)

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > self.limits.nodes:
            self._fail(
                event,
                f"the aliases of this file expand to more than {self.limits.nodes} values",
                "aliases of aliases grow exponentially: use variables instead",
            )

    def _fail(self, event: Any, message: str, hint: str) -> NoReturn:
        mark = event.start_mark
        raise YamlError(message, mark=Mark(self.file, mark.line + 1, mark.column + 1), hint=hint)


# -- errors of the parser ----------------------------------------------------------------


def _explain(error: yaml.MarkedYAMLError, file: str, source: str) -> YamlError:
    """The parser's complaint with the usual cause of it."""
    where = error.problem_mark or error.context_mark
    problem = _one_line(error.problem or error.context or "this is not YAML")
    if where is None:
        return YamlError(problem, mark=Mark(file))
    lines = LINE_BREAK.split(source)
    line = lines[where.line] if where.line < len(lines) else ""
    above = lines[where.line - 1] if 0 < where.line <= len(lines) else ""
    context = ""
    if error.context and error.context_mark and error.context_mark.line != where.line:
        context = f" ({_one_line(error.context)} that starts at line {error.context_mark.line + 1})"
    return YamlError(
        problem + context,
        mark=Mark(file, where.line + 1, where.column + 1),
        hint=_cause(problem, line, above, where.column),
    )


_BARE_TEMPLATE = re.compile(r"(?:^\s*-|:)\s+\{\{")


def _cause(problem: str, line: str, above: str, column: int) -> str:
    if _BARE_TEMPLATE.search(line) or _BARE_TEMPLATE.search(above):
        return 'a value that starts with {{ needs quotes around all of it: "{{ name }}"'
    if "\t" in line[: column + 1]:
        return "YAML is indented with spaces; there is a tab in this line"
    if "mapping values are not allowed" in problem:
        return "a text with ': ' in it needs quotes; or the indentation does not fit the line above"
    if "cannot start any token" in problem:
        return "put a text that starts with % @ or ` in quotes"
    if "expected <block end>" in problem:
        return (
            "the indentation does not fit the lines above, or a quoted text goes on after its quote"
        )
    if "could not find expected ':'" in problem:
        return "the line above is not `key: value`, or the indentation is off"
    if "while scanning a quoted scalar" in problem or "unexpected end of stream" in problem:
        return "a quote or bracket is not closed"
    return ""


def _one_line(text: str) -> str:
    """Text from the file inside a message: one line, nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))[:200]
