"""Resource items as written in site.yml and roles: checked as far as that goes without a host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.catalog import TIMEOUT
from reconciler.compile import advice
from reconciler.compile.check import Misfit, fit, nearest, place, split_words
from reconciler.compile.schema import Field, Kind, TypeSchema
from reconciler.compile.scope import is_template
from reconciler.compile.types import Types
from reconciler.errors import ConfigError, Mark, SchemaError
from reconciler.yamldoc import Map, Seq

KEYWORDS = (
    "name", "when", "loop", "loop_control", "loop_var", "index_var", "notify", "tags", "requires",
    "timeout", "no_log", "vars", "become", "become_user", "become_method", "become_flags", "listen",
    "drift", "prune",
)  # fmt: skip
#: Names that a state repo cannot give a meaning of its own.
RESERVED = {
    "facts", "ansible_facts", "hostvars", "groups", "group_names", "inventory_hostname",
    "inventory_hostname_short", "omit", "role_name", "ansible_managed", "lookup", "query",
}  # fmt: skip
BUILTIN = ("ansible.builtin.", "ansible.legacy.")
SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)\Z")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
TEXTS = Kind("list", (Kind("str"),))
#: What the agent does when the machine moves away, and once a resource is declared no more.
DRIFT = ("heal", "warn", "ignore")
PRUNE = ("keep", "restore", "delete")

Texts = tuple[tuple[str, Mark], ...]


@dataclass(frozen=True)
class Param:
    """A parameter as written. value: what it is if it holds no template."""

    field: Field
    raw: object
    mark: Mark
    dynamic: bool
    value: object = None


@dataclass(frozen=True)
class Item:
    """A resource or handler as written.

    mark: of the type key. when: all must hold. loop: the list as written, None for no loop.
    notify, requires, listen: texts, maybe templates, with their places.
    """

    schema: TypeSchema
    params: tuple[Param, ...]
    mark: Mark
    title: str = ""
    title_mark: Mark = field(default=Mark(""))  # a Mark is frozen
    when: tuple[tuple[object, Mark], ...] = ()
    loop: object = None
    loop_mark: Mark = field(default=Mark(""))
    loop_var: str = "item"
    index_var: str = ""
    notify: Texts = ()
    listen: Texts = ()
    requires: Texts = ()
    tags: tuple[str, ...] = ()
    timeout: float = TIMEOUT
    no_log: bool = False
    vars: Map | None = None
    handler: bool = False
    drift: str = ""
    prune: str = ""


class Reader:
    """Reads lists of items; what is wrong goes to `errors`, and the rest goes on."""

    def __init__(self, types: Types, errors: list[ConfigError]) -> None:
        self._types = types
        self._errors = errors

    def items(self, document: object, mark: Mark, *, handlers: bool = False) -> Iterator[Item]:
        """The items of a list that can be used."""
        if document is None:
            return
        if not isinstance(document, Seq):
            self._error(
                "expected a list of resources", mark, "start each with `- name: what it is for`"
            )
            return
        for index, one in enumerate(document):
            if not isinstance(one, Map):
                self._error(
                    "expected a resource: a mapping with a type",
                    document.place(index),
                    "write - name: what it is for, then the type and its parameters",
                )
                continue
            before = len(self._errors)
            item = self._item(one, handlers)
            if item is not None and len(self._errors) == before:
                yield item

    def _error(self, message: str, mark: Mark, hint: str = "") -> None:
        self._errors.append(SchemaError(message, mark=mark, hint=hint))

    # -- one item ------------------------------------------------------------------------

    def _item(self, node: Map, handler: bool) -> Item | None:
        key = self._type_key(node)
        if key is None:
            return None
        name = _short(key)
        try:
            schema = self._types.get(name)
        except SchemaError as error:
            if error not in self._errors:
                self._errors.append(error)
            return None
        if schema is None:
            return None
        params = tuple(
            self._params(schema, node[key], node.place(key), node.key_place(key), handler)
        )
        loop, loop_mark, loop_var, index_var = self._loop(node)
        title = node.get("name")
        if handler and not title:
            self._error(
                "a handler needs a name",
                node.key_place(key),
                "resources notify it by its name: add `name:`",
            )
        if "listen" in node and not handler:
            self._error(
                "only handlers listen",
                node.key_place("listen"),
                "move the item to handlers, or take `listen` out",
            )
        self._become(node)
        return Item(
            schema=schema,
            params=params,
            mark=node.key_place(key),
            title="" if title is None else str(title),
            title_mark=node.place("name"),
            when=tuple(self.when(node)),
            loop=loop,
            loop_mark=loop_mark,
            loop_var=loop_var,
            index_var=index_var,
            notify=self.texts(node, "notify"),
            listen=self.texts(node, "listen"),
            requires=self.texts(node, "requires"),
            tags=self.tags(node),
            timeout=self._timeout(node),
            no_log=self._flag(node, "no_log"),
            vars=self.vars(node),
            handler=handler,
            drift=self._choice(node, "drift", DRIFT, handler),
            prune=self._choice(node, "prune", PRUNE, handler),
        )

    def _type_key(self, node: Map) -> str | None:
        keys = [
            key
            for key in node
            if isinstance(key, str) and self._types.has(_short(key)) and key not in KEYWORDS
        ]
        wrong = [key for key in node if key not in KEYWORDS and key not in keys]
        for key in wrong:
            self._unknown(key, node.key_place(key))
        if len(keys) > 1:
            self._error(
                f"two types in one resource: {' and '.join(keys)}",
                node.key_place(keys[1]),
                "make two resources of it",
            )
        elif not keys and not wrong:
            self._error(
                "a resource needs a type", node.mark, f"one of {', '.join(self._types.names())}"
            )
        return keys[0] if len(keys) == 1 else None

    def _unknown(self, key: object, mark: Mark) -> None:
        name = _short(str(key))
        if name.startswith("with_"):
            hint = advice.LOOPS.get(name[5:], 'write loop: "{{ ... }}"')
            self._error(f"'{name}' is not supported", mark, hint)
        elif name in advice.KEYWORDS:
            self._error(f"'{name}' is not supported", mark, advice.KEYWORDS[name])
        else:
            last = name.rpartition(".")[2]
            hint = (
                nearest(last, [*self._types.names(), *KEYWORDS])
                or f"the types are {', '.join(self._types.names())}"
            )
            self._error(f"there is no resource type or keyword '{name}'", mark, hint)

    # -- parameters ----------------------------------------------------------------------

    def _params(
        self, schema: TypeSchema, value: object, mark: Mark, key_mark: Mark, handler: bool
    ) -> Iterator[Param]:
        first = schema.fields[0]
        if isinstance(value, str) or (schema.key_list and isinstance(value, Seq)):
            self._refuse_pairs(schema, value, mark)
            yield self._param(schema, first, value, mark)
            given = {first.name}
        elif isinstance(value, Map) or value is None:
            given = set()
            for key, raw in (value or {}).items():
                found = schema.field(key)
                if found is None:
                    self._unknown_param(schema, key, value.key_place(key))  # type: ignore[union-attr]
                elif found.name in given:
                    self._error(
                        f"'{key}' is another name of '{found.name}', which is given too",
                        value.key_place(key),
                        "keep one of the two",
                    )  # type: ignore[union-attr]
                else:
                    given.add(found.name)
                    yield self._param(schema, found, raw, value.place(key))  # type: ignore[union-attr]
        else:
            self._error(
                f"the parameters of {schema.name} are a mapping",
                mark,
                f"write {schema.name}: {{{first.name}: ...}}",
            )
            return
        missing = [one.name for one in schema.fields if one.required and one.name not in given]
        if missing:
            self._error(
                f"{schema.name} needs {' and '.join(missing)}", key_mark, self._example(schema)
            )
        if schema.requires_one_of and not handler and not given & set(schema.requires_one_of):
            self._error(
                f"nothing says when this {schema.name} is to be done",
                key_mark,
                f"add a guard: {', '.join(schema.requires_one_of)}; or make it a handler and notify it",
            )

    def _example(self, schema: TypeSchema) -> str:
        lines = [
            line
            for line in schema.example.splitlines()
            if line.strip().startswith(f"{schema.name}: ")
        ]
        return f"for example: {lines[0].strip()}" if lines else ""

    def _refuse_pairs(self, schema: TypeSchema, value: object, mark: Mark) -> None:
        """Ansible's old `path=/etc/x mode=0644`."""
        words = value.split() if isinstance(value, str) else []
        pairs = [
            word.partition("=")
            for word in words
            if schema.field(word.partition("=")[0]) and "=" in word
        ]
        if pairs:
            shown = ", ".join(f"{name}: {text}" for name, _, text in pairs)
            self._error(
                "parameters are a mapping, not name=value",
                mark,
                f"write {schema.name}: {{{shown}}}",
            )

    def _unknown_param(self, schema: TypeSchema, key: object, mark: Mark) -> None:
        if key in schema.refused:
            self._error(f"'{key}' is not supported", mark, schema.refused[str(key)])
            return
        hint = (
            nearest(str(key), schema.names())
            or f"it has {', '.join(one.name for one in schema.fields)}"
        )
        self._error(f"{schema.name} has no parameter '{key}'", mark, hint)

    def _param(self, schema: TypeSchema, found: Field, raw: object, mark: Mark) -> Param:
        if schema.key_list and found is schema.fields[0]:
            found = Field(found.name, TEXTS, found.type, found.required)
        if is_template(raw):
            return Param(found, raw, mark, dynamic=True)
        try:
            return Param(found, raw, mark, dynamic=False, value=fit(found, raw))
        except Misfit as error:
            self._errors.append(misfit(found, error, raw, mark))
            return Param(found, raw, mark, dynamic=False)

    # -- keywords ------------------------------------------------------------------------

    def when(self, node: Map) -> Iterator[tuple[object, Mark]]:
        """The conditions of `when`, as written."""
        if "when" not in node:
            return
        value = node["when"]
        conditions = (
            [(one, value.place(n)) for n, one in enumerate(value)]
            if isinstance(value, Seq)
            else [(value, node.place("when"))]
        )
        for condition, mark in conditions:
            if isinstance(condition, (str, bool)):
                yield condition, mark
            else:
                self._error(
                    "a condition is an expression", mark, "write when: facts.os_family == 'Debian'"
                )

    def _loop(self, node: Map) -> tuple[object, Mark, str, str]:
        loop = node.get("loop")
        mark = node.place("loop")
        if "loop" in node:
            if isinstance(loop, Map):
                self._error(
                    "a loop goes over a list",
                    mark,
                    'for a mapping write loop: "{{ name | dict2items }}"',
                )
            elif isinstance(loop, str) and not is_template(loop):
                self._error(
                    "a loop goes over a list, this is a text",
                    mark,
                    f'write loop: "{{{{ {loop} }}}}" for the variable',
                )
            elif not isinstance(loop, (str, Seq)):
                self._error("a loop goes over a list", mark, "write loop: [one, two]")
        control = self._loop_control(node)
        names: list[str] = []
        for key, default in (("loop_var", "item"), ("index_var", "")):
            source = control if key in control else node
            name = source.get(key, default)
            if key in source and (
                not isinstance(name, str) or not name.isidentifier() or name in RESERVED
            ):
                self._error(
                    f"{name!r} cannot be the name of a variable",
                    source.place(key),
                    "a name of letters, digits and _",
                )
                name = default
            if key in source and "loop" not in node:
                self._error(f"'{key}' without a loop", source.key_place(key), "add `loop:`")
            names.append(str(name))
        return loop, mark, names[0], names[1]

    def _loop_control(self, node: Map) -> Map:
        control = node.get("loop_control", Map())
        if not isinstance(control, Map):
            self._error(
                "loop_control is a mapping",
                node.place("loop_control"),
                "write loop_control: {loop_var: name}",
            )
            control = Map()
        for key in control:
            if key not in ("loop_var", "index_var", "label"):
                self._error(
                    f"loop_control has no '{key}'",
                    control.key_place(key),
                    nearest(str(key), ["loop_var", "index_var", "label"])
                    or "it has loop_var, index_var and label",
                )
        return control

    def texts(self, node: Map, key: str) -> Texts:
        """A text or a list of them."""
        value = node.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return ((value, node.place(key)),)
        if not isinstance(value, Seq) or not all(isinstance(one, str) for one in value):
            self._error(
                f"'{key}' is a text or a list of texts",
                node.place(key),
                f"write {key}: name, or {key}: [one, two]",
            )
            return ()
        return tuple((one, value.place(index)) for index, one in enumerate(value))

    def tags(self, node: Map) -> tuple[str, ...]:
        """Tags, with commas between them or as a list."""
        found: list[str] = []
        for text, mark in self.texts(node, "tags"):
            if is_template(text):
                self._error(
                    "tags cannot be templates",
                    mark,
                    "they select before anything is compiled: write the tag",
                )
            found += split_words(text)
        return tuple(dict.fromkeys(found))

    def _timeout(self, node: Map) -> float:
        value = node.get("timeout")
        if value is None:
            return TIMEOUT
        found = SECONDS.match(str(value)) if not isinstance(value, bool) else None
        seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
        if seconds <= 0:
            self._error(
                f"{value!r} is no time limit",
                node.place("timeout"),
                "write timeout: 90, 90s, 5m or 1h",
            )
            return TIMEOUT
        return seconds

    def _flag(self, node: Map, key: str) -> bool:
        value = node.get(key, False)
        if not isinstance(value, bool):
            self._error(f"'{key}' is true or false", node.place(key), "")
        return value is True

    def _choice(self, node: Map, key: str, words: Sequence[str], handler: bool) -> str:
        value = node.get(key)
        if value is None:
            return ""
        if handler:
            self._error(
                f"'{key}' is for resources, not for handlers",
                node.key_place(key),
                "take it out: a handler owns nothing",
            )
        elif value not in words:
            self._error(
                f"'{key}' is {', '.join(words[:-1])} or {words[-1]}, not {value!r}",
                node.place(key),
                nearest(str(value), words),
            )
        return str(value)

    def _become(self, node: Map) -> None:
        user = node.get("become_user", "root")
        if user != "root":
            self._error(
                f"everything runs as root, not as {user!r}",
                node.place("become_user"),
                "command and cron have a parameter `user`; files have `owner`",
            )

    def vars(self, node: Map, key: str = "vars") -> Map | None:
        """Variables; None if there are none."""
        value = node.get(key)
        if value is None:
            return None
        if not isinstance(value, Map):
            self._error(f"'{key}' is a mapping", node.place(key), f"write {key}: {{name: value}}")
            return None
        return self.check_names(value)

    def check_names(self, values: Map) -> Map:
        """Variables with names that can be used."""
        for name in values:
            if not isinstance(name, str) or not name.isidentifier():
                self._error(
                    f"{name!r} cannot be the name of a variable",
                    values.key_place(name),
                    "a name of letters, digits and _",
                )
            elif name in RESERVED:
                self._error(
                    f"the variable '{name}' is built in",
                    values.key_place(name),
                    "give yours another name",
                )
        return values


def misfit(found: Field, error: Misfit, raw: object, mark: Mark) -> SchemaError:
    """A value that does not fit, at its place. A secret is not shown."""
    where = place(raw, mark, error.path)
    if found.kind.name == "Secret":
        return SchemaError(f"{found.name} is not text", mark=where, hint="put it in quotes")
    return SchemaError(error.message, mark=where, hint=error.hint)


def _short(key: str) -> str:
    for prefix in BUILTIN:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key
