"""A fleet run as JUnit XML: a suite for each host, a case for each resource."""

from __future__ import annotations

import os
import tempfile
from xml.etree import ElementTree

from reconciler.catalog import Result
from reconciler.cli.visible import visible
from reconciler.errors import UsageError
from reconciler.push.fleet import Course
from reconciler.push.journal import Head
from reconciler.push.outcome import Outcome


def write(path: str, head: Head, course: Course) -> None:
    """Write the file whole or not at all. Raises UsageError."""
    suites = ElementTree.Element("testsuites", name=f"reconciler {head.mode} {head.run}")
    for outcome in course.outcomes:
        suites.append(_suite(outcome))
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    try:
        fd, temp = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".junit-")
        with open(fd, "wb") as file:
            file.write(text + b"\n")
        os.chmod(temp, 0o644)
        os.rename(temp, path)
    except OSError as error:
        raise UsageError(f"cannot write --junit {path}: {error.strerror}") from error


def _suite(outcome: Outcome) -> ElementTree.Element:
    cases = [] if outcome.document is None else [_case(one) for one in outcome.document.results]
    if outcome.document is None:
        cases = [_whole(outcome)]
    kinds = [child.tag for case in cases for child in case]
    suite = ElementTree.Element(
        "testsuite",
        name=_safe(outcome.host),
        tests=str(len(cases)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        time=f"{outcome.seconds:.3f}",
    )
    suite.extend(cases)
    return suite


def _case(result: Result) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname=_safe(result.id.partition(":")[0]),
        name=_safe(result.title or result.id),
        time=f"{result.seconds:.3f}",
    )
    reason = _safe(result.reason)
    if result.status == "failed":
        ElementTree.SubElement(case, "failure", message=reason or "failed").text = _safe(
            result.hint
        )
    elif result.status == "blocked":
        ElementTree.SubElement(case, "skipped", message=reason or "blocked")
    return case


def _whole(outcome: Outcome) -> ElementTree.Element:
    """The one case of a host that has no report."""
    case = ElementTree.Element("testcase", classname="host", name="run")
    if outcome.error is None:
        ElementTree.SubElement(case, "skipped", message=outcome.state)
    else:
        error = outcome.error
        kind = type(error).__name__
        said = ElementTree.SubElement(case, "error", type=kind, message=_safe(error.message))
        said.text = _safe(error.hint)
    return case


def _safe(text: str) -> str:
    """XML cannot hold control characters, not even escaped."""
    return "\n".join(visible(row) for row in text.split("\n"))
