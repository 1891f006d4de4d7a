"""Catalog, Plan, Report: the nouns of the product, as frozen data with a JSON codec.

Each can be printed, diffed, cached and put into a bug report. Documents carry `schema`, a
name and a number; they grow by adding keys only. Secret values never appear: a catalog holds
handles (`{"$secret": "user:deploy#password"}`), results hold `<secret>`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.errors import Mark, ProtocolError
from reconciler.resource import Change, Content, Secret, Value

#: Default time limit of one resource, in seconds.
TIMEOUT = 900.0
HIDDEN = "<secret>"
STATUSES = frozenset(
    ("ok", "pending", "changed", "failed", "blocked", "unknown", "notified", "owed")
)
#: What reading a document raises that is not of the right shape.
_MISFITS = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

Json = dict[str, object]


def dumps(document: object) -> bytes:
    """Canonical JSON: the same data give the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@dataclass(frozen=True)
class Declaration:
    """One resource as the catalog carries it.

    type, key: make its id, `type:key`. params: field -> value, as the module's fields want
    them; content is `{"$content": [sha256, size]}`, a secret `{"$secret": handle}`.
    mark: where it is declared. title: what its author called it.
    requires, notify: ids. handler: acts only when notified. timeout: seconds.
    declared_as: the type that was written, where compile made another of it.
    drift: what the agent does when the machine moves away: `heal`, `warn`, `ignore`; "" is what
    the host says. prune: what happens once this is declared no more: `keep`, `restore`,
    `delete`; "" is what the host says.
    """

    type: str
    key: str
    params: Mapping[str, object]
    mark: Mark
    title: str = ""
    tags: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    handler: bool = False
    timeout: float = TIMEOUT
    no_log: bool = False
    declared_as: str = ""
    role: str = ""
    drift: str = ""
    prune: str = ""

    @property
    def id(self) -> str:
        """`type:key`; a handler's is `handler:TITLE`, since it may name the same thing."""
        return f"handler:{self.title}" if self.handler else f"{self.type}:{self.key}"

    def to_json(self) -> Json:
        """Defaults are left out: most resources have few of these."""
        document: Json = {
            "type": self.type,
            "key": self.key,
            "params": dict(self.params),
            "source": [self.mark.file, self.mark.line, self.mark.column],
        }
        optional: Json = {
            "title": self.title,
            "tags": list(self.tags),
            "requires": list(self.requires),
            "notify": list(self.notify),
            "handler": self.handler,
            "no_log": self.no_log,
            "declared_as": self.declared_as,
            "role": self.role,
            "drift": self.drift,
            "prune": self.prune,
        }
        document.update({name: value for name, value in optional.items() if value})
        if self.timeout != TIMEOUT:
            document["timeout"] = self.timeout
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Declaration:
        """The inverse of `to_json`. Raises KeyError, TypeError for something else."""
        get = document.get
        return cls(
            type=str(document["type"]),
            key=str(document["key"]),
            params=document["params"],  # type: ignore[arg-type]  # checked by the module's schema
            mark=_mark(document["source"]),
            title=str(get("title", "")),
            tags=_texts(get("tags", ())),
            requires=_texts(get("requires", ())),
            notify=_texts(get("notify", ())),
            handler=bool(get("handler", False)),
            timeout=float(get("timeout", TIMEOUT)),  # type: ignore[arg-type]
            no_log=bool(get("no_log", False)),
            declared_as=str(get("declared_as", "")),
            role=str(get("role", "")),
            drift=str(get("drift", "")),
            prune=str(get("prune", "")),
        )


