"""What the agent says about itself: every field of the document, conditions, and the metrics."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.exposition import parse
from reconciler.agent import status as status_module
from reconciler.agent.metrics import FAMILIES
from reconciler.agent.places import Places
from reconciler.agent.state import State, Suspension
from reconciler.agent.status import (
    HEALTHY,
    WANTED,
    Live,
    believe,
    compose,
    exit_code,
    oneline,
    publish,
    redact,
)

GOOD, NEW = "a" * 40, "b" * 40
TYPES = ["Ready", "SourceFresh", "Trusted", "InSync", "Healthy", "Suspended", "RebootRequired", "Stalled"]  # fmt: skip
SUBJECT = {
    "tree": "c" * 40, "author": "Alice", "date": "2026-01-02T03:04:05+02:00", "subject": "first",
    "signer": "alice@example.org", "verified": "head",
}  # fmt: skip
HELD = Suspension("TICKET-7", "alice", 90.0, 500.0)
ANSWER = {"remote": "backup", "commit": GOOD, "tried": {"origin": "origin: no route to host"}}
REMOTES = ({"url": "https://git.example.org/s"}, {"url": "/srv/s", "name": "backup"})


@pytest.fixture(autouse=True)
def no_reboot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The machine that runs the tests may want to be booted again; this one does not."""
    monkeypatch.setattr(status_module, "REBOOT", str(tmp_path / "reboot-required"))
    monkeypatch.setattr(status_module, "REBOOT_FOR", str(tmp_path / "reboot-required.pkgs"))
    return tmp_path


def settled() -> State:
    state = State(
        trusted=GOOD, applied=GOOD, good=GOOD, resources={"total": 5, "ignored": 1}, proven_at=99.0,
        subject=dict(SUBJECT),
    )  # fmt: skip
    state.heard(REMOTES, ANSWER, 100.0)
    return state


def conditions(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in document["conditions"]}


# -- the document ------------------------------------------------------------------------


def test_the_document_has_every_field_and_stays_json() -> None:
    state = settled()
    state.last_run = {"id": "1", "kind": "sync", "cause": {}, "outcome": "ok", "started": 1.0}
    state.owed = ["handler:reload nginx"]
    document = compose(state, Live(pid=7), HELD, now=110.0)
    assert json.loads(json.dumps(document)) == document
    assert set(document) == {
        "schema", "host", "agent", "state", "state_since", "written", "valid_until", "next",
        "source", "resources", "drifted", "failed", "blocked", "owed", "contended", "prune",
        "conditions", "last_run", "suspensions", "override", "reboot_required", "proof", "watch",
    }  # fmt: skip
    assert document["schema"] == "status/1"
    assert set(document["agent"]) == {"version", "id", "boot_id", "pid", "started"}
    assert set(document["next"]) == {"fetch", "sweep", "retry", "gate_opens"}
    assert set(document["source"]) == {
        "remotes", "remote", "head", "last_attempt", "last_success", "error", "trusted",
        "candidate", "applied", "good", "quarantine", "stale", "age_s",
    }  # fmt: skip
    assert document["source"]["trusted"] == {"commit": GOOD, **SUBJECT}
    assert document["last_run"] == state.last_run
    assert document["owed"] == state.owed
    assert document["watch"] == {"mode": "none", "paths": 0, "overflows": 0, "trouble": None}
    assert document["resources"] == {
        "total": 5, "in_sync": 4, "drifted": 0, "failed": 0, "blocked": 0, "ignored": 1,
        "contended": 0, "pending_prune": 0,
    }  # fmt: skip
    assert [one["type"] for one in document["conditions"]] == TYPES
    for one in document["conditions"]:
        assert set(one) == {"type", "status", "reason", "message", "since", "commit"}
        assert one["status"] in ("True", "False", "Unknown")
        assert re.fullmatch(r"[A-Z][A-Za-z]+", one["reason"])
        assert one["commit"] == GOOD
    assert document["suspensions"] == [
        {"scope": "all", "reason": "TICKET-7", "by": "alice", "since": 90.0, "until": 500.0}
    ]
    assert document["reboot_required"] is False
    assert document["proof"] == {"deep_verified_at": 99.0}


