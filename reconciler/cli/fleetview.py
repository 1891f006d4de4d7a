"""How a fleet run looks: while it goes on, and at its end.

A terminal gets a live table, a pipe plain lines; `--jsonl` gets events and `--json` one document.
At the end, hosts of which the same is to be said are said once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

from reconciler.catalog import Plan, Report, Result
from reconciler.cli.console import Line, Output, Span, line, waiting_line
from reconciler.cli.failure import failures, show_all
from reconciler.cli.render import body, commit_text, duration
from reconciler.engine.wire import Message
from reconciler.push.fleet import Course
from reconciler.push.journal import Head
from reconciler.push.outcome import STATES, Outcome, State
from reconciler.push.rollout import Batch
from reconciler.words import counted

if TYPE_CHECKING:
    from reconciler.cli.livetable import LiveTable

#: Names of hosts in one line, and of resources in the headline of a group.
HOSTS_SHOWN = 5
NAMES_SHOWN = 4
WORDS: Mapping[State, tuple[str, str]] = {
    "ok": ("in sync", "green"),
    "changed": ("changed", "yellow"),
    "pending": ("to change", "yellow"),
    "failed": ("failed", "bold red"),
    "unreachable": ("unreachable", "bold red"),
    "interrupted": ("interrupted", "magenta"),
    "held": ("held back", "magenta"),
}


def view_of(args: argparse.Namespace, out: Output, head: Head, total: int) -> View:
    """The way that the call asks for."""
    if args.jsonl:
        return Events(out, head, total)
    if out.as_json:
        return View(out, head, total)
    kind = Live if out.on_terminal and total > 1 else Lines
    return kind(out, head, total, diff=args.diff)


class View:
    """One JSON document at the end, and nothing before. The others say more while it goes on."""

    wants_events = False

    def __init__(self, out: Output, head: Head, total: int) -> None:
        self.out = out
        self.head = head
        self.total = total

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing moves any more."""

    def batch(self, number: int, batch: Batch) -> None:
        """A batch begins."""

    def began(self, host: str) -> None:
        """A host begins."""

    def event(self, host: str, event: Message) -> None:
        """An event of a host's engine; without `wants_events` only that it waits for another run."""
        if event.get("event") == "waiting":
            self.out.note(f"{host}: ", *waiting_line(event))

    def ended(self, outcome: Outcome) -> None:
        """A host is done."""

    def checking(self, number: int) -> None:
        """The checks after a batch begin."""

    def pausing(self, seconds: float) -> None:
        """A pause begins."""

    def stopping(self, reason: str) -> None:
        """No further host begins."""

    def finish(self, course: Course, code: int, seconds: float) -> None:
        """The run has ended."""
        self.out.document(document(self.head, course, code, seconds))


class Events(View):
    """One JSON object a line, as it happens."""

    wants_events = True

    def __enter__(self) -> Self:
        head = self.head
        self._say(
            "run", schema=["reconciler/fleet-event", 1], mode=head.mode, commit=head.commit,
            dirty=head.dirty, hosts=self.total,
        )  # fmt: skip
        return self

    def batch(self, number: int, batch: Batch) -> None:
        self._say("batch", batch=number, hosts=list(batch.hosts), canary=batch.canary)

    def began(self, host: str) -> None:
        self._say("began", host=host)

    def event(self, host: str, event: Message) -> None:
        if event.get("event") == "start":
            self._say("resource", host=host, id=event.get("id"))
        elif event.get("event") == "result":
            self._say("result", host=host, result=event.get("result"))
        elif event.get("event") == "waiting":
            known = {name: event.get(name) for name in ("holder", "seconds")}
            self._say("waiting", host=host, **known)

    def ended(self, outcome: Outcome) -> None:
        self._say("ended", **_host(outcome), document=_document(outcome))

    def checking(self, number: int) -> None:
        self._say("checking", batch=number)

    def pausing(self, seconds: float) -> None:
        self._say("pausing", seconds=seconds)

    def stopping(self, reason: str) -> None:
        self._say("stopping", reason=reason)

    def finish(self, course: Course, code: int, seconds: float) -> None:
        self._say(
            "end", exit=code, stopped=course.stopped, interrupted=course.interrupted,
            summary=_summary(course.outcomes), seconds=round(seconds, 3),
        )  # fmt: skip

    def _say(self, event: str, **more: object) -> None:
        shown = {"event": event, "run": self.head.run, "at": round(time.time(), 3), **more}
        self.out.text(json.dumps(shown, ensure_ascii=True, separators=(",", ":")) + "\n")
        self.out.flush()


