"""One host: `when`, `loop` and templates are evaluated, once; what comes out is plain data."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.compile.check import Misfit, fit, no_text
from reconciler.compile.items import Item
from reconciler.compile.keywords import Texts
from reconciler.compile.lost import Lost
from reconciler.compile.lower import Lowered, Lowering
from reconciler.compile.params import Param, misfit
from reconciler.compile.provenance import Origin
from reconciler.compile.schema import TypeSchema
from reconciler.compile.scope import Scope, Tracker, is_template, layer
from reconciler.compile.site import Play
from reconciler.errors import ConfigError, Mark, SchemaError, TemplateError
from reconciler.inventory import Layer
from reconciler.yamldoc import Map, Seq

if TYPE_CHECKING:
    from reconciler.compile.template import Renderer

#: The value of the variable `omit`: a parameter that has it is left out.
OMIT: Any = type("Omit", (), {"__repr__": lambda _: "omit", "__str__": lambda _: "omit"})()


@dataclass
class Draft:
    """A declaration whose names (`notify`, `requires`) are not looked up yet."""

    type: str
    key: str
    params: dict[str, object]
    item: Item
    title: str
    tags: tuple[str, ...]
    notify: tuple[tuple[str, Mark], ...]
    requires: tuple[tuple[str, Mark], ...]
    role: str
    listen: tuple[str, ...] = ()
    declared_as: str = ""
    implied: bool = False
    secrets: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)


class Evaluator:
    """Evaluates plays for one host. drafts, errors: what comes out, and what is wrong.

    skipped: titles of resources and handlers that `when` leaves out on this host. lost: what
    is missing among the drafts because of the errors.
    renderer: gives the one that is shared by all hosts; Jinja2 is loaded by the first use.
    """

    def __init__(
        self,
        renderer: Callable[[], Renderer],
        lowering: Lowering,
        layers: Sequence[Layer],
        magic: Mapping[str, object],
    ) -> None:
        self._renderer = renderer
        self._lowering = lowering
        self._layers = list(layers)
        self._magic = {**magic, "omit": OMIT}
        self.tracker = Tracker(lambda raw, mark, scope: renderer().value(raw, mark, scope))
        self.drafts: list[Draft] = []
        self.errors: list[ConfigError] = []
        self.skipped: set[str] = set()
        self.lost = Lost()

    def play(self, play: Play) -> None:
        """Everything that a play gives this host: roles first, then its own resources."""
        own = [layer("play vars", play.vars)] if play.vars is not None else []
        for use in play.roles:
            defaults = use.role.defaults
            below = (
                [layer(f"role {use.role.name} defaults", defaults)] if defaults is not None else []
            )
            above = [layer(f"role {use.role.name} vars", use.vars)] if use.vars is not None else []
            scope = self._scope([*below, *self._layers, *own, *above], use.role.name)
            tags = (*play.tags, *use.tags)
            wanted = self._try(lambda scope=scope, use=use: self._holds(use.when, scope))
            for item in (*use.role.items, *use.role.handlers):
                if wanted:
                    self._item(item, scope, tags)
                elif wanted is None:
                    self._lose(item)
                else:
                    self.skipped |= set(_names(item))
        scope = self._scope([*self._layers, *own], "")
        for item in (*play.items, *play.handlers):
            self._item(item, scope, play.tags)

    def _scope(self, layers: Sequence[Layer], role: str) -> Scope:
        final = {**self._magic, "role_name": role} if role else self._magic
        return Scope(self.tracker, layers=layers, final=final, role=role)

    def _try(self, act: Callable[[], Any]) -> Any:
        """The result; None after an error, which is kept."""
        try:
            return act()
        except ConfigError as error:
            self.errors.append(error)
            return None

    # -- one item ------------------------------------------------------------------------

    def _item(self, item: Item, scope: Scope, tags: tuple[str, ...]) -> None:
        if item.vars is not None:
            scope = scope.over(layers=[layer("resource vars", item.vars)])
        found = False
        before = len(self.errors)
        for inner in self._try(lambda: list(self._turns(item, scope))) or ():
            wanted = self._try(lambda inner=inner: self._holds(item.when, inner))
            if wanted:
                self._try(lambda inner=inner: self._declare(item, inner, tags))
            found = found or bool(wanted)
        if len(self.errors) > before:
            self._lose(item)
        elif not found:
            self.skipped |= set(_names(item))

    def _lose(self, item: Item) -> None:
        self.lost.add(_names(item), handler=item.handler)

    def _turns(self, item: Item, scope: Scope) -> Iterator[Scope]:
        """The scope of each turn of the loop; without a loop, the one scope."""
        if item.loop is None:
            yield scope
            return
        try:
            values = self._value(item.loop, item.loop_mark, scope)
        except TemplateError:
            # What a loop goes over need not exist where the condition does not hold anyway.
            if self._surely_not(item, scope):
                return
            raise
        if not isinstance(values, (list, tuple)):
            hint = (
                'for a mapping write loop: "{{ name | dict2items }}"'
                if isinstance(values, Mapping)
                else ""
            )
            raise SchemaError(
                f"a loop goes over a list, not over {type(values).__name__}",
                mark=item.loop_mark,
                hint=hint,
            )
        places = item.loop if isinstance(item.loop, Seq) else None
        for index, value in enumerate(values):
            final: dict[str, object] = {item.loop_var: value}
            if item.index_var:
                final[item.index_var] = index
            turn = scope.over(final=final)
            mark = places.place(index) if places is not None else item.loop_mark
            turn.layers = (Layer("loop", Map({item.loop_var: value}, mark), mark),)
            yield turn

    def _surely_not(self, item: Item, scope: Scope) -> bool:
        try:
            return not self._holds(item.when, scope)
        except TemplateError:
            return False

    def _holds(self, conditions: Sequence[tuple[object, Mark]], scope: Scope) -> bool:
        for condition, mark in conditions:
            value = condition
            if isinstance(condition, str):
                renderer = self._renderer()
                render = renderer.text if is_template(condition) else renderer.expression
                value = render(condition, mark, scope)
            if not isinstance(value, bool):
                raise SchemaError(
                    f"the condition {str(condition)[:80]!r} gives {_shown(value)}, not true or false",
                    mark=mark,
                    hint="write `name | bool` for a word such as yes, `name | length > 0` for a list or text",
                )
            if not value:
                return False
        return True

    def _value(self, raw: object, mark: Mark, scope: Scope) -> object:
        return self._renderer().value(raw, mark, scope) if is_template(raw) else raw

    def _text(self, raw: str, mark: Mark, scope: Scope) -> str:
        text = str(self._value(raw, mark, scope))
        odd = no_text("the name", text)
        if odd:
            raise SchemaError(odd, mark=mark)
        return text

    def _texts(self, texts: Texts, scope: Scope) -> tuple[tuple[str, Mark], ...]:
        found: list[tuple[str, Mark]] = []
        for raw, mark in texts:
            value = self._value(raw, mark, scope)
            found += [(str(one), mark) for one in (value if isinstance(value, list) else [value])]
        return tuple(found)

    # -- one resource --------------------------------------------------------------------

    def _declare(self, item: Item, scope: Scope, tags: tuple[str, ...]) -> None:
        before = len(self.errors)
        schema = item.schema
        params: dict[str, Any] = {}
        origins: dict[str, Origin] = {}
        for param in item.params:
            self._try(lambda param=param: self._param(item, param, scope, params, origins))
        if len(self.errors) > before:
            return
        for name, refused in schema.handler_only.items():
            if not item.handler and params.get(name) in refused:
                mark = origins[name].mark
                self.errors.append(
                    SchemaError(
                        f"{schema.name}: {name}: {params[name]} is not a state, it is something to do",
                        mark=mark,
                        hint="make it a handler, and notify it from what it is done for",
                    )
                )
                return
        title = self._text(item.title, item.title_mark, scope) if item.title else ""
        draft = Draft(
            type=schema.name,
            key="",
            params={},
            item=item,
            title=title,
            tags=tuple(dict.fromkeys((*tags, *item.tags))),
            notify=self._texts(item.notify, scope),
            requires=self._texts(item.requires, scope),
            listen=tuple(text for text, _ in self._texts(item.listen, scope)),
            role=scope.role,
            origins=origins,
        )
        for one, own in self._each(item, params, scope, origins):
            self.drafts.append(self._finish(draft, one, own))

    def _param(
        self,
        item: Item,
        param: Param,
        scope: Scope,
        params: dict[str, Any],
        origins: dict[str, Origin],
    ) -> None:
        name = param.field.name
        hidden = item.no_log or param.field.kind.name == "Secret"
        if not param.dynamic:
            if param.value is not None:
                params[name] = param.value
            origins[name] = Origin(param.raw, param.mark, hidden=hidden)
            return
        used = self.tracker.used = set()
        value = self._renderer().value(param.raw, param.mark, scope)
        origins[name] = Origin(param.raw, param.mark, frozenset(used), scope, hidden)
        if value is OMIT:
            if param.field.required:
                raise SchemaError(
                    f"{name} cannot be omitted", mark=param.mark, hint="give default(...) a value"
                )
            return
        try:
            fitted = fit(param.field, value)
        except Misfit as error:
            raise misfit(param.field, error, param.raw, param.mark) from error
        if fitted is not None:
            params[name] = fitted

    def _each(
        self, item: Item, params: dict[str, Any], scope: Scope, origins: dict[str, Origin]
    ) -> Iterator[tuple[Lowered, dict[str, Origin]]]:
        """The resources that one declaration stands for."""
        schema = item.schema
        first = schema.fields[0].name
        each = [params]
        if schema.key_list and isinstance(params.get(first), list):
            each = [{**params, first: name} for name in params[first]]
        for one in each:
            used = self.tracker.used = set()
            try:
                found = list(self._lowering.lower(schema, one, scope))
            except Misfit as error:
                raise SchemaError(error.message, mark=item.mark, hint=error.hint) from error
            except ConfigError as error:
                if error.mark is None:
                    error.mark = origins["src"].mark if "src" in origins else item.mark
                raise
            for made in found:
                yield (
                    made,
                    self._lowered_origins(made, origins, used, scope)
                    if schema.lowered
                    else origins,
                )

    def _lowered_origins(
        self, one: Lowered, origins: dict[str, Origin], used: set[str], scope: Scope
    ) -> dict[str, Origin]:
        own = {name: origin for name, origin in origins.items() if name in one.params}
        if "dest" in origins:
            own["path"] = origins["dest"]
        if one.content_from in origins:
            source = origins[one.content_from]
            own["content"] = Origin(
                source.raw, source.mark, source.names | used, scope, source.hidden
            )
        return own

    def _finish(self, draft: Draft, one: Lowered, origins: dict[str, Origin]) -> Draft:
        item = draft.item
        schema = one.schema
        params = dict(one.params)
        key = _key(schema, params, draft.title, item.mark)
        secrets: dict[str, str] = {}
        for found in schema.fields:
            if found.kind.name == "Secret" and found.name in params:
                name = f"handler:{draft.title}" if item.handler else f"{schema.name}:{key}"
                handle = f"{name}#{found.name}"
                secrets[handle] = str(params[found.name])
                params[found.name] = {"$secret": handle}
        return Draft(
            type=schema.name, key=key, params=params, item=item, title=draft.title, tags=draft.tags,
            notify=draft.notify, requires=draft.requires, listen=draft.listen, role=draft.role,
            declared_as=item.schema.name if item.schema.lowered else "", implied=one.implied, secrets=secrets, origins=origins,
        )  # fmt: skip


def _key(schema: TypeSchema, params: Mapping[str, Any], title: str, mark: Mark) -> str:
    """What identifies a resource among those of its type. Raises SchemaError if nothing does."""
    parts: list[str] = []
    for names in schema.key_fields or (schema.fields[0].name,):
        given = [params[name] for name in names.split("|") if name in params]
        if given:
            parts.append(_key_text(given[0]))
    if not parts and not title:
        first = schema.fields[0].name
        raise SchemaError(
            f"{schema.name} needs {first}",
            mark=mark,
            hint=f"add `{first}:`, or a `name:` for the resource",
        )
    return "#".join(parts) or title


def _names(item: Item) -> list[str]:
    """What others may call it, as written."""
    return [item.title, *(text for text, _ in item.listen)]


def _key_text(value: object) -> str:
    if isinstance(value, list):
        return shlex.join(str(one) for one in value)
    return str(value)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)[:60]
