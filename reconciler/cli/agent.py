"""`reconciler agent`: the service that keeps this host as its state repo says."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.agent.places import UNIT, Places, read_json
from reconciler.agent.state import SUSPEND, resume, suspend
from reconciler.cli.agentstatus import read_status, show, watch
from reconciler.cli.console import Output
from reconciler.cli.options import Parser, add_action
from reconciler.errors import ReconcilerError, UsageError

#: Seconds that `sync` waits for the run that it asked for.
PATIENCE = 300.0


def configure(parser: Parser) -> None:
    """The options of this verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_action(actions, "run", "follow the state repo until stopped: what the service runs")
    add_action(actions, "once", "fetch, verify, compile and converge once")
    status = add_action(actions, "status", "show whether this host is as it should be")
    status.add_argument("--oneline", action="store_true", help="one line only")
    status.add_argument("--watch", action="store_true", help="go on showing it, until Ctrl-C")
    add_action(actions, "sync", "make the running agent fetch and converge now")
    held = add_action(actions, "suspend", "change nothing on this host for a while")
    held.add_argument(
        "--for",
        dest="span",
        metavar="TIME",
        default=f"{SUSPEND:.0f}",
        help="30m, 2h, 1d (default: 4h)",
    )
    held.add_argument("--reason", required=True, help="why, for those who wonder")
    add_action(actions, "resume", "end a suspension")
    _install_options(add_action(actions, "install", "set the agent up on this host and start it"))
    gone = add_action(actions, "uninstall", "remove the agent; what it manages stays")
    gone.add_argument("--purge", action="store_true", help="its settings, memory and mirror too")


def _install_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repo", metavar="URL", help="https://..., ssh://..., or a path on this host"
    )
    parser.add_argument("--branch", default="main", help="branch to follow (default: main)")
    parser.add_argument(
        "--host", metavar="NAME", default="", help="the name of this host in the inventory"
    )
    parser.add_argument(
        "--inventory", metavar="PATH", default="", help="inventory, relative to the state repo"
    )
    parser.add_argument(
        "--trust",
        choices=("none", "head", "every"),
        help="which commits must be signed (default: none)",
    )
    parser.add_argument(
        "--allowed-signers", metavar="FILE", default="", help="who may sign, as ssh-keygen reads it"
    )
    parser.add_argument(
        "--deploy-key", metavar="FILE", default="", help="private key for an ssh address"
    )
    parser.add_argument(
        "--known-hosts", metavar="FILE", default="", help="host key of the Git server"
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", default="", help="certificates to trust for an https address"
    )
    parser.add_argument(
        "--credentials",
        metavar="FILE",
        default="",
        help="user:password, or user:token, for an https address",
    )
    parser.add_argument(
        "--interval", metavar="TIME", default="60s", help="how often to fetch (default: 60s)"
    )
    parser.add_argument(
        "--timer", action="store_true", help="a timer instead of a resident process"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """One action; the exit code says whether this host is as it should be."""
    actions: Mapping[str, Callable[[argparse.Namespace, Output], int]] = {
        "run": _run,
        "once": _once,
        "status": _status,
        "sync": _sync,
        "suspend": _suspend,
        "resume": _resume,
        "install": _install,
        "uninstall": _uninstall,
    }
    return actions[args.action](args, out)


def _run(args: argparse.Namespace, out: Output) -> int:
    """Become the supervisor, without what the command line has imported."""
    out.flush()
    isolated = [] if "PYTHONPATH" in os.environ else ["-I"]
    os.execv(sys.executable, [sys.executable, *isolated, "-B", "-m", "reconciler.agent"])


def _once(args: argparse.Namespace, out: Output) -> int:
    from reconciler.agent.config import load
    from reconciler.agent.once import once
    from reconciler.agent.status import exit_code, oneline

    places = Places()
    try:
        outcome, document = once(places, load(places.config))
    except OSError as error:
        raise ReconcilerError(f"the agent cannot write its state: {error}") from error
    if out.as_json:
        out.document(document)
    else:
        for message in outcome.messages:
            out.line(str(message["message"]))
        out.line(oneline(document))
    return exit_code(document)


def _status(args: argparse.Namespace, out: Output) -> int:
    if args.watch:
        return watch(out, short=args.oneline)
    return show(read_status(), out, short=args.oneline)


def _sync(args: argparse.Namespace, out: Output) -> int:
    pid = _agent_pid()
    asked = time.time()
    os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        document = read_status()
        last = document["last_run"]
        if last and last["kind"] == "sync" and last["started"] >= asked:
            return show(document, out, short=True)
        time.sleep(0.1)
    raise ReconcilerError(
        f"the run did not end within {PATIENCE:.0f} s", hint="journalctl -u reconciler-agent"
    )


def _agent_pid() -> int:
    document = read_json(Places().status) or {}
    pid = document.get("agent", {}).get("pid", 0)
    try:
        with open(f"/proc/{int(pid)}/cmdline", "rb") as file:
            if b"reconciler.agent" in file.read().split(b"\0"):
                return int(pid)
    except OSError:
        pass
    raise UsageError(
        "the agent does not run", hint=f"systemctl start {UNIT}, or: reconciler agent once"
    )


def _suspend(args: argparse.Namespace, out: Output) -> int:
    from reconciler.agent.config import duration

    try:
        seconds = duration(args.span)
    except ValueError as error:
        raise UsageError(str(error)) from error
    held = suspend(Places(), args.reason, seconds, _who())
    _nudge()
    out.line(
        f"suspended until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(held.until))}: {held.reason}"
    )
    return 0


def _resume(args: argparse.Namespace, out: Output) -> int:
    was = resume(Places())
    _nudge()
    out.line("resumed" if was else "it was not suspended")
    return 0


def _nudge() -> None:
    """Let a running agent see at once what changed."""
    try:
        os.kill(_agent_pid(), signal.SIGHUP)
    except (UsageError, OSError):
        return


def _who() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"


def _install(args: argparse.Namespace, out: Output) -> int:
    from reconciler.agent.install import Installer, Wish

    settings: dict[str, Any] | None = None
    if args.repo:
        settings = {
            "remotes": [{"url": args.repo}],
            "branch": args.branch,
            "interval": args.interval,
        }
        if args.deploy_key:
            settings["remotes"][0]["deploy_key"] = Places().deploy_key
        if args.credentials:
            settings["remotes"][0]["credentials"] = Places().credentials
        if args.ca_file:
            settings["remotes"][0]["ca_file"] = Places().ca_file
        for name in ("host", "inventory"):
            if getattr(args, name):
                settings[name] = getattr(args, name)
        settings["trust"] = args.trust or ("head" if args.allowed_signers else "none")
    files = (
        args.allowed_signers,
        args.deploy_key,
        args.known_hosts,
        args.credentials,
        args.ca_file,
    )
    wish = Wish(settings, args.timer, *files)
    changed = Installer(out.line).install(wish)
    out.line("the agent is installed; see: reconciler agent status" if changed else "0 changes")
    return 0


def _uninstall(args: argparse.Namespace, out: Output) -> int:
    from reconciler.agent.install import Installer

    changed = Installer(out.line).uninstall(purge=args.purge)
    out.line("the agent is gone; what it managed stays as it is" if changed else "0 changes")
    return 0