class Lines(View):
    """Plain lines: a host when it is done, and what differs at the end."""

    def __init__(self, out: Output, head: Head, total: int, *, diff: bool) -> None:
        super().__init__(out, head, total)
        self._diff = diff

    def batch(self, number: int, batch: Batch) -> None:
        if len(self.head.batches) > 1:
            what = "canary" if batch.canary else f"batch {number}"
            self.say(line(Span(what, "bold"), f": {_hosts(batch.hosts)}"))

    def ended(self, outcome: Outcome) -> None:
        if self.total > 1:
            self.say(_ended(outcome))

    def checking(self, number: int) -> None:
        self.say(line("checking"))

    def pausing(self, seconds: float) -> None:
        self.say(line(f"pausing for {duration(seconds)}"))

    def stopping(self, reason: str) -> None:
        self.say(line(Span("stopping", "bold red"), f": {reason}"))

    def say(self, shown: Line) -> None:
        """One line, while it goes on."""
        self.out.lines([shown])

    def finish(self, course: Course, code: int, seconds: float) -> None:
        head = self.head
        self.out.line(Span(head.mode, "bold"), " of ", commit_text(head.commit, head.dirty))
        for group in grouped(course.outcomes):
            self.out.lines(_group(group, diff=self._diff, verbose=self.out.verbose))
        errors = [outcome.error for outcome in course.outcomes if outcome.error is not None]
        show_all(self.out, errors)
        if course.stopped:
            self.out.note(Span("stopped", "bold red"), f": {course.stopped}")
        if course.stopped or course.interrupted:
            self.out.note(
                "  ", Span("hint", "cyan"),
                f": go on with --resume {head.run}" if head.mode == "apply" else ": plan again",
            )  # fmt: skip
        self.out.lines([line(), _last(head, course, seconds)])


