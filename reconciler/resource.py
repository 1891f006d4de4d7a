"""The contract of a resource type.

An author draws two pictures and makes one move: `desired()` and `actual(host)` return plain
JSON-able dicts, `apply(host, diff)` closes the gap. The engine alone compares, so a dry run
cannot lie, and after `apply` it looks again, so a success cannot lie either.

A file under `modules/` holds one frozen dataclass. Its fields are the schema, read from the
syntax tree and never by running the file: the first field is the key, the `#:` comment behind
a field is its documentation, the module's docstring is title and example.
Field types are a closed vocabulary: `str`, `int`, `float`, `bool`, `list[T]`, `dict[str, T]`,
`Literal[...]`, `Path`, `Content`, `Secret`, unions of them, `T | None`, and `object` for the items
of lists and mappings that hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Optional, Union

from reconciler.errors import ResourceError, Unsupported
from reconciler.host import Host

Value = Union[None, bool, int, float, str, list["Value"], dict[str, "Value"]]
State = Optional[dict[str, Value]]
"""What a resource looks like: attribute -> value; None = it does not exist."""


Path = str
"""Where something is on the host. Compile writes it as `plain_path` does, so that one place is one
key and one claim, however it was written. Text that is only compared, as a link's, is `str`."""


def plain_path(path: str) -> str:
    """An absolute path without doubled slashes, `.` and a slash at its end; others as they are.

    `..` stays: where it leads depends on links, so it is for others to refuse.
    """
    if not path.startswith("/"):
        return path
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


class Content(NamedTuple):
    """The content of a file by its SHA-256; the bytes stay with the controller until asked for."""

    sha256: str
    size: int


class Secret(str):
    """A value that appears in no plan, diff, report, log or argv; `repr` hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


class Change(NamedTuple):
    """One attribute that differs."""

    attribute: str
    before: Value
    after: Value


@dataclass(frozen=True)
class Diff:
    """The difference between two pictures; `changes` covers only what `after` mentions."""

    before: State
    after: State

    @property
    def changes(self) -> tuple[Change, ...]:
        """Attribute by attribute, in the order in which `desired()` lists them."""
        if self.after is None:
            gone = self.before or {}
            return tuple(Change(name, gone[name], None) for name in gone)
        before = self.before or {}
        return tuple(
            Change(name, before.get(name), value)
            for name, value in self.after.items()
            if self.before is None or before.get(name) != value
        )

    @property
    def changed(self) -> set[str]:
        """The names of the attributes that differ."""
        return {change.attribute for change in self.changes}

    def __bool__(self) -> bool:
        if self.before is None or self.after is None:
            return self.before is not self.after
        return any(self.before.get(name) != value for name, value in self.after.items())


class Refresh(NamedTuple):
    """What a notification asks for: of several on one target, only the strongest is carried out."""

    target: str
    strength: int


@dataclass(frozen=True)
class Resource:
    """One thing on one host. Keys that `desired()` leaves out are not managed."""

    #: Other names that a parameter may be written with: {alias: field}.
    aliases: ClassVar[Mapping[str, str]] = {}
    #: The fields that make the key, joined by `#`; `a|b` is the first of them that is given.
    #: Empty: the first field alone.
    key_fields: ClassVar[tuple[str, ...]] = ()
    #: Outside of handlers one of these must be given, or nothing would say when it is done.
    requires_one_of: ClassVar[tuple[str, ...]] = ()
    #: For each parameter the values that are no state but something to do: only handlers have them.
    handler_only: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    #: True if the first field may be written as a list: one resource for each item.
    key_list: ClassVar[bool] = False
    #: Parameters that users may expect and that are not there: {name: what to write instead}.
    refused: ClassVar[Mapping[str, str]] = {}
    #: True if `apply` can change what other resources look at (a package, a command).
    opaque: ClassVar[bool] = False
    #: Whether `apply_many` does several at once better than one by one: `adjacent` for those that
    #: follow each other, `ahead` also for later ones that what stands between does not matter to.
    batched: ClassVar[str] = ""

    def claims(self) -> set[str]:
        """What this resource owns: `path:/etc/motd`, `unit:nginx.service`, `user:deploy`."""
        raise NotImplementedError

    def needs(self) -> set[str]:
        """Claims that must be converged first where the catalog has them.

        A trailing `/**` stands for everything below: `path:/etc/apt/**`.
        """
        return set()

    def desired(self) -> State:
        """What it should look like. Where the wish is a condition (`latest`, `>= 1.2`),
        `actual` repeats the wish itself once the condition holds."""
        raise NotImplementedError

    def actual(self, host: Host) -> State:
        """What it looks like; only reads. Raises NotYet where there is nothing to look at."""
        raise NotImplementedError

    def ready(self, host: Host) -> None:
        """Raises NotYet if `apply` would miss something: a directory, an owner. Only looks; a
        plan asks it of what is to change, so that it fails where apply would."""

    def apply(self, host: Host, diff: Diff) -> None:
        """Close the gap. Raises ResourceError."""
        raise NotImplementedError

    @classmethod
    def actual_many(cls, resources: Sequence[Resource], host: Host) -> None:
        """Read ahead for all of them at once and keep it with `host.memo`; optional."""

    @classmethod
    def apply_many(
        cls, host: Host, work: Sequence[tuple[Resource, Diff]]
    ) -> list[ResourceError | None]:
        """Close several gaps at once; what came of each, in the order of `work`."""
        outcomes: list[ResourceError | None] = []
        for resource, diff in work:
            try:
                resource.apply(host, diff)
                outcomes.append(None)
            except ResourceError as error:
                outcomes.append(error)
        return outcomes

    def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes] | None:
        """The texts before and after that a person wants to see as a diff; None: there are none."""
        return None

    def refresh(self) -> Refresh | None:
        """What a notification to this resource does; None: it cannot be notified."""
        return None

    def on_notify(self, host: Host) -> None:
        """Carry the notification out: restart, reload, run."""
        raise Unsupported("this resource type cannot be notified")

    def undone(self) -> dict[str, Value] | None:
        """The parameters of this type that take it away again, for when it is declared no more;
        None: prune keeps it. Paths need none: what was there before them is known."""
        return None

    def absorbs(self, diff: Diff) -> bool:
        """True if this change did what notifications owed so far would do: a service that
        was just started needs no restart."""
        return False


@dataclass(frozen=True)
class Lowered:
    """A type that compile turns into others (`template` into `file`): all schema, no host."""

    aliases: ClassVar[Mapping[str, str]] = {}
