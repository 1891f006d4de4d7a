"""`plan` and `apply` on hosts of an inventory, one after the other."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

from reconciler.catalog import Plan, Report
from reconciler.cli.console import Output, Span
from reconciler.cli.desired import Choice, Desired
from reconciler.cli.failure import show_errors
from reconciler.cli.places import open_cache
from reconciler.cli.render import show
from reconciler.compile.cache import CatalogCache
from reconciler.errors import (
    ConfigError,
    Interrupted,
    ReconcilerError,
    ResourceError,
    TransportError,
    UsageError,
)
from reconciler.push.host import Options, push_host
from reconciler.transport.connect import Connector
from reconciler.transport.remote import Limits
from reconciler.transport.target import NAMES, Target

CHANGES = 2
BOTH = 6
Outcome = Plan | Report | ReconcilerError
EMPTY = b'"resources":[]'


def push(args: argparse.Namespace, out: Output, mode: Literal["plan", "apply"]) -> int | None:
    """Plan for the selected hosts, or converge them; the exit code. Raises ReconcilerError.

    None, and nothing done, where all of them are this machine itself.
    """
    with closing(open_cache(out)) as cache, Connector() as connector:
        desired = Desired(args.repo, args.ref, args.inventories, cache, out)
        names = desired.select(args.limit)
        if not names and not args.allow_empty:
            raise UsageError(
                f"no host matches {args.limit or 'all'!r}", hint="see: reconciler inventory list"
            )
        if names and all(_is_local(desired, name) for name in names):
            return None
        project = _Selected(desired, cache, args)
        asked = _asked(args)
        outcomes: dict[str, Outcome] = {}
        for name in names:
            outcomes[name] = _one(name, project, mode, connector, asked, args, out)
            if not out.as_json:
                _show(outcomes[name], out, diff=args.diff)
        for warning in desired.warnings:
            out.note(Span("warning", "bold yellow"), f": {warning}")
    if out.as_json:
        hosts = {name: _document(outcome) for name, outcome in outcomes.items()}
        out.document({"schema": ["reconciler/push", 1], "mode": mode, "hosts": hosts})
    return exit_code(outcomes.values(), detailed=args.detailed_exitcode)


def _is_local(desired: Desired, name: str) -> bool:
    return desired.inventory.variables(name).get("ansible_connection") == "local"


class _Selected:
    """The `Project` of a push: the state repo, as far as the tags select it."""

    def __init__(self, desired: Desired, cache: CatalogCache, args: argparse.Namespace) -> None:
        self._desired = desired
        self._cache = cache
        self._choice = Choice(tuple(args.tags), tuple(args.skip_tags))
        self._allow_empty: bool = args.allow_empty

    def variables(self, host: str) -> Mapping[str, Any]:
        """What says how the host is reached; templates cost the import of their engine."""
        known = self._desired.inventory.variables(host)
        found = {name: known[name] for name in NAMES if name in known}
        if any("{{" in str(value) or "{%" in str(value) for value in found.values()):
            rendered = self._desired.project(host).variables(host)
            found = {name: rendered[name] for name in found}
        return found

    def other(self, name: str) -> Mapping[str, Any] | None:
        """The same of a jump host, if it is one of the inventory."""
        return self.variables(name) if name in self._desired.inventory.hosts() else None

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        catalog = self._desired.catalog(host, facts, self._choice)
        if EMPTY in catalog and not self._allow_empty:
            raise UsageError(
                f"nothing is selected for host {host}", hint="give --allow-empty if that is meant"
            )
        self._cache.keep_facts(host, facts)
        return catalog

    def content(self, host: str, facts: Mapping[str, Any], sha256: str) -> Iterable[bytes]:
        return self._desired.content(host, facts, sha256)

    def secrets(self, host: str, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return self._desired.compiled(host, facts).secrets


def _one(
    name: str,
    project: _Selected,
    mode: Literal["plan", "apply"],
    connector: Connector,
    asked: Mapping[str, str],
    args: argparse.Namespace,
    out: Output,
) -> Outcome:
    options = Options(
        diff=args.diff,
        durability=getattr(args, "durability", "batch"),
        lock_timeout=getattr(args, "lock_timeout", 0.0),
        keep_engine=not args.no_cache,
        start_timeout=args.start_timeout,
        limits=Limits(seconds=args.host_timeout),
    )
    try:
        variables = {**project.variables(name), **asked}
        target = Target.of(name, variables, args.ssh_config, project.other)
        with out.progress(f"{mode} {name}") as on_event:
            return push_host(target, project, mode, connector, options, on_event)
    except Interrupted:
        raise
    except ReconcilerError as error:
        error.host = error.host or name
        return error


def _asked(args: argparse.Namespace) -> dict[str, str]:
    """Passwords that a person types; they win over the inventory's."""
    wanted = {
        "ansible_password": ("login password: ", args.ask_pass),
        "ansible_become_password": ("become password: ", args.ask_become_pass),
    }
    if any(asked for _, asked in wanted.values()) and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a password on")
    return {name: getpass.getpass(text) for name, (text, asked) in wanted.items() if asked}


def _show(outcome: Outcome, out: Output, *, diff: bool) -> None:
    if isinstance(outcome, ReconcilerError):
        show_errors(out, outcome)
    else:
        out.lines(show(outcome, diff=diff, verbose=out.verbose))


def _document(outcome: Outcome) -> Mapping[str, object]:
    if not isinstance(outcome, ReconcilerError):
        return outcome.to_json()
    from reconciler.cli.failure import failures

    return {
        "schema": ["reconciler/error", 1],
        "exit": outcome.exit_code,
        "errors": [failure.to_json() for failure in failures([outcome])],
    }


def exit_code(outcomes: Iterable[Outcome], *, detailed: bool) -> int:
    """One code for a run over many hosts: what went wrong with any of them."""
    outcomes = list(outcomes)
    codes = {_code(outcome) for outcome in outcomes} - {0}
    if not codes:
        changed = any(_changes(outcome) for outcome in outcomes)
        return CHANGES if changed and detailed else 0
    if codes == {ResourceError.exit_code, TransportError.exit_code}:
        return BOTH
    order: Sequence[int] = (Interrupted.exit_code, ConfigError.exit_code, 1)
    return next((code for code in order if code in codes), max(codes))


def _code(outcome: Outcome) -> int:
    if isinstance(outcome, ReconcilerError):
        return outcome.exit_code
    if isinstance(outcome, Report) and outcome.interrupted:
        return Interrupted.exit_code
    return ResourceError.exit_code if outcome.failed else 0


def _changes(outcome: Outcome) -> bool:
    if isinstance(outcome, ReconcilerError):
        return False
    return outcome.differs if isinstance(outcome, Plan) else outcome.changed