class Live(Lines):
    """A table that moves; it leaves no trace."""

    wants_events = True

    def __init__(self, out: Output, head: Head, total: int, *, diff: bool) -> None:
        super().__init__(out, head, total, diff=diff)
        self._begun = time.monotonic()
        self._table: LiveTable | None = None

    def __enter__(self) -> Self:
        from reconciler.cli.livetable import LiveTable

        self._table = LiveTable(self.head.mode, self.total, self.out.terminal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.close()
        self._table = None

    def began(self, host: str) -> None:
        if self._table is not None:
            self._table.began(host)

    def event(self, host: str, event: Message) -> None:
        if self._table is not None and event.get("event") == "start":
            self._table.at(host, event)
        elif event.get("event") == "waiting":
            self.say(line(f"{host}: ", *waiting_line(event)))

    def ended(self, outcome: Outcome) -> None:
        if self._table is not None:
            self._table.ended(outcome)

    def say(self, shown: Line) -> None:
        if self._table is not None:
            self._table.say("".join(span.text for span in shown))


# -- hosts of which the same is to be said ---------------------------------------------------


def grouped(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Hosts that answered and differ, by what they differ in; the largest group first."""
    groups: dict[object, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.document is not None and outcome.state != "ok":
            groups.setdefault(_key(outcome.document), []).append(outcome)
    return sorted(groups.values(), key=len, reverse=True)


def _key(document: Plan | Report) -> object:
    told = [one for one in document.results if one.status != "ok"]
    return (json.dumps([_lasting(one) for one in told], sort_keys=True), document.warnings)


def _lasting(result: Result) -> dict[str, object]:
    """A result without what no two hosts have in common."""
    return {key: value for key, value in result.to_json().items() if key != "seconds"}


def _group(group: Sequence[Outcome], *, diff: bool, verbose: bool) -> list[Line]:
    first = group[0].document
    if first is None:
        return []
    names = [_short(one) for one in first.results if one.status != "ok"]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    what = f": {', '.join(names[:NAMES_SHOWN])}{more}" if names else ""
    hosts = [one.host for one in group]
    heading = [line(), line(Span(f"{counted(len(hosts), 'host')}{what}", "bold"))]
    heading.append(line("  ", Span(_hosts(hosts), "dim")))
    return [*heading, *body(first, diff=diff, verbose=verbose)]


def _short(result: Result) -> str:
    """`nginx.conf` for a path, `reload nginx` for a handler: enough to know what is meant."""
    kind, _, key = result.id.partition(":")
    if kind == "handler":
        return key
    return key.rstrip("/").rpartition("/")[2] or key


def _hosts(names: Sequence[str]) -> str:
    more = len(names) - HOSTS_SHOWN
    return ", ".join(names[:HOSTS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _ended(outcome: Outcome) -> Line:
    words, style = WORDS[outcome.state]
    parts = [
        f"{count} {status}"
        for status, count in sorted(outcome.counts.items())
        if count and status != "ok"
    ]
    said = outcome.error.message.splitlines()[0] if outcome.error else ", ".join(parts)
    return line(
        Span(outcome.host, "bold"),
        ": ",
        Span(words, style),
        f" ({said})" if said else "",
        Span(f" in {duration(outcome.seconds)}", "dim"),
    )


def _last(head: Head, course: Course, seconds: float) -> Line:
    states = Counter(outcome.state for outcome in course.outcomes)
    parts = [f"{states[state]} {WORDS[state][0]}" for state in STATES if states[state]]
    quiet = set(states) <= {"ok"}
    text = f"{head.mode}: {counted(len(course.outcomes), 'host')}: "
    text += ", ".join([*(["0 changes"] if quiet else []), *parts])
    text += f" in {duration(seconds)}"
    if head.mode == "apply":
        text += f"; run {head.run}"
    bad = any(not outcome.good for outcome in course.outcomes) or course.stopped
    return line(Span(text, "bold red" if bad else "bold green" if quiet else "bold"))


# -- documents -------------------------------------------------------------------------------


def document(head: Head, course: Course, code: int, seconds: float) -> dict[str, object]:
    """The document that `--json` prints."""
    return {
        "schema": ["reconciler/fleet", 1],
        "run": head.run,
        "mode": head.mode,
        "commit": head.commit,
        "dirty": head.dirty,
        "started": round(head.started, 3),
        "seconds": round(seconds, 3),
        "exit": code,
        "stopped": course.stopped,
        "interrupted": course.interrupted,
        "batches": [{"hosts": list(one.hosts), "canary": one.canary} for one in head.batches],
        "summary": _summary(course.outcomes),
        "states": {outcome.host: _host(outcome) for outcome in course.outcomes},
        "hosts": {outcome.host: _document(outcome) for outcome in course.outcomes},
    }


def _summary(outcomes: Iterable[Outcome]) -> dict[str, int]:
    states = Counter(outcome.state for outcome in outcomes)
    return {state: states[state] for state in STATES}


def _host(outcome: Outcome) -> dict[str, object]:
    return {
        "host": outcome.host,
        "state": outcome.state,
        "seconds": round(outcome.seconds, 3),
        "attempts": outcome.attempts,
        "counts": dict(outcome.counts),
    }


def _document(outcome: Outcome) -> Mapping[str, object] | None:
    if outcome.document is not None:
        return outcome.document.to_json()
    if outcome.error is None:
        return None
    return {
        "schema": ["reconciler/error", 1],
        "exit": outcome.error.exit_code,
        "errors": [failure.to_json() for failure in failures([outcome.error])],
    }
