"""The engine as a process: `python3 -I engine.pyz`, frames on stdin and stdout.

Requests, one after the other, until stdin ends:

    {"op": "facts", "root": "/"}
    {"op": "history", "root": "/", "limit": 20}
    {"op": "plan" | "apply", "root": "/", "durability": "batch", "diff": true, "mode": "local",
     "lock_timeout": 0, "command": ""}       followed by a frame with the catalog

    {"op": "prune", "root": "/", "present": [ids], "modules": {name: text}, "host", "commit",
     "policy", "most", "percent", "over_budget": false, "dry_run": true, "lock_timeout": 60,
     "command": ""}

While a run goes on, `{"op": "stop"}` or the end of stdin stops it at the next boundary.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

if not __package__ and os.path.isdir(os.path.dirname(os.path.abspath(__file__))):
    # Started as a file of an installed package, in isolated mode: the package's place is ours.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


from reconciler.catalog import Catalog, Report
from reconciler.engine.converge import Run, converge
from reconciler.engine.facts import gather
from reconciler.engine.ledger import Ledger
from reconciler.engine.limit import Boundary
from reconciler.engine.loader import Loader
from reconciler.engine.lock import lock
from reconciler.engine.order import Node, Order, arrange
from reconciler.engine.plan import Emit, plan
from reconciler.engine.wire import PROTOCOL, Message, Wire, error_to_json
from reconciler.errors import Interrupted, ProtocolError, ReconcilerError, ResourceError
from reconciler.host import Host

#: Content up to this size is kept: a plan shows it and a run writes it, and it travels once.
KEEP = 256 << 10


def main() -> int:
    """Serve requests until the controller hangs up; 0, whatever the requests came to."""
    # What we keep for ourselves has its mode from the start; the rest is for programs we run.
    os.umask(0o022)
    wire = _take_streams()
    boundary = Boundary(wire.waiting)
    boundary.listen()
    try:
        wire.send({"hello": PROTOCOL, "python": list(sys.version_info[:3]), "pid": os.getpid()})
        _serve(wire, boundary)
    except BrokenPipeError:
        pass
    wire.abandon()
    return 0


def _serve(wire: Wire, boundary: Boundary) -> None:
    while True:
        try:
            with boundary.at_rest():
                request = wire.receive()
        except (EOFError, Interrupted):
            return
        except ProtocolError as error:
            # What follows will make no sense either.
            wire.send({"error": error_to_json(error)})
            return
        try:
            wire.send(_answer(wire, request, boundary))
        except (EOFError, BrokenPipeError):
            return
        except ReconcilerError as error:
            wire.send({"error": error_to_json(error)})
        except Exception as error:  # noqa: BLE001  the last line of defence, and it says so
            wire.send({"error": _bug(error)})


def _take_streams() -> Wire:
    """Keep stdin and stdout for frames: nothing that is printed or started can reach them."""
    incoming = io.BufferedReader(io.FileIO(os.dup(0)), 1 << 16)
    outgoing = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Wire(incoming, outgoing)


def _answer(wire: Wire, request: Message, boundary: Boundary) -> Mapping[str, object]:
    root = str(request.get("root", "/"))
    if not os.path.isdir(root):
        raise ProtocolError(f"the root {root} is not a directory")

    def emit(event: Mapping[str, object]) -> None:
        try:
            wire.send(event)
        except BrokenPipeError:
            boundary.reach()  # nobody listens any more: stop where it is safe

    operation = request.get("op")
    if operation == "facts":
        return {"facts": gather(root)}
    if operation == "prune":
        return {"prune": _prune(request, root, boundary, emit)}
    if operation == "history":
        return {"history": _history(root, int(str(request.get("limit", 20))))}
    if operation not in ("plan", "apply"):
        raise ProtocolError(f"unknown request {operation!r}")
    catalog = Catalog.from_json(wire.receive())
    order = _arrange(catalog, wire)
    host = Host(
        root,
        facts=gather(root),
        durability=str(request.get("durability", "batch")),
        fetch=_Contents(wire),
    )
    diff = bool(request.get("diff", True))
    if operation == "plan":
        with Ledger.open_readonly(root) as ledger:
            return {"plan": plan(catalog, order, host, ledger, diff=diff).to_json()}
    run = Run(os.urandom(6).hex(), str(request.get("mode", "local")), diff)
    with _locked(request, root, run, boundary, emit, 0), Ledger.open(root) as ledger:
        return {"report": converge(catalog, order, host, ledger, run, boundary, emit).to_json()}


def _locked(
    request: Message, root: str, run: Run, boundary: Boundary, emit: Emit, patience: float
) -> AbstractContextManager[None]:
    """The lock of the host, waited for as long as is asked; that it is waited for is an event."""
    seconds = float(str(request.get("lock_timeout", patience)))
    return lock(
        root,
        run.id,
        run.mode,
        seconds,
        boundary,
        command=str(request.get("command", "")),
        waiting=lambda holder: emit({"event": "waiting", "holder": holder, "seconds": seconds}),
    )


def _prune(request: Message, root: str, boundary: Boundary, emit: Emit) -> Mapping[str, object]:
    """What left Git leaves the host, or with `dry_run`, what would."""
    from reconciler.engine.prune import Rules, prune, survey

    rules = Rules(
        {str(k): str(v) for k, v in _dict(request.get("policy")).items()},
        int(str(request.get("most", 5))),
        int(str(request.get("percent", 10))),
        bool(request.get("over_budget", False)),
    )
    present = request.get("present")
    if not isinstance(present, list):
        raise ProtocolError("prune needs the list of what is declared")
    ids = [str(one) for one in present]
    loader = Loader({str(k): str(v) for k, v in _dict(request.get("modules")).items()})
    if request.get("dry_run", True):
        with Ledger.open_readonly(root) as known:
            return survey(known, ids, rules, loader.knows).to_json() if known is not None else {}
    host = Host(root, facts=gather(root))
    run = Run(os.urandom(6).hex(), "prune", diff=False)
    with _locked(request, root, run, boundary, emit, 60), Ledger.open(root) as ledger:

        def carry_out(catalog: Catalog) -> Report:
            nodes = [Node(one, loader.build(one)) for one in catalog.resources]
            order = arrange(nodes, hides=True)  # of what is declared only the ids are known here
            return converge(catalog, order, host, ledger, run, boundary, lambda event: None)

        plan = survey(ledger, ids, rules, loader.knows)
        where = (run.id, str(request.get("host", "")), str(request.get("commit", "")))
        done, failed = prune(host, ledger, plan, *where, carry_out, boundary)
        return {**done, "failed": failed}


def _dict(value: object) -> Message:
    return value if isinstance(value, dict) else {}


def _history(root: str, limit: int) -> Mapping[str, object]:
    """What the ledger knows of the last runs, and what they changed."""
    with Ledger.open_readonly(root) as ledger:
        if ledger is None:
            return {"runs": [], "changes": []}
        return {"runs": ledger.runs(limit), "changes": ledger.changes(limit=limit * 10)}


def _arrange(catalog: Catalog, wire: Wire) -> Order:
    """Live resources in order; secrets are asked for only where the catalog has handles."""
    handles = any(
        isinstance(value, dict) and "$secret" in value
        for declaration in catalog.resources
        for value in declaration.params.values()
    )
    secrets: dict[str, str] = {}
    if handles:
        answer = wire.ask("secrets").get("secrets")
        secrets = {str(k): str(v) for k, v in answer.items()} if isinstance(answer, dict) else {}
    loader = Loader(catalog.modules)
    nodes: list[Node] = [Node(one, loader.build(one, secrets)) for one in catalog.resources]
    return arrange(nodes, hides=catalog.hides)


class _Contents:
    """Content from the controller, checked against the digest that the catalog names."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._kept: dict[str, bytes] = {}

    def __call__(self, sha256: str, size: int) -> Iterator[bytes]:
        if sha256 in self._kept:
            yield self._kept[sha256]
            return
        digest = hashlib.sha256()
        whole: list[bytes] = []
        try:
            for piece in self._wire.ask_content(sha256, size):
                digest.update(piece)
                if size <= KEEP:
                    whole.append(piece)
                yield piece
        except (EOFError, BrokenPipeError) as error:
            raise ResourceError("the controller is gone, and the content with it") from error
        if digest.hexdigest() != sha256:
            raise ResourceError(
                f"the content that came is not the one declared (sha256 {sha256[:12]})"
            )
        if size <= KEEP:
            self._kept[sha256] = b"".join(whole)


def _bug(error: Exception) -> Message:
    """An exception that is our own mistake: said as such, with its place."""
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "type": "ReconcilerError",
        "message": f"the engine failed: {type(error).__name__}: {error} "
        f"({place.filename.rpartition('/')[2]}:{place.lineno})",
        "hint": "this is a bug in reconciler",
        "trace": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


if __name__ == "__main__":
    sys.exit(main())
