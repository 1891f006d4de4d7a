"""Host patterns: `web:&production:!db1`, globs, `~regex`, subscripts, as Ansible reads them.

Parts are separated by `,` or `:` and applied in a fixed order, whatever the order written:
plain ones add hosts, then `&` ones keep, then `!` ones remove. Without a plain one, all hosts
are the start. A plain name is a host first; behind `&` and `!` it is a group first.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from reconciler import patience
from reconciler.errors import InventoryError
from reconciler.inventory.names import shown
from reconciler.words import counted, did_you_mean

#: Names of the machine itself that a pattern may use without an inventory naming them.
LOCALHOST = ("127.0.0.1", "::1", "localhost")

#: Seconds of work that a regex may take over all names.
REGEX_LIMIT = 2.0

_RANGE = r"\[(?:[0-9]+:[0-9]+|[A-Za-z]:[A-Za-z])(?::[0-9]+)?\]"
_HOST_PORT = re.compile(rf"(?:\[[^\[\]]+\]|(?:[\w.-]|{_RANGE})+):[0-9]+")
_PART = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]{1,9})|([0-9]{1,9})[:-]([0-9]{0,9}))\]")
#: How an IPv6 address begins that ends like one of IPv4; otherwise a `:` before it separates.
_MIXED = re.compile(r"(?:(?:0:){6}|::(?:ffff:)?|(?:0:){5}ffff:)[^:]*$", re.IGNORECASE)
_GLOB = re.compile(r"[.?*\[]")


class Patterns:
    """Selects hosts. groups: name -> hosts, of all depths, in order. hosts: all names, in order."""

    def __init__(
        self,
        groups: Mapping[str, Collection[str]],
        hosts: Mapping[str, object],
        warn: Callable[[str], None],
    ) -> None:
        self._groups = groups
        self._hosts = hosts
        self._warn = warn
        self._localhost = next((name for name in hosts if name in LOCALHOST), "")

    def select(self, parts: Sequence[str]) -> list[str]:
        """The hosts that the parts of a pattern leave, each once. Raises InventoryError."""
        plain = [part for part in parts if part[0] not in "!&"]
        selected: dict[str, None] = {}
        for part in plain or ["all"]:
            selected.update(dict.fromkeys([part] if part in self._hosts else self._one(part)))
        for part in parts:
            if part[0] == "&":
                keep = set(self._one(part[1:]))
                selected = {host: None for host in selected if host in keep}
        for part in parts:
            if part[0] == "!":
                for host in self._one(part[1:]):
                    selected.pop(host, None)
        return list(selected)

    def _one(self, part: str) -> Sequence[str]:
        if not part:
            raise InventoryError("a pattern ends in '!' or '&'", hint="name what to take or leave")
        found = None if part[0] == "~" else _SUBSCRIPT.fullmatch(part)
        if found is None:
            return self._matches(part)
        hosts = self._matches(found[1])
        return _subscripted(hosts, found, part) if hosts else []

    def _matches(self, part: str) -> Sequence[str]:
        match = _matcher(part)
        with _bounded(part):
            groups = [name for name in self._groups if match(name)]
            hosts = [host for name in groups for host in self._groups[name]]
            if not groups or part[0] == "~" or _GLOB.search(part):
                hosts += [host for host in self._hosts if match(host)]
        if not hosts and part in LOCALHOST:
            # This machine is one host, by the first name that anybody gives it.
            self._localhost = self._localhost or part
            return [self._localhost]
        if not hosts and not groups and part != "all":
            hint = "" if _GLOB.search(part) else did_you_mean(part, [*self._groups, *self._hosts])
            self._warn(
                f"pattern {shown(part)} matches no host or group" + (f": {hint}" if hint else "")
            )
        return hosts


def split(pattern: str) -> list[str]:
    """The parts of a pattern. Raises InventoryError for what is none."""
    if "," in pattern:
        parts = [part.strip() for part in pattern.split(",")]
    elif _HOST_PORT.fullmatch(pattern) or _is_address(pattern):
        parts = [pattern]
    else:
        parts = _PART.findall(pattern)
        if not _brackets_hold(parts, pattern):
            raise InventoryError(
                f"bad pattern {shown(pattern)}: a '[' without a ']', or the reverse",
                hint="a regex with ':' or ',' in it cannot be written: both separate patterns",
            )
    parts = [part for part in parts if part]
    if not parts:
        raise InventoryError(f"{shown(pattern)} is no pattern", hint="`all` means every host")
    return parts


def _brackets_hold(parts: Sequence[str], pattern: str) -> bool:
    """Whether only separators were left out between the parts."""
    return "".join(parts) == re.sub(r"[\s:]+(?![^\[]*\])", "", pattern)


def _is_address(text: str) -> bool:
    if ":" in text and "." in text and not _MIXED.match(text):
        return False
    try:
        ipaddress.ip_address(re.sub(_RANGE, "1", text))
    except ValueError:
        return False
    return True


def _matcher(part: str) -> Callable[[str], object]:
    if part[0] != "~":
        if not re.search(r"[?*\[]", part):
            return part.__eq__
        return re.compile(fnmatch.translate(part)).match
    if len(part) == 1:
        raise InventoryError("the pattern '~' has no regex behind it")
    try:
        return re.compile(part[1:]).match
    except (re.error, RecursionError, OverflowError) as error:
        raise InventoryError(
            f"bad pattern {shown(part)}: {error}",
            hint="':' and ',' separate patterns, inside of a regex as well",
        ) from error


def _bounded(part: str) -> AbstractContextManager[None]:
    """Within this, matching may take REGEX_LIMIT."""
    if part[0] != "~":
        return nullcontext()
    return patience.bounded(
        REGEX_LIMIT,
        lambda: InventoryError(
            f"pattern {shown(part)} took more than {REGEX_LIMIT:g} s", hint=patience.HINT
        ),
    )


def _subscripted(hosts: Sequence[str], found: re.Match[str], part: str) -> Sequence[str]:
    if found[2] is None:
        first, last = int(found[3]), int(found[4] or -1)
        # Ansible takes an end of 0 for "only the start", and -1 for "to the end".
        if last:
            return hosts[first : len(hosts) if last == -1 else last + 1]
        index = first
    else:
        index = int(found[2])
    if not -len(hosts) <= index < len(hosts):
        raise InventoryError(
            f"pattern {shown(part)}: {found[1]} has only {counted(len(hosts), 'host')}",
            hint="subscripts count from 0; [-1] is the last",
        )
    return [hosts[index]]
