"""Runs on a host: drives resource types without the engine, the way the engine does.

Reads `[[type, params], ...]` from its input and says for each what differed, what came of it
and what differs still, as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from reconciler.errors import ReconcilerError
from reconciler.host import Host
from reconciler.resource import Diff, Resource


def look(resource: Resource, host: Host) -> dict[str, Any]:
    """The difference, or the error that it takes to see it."""
    try:
        diff = Diff(resource.actual(host), resource.desired())
    except ReconcilerError as error:
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    changes = [[c.attribute, c.before, c.after] for c in diff.changes]
    return {"differs": bool(diff), "changes": changes, "before": diff.before, "after": diff.after}


def build(kind: str, params: dict[str, Any]) -> Resource:
    module = importlib.import_module(f"reconciler.modules.{kind}")
    return getattr(module, kind.title())(**params)


def main(verb: str, root: str = "/") -> None:
    host = Host(root)
    resources = [build(*one) for one in json.load(sys.stdin)]
    clock = time.perf_counter()
    answer: dict[str, Any] = {}
    try:
        for kind in {type(one) for one in resources}:
            kind.actual_many([one for one in resources if type(one) is kind], host)
    except ReconcilerError:
        pass  # each says it for itself
    answer["plan"] = [look(one, host) for one in resources]
    answer["seconds"] = time.perf_counter() - clock
    host.readonly = False
    if verb == "notify":
        answer["outcomes"] = [told(one.on_notify, host) for one in resources]
    elif verb == "apply":
        pending = [
            (one, Diff(seen["before"], seen["after"]))
            for one, seen in zip(resources, answer["plan"])  # noqa: B905  runs on 3.9
            if seen.get("differs")
        ]
        answer["outcomes"] = []
        for kind in dict.fromkeys(type(one) for one, _ in pending):
            errors = kind.apply_many(host, [work for work in pending if type(work[0]) is kind])
            answer["outcomes"] += [error and str(error) for error in errors]
            host.forget()
    host.readonly = True
    answer["left"] = [look(one, host) for one in resources]
    answer["warnings"] = host.warnings
    json.dump(answer, sys.stdout)


def told(act: Callable[[Host], None], host: Host) -> str | None:
    """What the notification failed with; None if it did not."""
    try:
        act(host)
    except ReconcilerError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
