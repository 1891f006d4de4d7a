"""What stands beside the type of a resource: `when`, `loop`, `tags`, `notify` and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reconciler.catalog import TIMEOUT
from reconciler.compile.check import split_words
from reconciler.compile.gather import Complaints
from reconciler.compile.scope import is_template
from reconciler.errors import Mark
from reconciler.words import did_you_mean
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
SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)\Z")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
#: What the agent does when the machine moves away, and once a resource is declared no more.
DRIFT = ("heal", "warn", "ignore")
PRUNE = ("keep", "restore", "delete")

Texts = tuple[tuple[str, Mark], ...]


class Keywords:
    """Reads keywords of plays, roles and resources; what is wrong goes to `wrong`."""

    def __init__(self, wrong: Complaints) -> None:
        self._wrong = wrong

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
                self._wrong.add(
                    "a condition is an expression", mark, "write when: facts.os_family == 'Debian'"
                )

    def loop(self, node: Map) -> tuple[object, Mark, str, str]:
        """The list as written (None for no loop), its place, and the names of the variables."""
        loop = node.get("loop")
        mark = node.place("loop")
        if "loop" in node:
            if isinstance(loop, Map):
                self._wrong.add(
                    "a loop goes over a list",
                    mark,
                    'for a mapping write loop: "{{ name | dict2items }}"',
                )
            elif isinstance(loop, str) and not is_template(loop):
                self._wrong.add(
                    "a loop goes over a list, this is a text",
                    mark,
                    f'write loop: "{{{{ {loop} }}}}" for the variable',
                )
            elif not isinstance(loop, (str, Seq)):
                self._wrong.add("a loop goes over a list", mark, "write loop: [one, two]")
        control = self._loop_control(node)
        names: list[str] = []
        for key, default in (("loop_var", "item"), ("index_var", "")):
            source = control if key in control else node
            name = source.get(key, default)
            if key in source and (
                not isinstance(name, str) or not name.isidentifier() or name in RESERVED
            ):
                self._wrong.add(
                    f"{name!r} cannot be the name of a variable",
                    source.place(key),
                    "a name of letters, digits and _",
                )
                name = default
            if key in source and "loop" not in node:
                self._wrong.add(f"'{key}' without a loop", source.key_place(key), "add `loop:`")
            names.append(str(name))
        return loop, mark, names[0], names[1]

    def _loop_control(self, node: Map) -> Map:
        control = node.get("loop_control", Map())
        if not isinstance(control, Map):
            self._wrong.add(
                "loop_control is a mapping",
                node.place("loop_control"),
                "write loop_control: {loop_var: name}",
            )
            control = Map()
        for key in control:
            if key not in ("loop_var", "index_var", "label"):
                self._wrong.add(
                    f"loop_control has no '{key}'",
                    control.key_place(key),
                    did_you_mean(str(key), ["loop_var", "index_var", "label"])
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
            self._wrong.add(
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
                self._wrong.add(
                    "tags cannot be templates",
                    mark,
                    "they select before anything is compiled: write the tag",
                )
            found += split_words(text)
        return tuple(dict.fromkeys(found))

    def timeout(self, node: Map) -> float:
        """Seconds."""
        value = node.get("timeout")
        if value is None:
            return TIMEOUT
        found = SECONDS.match(str(value)) if not isinstance(value, bool) else None
        seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
        if seconds <= 0:
            self._wrong.add(
                f"{value!r} is no time limit",
                node.place("timeout"),
                "write timeout: 90, 90s, 5m or 1h",
            )
            return TIMEOUT
        return seconds

    def flag(self, node: Map, key: str) -> bool:
        """True or false, false if it is left out."""
        value = node.get(key, False)
        if not isinstance(value, bool):
            self._wrong.add(f"'{key}' is true or false", node.place(key), "")
        return value is True

    def choice(self, node: Map, key: str, words: Sequence[str], handler: bool) -> str:
        """One of a few words; "" if it is left out."""
        value = node.get(key)
        if value is None:
            return ""
        if handler:
            self._wrong.add(
                f"'{key}' is for resources, not for handlers",
                node.key_place(key),
                "take it out: a handler owns nothing",
            )
        elif value not in words:
            self._wrong.add(
                f"'{key}' is {', '.join(words[:-1])} or {words[-1]}, not {value!r}",
                node.place(key),
                did_you_mean(str(value), words),
            )
        return str(value)

    def check_become(self, node: Map) -> None:
        """`become` says what holds anyway, unless it is about somebody else than root."""
        user = node.get("become_user", "root")
        if user != "root":
            self._wrong.add(
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
            self._wrong.add(
                f"'{key}' is a mapping", node.place(key), f"write {key}: {{name: value}}"
            )
            return None
        return self.check_names(value)

    def check_names(self, values: Map) -> Map:
        """Variables with names that can be used."""
        for name in values:
            if not isinstance(name, str) or not name.isidentifier():
                self._wrong.add(
                    f"{name!r} cannot be the name of a variable",
                    values.key_place(name),
                    "a name of letters, digits and _",
                )
            elif name in RESERVED:
                self._wrong.add(
                    f"the variable '{name}' is built in",
                    values.key_place(name),
                    "give yours another name",
                )
        return values
