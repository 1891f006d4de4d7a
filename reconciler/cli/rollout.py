"""The flags of a fleet run, and what they make of the settings in reconciler.yml."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reconciler.errors import UsageError

if TYPE_CHECKING:
    from reconciler.push.settings import Settings
    from reconciler.tree import Tree

#: The executor of this process.
HERE = "threads"


def fleet_options(parser: argparse.ArgumentParser, *, rollout: bool) -> None:
    """What a run over many hosts takes. rollout: also what only a run that changes them needs."""
    group = parser.add_argument_group("fleet", "defaults come from `rollout:` in reconciler.yml")
    group.add_argument("--parallel", "--forks", metavar="N", help="hosts at a time (default: 50)")
    group.add_argument(
        "--connect-retries", metavar="N", help="attempts after the first (default: 2)"
    )
    group.add_argument(
        "--only-failed", metavar="RUN", help="the hosts that failed in a run; `last` is the newest"
    )
    group.add_argument(
        "--executor",
        metavar="WHERE",
        default=HERE,
        help="threads (default), or workers: dask://HOST:PORT",
    )
    for flag, what in (
        ("--tls-ca-file", "who signs for scheduler, workers and us"),
        ("--tls-cert", "our certificate"),
        ("--tls-key", "its key"),
    ):
        group.add_argument(flag, metavar="FILE", default="", help=f"with dask://: {what}")
    group.add_argument("--jsonl", action="store_true", help="print events, one JSON object a line")
    group.add_argument("--junit", metavar="FILE", help="also write the results as JUnit XML")
    if not rollout:
        return
    group.add_argument("--resume", metavar="RUN", help="go on with a run; `last` is the newest")
    group.add_argument(
        "--batches", metavar="SIZES", help="1,10%%,50%%,100%%: so many hosts go together"
    )
    group.add_argument("--canary", metavar="PATTERN", help="hosts that go first; all must succeed")
    group.add_argument("--max-failed", metavar="N", help="hosts that may fail: 3 or 5%%")
    group.add_argument("--max-unreachable", metavar="N", help="hosts that may be out of reach")
    group.add_argument("--order", metavar="ORDER", help="inventory, reverse, sorted or shuffle")
    group.add_argument("--pause", metavar="TIME", help="between batches: 30s, 5m")


def settings_of(tree: Tree, args: argparse.Namespace) -> Settings:
    """The settings of the state repo, and the flags over them. Raises ConfigError, UsageError."""
    from reconciler.push import settings as reader
    from reconciler.push.rollout import Size

    settings = reader.read_settings(tree)
    given = _Given(args)
    rollout = replace(
        settings.rollout,
        **given.taken(
            batches=reader.parse_batches,
            canary=str,
            max_failed=Size.parse,
            max_unreachable=Size.parse,
            order=reader.parse_order,
            pause=reader.parse_time,
        ),
    )
    own = given.taken(
        parallel=lambda text: reader.parse_number(text, 1, reader.MOST_PARALLEL),
        connect_retries=lambda text: reader.parse_number(text, 0, reader.MOST_RETRIES),
    )
    if args.host_timeout is not None:
        own["host_timeout"] = args.host_timeout
    return replace(settings, rollout=rollout, **own)


class _Given:
    """Flags as text, read by what reads the settings, so that both accept the same."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args

    def taken(self, **readers: Callable[[str], Any]) -> dict[str, Any]:
        """Those that were given. Raises UsageError."""
        found: dict[str, Any] = {}
        for name, read in readers.items():
            text = getattr(self._args, name, None)
            if text is None:
                continue
            try:
                found[name] = read(text)
            except ValueError as error:
                raise UsageError(f"--{name.replace('_', '-')}: {error}") from error
        return found
