"""`reconciler check`: compile for every selected host, without touching one.

What a host says about itself comes from a file, from the last contact with it, or from a sample
of a Debian server; which of them is said for each host, because a condition on facts may hide an
error from one and not from the other.
"""

from __future__ import annotations

import argparse
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from reconciler.cli.console import Output, Span
from reconciler.cli.desired import Desired
from reconciler.cli.options import facts_option, inventory_options, repo_options
from reconciler.cli.places import Known, facts_of, open_cache, read_facts
from reconciler.cli.render import commit_text
from reconciler.compile.cache import CatalogCache
from reconciler.errors import ConfigError, ConfigErrors, UsageError
from reconciler.words import counted


class Checked(NamedTuple):
    """One host that compiles. facts: where they are from: `file`, `last contact`, `sample`."""

    host: str
    facts: str
    resources: int


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    repo_options(parser)
    inventory_options(parser)
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="without an inventory: the name of the one host (default: this machine's)",
    )
    facts_option(parser, "every host")


def run(args: argparse.Namespace, out: Output) -> int:
    """Compile, and say so. Raises ConfigErrors with everything that is wrong, for all hosts."""
    with closing(open_cache(out)) as cache:
        given = None if args.facts is None else read_facts(args.facts)
        desired = Desired.asked(args, cache, out)
        hosts = (
            desired.chosen(args.limit) if args.inventories else [args.host or socket.gethostname()]
        )
        checked = _compile_all(desired, hosts, given, cache, out)
    warnings = [
        f"no play of site.yml is for host {one.host}" for one in checked if not one.resources
    ]
    if hosts and len(warnings) == len(hosts) and not args.allow_empty:
        raise UsageError(
            "no play of site.yml is for any of the selected hosts",
            hint="give --allow-empty if that is meant",
        )
    warnings += desired.warnings
    if out.as_json:
        out.document(
            {
                "schema": ["reconciler/check", 1],
                "commit": desired.tree.commit,
                "dirty": desired.tree.dirty,
                "hosts": [one._asdict() for one in checked],
                "warnings": warnings,
            }
        )
    else:
        _show(desired, checked, warnings, out)
    return 0


def _compile_all(
    desired: Desired, hosts: Sequence[str], given: Known | None, cache: CatalogCache, out: Output
) -> list[Checked]:
    checked: list[Checked] = []
    errors: list[ConfigError] = []
    with out.progress("check") as on_event:
        for index, host in enumerate(hosts, 1):
            on_event({"id": host, "index": index, "total": len(hosts)})
            facts, origin = facts_of(host, given, cache)
            try:
                resources = 0
                if desired.has_play(host):
                    resources = len(desired.project(host).compile(host, facts).catalog.resources)
                checked.append(Checked(host, origin, resources))
            except ConfigError as error:
                errors.append(error)
    if errors:
        raise ConfigErrors(errors)
    return checked


def _show(
    desired: Desired, checked: Sequence[Checked], warnings: Sequence[str], out: Output
) -> None:
    out.line(Span("check", "bold"), f" of {commit_text(desired.tree.commit, desired.tree.dirty)}")
    width = max((len(one.host) for one in checked), default=0)
    for one in checked:
        out.line(
            Span(f"{one.host:<{width}}", "bold"),
            f"  {counted(one.resources, 'resource')}  ",
            Span(f"facts: {one.facts}", "dim"),
        )
    for warning in warnings:
        out.line(Span("warning", "bold yellow"), f": {warning}")
    origins = ", ".join(
        f"{origin}: {count}" for origin, count in Counter(one.facts for one in checked).items()
    )
    out.line(
        Span(f"check: {counted(len(checked), 'host')} compiled, 0 errors", "bold green"),
        f" (facts from {origins})" if origins else "",
    )
