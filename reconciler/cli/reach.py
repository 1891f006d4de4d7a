"""Whether a call is about other hosts, and how they are reached."""

from __future__ import annotations

import argparse
import functools

from reconciler.cli.options import seconds


def reach_options(parser: argparse.ArgumentParser) -> None:
    """How hosts are reached, where the inventory does not say it."""
    group = parser.add_argument_group("connection")
    group.add_argument("--ask-pass", action="store_true", help="ask for the password of the login")
    group.add_argument("--ask-become-pass", action="store_true", help="ask for the one of sudo")
    file = functools.partial(group.add_argument, metavar="FILE")
    file("--connection-password-file", help="the password of the login is its first line")
    file("--become-password-file", help="the one of sudo is its first line")
    group.add_argument(
        "--ask-key-pass", action="store_true", help="ask for the passphrase of the private key"
    )
    group.add_argument(
        "--keyring", action="store_true", help="passwords that nobody gives are in your keyring"
    )
    group.add_argument("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config")
    group.add_argument("--no-cache", action="store_true", help="leave no engine on the hosts")
    wait = functools.partial(group.add_argument, metavar="SECONDS", type=seconds)
    wait("--start-timeout", default=30.0, help="from the login until the engine runs (default: 30)")
    wait("--host-timeout", help="for the whole run of one host (default: 3600)")


def is_remote(args: argparse.Namespace) -> bool:
    """Whether hosts of an inventory are meant, and not this machine under one of its names."""
    return bool(args.inventories) and not (args.local or args.host or args.root != "/")
