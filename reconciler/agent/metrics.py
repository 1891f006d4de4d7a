"""The status for Prometheus, in its text format: what a node_exporter reads from a directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

PREFIX = "reconciler_"
Kind = Literal["gauge", "counter", "histogram"]
#: Upper bounds of the buckets of histograms, in seconds.
BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
#: Every family that there is: its kind, and what it means.
FAMILIES: Mapping[str, tuple[Kind, str]] = {
    "build_info": ("gauge", "Always 1; which version runs."),
    "state": ("gauge", "1 for the state that the agent is in."),
    "condition": ("gauge", "1 for the status that each condition has."),
    "last_fetch_success_timestamp_seconds": ("gauge", "When a remote answered last."),
    "source_age_seconds": ("gauge", "Since when no remote has answered."),
    "commit_info": ("gauge", "Always 1; the commits that are trusted, applied and good."),
    "commit_lag_seconds": ("gauge", "From the last new commit being seen to it being converged."),
    "resources": ("gauge", "How many resources are in which state."),
    "contended_resources": ("gauge", "Resources that somebody else keeps changing back."),
    "pending_triggers": ("gauge", "Handlers that were notified and have not run."),
    "last_run_timestamp_seconds": ("gauge", "When the last run of each kind began."),
    "suspended": ("gauge", "1 while nothing is changed because a person said so."),
    "suspended_until_timestamp_seconds": ("gauge", "When the suspension ends by itself."),
    "quarantined_commits": ("gauge", "Commits that are offered and cannot be used."),
    "prune_held": ("gauge", "1 if more left the state repo at once than is removed unasked."),
    "reboot_required": ("gauge", "1 if packages want this host to be booted again."),
    "status_valid_until_timestamp_seconds": (
        "gauge",
        "When this file is too old to be believed: the agent has died.",
    ),
    "watch_mode": ("gauge", "Always 1; by what paths are watched."),
    "watched_paths": ("gauge", "Paths whose changes wake the agent."),
    "watch_overflows_total": ("counter", "How often events were lost; a sweep follows."),
    "fetch_total": ("counter", "How often each remote was asked, and what came of it."),
    "verify_failures_total": ("counter", "Commits that were refused, by the kind of refusal."),
    "runs_total": ("counter", "Runs by what they were for and what came of them."),
    "changes_total": ("counter", "Resources that were changed."),
    "drift_seconds_total": ("counter", "Resources that drifted, times the seconds that they did."),
    "run_duration_seconds": ("histogram", "How long runs took."),
    "heal_latency_seconds": ("histogram", "From drift being noticed to it being undone."),
}


class Sample(NamedTuple):
    """One line. name: of its family, without the prefix."""

    name: str
    value: float
    labels: Mapping[str, str] = {}


def key(name: str, labels: Mapping[str, str]) -> str:
    """A sample's name with its labels, as it stands before the value."""
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{shown}}}" if shown else name


def observe(totals: dict[str, float], name: str, value: float, labels: Mapping[str, str]) -> None:
    """Count a value in the buckets of a histogram, which are totals too."""
    for bound in BUCKETS:
        bucket = key(f"{name}_bucket", {**labels, "le": f"{bound:g}"})
        totals[bucket] = totals.get(bucket, 0) + (value <= bound)
    for part, by in (("bucket", 1.0), ("sum", value), ("count", 1.0)):
        more = {**labels, "le": "+Inf"} if part == "bucket" else labels
        one = key(f"{name}_{part}", more)
        totals[one] = totals.get(one, 0) + by


def render(document: Mapping[str, Any], totals: Mapping[str, float]) -> str:
    """The text file of a status. totals: counters that live longer than a status, by `key`."""
    lines: dict[str, list[str]] = {}
    for one in _samples(document):
        shown = f"{PREFIX}{key(one.name, one.labels)} {_number(one.value)}"
        lines.setdefault(one.name, []).append(shown)
    for name, value in totals.items():
        family = _family(name)
        if family:
            lines.setdefault(family, []).append(f"{PREFIX}{name} {_number(value)}")
    return "".join(
        "\n".join([f"# HELP {PREFIX}{name} {said}", f"# TYPE {PREFIX}{name} {kind}", *lines[name]])
        + "\n"
        for name, (kind, said) in FAMILIES.items()
        if name in lines
    )


def _samples(document: Mapping[str, Any]) -> Iterator[Sample]:
    yield Sample("build_info", 1, {"version": document["agent"]["version"]})
    yield Sample("state", 1, {"state": document["state"]})
    yield Sample("status_valid_until_timestamp_seconds", document["valid_until"])
    for one in document["conditions"]:
        for status in ("True", "False", "Unknown"):
            labels = {"type": one["type"], "status": status}
            yield Sample("condition", one["status"] == status, labels)
    yield from _of_source(document["source"])
    yield from _of_resources(document["resources"])
    yield Sample("pending_triggers", len(document["owed"]))
    suspensions = document["suspensions"]
    yield Sample("suspended", bool(suspensions))
    for one in suspensions:
        yield Sample("suspended_until_timestamp_seconds", one["until"])
    yield Sample("prune_held", bool(document["prune"].get("held")))
    yield Sample("reboot_required", document["reboot_required"])
    yield Sample("watch_mode", 1, {"mode": document["watch"]["mode"]})
    yield Sample("watched_paths", document["watch"]["paths"])
    yield Sample("watch_overflows_total", document["watch"]["overflows"])


def _of_source(source: Mapping[str, Any]) -> Iterator[Sample]:
    for one in source["remotes"]:
        if one["last_success"]:
            labels = {"remote": one["name"]}
            yield Sample("last_fetch_success_timestamp_seconds", one["last_success"], labels)
    if source["age_s"] is not None:
        yield Sample("source_age_seconds", source["age_s"])
    for role in ("trusted", "applied", "good"):
        if source[role]["commit"]:
            yield Sample("commit_info", 1, {"role": role, "commit": source[role]["commit"]})
    yield Sample("quarantined_commits", len(source["quarantine"]))


def _of_resources(counts: Mapping[str, int]) -> Iterator[Sample]:
    for state, count in counts.items():
        if state not in ("total", "contended"):
            yield Sample("resources", count, {"state": state})
    yield Sample("contended_resources", counts["contended"])


def _family(name: str) -> str:
    """The family that a total belongs to; "" for one of another time, which is shown no more."""
    bare = name.partition("{")[0]
    parts: Iterable[str] = (
        bare,
        *(bare.removesuffix(end) for end in ("_bucket", "_sum", "_count")),
    )
    return next((one for one in parts if one in FAMILIES), "")


def _number(value: float) -> str:
    """Whole numbers without a point, and times to the millisecond."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