@dataclass(frozen=True)
class Catalog:
    """The compiled desired state of one host at one commit.

    commit: the full commit id, or "" where the state repo is no Git repository.
    dirty: compiled from a work tree, which may differ from the commit.
    facts: the digest of the facts that it was compiled with.
    modules: the state repo's own modules, name -> source text; they travel with the catalog.
    partial: some of what the state repo declares for the host was left out of it.
    hides: some of that is `no_log`, so what is in the files of the others may be secret.
    """

    host: str
    resources: tuple[Declaration, ...]
    commit: str = ""
    dirty: bool = False
    facts: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False
    hides: bool = False

    def only(self, resources: Iterable[Declaration]) -> Catalog:
        """Some of its resources; whether that makes it partial is for the caller to say."""
        kept = tuple(resources)
        ids = {one.id for one in kept}
        hides = self.hides or any(one.no_log and one.id not in ids for one in self.resources)
        return replace(self, resources=kept, hides=hides)

    def to_json(self) -> Json:
        """The document that `dumps` turns into the catalog's bytes."""
        rare = {"partial": self.partial, "hides": self.hides}
        return {
            **{name: True for name, value in rare.items() if value},
            "schema": ["reconciler/catalog", 1],
            "host": self.host,
            "commit": self.commit,
            "dirty": self.dirty,
            "facts": self.facts,
            "modules": dict(self.modules),
            "resources": [resource.to_json() for resource in self.resources],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Catalog:
        """The inverse of `to_json`. Raises ProtocolError for anything else."""
        check_schema(document, "reconciler/catalog")
        try:
            return cls(
                host=str(document["host"]),
                commit=str(document["commit"]),
                dirty=bool(document["dirty"]),
                facts=str(document["facts"]),
                modules=dict(document["modules"]),  # type: ignore[call-overload]
                partial=bool(document.get("partial", False)),
                hides=bool(document.get("hides", False)),
                resources=tuple(Declaration.from_json(r) for r in document["resources"]),  # type: ignore[attr-defined]
            )
        except _MISFITS as error:
            raise ProtocolError(f"this is not a catalog: {error!r}") from error


def check_schema(document: Mapping[str, object], name: str) -> None:
    """Raise ProtocolError unless `document` is a `name` of version 1."""
    if document.get("schema") != [name, 1]:
        raise ProtocolError(
            f"expected a {name} of version 1, found schema {document.get('schema')!r}"
        )


@dataclass(frozen=True)
class Result:
    """What a plan foresees, or what a run did, for one resource.

    status: `ok` (in sync), `pending` (plan: will change), `changed`, `failed`, `blocked` (by a
    failure), `unknown` (plan: only an earlier change will tell), `notified` (a handler acted),
    `owed` (plan: a handler will act).
    action: `create`, `change`, `remove`, `run`, `notify` or "".
    changes: attribute by attribute; diff: unified, for text under the cap.
    reason: one line for a person: the error, what it waits for, which resource brought it.
    because: ids: of the resources that block this one, notify it, or converged it.
    cause: `corrective` if the desired state is the one applied before (drift), else
    `intentional`, or `unknown` while the ledger has lost what it knew; "" where nothing differs.
    """

    id: str
    status: str
    mark: Mark
    title: str = ""
    action: str = ""
    changes: tuple[Change, ...] = ()
    diff: str = ""
    reason: str = ""
    hint: str = ""
    because: tuple[str, ...] = ()
    cause: str = ""
    tags: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> Json:
        """Empty parts are left out."""
        document: Json = {
            "id": self.id,
            "status": self.status,
            "source": [self.mark.file, self.mark.line, self.mark.column],
        }
        optional: Json = {
            "title": self.title,
            "action": self.action,
            "changes": [
                {"attribute": c.attribute, "before": c.before, "after": c.after}
                for c in self.changes
            ],
            "diff": self.diff,
            "reason": self.reason,
            "hint": self.hint,
            "because": list(self.because),
            "cause": self.cause,
            "tags": list(self.tags),
            "seconds": round(self.seconds, 3),
        }
        document.update({name: value for name, value in optional.items() if value})
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Result:
        """The inverse of `to_json`. Raises KeyError, TypeError, ValueError for something else."""
        get = document.get
        if document["status"] not in STATUSES:
            raise ValueError(f"unknown status {document['status']!r}")
        changes = [
            Change(str(change["attribute"]), change["before"], change["after"])
            for change in get("changes", ())  # type: ignore[attr-defined]
        ]
        return cls(
            id=str(document["id"]),
            status=str(document["status"]),
            mark=_mark(document["source"]),
            title=str(get("title", "")),
            action=str(get("action", "")),
            changes=tuple(changes),
            diff=str(get("diff", "")),
            reason=str(get("reason", "")),
            hint=str(get("hint", "")),
            because=_texts(get("because", ())),
            cause=str(get("cause", "")),
            tags=_texts(get("tags", ())),
            seconds=_seconds(get("seconds", 0.0)),
        )


@dataclass(frozen=True)
class Results:
    """What plans and reports have in common: results of one catalog on one host, in order.

    seconds: how long it took.
    """

    host: str
    results: tuple[Result, ...]
    commit: str = ""
    dirty: bool = False
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    schema = ""

    @property
    def failed(self) -> bool:
        """Whether something could not be looked at, did not converge, or waits for such."""
        return any(result.status in ("failed", "blocked") for result in self.results)

    def counts(self) -> dict[str, int]:
        """How many results have each status."""
        return count(self.results)

    def to_json(self) -> Json:
        """The document that `--json` prints."""
        return {
            "schema": [self.schema, 1],
            "host": self.host,
            "commit": self.commit,
            "dirty": self.dirty,
            "summary": self.counts(),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "results": [result.to_json() for result in self.results],
        }


@dataclass(frozen=True)
class Plan(Results):
    """The differences between a catalog and a machine, in the order in which they would go."""

    schema = "reconciler/plan"

    @property
    def differs(self) -> bool:
        """Whether a run would do anything."""
        return any(result.status in ("pending", "unknown", "owed") for result in self.results)

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Plan:
        """The inverse of `to_json`. Raises ProtocolError for anything else."""
        check_schema(document, cls.schema)
        return cls(**_common(document))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Report(Results):
    """What a run did. One schema for every mode.

    run: a unique id. started: seconds since the epoch, UTC. interrupted: it stopped at a
    boundary, because it was told to.
    """

    run: str = ""
    mode: str = "local"
    started: float = 0.0
    interrupted: bool = False

    schema = "reconciler/report"

    @property
    def changed(self) -> bool:
        """Whether anything on the machine was changed."""
        return any(result.status in ("changed", "notified") for result in self.results)

    def to_json(self) -> Json:
        """The document that `--json` prints."""
        return {
            **super().to_json(),
            "run": self.run,
            "mode": self.mode,
            "started": round(self.started, 3),
            "interrupted": self.interrupted,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Report:
        """The inverse of `to_json`. Raises ProtocolError for anything else."""
        check_schema(document, cls.schema)
        common = _common(document)
        try:
            return cls(
                **common,  # type: ignore[arg-type]
                run=str(document["run"]),
                mode=str(document["mode"]),
                started=_seconds(document["started"]),
                interrupted=bool(document["interrupted"]),
            )
        except _MISFITS as error:
            raise ProtocolError(f"this is not a report: {error!r}") from error


def count(results: Sequence[Result]) -> dict[str, int]:
    """How many results have each status, most common statuses always present."""
    counts = {"ok": 0, "changed": 0, "failed": 0, "blocked": 0}
    for result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return counts


def _common(document: Mapping[str, object]) -> Json:
    try:
        return {
            "host": str(document["host"]),
            "commit": str(document["commit"]),
            "dirty": bool(document["dirty"]),
            "seconds": _seconds(document["seconds"]),
            "warnings": _texts(document["warnings"]),
            "results": tuple(Result.from_json(r) for r in document["results"]),  # type: ignore[attr-defined]
        }
    except _MISFITS as error:
        raise ProtocolError(f"this is not a plan or report: {error!r}") from error


def _mark(source: object) -> Mark:
    file, line, column = source  # type: ignore[misc]
    return Mark(str(file), int(line), int(column))


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"expected a list, found {values!r}")
    return tuple(str(value) for value in values)


def _seconds(value: object) -> float:
    seconds = float(value)  # type: ignore[arg-type]
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is no time")
    return seconds


def encode_param(value: object) -> object:
    """A parameter as the catalog carries it."""
    if isinstance(value, Content):
        return {"$content": [value.sha256, value.size]}
    return value


def decode_param(value: object, secrets: Mapping[str, str]) -> object:
    """The inverse: content references become Content, handles become the secret itself."""
    if isinstance(value, dict):
        if "$content" in value:
            return Content(*value["$content"])
        if "$secret" in value:
            return Secret(secrets[value["$secret"]])
    return value


def show_value(value: Value) -> str:
    """A value for a person: text as it is, everything else as JSON."""
    return (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )
