"""Drives resource types on a booted host, each by itself, without the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hosts.booted import BootedHost

MAIN = Path(__file__).parents[2]
THERE = "/srv/driver"


@dataclass(frozen=True)
class Answer:
    """What a driver run said. Each list has one entry per resource."""

    plan: list[dict[str, Any]]
    outcomes: list[str | None]
    left: list[dict[str, Any]]
    warnings: list[str]
    seconds: float

    @property
    def said(self) -> list[str]:
        """What each failed with; "" where it did not."""
        return [outcome or "" for outcome in self.outcomes]

    @property
    def clean(self) -> bool:
        """Whether everything converged, and nothing failed."""
        return not any(self.outcomes) and all(one.get("differs") is False for one in self.left)

    @property
    def in_sync(self) -> bool:
        """Whether there was nothing to do in the first place."""
        return all(one.get("differs") is False for one in self.plan)


class Driver:
    """Copies the product to a host, once, and runs resources there."""

    def __init__(self, host: BootedHost, python: str = "python3") -> None:
        self.host = host
        self.python = python
        host.run(["mkdir", "-p", THERE])
        for source in (MAIN / "reconciler", MAIN / "modules", MAIN / "tests/hosts/drive.py"):
            host.copy(source, f"{THERE}/{source.name}")

    def plan(self, *resources: tuple[str, dict[str, Any]]) -> Answer:
        """Only look."""
        return self._drive("plan", resources)

    def apply(self, *resources: tuple[str, dict[str, Any]]) -> Answer:
        """Look, act, look again."""
        return self._drive("apply", resources)

    def notify(self, *resources: tuple[str, dict[str, Any]]) -> Answer:
        """Notify each of them."""
        return self._drive("notify", resources)

    def _drive(self, verb: str, resources: tuple[tuple[str, dict[str, Any]], ...]) -> Answer:
        command = ["env", f"PYTHONPATH={THERE}", "PYTHONDONTWRITEBYTECODE=1"]
        command += [self.python, f"{THERE}/drive.py", verb]
        done = self.host.run(command, input=json.dumps(resources), timeout=300)
        answer = json.loads(done.stdout)
        return Answer(
            plan=answer["plan"],
            outcomes=answer.get("outcomes", []),
            left=answer["left"],
            warnings=answer["warnings"],
            seconds=answer["seconds"],
        )
