"""Names become ids: handlers that are notified, resources that are required, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from reconciler.catalog import Declaration
from reconciler.compile.evaluate import Draft
from reconciler.compile.lost import Lost
from reconciler.compile.provenance import Provenance
from reconciler.errors import ConfigError, Mark, SchemaError
from reconciler.resource import plain_path
from reconciler.words import did_you_mean


class Linker:
    """Turns the drafts of one host into declarations. errors: what is wrong.

    skipped: names that exist, but not on this host. lost: what is no draft for an error that is
    known already, so that who names it is not wrong.
    """

    def __init__(self, drafts: Sequence[Draft], skipped: set[str], lost: Sequence[Lost]) -> None:
        self._drafts = drafts
        self._skipped = skipped
        self._lost = lost
        self.errors: list[ConfigError] = []
        self.secrets: dict[str, str] = {}
        self.provenance = Provenance()
        self._handlers = self._handler_names()
        self._names = self._resource_names()

    def _handler_names(self) -> dict[str, list[str]]:
        """Names and topics -> ids of handlers."""
        found: dict[str, list[str]] = {}
        for draft in self._drafts:
            if draft.item.handler:
                for name in (draft.title, *draft.listen):
                    ids = found.setdefault(name, [])
                    if _id(draft) not in ids:
                        ids.append(_id(draft))
        return found

    def _resource_names(self) -> dict[str, list[str]]:
        """Ids and titles -> ids of resources; an id may have the type that was written."""
        found: dict[str, list[str]] = {}
        for draft in self._drafts:
            if not draft.item.handler:
                for name in {
                    _id(draft),
                    f"{draft.declared_as or draft.type}:{draft.key}",
                    draft.title,
                } - {""}:
                    found.setdefault(name, []).append(_id(draft))
        return found

    def link(self) -> list[Declaration]:
        """The declarations, in the order in which they are written, handlers last."""
        found: dict[str, Declaration] = {}
        implied: set[str] = set()
        for draft in [
            *(d for d in self._drafts if not d.item.handler),
            *(d for d in self._drafts if d.item.handler),
        ]:
            made = self._declaration(draft)
            other = found.get(made.id)
            if other is None or (made.id in implied and not draft.implied):
                found[made.id] = made if other is None else _united(made, other)
                self.provenance.origins[made.id] = draft.origins
                (implied.add if draft.implied else implied.discard)(made.id)
            elif draft.implied and made.id not in implied:
                found[made.id] = _united(other, made)
            else:
                found[made.id] = self._merged(other, made)
            for handle, value in draft.secrets.items():
                if self.secrets.setdefault(handle, value) != value:
                    self._twice(other or made, made)
        self.provenance.declarations = found
        return list(found.values())

    def _declaration(self, draft: Draft) -> Declaration:
        item = draft.item
        own = _id(draft)
        return Declaration(
            type=draft.type,
            key=draft.key,
            params=draft.params,
            mark=item.mark,
            title=draft.title,
            tags=draft.tags,
            requires=_distinct(
                one for one in self._lookup(draft.requires, self._names, "resource") if one != own
            ),
            notify=_distinct(self._lookup(draft.notify, self._handlers, "handler")),
            handler=item.handler,
            timeout=item.timeout,
            no_log=item.no_log,
            declared_as=draft.declared_as,
            role=draft.role,
            drift=item.drift,
            prune=item.prune,
        )

    def _lookup(
        self, names: Sequence[tuple[str, Mark]], known: Mapping[str, list[str]], what: str
    ) -> Iterator[str]:
        for name, mark in names:
            found = known.get(name) or (known.get(_plain(name)) if what == "resource" else None)
            if found:
                yield from found
            elif name not in self._skipped and not self._may_be(name, what):
                hint = did_you_mean(name, known)
                if not hint and what == "resource":
                    hint = "write the name of a resource, or its type and key, as in package:nginx"
                elif not hint:
                    hint = (
                        f"the handlers are {', '.join(known)}" if known else "add it to `handlers`"
                    )
                self.errors.append(
                    SchemaError(f"there is no {what} '{name}'", mark=mark, hint=hint)
                )

    def _may_be(self, name: str, what: str) -> bool:
        return any(lost.may_be(name, handler=what == "handler") for lost in self._lost)

    def _merged(self, one: Declaration, other: Declaration) -> Declaration:
        if (one.type, one.key, one.params, one.no_log) != (
            other.type,
            other.key,
            other.params,
            other.no_log,
        ):
            self._twice(one, other)
            return one
        return _united(one, other)

    def _twice(self, one: Declaration, other: Declaration) -> None:
        differing = [
            name
            for name in (*one.params, *(name for name in other.params if name not in one.params))
            if one.params.get(name) != other.params.get(name)
        ]
        what = (
            f" with another {' and '.join(differing)}"
            if differing and one.type == other.type
            else ""
        )
        self.errors.append(
            SchemaError(
                f"{other.id} is declared at {one.mark} already{what}",
                mark=other.mark,
                hint="declare it once, with all that is wanted of it",
            )
        )


def _united(one: Declaration, other: Declaration) -> Declaration:
    """What `one` declares, for both of them."""
    return replace(
        one,
        tags=_distinct((*one.tags, *other.tags)),
        requires=_distinct((*one.requires, *other.requires)),
        notify=_distinct((*one.notify, *other.notify)),
        timeout=max(one.timeout, other.timeout),
        drift=one.drift or other.drift,
        prune=one.prune or other.prune,
    )


def _id(draft: Draft) -> str:
    return f"handler:{draft.title}" if draft.item.handler else f"{draft.type}:{draft.key}"


def _plain(id_: str) -> str:
    """The id of a resource whose path may be written in another way than its type keeps it."""
    type_, colon, key = id_.partition(":")
    path, sharp, rest = key.partition("#")
    return f"{type_}{colon}{plain_path(path)}{sharp}{rest}"


def _distinct(values: Iterator[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
