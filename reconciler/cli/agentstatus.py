"""The agent's status as a person reads it: whole, as one line, or anew whenever it changes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.agent.places import UNIT, Places, read_json
from reconciler.agent.status import HEALTHY, WANTED, believe, exit_code, oneline
from reconciler.cli.console import Line, Output, Span, line
from reconciler.errors import UsageError

#: Seconds between two looks of `watch`.
BETWEEN = 0.5
#: What changes all the time and tells nobody anything.
PASSING = ("written", "valid_until", "next", "watch")
#: Of the source, what is worth being shown anew.
TOLD = ("trusted", "candidate", "applied", "good", "quarantine", "error")


def read_status() -> dict[str, Any]:
    """What the agent wrote last, if it can still be believed. Raises UsageError without any."""
    document = read_json(Places().status)
    if document is None:
        raise UsageError(
            "there is no status: the agent has not run since this host was booted",
            hint=f"systemctl status {UNIT}; to set it up: reconciler agent install --repo URL",
        )
    return believe(document, time.time())


def show(document: Mapping[str, Any], out: Output, *, short: bool) -> int:
    """Say it once; the exit code that it stands for."""
    if out.as_json:
        out.document(document)
    elif short:
        out.line(oneline(document))
    else:
        out.lines(list(_lines(document, time.time())))
    return exit_code(document)


def watch(out: Output, *, short: bool) -> int:
    """Say it anew whenever it changes, until Ctrl-C or until nobody listens."""
    document = read_status()
    code = 0
    try:
        while not out.closed:
            out.line(Span(time.strftime("%H:%M:%S"), "dim"))
            code = show(document, out, short=short)
            out.flush()
            before = _told(document)
            while _told(document) == before and not out.closed:
                time.sleep(BETWEEN)
                document = read_status()
    except KeyboardInterrupt:
        pass
    return code


def _told(document: Mapping[str, Any]) -> object:
    kept = {name: value for name, value in document.items() if name not in PASSING}
    return {**kept, "source": {name: document["source"][name] for name in TOLD}}


def _lines(document: Mapping[str, Any], now: float) -> Iterator[Line]:
    yield line(Span(oneline(document), "bold"))
    yield line(f"  state      {document['state']}, for {_span(now - document['state_since'])}")
    yield from _source(document["source"], now)
    counts = document["resources"]
    words = [
        f"{count} {name.replace('_', ' ')}"
        for name, count in counts.items()
        if name != "total" and (count or name == "in_sync")
    ]
    yield line(f"  resources  {counts['total']}: {', '.join(words)}")
    if document["watch"].get("trouble"):
        yield line(f"  watching   {document['watch']['mode']}: {document['watch']['trouble']}")
    last = document["last_run"]
    if last:
        yield line(
            f"  last run   {last['kind']}, {last['outcome']}, "
            f"{_span(now - last['started'])} ago, {last['duration_s']} s"
        )
    for one in document["conditions"]:
        good = one["status"] == WANTED.get(one["type"], HEALTHY)
        style = "green" if good else "yellow" if one["status"] == "Unknown" else "bold red"
        first, *more = one["message"].splitlines() or [""]
        said = Span(f"{one['type']:<15}{one['status']:<8}", style)
        yield line("  ", said, f"{one['reason']}  {first}".rstrip())
        for row in more:
            yield line(f"      {row.strip()}")
    yield from _left(document)


def _source(source: Mapping[str, Any], now: float) -> Iterator[Line]:
    for role in ("trusted", "candidate", "applied", "good"):
        one = source[role]
        if one is None:
            continue
        by = f"  {one['subject']} ({one['author']})" if one.get("subject") else ""
        yield line(f"  {role:<9}  {one['commit'][:12] or 'none yet'}{by}")
    for one in source["quarantine"]:
        said = f"{one['reason']}: {one['message'].splitlines()[0]}"
        yield line(f"  not used   {one['commit'][:12]}  {said}")
    if source["last_success"]:
        yield line(
            f"  fetched    {_span(now - source['last_success'])} ago from {source['remote']}"
        )
    for one in source["remotes"]:
        if one["error"] and len(source["remotes"]) > 1:
            yield line(f"  remote     {one['name']}: {one['error'].splitlines()[0]}")


def _left(document: Mapping[str, Any]) -> Iterator[Line]:
    """What is not as declared, and what is held back."""
    for held in document["suspensions"]:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(held["until"]))
        yield line(
            f"  suspended  until {until}: {held['reason']} ({held['by']}); "
            "reconciler agent resume ends it"
        )
    passes = document.get("override")
    if passes:
        yield line(
            f"  override   {passes['commit'][:12]} passes its window: {passes['reason']} ({passes['by']})"
        )
    for id_ in document["drifted"]:
        yield line(f"  drifted    {id_}")
    for name in ("failed", "blocked"):
        for id_, reason in document[name].items():
            yield line(f"  {name:<9}  {id_}: {reason}")
    for id_ in document["owed"]:
        yield line(f"  owed       {id_}")
    for text in document["prune"].get("failed", ()):
        yield line(f"  not pruned {text}")
    held = document["prune"].get("held")
    if held:
        yield line(f"  prune      held: {held}; see: reconciler prune --dry-run")


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
