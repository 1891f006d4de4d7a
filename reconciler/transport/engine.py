"""The controller's side of the engine protocol.

    with Engine.local() as engine:
        facts = engine.facts()
        report = engine.apply(catalog, content=..., secrets=...)

The process starts when the object is made, so that the caller can import and compile while
the engine starts up. What comes back is untrusted: bounded by the frames, checked by shape.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import reconciler
from reconciler.catalog import Plan, Report
from reconciler.engine.lock import user
from reconciler.engine.wire import PROTOCOL, Message, Wire, error_from_json, error_to_json
from reconciler.errors import Interrupted, ProtocolError, ReconcilerError
from reconciler.transport.link import Ended, Link
from reconciler.transport.process import Process

T = TypeVar("T")
Contents = Callable[[str], Iterable[bytes]]
Secrets = Callable[[], Mapping[str, str]]
OnEvent = Callable[[Message], None]

#: Seconds until an engine that was hung up on is told to stop.
PATIENCE = 30.0
HURRY = 0.1
#: Messages that answer one request; ten times what 10,000 resources need.
MAX_MESSAGES = 500_000
_DIGEST = re.compile(rb'"([0-9a-f]{64})"')


class Engine:
    """A running engine, wherever it is. Use it as a context manager, so that it always ends.

    link: its streams. root, durability: as in `Host`.
    """

    def __init__(self, link: Link, *, root: str = "/", durability: str = "batch") -> None:
        self._options = {"root": root, "durability": durability}
        self._link = link
        self._wire = Wire(link.incoming, link.outgoing)
        self._greeted = False
        self._distrusted = False
        self._stops = 0

    @classmethod
    def local(cls, root: str = "/", durability: str = "batch") -> Engine:
        """The engine of this installation, on this machine."""
        main = os.path.join(os.path.dirname(reconciler.__file__), "engine", "__main__.py")
        # -S: the standard library is all it needs. -B: a look must not write, not even a cache.
        link = Process([sys.executable, "-I", "-S", "-B", main])
        return cls(link, root=root, durability=durability)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and wait until the engine has stopped at a boundary."""
        if self._distrusted:
            self._link.kill()
        else:
            # After a second Ctrl-C nobody waits: the engine stops at its boundary by itself.
            self._link.close(HURRY if self._stops > 1 else PATIENCE)

    def facts(self) -> dict[str, Any]:
        """What the host says about itself. Raises ReconcilerError."""
        answer = self._ask({"op": "facts"}, None)
        return self._taken(answer, "facts", dict)

    def plan(
        self,
        catalog: bytes,
        *,
        content: Contents,
        secrets: Secrets,
        diff: bool = True,
        on_event: OnEvent = lambda event: None,
    ) -> Plan:
        """The differences between the catalog (its canonical JSON) and the host.

        content: the bytes of a SHA-256 that the catalog names; asked only for what differs.
        secrets: handle -> value; asked only if the catalog has handles. Raises ReconcilerError.
        """
        answer = self._ask({"op": "plan", "diff": diff}, catalog, content, secrets, on_event)
        return self._taken(answer, "plan", Plan.from_json)

    def apply(
        self,
        catalog: bytes,
        *,
        content: Contents,
        secrets: Secrets,
        diff: bool = True,
        on_event: OnEvent = lambda event: None,
        lock_timeout: float = 0.0,
        mode: str = "local",
    ) -> Report:
        """Converge the host; like `plan`. lock_timeout: seconds to wait for another run."""
        request: Message = {
            "op": "apply",
            "diff": diff,
            "mode": mode,
            "lock_timeout": lock_timeout,
            "command": _command(mode),
        }
        answer = self._ask(request, catalog, content, secrets, on_event)
        return self._taken(answer, "report", Report.from_json)

    def prune(
        self,
        *,
        dry_run: bool = False,
        on_event: OnEvent = lambda event: None,
        **request: object,
    ) -> dict[str, Any]:
        """What is owned and declared no more: done away with as its policy says, or only listed.

        request: `present`, `modules`, `host`, `commit`, `policy`, `most`, `percent`, `over_budget`,
        `lock_timeout`.
        """
        whole: Message = {
            "op": "prune",
            "dry_run": dry_run,
            "command": _command("prune"),
            **request,
        }
        answer = self._ask(whole, None, on_event=on_event)
        return self._taken(answer, "prune", dict)

    def history(self, limit: int = 20) -> dict[str, Any]:
        """The last `runs` in the host's ledger, newest first, and the `changes` that they made."""
        return self._taken(self._ask({"op": "history", "limit": limit}, None), "history", dict)

    def _ask(
        self,
        request: Message,
        catalog: bytes | None,
        content: Contents | None = None,
        secrets: Secrets | None = None,
        on_event: OnEvent = lambda event: None,
    ) -> Message:
        served = frozenset(_DIGEST.findall(catalog or b""))
        try:
            self._greet()
            self._wire.send({**request, **self._options})
            if catalog is not None:
                self._wire.send_json(catalog)
            for _ in range(MAX_MESSAGES):
                answer = self._receive()
                if "event" in answer:
                    on_event(answer)
                elif answer.get("ask") == "content" and content is not None:
                    self._send_content(content, str(answer.get("sha256")), served)
                elif answer.get("ask") == "secrets" and secrets is not None:
                    self._wire.send({"secrets": dict(secrets())})
                elif "error" in answer:
                    raise error_from_json(answer["error"])
                else:
                    return answer
            raise self._distrust(ProtocolError("the engine does not come to an end"))
        except (EOFError, BrokenPipeError) as error:
            raise self._gone() from error

    def _greet(self) -> None:
        if not self._greeted:
            hello = self._receive().get("hello")
            if hello != PROTOCOL:
                raise self._distrust(
                    ProtocolError(f"the engine speaks another protocol: {str(hello)[:40]!r}")
                )
            self._greeted = True

    def _receive(self) -> Message:
        while True:
            try:
                return self._wire.receive()
            except ProtocolError as error:
                raise self._distrust(error) from None
            except KeyboardInterrupt:
                self.stop()
                if self._stops > 1:
                    raise Interrupted(
                        "interrupted; the engine ends what it is doing, and then stops"
                    ) from None

    def _distrust(self, error: ProtocolError) -> ProtocolError:
        self._distrusted = True
        return error

    def _gone(self) -> ReconcilerError:
        """Why the engine has hung up."""
        error = self._link.gone()
        if isinstance(error, ProtocolError):
            return self._distrust(error)
        if self._stops and isinstance(error, Ended):
            return Interrupted("the engine stopped before it had answered")
        return error

    def stop(self) -> None:
        """Ask the engine to stop at the next boundary; its report still comes."""
        self._stops += 1
        self._link.stop()

    def _send_content(self, content: Contents, sha256: str, served: frozenset[bytes]) -> None:
        # What one host may read is what its catalog names, and nothing else.
        if sha256.encode("utf-8", "replace") not in served:
            raise self._distrust(
                ProtocolError(
                    f"the engine asks for content that its catalog does not name: {sha256[:64]!r}"
                )
            )
        try:
            self._wire.send_content(content(sha256))
        except ReconcilerError as error:
            self._wire.send({"error": error_to_json(error)})

    def _taken(self, answer: Message, name: str, read: Callable[[dict[str, Any]], T]) -> T:
        """What a request was about, read from its answer."""
        value = answer.get(name)
        try:
            if isinstance(value, dict):
                return read(value)
        except ProtocolError as error:
            raise self._distrust(error) from None
        raise self._distrust(ProtocolError(f"the engine answered without its {name}"))


def _command(mode: str) -> str:
    """What whoever waits for this run's lock would look for; of a push, on which machine."""
    verb = {"agent": "agent", "prune": "prune"}.get(mode, "apply")
    where = f", from {user()}@{os.uname().nodename}" if mode == "push" else ""
    return f"reconciler {verb}{where}"
