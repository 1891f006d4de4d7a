"""A state repo on a booted host, and what must hold for each of its states.

What plan lists is what apply does, nothing more and nothing less, and a second apply does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hosts.booted import BootedHost

REPO = "/srv/state"
#: The statuses of a plan that say "apply will do something".
COMING = {"pending", "unknown", "owed"}
Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What plan and apply said, by id."""

    planned: dict[str, dict[str, Any]]
    done: dict[str, dict[str, Any]]
    warnings: list[str]

    @property
    def changed(self) -> set[str]:
        """The ids of what was changed."""
        return {name for name, one in self.done.items() if one["status"] in ("changed", "notified")}

    def changes(self, id: str) -> dict[str, tuple[Any, Any]]:
        """attribute -> (before, after)."""
        found = self.done[id].get("changes", [])
        return {one["attribute"]: (one["before"], one["after"]) for one in found}


class Declared:
    """One state after the other, declared on a host."""

    def __init__(self, host: BootedHost) -> None:
        self.host = host

    def converge(self, *resources: Resource, handlers: Sequence[Resource] = ()) -> Outcome:
        """Declare these; plan, apply and apply again, and check that the three agree."""
        planned, done = self.attempt(*resources, handlers=handlers)
        assert not failed(done), json.dumps(failed(done), indent=1)
        results = by_id(done)
        coming = [name for name, one in by_id(planned).items() if one["status"] in COMING]
        happened = [
            name for name, one in results.items() if one["status"] in ("changed", "notified")
        ]
        assert coming == happened, (coming, happened)
        for name, one in by_id(planned).items():
            if one["status"] == "pending" and not one.get("because"):
                assert one.get("changes") == results[name].get("changes"), name
                assert one.get("action") == results[name].get("action"), name
        again = self._run("apply")
        assert {one["status"] for one in again["results"]} <= {"ok"}, again["results"]
        return Outcome(by_id(planned), results, done["warnings"])

    def attempt(
        self, *resources: Resource, handlers: Sequence[Resource] = ()
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Declare these, and give what plan and apply said, whatever it was."""
        self.write(*resources, handlers=handlers)
        return self._run("plan"), self._run("apply")

    def write(self, *resources: Resource, handlers: Sequence[Resource] = ()) -> None:
        """Declare these, and do nothing about it."""
        play = {"hosts": "all", "resources": list(resources), "handlers": list(handlers)}
        self.host.run(["mkdir", "-p", REPO])
        self.host.run(["tee", f"{REPO}/site.yml"], input=json.dumps([play]))

    def _run(self, verb: str) -> dict[str, Any]:
        done = self.host.reconciler(verb, "-C", REPO, "--local", "--json", check=False)
        assert done.returncode in (0, 4), done.stderr or done.stdout
        return json.loads(done.stdout)


def by_id(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The results of a plan or report, in order."""
    return {one["id"]: one for one in document["results"]}


def failed(document: Mapping[str, Any]) -> dict[str, str]:
    """id -> reason, of what failed or was blocked."""
    return {
        one["id"]: one.get("reason", "")
        for one in document["results"]
        if one["status"] in ("failed", "blocked")
    }
