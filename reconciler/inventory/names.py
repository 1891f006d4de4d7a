"""Names of hosts and groups: what is accepted, ranges, ports.

A host name ends up in argv of ssh, in file names and on terminals, so what is not a name is
refused where it is read, before anything can use it.
"""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.errors import InventoryError, Mark
from reconciler.ports import check_port

#: Longest name of a host or group, in bytes: one name of a file, and of the DNS.
MAX_NAME = 255
#: Hosts that one inventory may have; a range such as `[1:999999999]` is a mistake or an attack.
MAX_HOSTS = 100_000

LETTERS = string.ascii_letters
_HOST = re.compile(r"[\w:][\w.:@%-]*", re.UNICODE)
_GROUP = re.compile(r"\w[\w.@+-]*", re.UNICODE)
_BRACKETED_PORT = re.compile(r"\[([^\[\]]+)\]:([0-9]+)")
_PORT = re.compile(r"((?:[^:\[\]]|\[[^\[\]]*\])+):([0-9]+)")
_RANGE = re.compile(r"(-?[0-9]{1,18}|[A-Za-z])?:(-?[0-9]{1,18}|[A-Za-z])(?::([0-9]{1,9}))?")


class Expanded(NamedTuple):
    """What one host pattern of an inventory stands for. port: 0 where none is given."""

    hosts: Sequence[str]
    port: int


def expand(text: str, mark: Mark | None = None) -> Expanded:
    """`web[01:03].ex.com:2222` -> three names and a port. Raises InventoryError.

    Ranges are of numbers or letters, with an optional step, both ends included; several in one
    name multiply. Numbers keep the width of a zero-padded start.
    """
    found = _BRACKETED_PORT.fullmatch(text) or _PORT.fullmatch(text)
    name, port = (found[1], check_port(found[2], shown(text), mark)) if found else (text, 0)
    hosts = [check_host(host, mark) for host in _ranges(name, mark)]
    return Expanded(hosts, port)


def check_host(name: str, mark: Mark | None = None) -> str:
    """`name` itself. Raises InventoryError for what can be no host name."""
    _check(name, "host", _HOST, mark)
    return name


def check_group(name: str, mark: Mark | None = None) -> str:
    """`name` itself. Raises InventoryError for what can be no group name."""
    _check(name, "group", _GROUP, mark)
    return name


def short_name(host: str) -> str:
    """The name before the first dot; all of an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.partition(".")[0]
    return host


def shown(name: str) -> str:
    """A name for a message: quoted, escaped, cut."""
    return repr(name if len(name) <= 60 else name[:57] + "...")


def _check(name: str, kind: str, accepted: re.Pattern[str], mark: Mark | None) -> None:
    if not name:
        raise InventoryError(f"a {kind} without a name", mark=mark)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        raise InventoryError(
            f"the {kind} name {shown(name)} has more than {MAX_NAME} bytes", mark=mark
        )
    if name.endswith(":") and kind == "host":
        raise InventoryError(
            f"the host name {shown(name)} ends in ':'",
            mark=mark,
            hint="in INI a host stands alone on its line; a port goes behind the ':'",
        )
    if not accepted.fullmatch(name):
        raise InventoryError(
            f"{shown(name)} is not a {kind} name",
            mark=mark,
            hint="letters, digits, '_', '-' and '.' make one; it starts with a letter or digit",
        )


def _ranges(name: str, mark: Mark | None) -> list[str]:
    pieces = re.split(r"\[([^\[\]]*)\]", name)
    names = [pieces[0]]
    for position in range(1, len(pieces), 2):
        values = _range(pieces[position], name, mark)
        if len(names) * len(values) > MAX_HOSTS:
            raise InventoryError(f"{shown(name)} stands for more than {MAX_HOSTS} hosts", mark=mark)
        names = [head + value + pieces[position + 1] for head in names for value in values]
    return names


def _range(text: str, name: str, mark: Mark | None) -> Sequence[str]:
    try:
        values = _letters_or_numbers(text)
    except ValueError as error:
        raise InventoryError(
            f"bad range [{text}] in {shown(name)}: {error}",
            mark=mark,
            hint="ranges look like [1:20], [01:20], [a:f] or [0:20:5]",
        ) from error
    return values


def _letters_or_numbers(text: str) -> Sequence[str]:
    """The values of one range. Raises ValueError that says why it is none."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError("it wants start:end or start:end:step, of numbers or of letters")
    start, end, step = found[1] or "0", found[2], int(found[3] or 1)
    if step == 0:
        raise ValueError("the step is 0")
    if start.isalpha() != end.isalpha():
        raise ValueError("its ends are neither two numbers nor two letters")
    if start.isalpha():
        values: Sequence[str] = LETTERS[LETTERS.index(start) : LETTERS.index(end) + 1 : step]
    else:
        padded = start[0] == "0" and len(start) > 1
        if padded and len(start) != len(end):
            raise ValueError("a zero-padded start wants an end of the same width")
        numbers = range(int(start), int(end) + 1, step)
        if len(numbers) > MAX_HOSTS:
            raise ValueError(f"it stands for more than {MAX_HOSTS} hosts")
        values = [str(number).zfill(len(start) if padded else 0) for number in numbers]
    if not values:
        raise ValueError("it ends before it starts")
    return values
