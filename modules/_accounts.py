"""What users and groups have in common: names, the shadow file, the tools and their refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

from reconciler.errors import CommandFailed, NotYet, ResourceError, SchemaError, Unsupported
from reconciler.host import Account, Host
from reconciler.resource import Value

#: Loose on purpose, as the tools decide; but nothing that is an option or ends a field.
NAME = re.compile(r"[^-+~\s:,/\\][^\s:,/\\]*\Z")
#: crypt(5): $id$..., possibly locked; or no usable password at all.
HASH = re.compile(r"(!{0,2}\$[0-9a-z-]+\$[^\s:*!]{8,}|[!*]+)\Z")
#: Exit code of shadow's tools: the user is logged in, or the group is somebody's primary one.
BUSY = 8
EPOCH = date(1970, 1, 1)
#: Stands for the password in a picture.
AS_DECLARED = "as declared"


class Shadow(NamedTuple):
    """A row of /etc/shadow; days count from 1970, None is an empty field."""

    password: str
    minimum: int | None = None
    maximum: int | None = None
    warn: int | None = None
    expires: int | None = None


def check_name(kind: str, name: str) -> None:
    """Raise SchemaError for what cannot be the name of a user or group."""
    if not NAME.match(name) or name.isdigit() or not name.isprintable():
        raise SchemaError(f"{name!r} cannot be the name of a {kind}")


def shadow(host: Host, name: str) -> Shadow:
    """The row of a user; where there is no shadow file, what /etc/passwd says."""
    row = host.memo("user", "shadow", lambda: {r[0]: r for r in host.table("/etc/shadow", 9)}).get(
        name
    )
    if row is not None:
        days = [int(field) if field.isdigit() else None for field in row]
        return Shadow(row[1], days[3], days[4], days[5], days[7])
    return Shadow(next((r[1] for r in host.table("/etc/passwd", 7) if r[0] == name), "!"))


def check_hash(name: str, password: str) -> None:
    """Raise Unsupported for a password that is no hash; the message never holds it."""
    if not HASH.match(password):
        raise Unsupported(
            f"`password` of user '{name}' is not a hash",
            hint="make one with `openssl passwd -6` or `mkpasswd -m yescrypt`; `!` locks the password",
        )


def days(seconds: float | None) -> int:
    """Seconds since 1970 as days; -1 for never."""
    return -1 if seconds is None or seconds < 0 else int(seconds // 86400)


def day(number: int | None) -> str:
    """A day since 1970 as YYYY-MM-DD, or `never`."""
    return "never" if number is None or number < 0 else (EPOCH + timedelta(number)).isoformat()


def shadow_seen(row: Shadow, password: str | None, *, lock: bool) -> dict[str, Value]:
    """The picture of a row. lock: locked or not is an attribute of its own, not of the password."""
    found, wanted = row.password, str(password or "")
    if lock:
        found, wanted = found.lstrip("!"), wanted.lstrip("!")
    other = "another" if found.strip("!*") else "none"
    return {
        "password": AS_DECLARED if found == wanted else other,
        "password_lock": row.password.startswith("!"),
        "expires": day(row.expires),
        "password_expire_min": row.minimum,
        "password_expire_max": row.maximum,
        "password_expire_warn": row.warn,
    }


def groups_seen(host: Host, account: Account, wish: Sequence[str], *, append: bool) -> list[Value]:
    """The supplementary groups of a user, called as the wish calls them: by name or number.

    The primary group counts only if it is wished for. append: other groups do not count.
    """
    wanted = {host.group_name(int(one)) if one.isdigit() else one: one for one in wish}
    main = host.group_name(account.gid)
    listed = {group for group, (_, members) in host.groups().items() if account.name in members}
    counted = listed - {main} | {main} & set(wanted)
    return [*sorted(wanted.get(one, one) for one in counted if one in wanted or not append)]


def from_name_service(host: Host, kind: str, name: str) -> bool:
    """Whether a name that is not in the local files is known all the same (LDAP, SSSD)."""
    try:
        (host.uid if kind == "user" else host.gid)(name)
    except NotYet:
        return False
    return True


def refuse_name_service(kind: str, name: str) -> Unsupported:
    """The error for changing what is not ours to change."""
    file = "/etc/passwd" if kind == "user" else "/etc/group"
    return Unsupported(
        f"{kind} '{name}' comes from a name service (LDAP, SSSD), not from {file}; it is not changed here",
        hint="change it in the directory service, or declare only what holds there",
    )


def tool(host: Host, argv: Sequence[str], subject: str, busy_hint: str) -> None:
    """Run one of shadow's tools. Raises ResourceError in the words of an operator."""
    try:
        host.run(argv)
    except CommandFailed as error:
        said = error.output.strip().splitlines()
        reason = (
            said[-1].partition(": ")[2] or said[-1] if said else f"ended with code {error.code}"
        )
        hint = busy_hint if error.code == BUSY else ""
        raise ResourceError(
            f"{argv[0]} refuses to change {subject}: {reason}", hint=hint
        ) from error
    except NotYet as error:
        raise NotYet(
            f"{argv[0]} is not installed", hint="it comes with the package passwd or shadow-utils"
        ) from error
