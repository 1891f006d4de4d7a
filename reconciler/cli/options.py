"""The options that verbs share, so that one word means one thing everywhere."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import TYPE_CHECKING, NoReturn

from reconciler.cli.console import Unwritable
from reconciler.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """argparse, except that a wrong call is an error of ours: exit 3, with a hint.

    Options are not abbreviated: what `--li` means would change with the next option.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]  # as argparse wants them

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {self.prog} --help")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """argparse drops every error of writing; help that is lost must not look like success."""
        try:
            (file or sys.stderr).write(message)
        except BrokenPipeError:
            pass
        except OSError as error:
            raise Unwritable(error.strerror) from error


def output_options(parser: argparse.ArgumentParser, **default: object) -> None:
    """What every verb takes."""
    group = parser.add_argument_group("output")
    add = functools.partial(group.add_argument, action="store_true", **default)
    add("--json", help="print one JSON document, also for errors")
    add("-v", "--verbose", help="show more: also what is in sync, and long values whole")
    add("--debug", help="show the traceback of a bug in reconciler")


def add_action(actions: argparse._SubParsersAction[Parser], name: str, what: str) -> Parser:
    """One action of a verb that has several; it takes the output options at its own place too."""
    parser = actions.add_parser(name, help=what, description=f"{what.capitalize()}.")
    output_options(parser, default=argparse.SUPPRESS)
    return parser


#: Where verbs look that know of an agent.
HERE_OR_FOLLOWED = "here, else what the agent of this host follows"


def repo_options(parser: argparse.ArgumentParser, default: str = "here") -> None:
    """Which state repo, and which commit of it. default: what is meant without -C."""
    group = parser.add_argument_group("state repo")
    group.add_argument(
        "-C",
        dest="repo",
        metavar="REPO",
        default=".",
        help=f"directory of the state repo (default: {default})",
    )
    group.add_argument(
        "--ref",
        metavar="REF",
        help="read this commit, branch or tag, not the files of the directory",
    )


def inventory_options(parser: argparse.ArgumentParser) -> None:
    """Which hosts there are, and which of them are meant."""
    group = parser.add_argument_group("hosts")
    group.add_argument(
        "-i",
        "--inventory",
        dest="inventories",
        metavar="INVENTORY",
        type=source,
        action="append",
        default=[],
        help="inventory file or directory, or a list: web1,web2; may be given several times",
    )
    group.add_argument("--limit", metavar="PATTERN", help="only these hosts: web:&production:!web3")
    group.add_argument(
        "--allow-empty", action="store_true", help="a selection of nothing is no error"
    )


def facts_option(parser: argparse.ArgumentParser, whose: str) -> None:
    """Facts from a file, in place of those of the last contact or of this machine."""
    parser.add_argument(
        "--facts",
        metavar="FILE",
        help=f"facts of {whose}: what `reconciler facts --json` printed",
    )


def local_options(parser: argparse.ArgumentParser) -> None:
    """This machine, and by which name the inventory knows it."""
    group = parser.add_argument_group("this machine")
    group.add_argument(
        "--local",
        action="store_true",
        help="this machine; without an inventory it is in group `all`",
    )
    group.add_argument(
        "--host",
        metavar="NAME",
        help="the name of this machine in the inventory (default: its host name)",
    )
    root_option(group)


def root_option(parser: argparse._ActionsContainer) -> None:
    """The root file system to work on."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        default="/",
        help="a directory that holds a root file system, instead of /",
    )


#: Seconds: a heal of the agent's takes a tenth of one, a run of its own is worth waiting for.
LOCK_TIMEOUT = 60.0


def lock_option(parser: argparse._ActionsContainer) -> None:
    """How long to wait for another run on the host."""
    parser.add_argument(
        "--lock-timeout",
        metavar="SECONDS",
        type=seconds,
        default=LOCK_TIMEOUT,
        help=f"wait for another run at most this long (default: {LOCK_TIMEOUT:.0f}; 0: not at all)",
    )


def tag_options(parser: argparse.ArgumentParser) -> None:
    """Which resources."""
    group = parser.add_argument_group("resources")
    group.add_argument(
        "--tags",
        metavar="TAGS",
        type=words,
        default=[],
        action="extend",
        help="only resources with one of these tags",
    )
    group.add_argument(
        "--skip-tags",
        metavar="TAGS",
        type=words,
        default=[],
        action="extend",
        help="no resources with one of these tags",
    )


def source(text: str) -> str:
    """An inventory. Raises ArgumentTypeError for what an empty variable of a shell leaves of one."""
    if not text.strip("/ "):
        raise argparse.ArgumentTypeError(f"expected a file, a directory or a list, found {text!r}")
    return text


def words(text: str) -> list[str]:
    """`a,b` as a list. Raises ArgumentTypeError where nothing is left."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise argparse.ArgumentTypeError("expected names, separated by commas")
    return found


def positive(text: str) -> int:
    """A number from 1. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A time from 0 on. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, such as 30 or 0.5, found {text!r}")
    return value
