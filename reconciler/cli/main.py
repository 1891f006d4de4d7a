"""`reconciler VERB`: finds the verb's file, runs it, and turns what comes of it into an exit code.

Only the file of the verb that was called is imported, so help is quick and a run pays for
nothing that it does not use.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol

import reconciler
from reconciler.cli.console import Output, Span, Unwritable
from reconciler.cli.failure import show_errors
from reconciler.cli.options import Parser, output_options
from reconciler.errors import Interrupted, ReconcilerError, UsageError
from reconciler.words import did_you_mean

#: Verb -> what it does; each is the file `reconciler/cli/VERB.py`.
VERBS = {
    "init": "make a new state repo",
    "check": "compile for every selected host, without touching one",
    "plan": "show what apply would do",
    "apply": "make the machine match the state repo",
    "diff": "show which hosts and resources a change of the state repo touches",
    "facts": "show what the machine says about itself",
    "inventory": "list hosts and groups, explain variables",
    "modules": "list resource types, show their documentation",
    "agent": "run, watch and steer the service that keeps this host in sync",
    "drift": "show what moved on this host since it was converged",
    "prune": "list or remove what the state repo declares no more",
    "trust": "show what this host trusts, or say it anew",
    "history": "show what runs changed on this machine",
    "why": "explain where a resource and its values come from",
    "doctor": "check that this machine is fit to run reconciler",
}
EPILOG = """\
exit codes: 0 done, 2 changes (with --detailed-exitcode), 3 bad configuration or usage,
4 some resources failed, 5 unreachable, 6 both, 7 held (a rollout, a suspension, a
budget), 9 another run holds the lock, 10 not trusted, 130 interrupted, 1 a bug
"""
BUG = 1


class Verb(Protocol):
    """What the file of a verb has: its options, and what it does."""

    def configure(self, parser: Parser) -> None: ...

    def run(self, args: argparse.Namespace, out: Output) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one call of the program; the exit code. Never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    _be_tolerant()
    # Known before the words are parsed, because parsing them may be what fails.
    options = words[: words.index("--")] if "--" in words else words
    out = Output(as_json="--json" in options, verbose="-v" in options or "--verbose" in options)
    try:
        code = _guarded(words, out)
        out.flush()
    except Unwritable as error:
        out.note(Span("error", "bold red"), f": cannot write the output: {error}")
        code = BUG
    return code


def _be_tolerant() -> None:
    """A character that the terminal's encoding lacks is escaped instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _guarded(words: list[str], out: Output) -> int:
    try:
        return _answered(words, out)
    except Unwritable:
        raise
    except Exception as error:  # noqa: BLE001  # the last line of defence, and it says so
        from reconciler.cli.bug import report_bug

        report_bug(out, error, debug="--debug" in words)
        return BUG


def _answered(words: list[str], out: Output) -> int:
    try:
        return _dispatch(words, out)
    except ReconcilerError as error:
        show_errors(out, error)
        return error.exit_code
    except KeyboardInterrupt:
        show_errors(out, Interrupted("interrupted"))
        return Interrupted.exit_code
    except SystemExit as end:  # argparse, after help or version
        return end.code if isinstance(end.code, int) else 0


def _dispatch(words: list[str], out: Output) -> int:
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or words.index(name) != 0:
        _top().parse_args(words[: words.index(name)] if name else words)
        if name is None:
            raise UsageError(
                "a verb is missing", hint=f"one of: {', '.join(VERBS)}; see: reconciler --help"
            )
    if name not in VERBS:
        raise UsageError(
            f"unknown verb {name!r}", hint=did_you_mean(name, VERBS) or "see: reconciler --help"
        )
    verb: Verb = importlib.import_module(f"reconciler.cli.{name}")  # type: ignore[assignment]  # by VERBS
    parser = Parser(prog=f"reconciler {name}", description=f"{VERBS[name].capitalize()}.")
    verb.configure(parser)
    output_options(parser)
    arguments = words[words.index(name) + 1 :]
    args = parser.parse_args(arguments)
    out.as_json, out.verbose = args.json, args.verbose
    return verb.run(args, out)


def _top() -> Parser:
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:<{width}}{what}" for name, what in VERBS.items())
    parser = Parser(
        prog="reconciler",
        usage="reconciler VERB [OPTIONS]",
        description=f"GitOps for hosts: make this machine match a Git repository.\n\nverbs:\n{verbs}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"reconciler {reconciler.__version__}"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of a bug in reconciler"
    )
    return parser
