"""A plan or a report as a person reads it: what, from what to what, why, and where it is declared.

Only what differs is shown, unless asked for more; the last line has the counts, the time and
what took long. The words "0 changes" appear there exactly when nothing differs and nothing failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from reconciler.catalog import Plan, Report, Result, show_value
from reconciler.cli.console import Line, Span, line
from reconciler.resource import Change
from reconciler.words import counted

#: Characters of a value that are shown; `-v` shows all.
VALUE_CAP = 160
#: Of those that notified a handler, how many are named.
NAMED = 3
#: The slowest resources that the summary names, and from how many seconds on.
SLOWEST = 3
SLOW = 0.1

#: status or action -> symbol, style, and what is said of it beside the id.
SYMBOLS: Mapping[str, tuple[str, str]] = {
    "create": ("+", "green"),
    "change": ("~", "yellow"),
    "remove": ("-", "red"),
    "run": (">", "cyan"),
    "notify": (">", "cyan"),
    "failed": ("!", "bold red"),
    "blocked": ("x", "magenta"),
    "unknown": ("?", "blue"),
    "owed": (">", "cyan"),
    "notified": (">", "cyan"),
    "ok": ("=", "dim"),
}
#: In the order of the summary: status -> what a plan says, what a report says.
COUNTED = (
    ("pending", "to change", "pending"),
    ("unknown", "known only later", "unknown"),
    ("owed", "to notify", "owed"),
    ("changed", "changed", "changed"),
    ("notified", "notified", "notified"),
    ("ok", "in sync", "in sync"),
    ("failed", "failed", "failed"),
    ("blocked", "blocked", "blocked"),
)
ALWAYS = ("ok", "failed")
DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}
SHA256 = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def show(document: Plan | Report, *, diff: bool = True, verbose: bool = False) -> list[Line]:
    """All lines of a plan or a report. verbose: also what is in sync, and values whole."""
    shown = [_head(document), *body(document, diff=diff, verbose=verbose)]
    if len(shown) > 1:
        shown.append(line())
    shown.append(summary(document))
    return shown


def body(document: Plan | Report, *, diff: bool = True, verbose: bool = False) -> list[Line]:
    """The results that `show` shows, and the warnings."""
    shown: list[Line] = []
    for result in document.results:
        if result.status != "ok" or verbose:
            shown += _result(result, diff=diff, verbose=verbose)
    shown += [
        line(Span("warning", "bold yellow"), f": {first}", *rest)
        for first, *rest in map(_split, document.warnings)
    ]
    return shown


def summary(document: Plan | Report) -> Line:
    """The last line: `apply: 12 changed, 216 in sync, 0 failed in 3.4 s; slowest: package:nginx 2.9 s`."""
    planned = isinstance(document, Plan)
    counts = document.counts()
    parts = [
        f"{counts.get(status, 0)} {as_plan if planned else as_report}"
        for status, as_plan, as_report in COUNTED
        if counts.get(status, 0) or status in ALWAYS
    ]
    quiet = not document.failed and not (
        document.differs if isinstance(document, Plan) else document.changed
    )
    if quiet:
        parts.insert(0, "0 changes")
    text = f"{'plan' if planned else 'apply'}: {', '.join(parts)} in {duration(document.seconds)}"
    if isinstance(document, Report) and document.interrupted:
        text += "; interrupted: the next run goes on from here"
    slow = sorted((r for r in document.results if r.seconds >= SLOW), key=lambda r: -r.seconds)[
        :SLOWEST
    ]
    if slow:
        text += "; slowest: " + ", ".join(
            f"{result.id} {duration(result.seconds)}" for result in slow
        )
    style = "bold red" if document.failed else "bold green" if quiet else "bold"
    return line(Span(text, style))


def duration(seconds: float) -> str:
    """`0.4 s`, `75 s`, `12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def commit_text(commit: str, dirty: bool) -> str:
    """Which state this is about: `commit 3f2a1c9`, or what the directory holds."""
    if not commit:
        return "the files of a directory, no commit"
    return f"commit {commit[:12]}" + (
        ", work tree: its files may differ from the commit" if dirty else ""
    )


def value_text(value: object, *, verbose: bool = False) -> str:
    """A value on one line; nothing as `(none)`, digests and long text cut."""
    if value is None:
        return "(none)"
    if isinstance(value, dict) and list(value) == ["$content"]:
        sha256, size = value["$content"]
        value = f"{counted(size, 'byte')}, sha256 {sha256}"
    text = show_value(value)  # type: ignore[arg-type]  # what JSON can hold
    if verbose:
        return text
    text = SHA256.sub(r"\1", text)
    return text if len(text) <= VALUE_CAP else f"{text[:VALUE_CAP]}... ({len(text)} characters)"


def _head(document: Plan | Report) -> Line:
    verb = "plan" if isinstance(document, Plan) else "apply"
    return line(
        Span(verb, "bold"),
        " for ",
        Span(document.host, "bold"),
        ", ",
        commit_text(document.commit, document.dirty),
    )


def _result(result: Result, *, diff: bool, verbose: bool) -> list[Line]:
    symbol, style = SYMBOLS.get(result.status) or SYMBOLS.get(result.action) or ("~", "yellow")
    title = f"  {result.title}" if result.title and result.id != f"handler:{result.title}" else ""
    drift = Span("  drift", "yellow") if result.cause == "corrective" else Span("")
    shown = [
        line(
            Span(f"{symbol} {result.id}", style),
            Span(title),
            drift,
            Span(f"  {result.mark}", "dim"),
        )
    ]
    shown += [change_line(change, result.action, verbose=verbose) for change in result.changes]
    if diff:
        shown += diff_lines(result.diff)
    shown += _reasons(result, verbose=verbose)
    return shown


def diff_lines(text: str) -> list[Line]:
    """A unified diff; none of an empty one."""
    rows = text.removesuffix("\n").split("\n") if text else []
    return [line("    ", Span(row, DIFF_STYLES.get(row[:1], ""))) for row in rows]


def change_line(change: Change, action: str, *, verbose: bool = False) -> Line:
    """One attribute, from what to what; of what is created or removed only the one that there is."""
    before, after = (value_text(value, verbose=verbose) for value in (change.before, change.after))
    name = f"    {change.attribute}: "
    if action == "create":
        return line(name, Span(after, "green"))
    if action == "remove":
        return line(name, Span(before, "red"))
    return line(name, Span(before, "red"), " -> ", Span(after, "green"))


def _reasons(result: Result, *, verbose: bool) -> list[Line]:
    style = {"failed": "red", "blocked": "magenta"}.get(result.status, "")
    shown = [line("    ", Span(row, style)) for row in result.reason.splitlines()]
    if result.status in ("owed", "notified") and result.because:
        named = result.because if verbose else result.because[:NAMED]
        more = len(result.because) - len(named)
        shown.append(
            line(f"    notified by {', '.join(named)}{f' and {more} more' if more else ''}")
        )
    shown += [line("    ", Span("hint", "cyan"), f": {row}") for row in result.hint.splitlines()]
    return shown


def _split(text: str) -> Sequence[str]:
    rows = text.splitlines() or [""]
    return [rows[0], *(f"; {row.strip()}" for row in rows[1:])]
