"""What holds for every test: what is under test, and how tests that boot hosts are told apart."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import reconciler

HOST_FIXTURES = {"lab"}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: then what we start would not know Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """The first question when a test surprises: which `reconciler` was it?"""
    return f"reconciler: {Path(reconciler.__file__).parent}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test that boots a host has the marker `host`, also when its author forgot."""
    for item in items:
        if HOST_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.host)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A run without its host tests must not look like a whole one."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("host" in report.keywords for report in skipped)
    if count:
        terminalreporter.section("HOST TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line(f"{count} tests boot hosts, which cannot be done here; see above")
