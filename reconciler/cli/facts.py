"""`reconciler facts`: what this machine says about itself, as templates and conditions see it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import closing

from reconciler.cli.console import Line, Output, Span, line
from reconciler.cli.options import root_option
from reconciler.cli.places import directory_root, open_cache
from reconciler.cli.render import value_text
from reconciler.transport.engine import Engine


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="remember the facts under this name too, for `check` (default: its host name)",
    )
    root_option(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Show the facts, and keep them as those of the last contact."""
    with Engine.local(root=directory_root(args.root)) as engine:
        facts = engine.facts()
    name = args.host or str(facts["nodename"])
    with closing(open_cache(out)) as cache:
        cache.keep_facts(name, facts)
    if out.as_json:
        out.document({"schema": ["reconciler/facts", 1], "host": name, "facts": facts})
    else:
        out.lines(list(_lines(facts, "facts")))
    return 0


def _lines(facts: Mapping[str, object], prefix: str) -> Iterator[Line]:
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            yield from _lines(value, f"{prefix}.{name}")
        else:
            yield line(Span(f"{prefix}.{name}", "bold"), f": {value_text(value, verbose=True)}")
