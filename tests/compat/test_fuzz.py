"""Generated inventories and patterns mean the same to Ansible and to us.

`EXCEPTIONS` are the differences that we mean to have: docs/reference/inventory-compat.md gives the
reason for each. Anything else fails, and what was found becomes a case of tests/inventory.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from compat.generate import Case, cases
from compat.oracle import Ansible, Seen, unwrapped
from reconciler.compile.expressions import InventoryExpressions
from reconciler.errors import ConfigError
from reconciler.inventory import Disk, Inventory
from reconciler.source.program import run_program
from reconciler.tree import Entry

#: Why we refuse what Ansible takes -> what our message says.
EXCEPTIONS: dict[str, re.Pattern[str]] = {
    "a name that no host can have": re.compile(r"is not a host name"),
    "options that exclude each other": re.compile(r"exclude each other"),
    "a range that stands for nothing": re.compile(r"it ends before it starts"),
}
PATTERN_EXCEPTIONS: dict[str, re.Pattern[str]] = {
    "a bracket that is not closed": re.compile(r"a '\[' without a '\]'"),
    "a file of patterns outside of --limit": re.compile(r"can be given to --limit only"),
    "a pattern that is empty": re.compile(r"is no pattern"),
    "a regex that is empty": re.compile(r"has no regex behind it"),
}


class Playbook(Disk):
    """A directory with site.yml as the tree of a state repo."""

    commit, dirty, key = "", True, ""

    def __init__(self, top: Path) -> None:
        super().__init__()
        self._top = top

    def _at(self, path: str) -> str:
        return path if path.startswith("/") else str(self._top / path)

    def entry(self, path: str) -> Entry | None:
        return super().entry(self._at(path))

    def listdir(self, path: str) -> list[Entry]:
        return super().listdir(self._at(path))

    def read(self, path: str) -> bytes:
        return super().read(self._at(path))

    def chunks(self, path: str) -> Any:
        yield self.read(path)


def write(case: Case, top: Path) -> list[str]:
    """The sources, on disk below `top`."""
    shutil.rmtree(top, ignore_errors=True)
    (top / "play").mkdir(parents=True)
    for name, text in case.files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in case.programs else 0o644)
    return [source if "," in source else str(top / source) for source in case.sources]


def ours(sources: list[str], top: Path) -> Inventory | ConfigError:
    """What we make of the sources."""
    expressions = InventoryExpressions(lambda host: None)
    try:
        inventory = Inventory.load(sources, Disk(run_program), Playbook(top / "play"), expressions)
        for host in (*inventory.hosts(), "localhost"):
            inventory.variables(host)
    except ConfigError as error:
        return error
    return inventory


def plain(value: object) -> Any:
    """As JSON has it."""
    return unwrapped(json.loads(json.dumps(value)))


def differences(seen: Seen, found: Inventory, oracle: Ansible, patterns: tuple[str, ...]) -> Any:
    """Each thing that is not the same, with both sides of it."""
    yield "hosts", seen.hosts, found.hosts()
    yield "groups", seen.groups, found.groups()
    yield "list --json", seen.document, plain(found.to_list_json())
    for host, values in seen.variables.items():
        yield f"variables of {host}", values, plain(found.variables(host))
    for pattern in patterns:
        theirs = oracle.select(pattern)
        yield f"pattern {pattern!r}", theirs, select(found, pattern, theirs)


def select(inventory: Inventory, pattern: str, theirs: list[str] | None) -> list[str] | None:
    """What we select; None where both refuse, and `theirs` where we mean to refuse."""
    try:
        return inventory.select(pattern)
    except ConfigError as error:
        meant = any(said.search(str(error)) for said in PATTERN_EXCEPTIONS.values())
        return theirs if meant else None


def compare(case: Case, top: Path, oracle: Ansible, count: Counter[str]) -> None:
    """Fails with the first difference; counts what was compared."""
    sources = write(case, top)
    seen = oracle.load(sources, str(top / "play"))
    found = ours(sources, top)
    if isinstance(found, ConfigError):
        text = str(found)
        reason = next((name for name, said in EXCEPTIONS.items() if said.search(text)), None)
        assert seen.refused or reason, f"only we refuse it: {text}"
        count["refused by both" if seen.refused else f"refused by us: {reason}"] += 1
        return
    assert not seen.refused, f"only Ansible refuses it: {seen.refused}"
    for what, theirs, mine in differences(seen, found, oracle, case.patterns):
        assert mine == theirs, what
        count[what.partition(" ")[0]] += 1


@pytest.mark.timeout(3600)
def test_ten_thousand_generated_inventories_mean_the_same(
    ansible: Ansible, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count: Counter[str] = Counter()

    @settings(
        max_examples=int(request.config.getoption("--cases") or 0),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(cases())
    def run(case: Case) -> None:
        count["cases"] += 1
        compare(case, tmp_path / "case", ansible, count)

    run()
    print(f"\nansible-core {ansible.version}:", dict(count))