def test_each_remote_has_its_own_last_word() -> None:
    state = settled()
    first, second = compose(state, Live(), None, now=110.0)["source"]["remotes"]
    assert first == {
        "name": "origin", "url_redacted": "https://git.example.org/s", "last_attempt": 100.0,
        "last_success": 0, "error": "origin: no route to host", "head": "",
    }  # fmt: skip
    assert (second["error"], second["head"], second["last_success"]) == (None, GOOD, 100.0)
    state.unheard(REMOTES, "no remote brought it:\norigin (x): down\nbackup (y): gone", 200.0)
    first, second = compose(state, Live(), None, now=210.0)["source"]["remotes"]
    assert (first["error"], second["error"]) == ("origin (x): down", "backup (y): gone")
    assert second["last_success"] == 100.0
    state.unheard(REMOTES[1:], "gone", 300.0)
    assert [
        one["name"] for one in compose(state, Live(), None, now=310.0)["source"]["remotes"]
    ] == ["backup"]


@pytest.mark.parametrize(
    "url, shown",
    [
        ("https://oauth2:TOKEN@h/x", "https://***@h/x"),
        ("https://TOKEN@h/x", "https://***@h/x"),
        ("ssh://git@h/x", "ssh://git@h/x"),
        ("ssh://git:pw@h/x", "ssh://git:***@h/x"),
        ("/srv/x@y", "/srv/x@y"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_commit_that_waits_is_the_candidate_and_one_that_cannot_be_used_is_in_quarantine() -> (
    None
):
    state = replace(settled(), trusted=NEW, first_seen=105.0)
    assert compose(state, Live(), None, now=110.0)["source"]["candidate"] == {
        "commit": NEW,
        "since": 105.0,
        "held_by": None,
    }
    state.problem("compile", {"type": "SchemaError", "message": "no", "commit": NEW}, 106.0)
    state.problem("trust", {"type": "BadSignature", "message": "not signed"}, 107.0)
    state.source["refused"] = "c" * 40
    found = compose(state, Live(), None, now=110.0)["source"]["quarantine"]
    assert [(one["commit"][:1], one["reason"], one["since"]) for one in found] == [
        ("c", "BadSignature", 107.0),
        ("b", "SchemaError", 106.0),
    ]
    assert compose(settled(), Live(), None, now=110.0)["source"]["quarantine"] == []


# -- conditions --------------------------------------------------------------------------


def test_a_host_that_is_as_it_should_be_has_every_condition_as_wanted() -> None:
    document = compose(settled(), Live(), None, now=110.0)
    assert {k: v for k, (v, _) in conditions(document).items()} == {
        name: WANTED.get(name, HEALTHY) for name in TYPES
    }
    assert exit_code(document) == 0
    assert oneline(document) == f"in sync at {GOOD[:12]}, 5 resources"
    assert oneline({**document, "resources": {"total": 1}}).endswith(", 1 resource")


def problem(kind: str, name: str) -> State:
    state = settled()
    state.problem(kind, {"type": name, "message": "no", "hint": "do this"}, 100.0)
    return state


UNPRUNED = {"failed": ["file:/a: it is a directory now"]}
FAILED = replace(settled(), failed={"file:/a": "no space"}, blocked={"file:/b": "waits"})


@pytest.mark.parametrize(
    "state, live, held, kind, said, code",
    [
        (State(), Live(), None, "Ready", ("Unknown", "NothingYet"), 5),
        (problem("compile", "SchemaError"), Live(), None, "Ready", ("False", "CompileFailed"), 3),
        (problem("run", "LockBusy"), Live(), None, "Ready", ("False", "RunFailed"), 3),
        (problem("fetch", "SourceError"), Live(), None, "SourceFresh", ("False", "FetchFailed"), 5),
        (problem("trust", "BadSignature"), Live(), None, "Trusted", ("False", "BadSignature"), 10),
        (FAILED, Live(), None, "InSync", ("False", "Failed"), 4),
        (FAILED, Live(), None, "Healthy", ("False", "Failed"), 4),
        (settled(), Live(contended=["file:/a"]), None, "Stalled", ("True", "Contended"), 4),
        (settled(), Live(contended=["file:/a"]), None, "Healthy", ("False", "Contended"), 4),
        (replace(settled(), drifted=["file:/a"]), Live(), None, "InSync", ("False", "Drifted"), 4),
        (replace(settled(), trusted=NEW), Live(), None, "InSync", ("False", "NewCommit"), 4),
        (replace(settled(), prune=UNPRUNED), Live(), None, "InSync", ("False", "PruneFailed"), 4),
        (replace(settled(), prune={"held": "9 left"}), Live(), None, "InSync", ("False", "PruneHeld"), 7),
        (replace(settled(), good=NEW), Live(), None, "Healthy", ("False", "NotConverged"), 4),
        (settled(), Live(), HELD, "Suspended", ("True", "Suspended"), 7),
        (settled(), Live(), HELD, "InSync", ("Unknown", "Suspended"), 7),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_condition_with_a_reason_and_an_exit_code(
    state: State, live: Live, held: Suspension | None, kind: str, said: tuple[str, str], code: int
) -> None:
    document = compose(state, live, held, now=110.0)
    assert conditions(document)[kind] == said
    assert exit_code(document) == code
    assert not oneline(document).startswith("in sync")
    assert f"{kind}={said[0]} ({said[1]})" in oneline(document)


def test_what_is_worst_decides_the_exit_code() -> None:
    state = replace(FAILED)
    state.problems = {
        kind: {"type": "X", "message": "no", "since": 1.0} for kind in ("fetch", "compile", "trust")
    }
    assert exit_code(compose(state, Live(), HELD, now=110.0)) == 10
    del state.problems["trust"]
    assert exit_code(compose(state, Live(), HELD, now=110.0)) == 7
    # Something has failed as well.
    assert exit_code(compose(state, Live(), None, now=110.0)) == 6
    del state.problems["fetch"]
    assert exit_code(compose(state, Live(), None, now=110.0)) == 3


def test_old_word_of_the_remotes_is_stale_though_they_answer_with_errors() -> None:
    state = problem("fetch", "SourceError")
    document = compose(state, Live(), None, max_age=60, now=500.0)
    assert conditions(document)["SourceFresh"] == ("False", "Stale")
    message = next(c["message"] for c in document["conditions"] if c["type"] == "SourceFresh")
    assert "400 s; 60 s are allowed" in message
    assert "do this" in message
    assert document["source"]["stale"] is True


@pytest.mark.parametrize("limit", ["max_age", "max_quiet"])
def test_b14_a_source_that_is_stale_is_a_metric_to_alert_on(tmp_path: Path, limit: str) -> None:
    state = replace(settled(), first_seen=100.0)
    seen: list[float] = []
    for now in (110.0, 500.0):
        document = compose(state, Live(), None, **{limit: 60.0}, now=now)
        publish(Places(str(tmp_path)), document, state.totals)
        found = parse((tmp_path / "run/reconciler/metrics.prom").read_text())
        labels = frozenset({"type": "SourceFresh", "status": "False"}.items())
        condition = {frozenset(k): v for k, v in found["reconciler_condition"].items()}
        seen += [condition[labels], *found["reconciler_source_age_seconds"].values()]
    assert seen == [0, 10, 1, 400]


def test_a_reboot_that_packages_ask_for_is_said_and_is_no_error(no_reboot: Path) -> None:
    (no_reboot / "reboot-required").touch()
    (no_reboot / "reboot-required.pkgs").write_text("linux-image\nlibc6\nlibc6\n")
    document = compose(settled(), Live(), None, now=110.0)
    assert document["reboot_required"] is True
    assert conditions(document)["RebootRequired"] == ("True", "Packages")
    assert document["conditions"][6]["message"] == "libc6, linux-image"
    assert exit_code(document) == 0
    assert oneline(document).endswith("5 resources, reboot required")


def test_a_status_that_is_too_old_is_not_believed() -> None:
    document = compose(settled(), Live(valid=180), None, now=110.0)
    assert believe(document, 200.0) == document
    late = believe(document, 300.0)
    assert exit_code(late) == 3
    assert conditions(late)["Ready"] == ("False", "Silent")
    assert conditions(late)["InSync"] == ("Unknown", "Silent")
    stopped = compose(settled(), Live(state="stopped"), None, now=110.0)
    assert exit_code(believe(stopped, 111.0)) == 3
    assert conditions(believe(stopped, 111.0))["Ready"] == ("False", "Stopped")


# -- metrics -----------------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    state = settled()
    state.count("runs_total", kind="sync", outcome="ok")
    state.count("runs_total", kind="heal", outcome="changed")
    state.count("changes_total", cause="corrective", type="file")
    state.count("verify_failures_total", reason="BadSignature")
    state.count("fetch_failures_total")  # of an older version
    state.observe("run_duration_seconds", 0.2, kind="sync")
    state.observe("run_duration_seconds", 7.0, kind="sync")
    state.observe("heal_latency_seconds", 0.2)
    state.gauge("last_run_timestamp_seconds", 1795732345.6789, kind="sync")
    state.gauge("last_run_timestamp_seconds", 1795732399, kind="heal")
    state.gauge("commit_lag_seconds", 1.5)
    state.count("drift_seconds_total", 2.5)
    state.owed = ["handler:reload nginx"]
    document = compose(state, Live(state="idle", watched=3), HELD, now=1795732400.0)
    publish(Places(str(tmp_path)), document, state.totals)
    text = (tmp_path / "run/reconciler/metrics.prom").read_text()
    found = parse(text)
    assert "fetch_failures_total" not in text

    def value(name: str, **labels: str) -> float:
        return found[f"reconciler_{name}"][tuple(labels.items())]

    assert value("state", state="idle") == 1
    assert value("condition", type="InSync", status="Unknown") == 1
    assert value("condition", type="InSync", status="True") == 0
    assert value("commit_info", role="applied", commit=GOOD) == 1
    assert value("resources", state="in_sync") == 4
    assert value("runs_total", kind="heal", outcome="changed") == 1
    assert value("fetch_total", remote="origin", result="error") == 1
    assert value("fetch_total", remote="backup", result="ok") == 1
    assert value("last_fetch_success_timestamp_seconds", remote="backup") == 100
    assert value("last_run_timestamp_seconds", kind="sync") == 1795732345.679
    assert value("last_run_timestamp_seconds", kind="heal") == 1795732399
    assert value("heal_latency_seconds_count") == 1
    assert value("pending_triggers") == 1
    assert value("watch_mode", mode="none") == 1
    assert value("suspended") == 1
    assert value("suspended_until_timestamp_seconds") == 500
    assert value("watched_paths") == 3
    assert value("commit_lag_seconds") == 1.5
    buckets = {dict(k)["le"]: v for k, v in found["reconciler_run_duration_seconds_bucket"].items()}
    assert (buckets["0.1"], buckets["0.25"], buckets["10"], buckets["+Inf"]) == (0, 1, 2, 2)
    assert list(buckets.values()) == sorted(buckets.values())
    assert value("run_duration_seconds_sum", kind="sync") == 7.2
    assert value("run_duration_seconds_count", kind="sync") == 2
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in found}
    assert {f"reconciler_{name}" for name in FAMILIES} == shown


def test_every_metric_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/agent.md").read_text()
    named = set(re.findall(r"`(?:reconciler)?_(\w+)`", guide))
    assert set(FAMILIES) - named == set()


def test_labels_cannot_break_out_of_their_line(tmp_path: Path) -> None:
    state = settled()
    nasty = 'a"} 1\nreconciler_state{state="x\\'
    state.count("verify_failures_total", reason=nasty)
    publish(Places(str(tmp_path)), compose(state, Live(), None, now=110.0), state.totals)
    found = parse((tmp_path / "run/reconciler/metrics.prom").read_text())
    ((labels, count),) = found["reconciler_verify_failures_total"].items()
    assert count == 1
    shown = dict(labels)["reason"]
    assert shown.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\") == nasty


def test_drift_is_counted_in_seconds_of_resources() -> None:
    state = replace(settled(), drifted=["file:/a", "file:/b"])
    for now in (100.0, 130.0, 160.0):
        compose(state, Live(), None, now=now)
    assert state.totals["drift_seconds_total"] == 120.0
    compose(state, Live(), None, now=90.0)  # a clock that went back takes nothing away
    assert state.totals["drift_seconds_total"] == 120.0


def test_both_files_are_readable_by_everybody_and_nothing_else_is_left(tmp_path: Path) -> None:
    publish(Places(str(tmp_path)), compose(settled(), Live(), None, now=1.0), {})
    files = {
        one.name: one.stat().st_mode & 0o777 for one in (tmp_path / "run/reconciler").iterdir()
    }
    assert files == {"status.json": 0o644, "metrics.prom": 0o644}


def test_a_commit_that_waits_for_its_window_is_held_and_says_until_when() -> None:
    state = replace(settled(), trusted=NEW, held_by="Window", held_until=3600.0)
    document = compose(state, Live(), None, now=110.0)
    assert document["next"]["gate_opens"] == 3600.0
    in_sync = next(one for one in document["conditions"] if one["type"] == "InSync")
    assert (in_sync["status"], in_sync["reason"]) == ("False", "Window")
    assert exit_code(document) == 7
    drifting = replace(state, drifted=["file:/a"])
    assert exit_code(compose(drifting, Live(), None, now=110.0)) == 4


def test_what_could_not_be_pruned_is_named() -> None:
    document = compose(replace(settled(), prune=UNPRUNED), Live(), None, now=110.0)
    in_sync = next(one for one in document["conditions"] if one["type"] == "InSync")
    said = "1 resource left Git and could not be pruned; file:/a: it is a directory now"
    assert in_sync["message"] == said
