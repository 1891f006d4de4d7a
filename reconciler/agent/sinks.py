"""Where notices go: an address of apprise, a webhook, a command. Addresses hold secrets, so no
message repeats one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any


def sink(value: object, path: Callable[[Any], str]) -> dict[str, Any]:
    """One of the settings, such as `{webhook: URL, secret_file: FILE}`.

    path: reads the name of a file. Raises ValueError with what was expected.
    """
    said = value if isinstance(value, Mapping) else {}
    kinds = [kind for kind in KINDS if kind in said]
    if len(kinds) != 1:
        raise ValueError(
            "a notification goes to one of apprise: URL, webhook: URL, command: [WORDS]"
        )
    (kind,) = kinds
    extra = set(said) - {kind, *(["secret_file"] if kind == "webhook" else [])}
    if extra:
        raise ValueError(f"a notification by {kind} has no '{min(map(str, extra))}'")
    try:
        signed = {"secret_file": path(said["secret_file"])} if "secret_file" in said else {}
    except ValueError:  # its text may hold the secret itself
        raise ValueError("secret_file: expected an absolute path") from None
    return {kind: KINDS[kind](said[kind]), **signed}


def _apprise(value: Any) -> str:
    if not isinstance(value, str) or "://" not in value:
        raise ValueError("apprise takes an address, such as mailto://...")
    return str(value)


def _webhook(value: Any) -> str:
    if not isinstance(value, str) or not re.match(r"https?://[^/\s]", value):
        raise ValueError("a webhook is an https:// or http:// address")
    return str(value)


def _command(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not value[0]:
        raise ValueError("a command is a list of words: [/usr/local/bin/page, --urgent]")
    return [str(word) for word in value]


KINDS: Mapping[str, Callable[[Any], object]] = {
    "apprise": _apprise,
    "webhook": _webhook,
    "command": _command,
}
