"""Toy resources whose world is a dict, for the engine's verbs within one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from reconciler.catalog import Catalog, Declaration, Plan, Report
from reconciler.engine.converge import Run, converge
from reconciler.engine.ledger import Ledger
from reconciler.engine.limit import Boundary
from reconciler.engine.order import Node, arrange
from reconciler.engine.plan import plan
from reconciler.errors import Mark, NotYet, ResourceError
from reconciler.host import Host
from reconciler.resource import Diff, Refresh, Resource, Secret, State, Value

#: name -> value: the machine. Emptied before each test.
MACHINE: dict[str, Value] = {}
#: What was done to it, in order.
DONE: list[str] = []
#: name -> what happens instead of its change.
TROUBLE: dict[str, Callable[[], None]] = {}


@dataclass(frozen=True)
class Toy(Resource):
    name: str
    value: Value = "v"
    absent: bool = False
    inside: tuple[str, ...] = ()
    strength: int | None = None
    password: Secret | None = None

    def claims(self) -> set[str]:
        return {f"toy:{self.name}"}

    def needs(self) -> set[str]:
        return {f"toy:{one}" if one != "*" else "toy:/**" for one in self.inside}

    def desired(self) -> State:
        if self.absent:
            return None
        return {"value": self.value} if self.password is None else {"value": self.password}

    def actual(self, host: Host) -> State:
        for one in self.inside:
            if one not in MACHINE and one != "*":
                raise NotYet(f"{one} is not there")
        return {"value": MACHINE[self.name]} if self.name in MACHINE else None

    def apply(self, host: Host, diff: Diff) -> None:
        host.act()
        TROUBLE.get(self.name, lambda: None)()
        DONE.append(self.name)
        if diff.after is None:
            del MACHINE[self.name]
        else:
            MACHINE[self.name] = self.value if self.password is None else str(self.password)

    def refresh(self) -> Refresh | None:
        return None if self.strength is None else Refresh(f"toy:{self.name}", self.strength)

    def on_notify(self, host: Host) -> None:
        host.act()
        TROUBLE.get(self.name, lambda: None)()
        DONE.append(f"{self.strength}!{self.name}")


@dataclass(frozen=True)
class Box(Toy):
    """Several at once; may bring anything along, as a package does."""

    opaque: ClassVar[bool] = True
    batched: ClassVar[str] = "ahead"
    brings: str = ""

    @classmethod
    def apply_many(
        cls, host: Host, work: Sequence[tuple[Resource, Diff]]
    ) -> list[ResourceError | None]:
        DONE.append(f"[{len(work)}]")
        return super().apply_many(host, work)

    def apply(self, host: Host, diff: Diff) -> None:
        super().apply(host, diff)
        if self.brings:
            MACHINE[self.brings] = "v"


def fail(message: str = "broken") -> Callable[[], None]:
    def trouble() -> None:
        raise ResourceError(message)

    return trouble


def toy(name: str, *, kind: type[Toy] = Toy, **more: Any) -> Node:
    """A node: fields of the resource and of the declaration mixed."""
    own: dict[str, Any] = {
        one: more.pop(one) for one in list(more) if one in kind.__dataclass_fields__
    }
    declared: dict[str, Any] = {
        one: tuple(f"toy:{name}" if ":" not in name else name for name in more.pop(one))
        for one in ("requires", "notify")
        if one in more
    }
    line = more.pop("line", 1)
    mark = Mark("site.yml", int(str(line)))
    declaration = Declaration("toy", name, {"name": name}, mark, **declared, **more)
    return Node(declaration, kind(name, **own))


def handler(name: str, strength: int | None = 2, **more: Any) -> Node:
    return toy(name, strength=strength, handler=True, title=f"{name} {strength}", **more)


@dataclass
class Bench:
    """A host, its ledger and its runs."""

    root: Path
    events: list[Mapping[str, object]] = field(default_factory=list)
    boundary: Boundary = field(default_factory=Boundary)
    count: int = 0

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with Ledger.open(str(self.root)) as ledger:
            yield ledger

    def plan(self, *nodes: Node, diff: bool = True) -> Plan:
        catalog = Catalog("h", tuple(node.declaration for node in nodes))
        with Ledger.open_readonly(str(self.root)) as ledger:
            return plan(catalog, arrange(nodes), Host(str(self.root)), ledger, diff=diff)

    def apply(self, *nodes: Node, diff: bool = True) -> Report:
        self.count += 1
        catalog = Catalog("h", tuple(node.declaration for node in nodes))
        run = Run(f"run{self.count}", diff=diff)
        with self.ledger() as ledger:
            return converge(
                catalog,
                arrange(nodes),
                Host(str(self.root)),
                ledger,
                run,
                self.boundary,
                self.events.append,
            )


def statuses(outcome: Plan | Report) -> dict[str, str]:
    return {result.id.removeprefix("toy:"): result.status for result in outcome.results}
