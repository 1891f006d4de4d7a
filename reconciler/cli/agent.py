"""`reconciler agent`: the service that keeps this host as its state repo says."""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from reconciler.agent import journal
from reconciler.agent.places import Places, read_json
from reconciler.agent.restate import restate
from reconciler.agent.state import SUSPEND, State, resume, suspend, suspension
from reconciler.cli.agentstatus import read_status, show, watch
from reconciler.cli.agentsync import NO_WAIT, pid_of_agent, sync
from reconciler.cli.console import Output
from reconciler.cli.options import Parser, add_action
from reconciler.errors import ConfigError, TransportError, UsageError
from reconciler.words import counted

if TYPE_CHECKING:
    from reconciler.agent.install import Installer
    from reconciler.cli.agentonce import Override

#: Files that `install` copies.
FILES = ("allowed_signers", "keyring", "deploy_key", "known_hosts", "credentials", "ca_file")
SUSPENSION = ["reconciler/suspension", 1]
NOTIFY = ["reconciler/agent-notify", 1]
#: Who logged in, by number; -1 of 32 bits where nobody did.
LOGIN = "/proc/self/loginuid"
#: Seconds that the agent has to say that it is suspended, or is not any more.
SOON = 10.0


def configure(parser: Parser) -> None:
    """The options of this verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_action(actions, "run", "follow the state repo until stopped: what the service runs")
    once = add_action(actions, "once", "fetch, verify, compile and converge once")
    once.add_argument(
        "--log", action="store_true", help="say it in the log of the system, not here: for cron"
    )
    status = add_action(actions, "status", "show whether this host is as it should be")
    status.add_argument("--oneline", action="store_true", help="one line only")
    status.add_argument("--watch", action="store_true", help="go on showing it, until Ctrl-C")
    now = add_action(actions, "sync", "make the running agent fetch and converge now")
    now.add_argument(
        "--timeout",
        metavar="TIME",
        help="wait so long for it (default: as long as a fetch and a run may take)",
    )
    for parser in (once, now):
        parser.add_argument(
            "--override-window",
            action="store_true",
            help="apply the commit that waits for its window; takes --reason",
        )
        parser.add_argument("--reason", metavar="WHY", help="why; it is kept in the journal")
    held = add_action(actions, "suspend", "change nothing on this host for a while")
    held.add_argument(
        "--for",
        dest="span",
        metavar="TIME",
        default=f"{SUSPEND:.0f}",
        help="30m, 2h, 1d (default: 4h)",
    )
    held.add_argument("--reason", metavar="WHY", required=True, help="why, for those who wonder")
    add_action(actions, "resume", "end a suspension")
    notify = add_action(actions, "notify", "find out whether notifications arrive")
    notify.add_argument(
        "--test", action="store_true", required=True, help="send one to each place of agent.yml"
    )
    _install_options(add_action(actions, "install", "set the agent up on this host and start it"))
    gone = add_action(actions, "uninstall", "remove the agent; what it manages stays")
    gone.add_argument("--purge", action="store_true", help="its settings, memory and mirror too")


def _install_options(parser: argparse.ArgumentParser) -> None:
    """What is not given stays as it is, or as docs/guide/agent.md says."""

    def add(name: str, metavar: str, what: str) -> None:
        parser.add_argument(name, metavar=metavar, help=what)

    parser.add_argument(
        "--repo",
        metavar="URL",
        action="append",
        help="https://..., ssh://..., or a path on this host; given again: asked if the one before does not answer",
    )
    add("--branch", "BRANCH", "branch to follow (default: main), or refs/tags/NAME")
    add("--host", "NAME", "the name of this host in the inventory (default: its host name)")
    add("--inventory", "PATH", "inventory, relative to the state repo")
    parser.add_argument(
        "--trust",
        choices=("none", "head", "every"),
        help="which commits must be signed (default: none; head once it is said who may sign)",
    )
    add("--allowed-signers", "FILE", "who may sign, as ssh-keygen reads it")
    add("--keyring", "FILE", "public OpenPGP keys; those that --fingerprint names may sign")
    parser.add_argument(
        "--fingerprint",
        dest="fingerprints",
        metavar="HEX",
        action="append",
        help="whole fingerprint of a key in the keyring; may be given several times",
    )
    add("--deploy-key", "FILE", "private key for an ssh address")
    add("--known-hosts", "FILE", "host key of the Git server")
    add("--ca-file", "FILE", "certificates to trust for an https address")
    add("--credentials", "FILE", "user:password, or user:token, for an https address")
    add("--interval", "TIME", "how often to fetch (default: 60s)")
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
        "notify": _notify,
        "install": _install,
        "uninstall": _uninstall,
    }
    return actions[args.action](args, out)


def _run(args: argparse.Namespace, out: Output) -> int:
    """Become the supervisor, without what the command line has imported."""
    from reconciler.agent.link import python

    _own_places()
    out.flush()
    argv = python("reconciler.agent")
    os.execv(argv[0], argv)


def _once(args: argparse.Namespace, out: Output) -> int:
    from reconciler.cli.agentonce import run_and_log, run_and_say

    places, override = _own_places(), _override(args)
    return run_and_log(places, override) if args.log else run_and_say(places, out, override)


def _status(args: argparse.Namespace, out: Output) -> int:
    if args.watch:
        return watch(out, short=args.oneline)
    return show(read_status(), out, short=args.oneline)


def _sync(args: argparse.Namespace, out: Output) -> int:
    patience = None if args.timeout is None else _span(args.timeout)
    places, override = _own_places(), _override(args)
    document = sync(places, out, patience)
    if override and override(document):
        document = sync(places, out, patience)
    elif override:
        out.note(NO_WAIT)
    return show(document, out, short=True)


def _override(args: argparse.Namespace) -> Override | None:
    """What lets through the commit that a status shows to wait; None unless it is asked for."""
    from reconciler.agent.override import let_through

    reason = (args.reason or "").strip()
    if bool(reason) != args.override_window:
        raise UsageError(
            "--override-window and --reason go together",
            hint="--override-window --reason 'TICKET-7: it cannot wait'",
        )
    return partial(let_through, Places(), reason=reason, by=who()) if reason else None


def _span(text: str) -> float:
    """A time in seconds. Raises UsageError."""
    from reconciler.agent.config import duration

    try:
        return duration(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _suspend(args: argparse.Namespace, out: Output) -> int:
    places = _own_places()
    held = suspend(places, args.reason, _span(args.span), who())
    if not _tell(places, [held.until]):
        journal.record("notice", f"suspended by {held.by}: {held.reason}")
    if out.as_json:
        out.document({"schema": SUSPENSION, "suspended": True, **vars(held)})
    out.line(
        f"suspended until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(held.until))}: {held.reason}"
    )
    return 0


def _resume(args: argparse.Namespace, out: Output) -> int:
    places = _own_places()
    was = resume(places)
    if was:
        journal.record("notice", f"resumed by {who()}")
    _tell(places, [])
    if out.as_json:
        out.document({"schema": SUSPENSION, "suspended": False, "was_suspended": was})
    out.line("resumed" if was else "it was not suspended")
    return 0


def _notify(args: argparse.Namespace, out: Output) -> int:
    from reconciler.agent.config import load
    from reconciler.agent.outbox import rehearse
    from reconciler.agent.status import Live, compose

    places = _own_places()
    sinks = load(places.config).notify
    if not sinks:
        raise ConfigError(f"{places.config} names nobody to notify", hint="add notify: to it")
    status = compose(State.load(places), Live(), suspension(places), now=time.time())
    arrived, said = rehearse(sinks, who(), status)
    if out.as_json:
        out.document({"schema": NOTIFY, "sent": len(sinks), "arrived": arrived, "messages": said})
    for text in said:
        out.line(text)
    sent = counted(len(sinks), "notification")
    out.line(f"{sent} arrived" if arrived else f"of {sent} not all arrived")
    return 0 if arrived else TransportError.exit_code


def _tell(places: Places, until: list[float]) -> bool:
    """Let the status say when suspensions end, before anybody asks; whether an agent runs."""
    end = time.monotonic() + SOON
    runs = nudge()
    while runs and time.monotonic() < end:
        said = read_json(places.status) or {}
        if [one["until"] for one in said.get("suspensions", ())] == until:
            return True
        time.sleep(0.02)
    restate(places)
    return runs


def _own_places() -> Places:
    """Where the agent keeps things, for those who may change them. Raises UsageError."""
    if os.geteuid() != 0:
        raise UsageError("this takes root", hint="sudo reconciler agent ...")
    return Places()


def nudge(number: signal.Signals = signal.SIGHUP) -> bool:
    """Let a running agent see at once what changed; whether there is one."""
    pid = pid_of_agent(Places())
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
    return False


def who() -> str:
    """The person behind this call, for what is kept of their word: who logged in, as the kernel
    knows, whatever they have become since; else what they say themselves."""
    try:
        with open(LOGIN, encoding="ascii") as file:
            return pwd.getpwuid(int(file.read())).pw_name
    except (OSError, ValueError, KeyError, OverflowError):
        return _called()


def _called() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.getuid()}"


def _install(args: argparse.Namespace, out: Output) -> int:
    from reconciler.agent.wish import Wish

    names = ("repo", "branch", "host", "inventory", "trust", "fingerprints", "interval")
    wish = Wish(
        {name: value for name in names if (value := getattr(args, name)) is not None},
        timer=args.timer,
        **{name: getattr(args, name) or "" for name in FILES},
    )
    said = _change(out, lambda installer: installer.install(wish))
    if said:
        out.line("the agent is installed; see: reconciler agent status")
    return 0


def _uninstall(args: argparse.Namespace, out: Output) -> int:
    said = _change(out, lambda installer: installer.uninstall(purge=args.purge))
    if said:
        out.line("the agent is gone; what it managed stays as it is")
    return 0


def _change(out: Output, act: Callable[[Installer], bool]) -> list[str]:
    """Install or uninstall, and say each step; the steps, none if nothing was to be done."""
    from reconciler.agent.install import Installer

    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        out.line(text)

    act(Installer(say))
    if out.as_json:
        out.document({"schema": ["reconciler/agent-install", 1], "changes": said})
    if not said:
        out.line("0 changes")
    return said
