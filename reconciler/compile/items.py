"""Resource items as written in site.yml and roles: checked as far as that goes without a host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from reconciler.catalog import TIMEOUT
from reconciler.compile import advice
from reconciler.compile.gather import Complaints
from reconciler.compile.keywords import DRIFT, KEYWORDS, PRUNE, Keywords, Texts
from reconciler.compile.lost import Lost
from reconciler.compile.params import Param, ParamReader
from reconciler.compile.schema import TypeSchema
from reconciler.compile.types import Types
from reconciler.errors import Mark, SchemaError
from reconciler.words import did_you_mean
from reconciler.yamldoc import NOWHERE, Map, Seq

BUILTIN = ("ansible.builtin.", "ansible.legacy.")
#: Keys of Ansible below which, or in whose files, there are further items.
NESTING = {
    prefix + key
    for prefix in ("", *BUILTIN)
    for key in ("block", "include", "include_tasks", "import_tasks", "include_role", "import_role")
}


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
    title_mark: Mark = NOWHERE
    when: tuple[tuple[object, Mark], ...] = ()
    loop: object = None
    loop_mark: Mark = NOWHERE
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
    """Reads lists of items; what is wrong goes to `wrong`, and the rest goes on.

    lost: what was no item, as far as it is known. told: how many complaints it accounts for.
    """

    def __init__(self, types: Types, wrong: Complaints) -> None:
        self.lost = Lost()
        self.told = len(wrong)
        self._types = types
        self._wrong = wrong
        self._params = ParamReader(wrong)
        self.keywords = Keywords(wrong)

    def items(self, document: object, mark: Mark, *, handlers: bool = False) -> Iterator[Item]:
        """The items of a list that can be used."""
        if document is None:
            return
        if not isinstance(document, Seq):
            self._wrong.add(
                "expected a list of resources", mark, "start each with `- name: what it is for`"
            )
            return
        for index, one in enumerate(document):
            if not isinstance(one, Map):
                self._wrong.add(
                    "expected a resource: a mapping with a type",
                    document.place(index),
                    "write - name: what it is for, then the type and its parameters",
                )
                continue
            before = len(self._wrong)
            item = self._item(one, handlers)
            if item is not None and len(self._wrong) == before:
                yield item
            elif NESTING.isdisjoint(one):
                self.lost.add((one.get("name"), *_listened(one)), handler=handlers)
                self.told += len(self._wrong) - before

    # -- one item ------------------------------------------------------------------------

    def _item(self, node: Map, handler: bool) -> Item | None:
        keywords = self.keywords
        key = self._type_key(node)
        if key is None:
            return None
        name = _short(key)
        try:
            schema = self._types.get(name)
        except SchemaError as error:
            self._wrong.append(error)
            return None
        if schema is None:
            return None
        params = tuple(
            self._params.read(schema, node[key], node.place(key), node.key_place(key), handler)
        )
        loop, loop_mark, loop_var, index_var = keywords.loop(node)
        title = node.get("name")
        if handler and not title:
            self._wrong.add(
                "a handler needs a name",
                node.key_place(key),
                "resources notify it by its name: add `name:`",
            )
        if "listen" in node and not handler:
            self._wrong.add(
                "only handlers listen",
                node.key_place("listen"),
                "move the item to handlers, or take `listen` out",
            )
        keywords.check_become(node)
        return Item(
            schema=schema,
            params=params,
            mark=node.key_place(key),
            title="" if title is None else str(title),
            title_mark=node.place("name"),
            when=tuple(keywords.when(node)),
            loop=loop,
            loop_mark=loop_mark,
            loop_var=loop_var,
            index_var=index_var,
            notify=keywords.texts(node, "notify"),
            listen=keywords.texts(node, "listen"),
            requires=keywords.texts(node, "requires"),
            tags=keywords.tags(node),
            timeout=keywords.timeout(node),
            no_log=keywords.flag(node, "no_log"),
            vars=keywords.vars(node),
            handler=handler,
            drift=keywords.choice(node, "drift", DRIFT, handler),
            prune=keywords.choice(node, "prune", PRUNE, handler),
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
            self._wrong.add(
                f"two types in one resource: {' and '.join(keys)}",
                node.key_place(keys[1]),
                "make two resources of it",
            )
        elif not keys and not wrong:
            self._wrong.add(
                "a resource needs a type", node.mark, f"one of {', '.join(self._types.names())}"
            )
        return keys[0] if len(keys) == 1 else None

    def _unknown(self, key: object, mark: Mark) -> None:
        name = _short(str(key))
        if name.startswith("with_"):
            hint = advice.LOOPS.get(name[5:], 'write loop: "{{ ... }}"')
            self._wrong.add(f"'{name}' is not supported", mark, hint)
        elif name in advice.KEYWORDS:
            self._wrong.add(f"'{name}' is not supported", mark, advice.KEYWORDS[name])
        else:
            last = name.rpartition(".")[2]
            hint = (
                did_you_mean(last, [*self._types.names(), *KEYWORDS])
                or f"the types are {', '.join(self._types.names())}"
            )
            self._wrong.add(f"there is no resource type or keyword '{name}'", mark, hint)


def _listened(node: Map) -> Iterable[object]:
    topics = node.get("listen")
    return topics if isinstance(topics, Seq) else (topics,)


def _short(key: str) -> str:
    for prefix in BUILTIN:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key
