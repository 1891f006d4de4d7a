"""Everything that can go wrong, as one tree; each class knows its exit code.

    ReconcilerError                 1   a bug of ours, unless a subclass says otherwise
    ├─ ConfigError                  3   the state repo or the command line must change
    │  ├─ UsageError                    options that do not fit together, a selection of nothing
    │  ├─ YamlError                     not YAML, or YAML that we refuse
    │  ├─ SchemaError                   unknown key, wrong type, missing value
    │  ├─ TemplateError                 Jinja2: syntax, undefined variable, refused access
    │  ├─ InventoryError                hosts, groups, patterns, variables
    │  ├─ CycleError                    resources that wait for each other
    │  ├─ ClaimConflict                 two resources want one thing to be different
    │  └─ ConfigErrors                  several of the above, all of one compile
    ├─ SourceError                  5   the state repo could not be obtained; retry is right
    │  ├─ Damaged                       what came or what is kept of it is not what it must be
    │  └─ Stale                         no remote has confirmed or advanced it for too long
    ├─ TrustError                  10   it must not be used; retry is wrong
    │  ├─ BadSignature                  a commit or tag that nobody whom we trust has signed
    │  ├─ NotFastForward                not on top of the last trusted commit
    │  ├─ NotApproved                   too few people signed a change of protected paths
    │  ├─ WrongRepository               it says that it is another state repo, or an older epoch
    │  ├─ UnknownServer                 the server's host key is not the one we know
    │  └─ StateLost                     nobody knows any more what was trusted last
    ├─ TransportError               5   the host could not be reached
    │  ├─ HostUnreachable               nobody answers there, or not in time
    │  ├─ HostKeyRefused                somebody answers who may be somebody else
    │  ├─ AuthFailed                    it does not let us in, or not become who we must be
    │  ├─ HostUnfit                     we are in, but the engine cannot run there
    │  ├─ ConnectionLost                it broke off in the middle
    │  └─ ProtocolError             1   the other side did not speak our protocol
    ├─ ResourceError                4   this resource failed, its dependants wait, the rest goes on
    │  ├─ CommandFailed                 a program ended with an error
    │  ├─ TimedOut                      it took longer than its limit
    │  ├─ NotConverged                  apply went through, the difference stayed
    │  ├─ NotYet                        something it is about does not exist (yet)
    │  ├─ Unsupported                   this host cannot do that
    │  ├─ UnsafePath                    the path could be redirected by somebody else
    │  └─ Moved                         the machine changed between look and act
    ├─ Held                         7   not now: something must end first, or a person must say so
    ├─ LockBusy                     9   another run holds the lock
    └─ Interrupted                130   the operator or the system said stop

A message says what, `mark` or `host` says where, `hint` says what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """A place in a file of the state repo. Lines and columns count from 1; 0 is "unknown"."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        parts = [self.file, *(str(n) for n in (self.line, self.column) if n)]
        return ":".join(parts)


class ReconcilerError(Exception):
    """The root of the tree.

    message: what happened, lower case, no full stop, never a secret.
    mark: where in the state repo. host: for which host. hint: what to do next.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        mark: Mark | None = None,
        host: str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark
        self.host = host
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.mark}: " if self.mark else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{place}{self.message}{hint}"


class ConfigError(ReconcilerError):
    """The state repo, the inventory or the command line must change."""

    exit_code = 3


class UsageError(ConfigError):
    """Options that do not fit together, or a selection that matches nothing."""


class YamlError(ConfigError):
    """Not YAML, or YAML that we refuse: too deep, too large, duplicate keys, unknown tags."""


class SchemaError(ConfigError):
    """An unknown key, a value of the wrong type, a missing value."""


class TemplateError(ConfigError):
    """A Jinja2 expression or template that does not parse, or cannot be evaluated."""


class InventoryError(ConfigError):
    """A host, group, pattern or variables file that cannot be used."""


class CycleError(ConfigError):
    """Resources that wait for each other; the message names the whole cycle."""


class ClaimConflict(ConfigError):
    """Two resources claim one thing with different wishes; the message names both places."""


class ConfigErrors(ConfigError):
    """All the errors of one compile, in the order of the files."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__(f"{len(errors)} errors" if len(errors) != 1 else errors[0].message)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class SourceError(ReconcilerError):
    """The state repo could not be obtained; trying again later is right."""

    exit_code = 5


class Damaged(SourceError):
    """Git objects that cannot be read or are not what their ids say: as they came, or as they are kept."""


class Stale(SourceError):
    """No remote has confirmed or advanced the state repo for longer than is allowed."""


class TrustError(ReconcilerError):
    """The commit must not be used; trying again is wrong."""

    exit_code = 10


class BadSignature(TrustError):
    """A commit or tag without a signature by a key that this host trusts."""


class NotFastForward(TrustError):
    """A commit that was not made on top of the last trusted one, or a tag that moved.

    behind: it is an older commit of the same history, as a lagging remote would show.
    """

    behind = False


class NotApproved(TrustError):
    """A change of protected paths that too few people have signed."""


class WrongRepository(TrustError):
    """A state repo that says it is another one than is configured, or an older epoch of it."""


class UnknownServer(TrustError):
    """A server whose host key is not the one that this host knows."""


class StateLost(TrustError):
    """What was trusted last is not known any more; only a person can say it."""


class TransportError(ReconcilerError):
    """The host could not be reached."""

    exit_code = 5


class HostUnreachable(TransportError):
    """Nobody answers under this name, address and port, or not in time."""


class HostKeyRefused(TransportError):
    """The host's key is unknown, changed or revoked, so nothing was sent to it."""


class AuthFailed(TransportError):
    """The host does not let us in, or does not let us become the user that the run needs."""


class HostUnfit(TransportError):
    """The host lets us in, but the engine cannot run there: no Python, an old one, no shell."""


class ConnectionLost(TransportError):
    """The connection broke off. The engine stops at a boundary by itself, and frees the lock."""


class ProtocolError(TransportError):
    """The other side of the engine protocol said something that cannot be right."""

    exit_code = 1


class ResourceError(ReconcilerError):
    """One resource failed. What depends on it is blocked; the rest converges."""

    exit_code = 4


class CommandFailed(ResourceError):
    """A program ended with an error; carries its argv, exit code and the end of its output."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        last = "\n".join(output.strip().splitlines()[-10:])
        super().__init__(f"{argv[0]} ended with code {code}" + (f":\n{last}" if last else ""))
        self.argv = tuple(argv)
        self.code = code
        self.output = output


class TimedOut(ResourceError):
    """It took longer than its time limit and was killed, with its whole process group."""


class NotConverged(ResourceError):
    """`apply` went through, but the machine still differs from the catalog."""


class NotYet(ResourceError):
    """Something that the resource is about does not exist: a unit, a file to edit.

    In a plan this is no failure when an earlier resource is about to bring it.
    """


class Unsupported(ResourceError):
    """This host has no way to do that."""


class UnsafePath(ResourceError):
    """Somebody other than root could send this path elsewhere, so root does not take it."""


class Moved(ResourceError):
    """The machine changed between our look and our act; the resource is looked at again."""


class Held(ReconcilerError):
    """It is not done now: something must end first, or a person must say so."""

    exit_code = 7


class LockBusy(ReconcilerError):
    """Another run holds the lock."""

    exit_code = 9


class Interrupted(ReconcilerError):
    """The operator or the system said stop; the run ended at a boundary."""

    exit_code = 130


def unforeseen(error: Exception) -> str:
    """An exception that nobody should have let through, with the place that it is from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename.rpartition("/")[2] if trace else ""
    place = f" at {file}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}: {error}{place}"
