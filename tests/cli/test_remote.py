"""Many hosts, one exit code."""

from __future__ import annotations

import pytest

from reconciler.catalog import Plan, Report, Result
from reconciler.cli.remote import Outcome, exit_code
from reconciler.errors import (
    AuthFailed,
    ConfigError,
    HostUnreachable,
    LockBusy,
    Mark,
    ProtocolError,
    TrustError,
)


def report(status: str = "ok", *, interrupted: bool = False) -> Report:
    return Report("web", (Result("file:/x", status, Mark("site.yml")),), interrupted=interrupted)


@pytest.mark.parametrize(
    "outcomes, expected",
    [
        ([], 0),
        ([report()], 0),
        ([report("changed"), report()], 2),
        ([Plan("web", (Result("file:/x", "pending", Mark("site.yml")),))], 2),
        ([report("failed"), report("changed")], 4),
        ([HostUnreachable("no"), report()], 5),
        ([AuthFailed("no"), report("changed")], 5),
        ([report("failed"), HostUnreachable("no")], 6),
        ([ConfigError("no"), report("failed"), HostUnreachable("no")], 3),
        ([ProtocolError("no"), report()], 1),
        ([LockBusy("no"), report()], 9),
        ([TrustError("no"), report()], 10),
        ([report(interrupted=True), report("failed")], 130),
    ],
)
def test_the_exit_code_says_what_went_wrong_with_any_of_them(
    outcomes: list[Outcome], expected: int
) -> None:
    assert exit_code(outcomes, detailed=True) == expected
