"""The home directory of a user: made like useradd makes it, with a key in it if wanted."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from reconciler.errors import CommandFailed, NotYet, ResourceError, Unsupported
from reconciler.host import Account, Host
from reconciler.modules._put import make_parents
from reconciler.safewrite import Attributes

SKELETON = "/etc/skel"
#: Debian's name for "has no home": it must not exist.
NOWHERE = "/nonexistent"


def from_name_service(name: str) -> Account:
    """The account as LDAP, SSSD and the like know it. Raises NotYet."""
    import pwd

    try:
        row = pwd.getpwnam(name)
    except KeyError as error:
        raise NotYet(f"user '{name}' does not exist") from error
    return Account(name, row.pw_uid, row.pw_gid, row.pw_dir, row.pw_shell, row.pw_gecos)


def exists(host: Host, account: Account) -> bool:
    """Whether the home directory is there, or is not meant to be."""
    return account.home in ("", "/", NOWHERE) or host.lstat(account.home) is not None


def below(account: Account, name: str) -> str:
    """A path in the home directory; an absolute one stays as it is."""
    return os.path.normpath(os.path.join(account.home, name))


def make(host: Host, account: Account, skeleton: str | None, umask: str | None) -> None:
    """Make the home directory with what the skeleton holds. It is root's until all is in it."""
    make_parents(host, account.home)
    host.mkdir(account.home, Attributes(mode=0o700))
    source = skeleton or SKELETON
    for entry in host.below(source):
        owner = Attributes(account.uid, account.gid, stat.S_IMODE(entry.found.st_mode))
        target = f"{account.home}/{entry.name}"
        if stat.S_ISDIR(entry.found.st_mode):
            # Handed over at the end, for the same reason.
            host.mkdir(target, Attributes(mode=0o700))
        elif stat.S_ISLNK(entry.found.st_mode):
            host.symlink(target, host.readlink(entry.path))
            host.set_attributes(target, owner)
        elif stat.S_ISREG(entry.found.st_mode):
            host.write(target, host.files.chunks(entry.path), owner)
    for entry in host.below(account.home):
        if stat.S_ISDIR(entry.found.st_mode):
            like = host.lstat(f"{source}/{entry.name}")
            mode = 0o755 if like is None else stat.S_IMODE(like.st_mode)
            entry.set_attributes(Attributes(account.uid, account.gid, mode))
    bits = 0o777 & ~int(umask, 8) if umask is not None else _default_mode(host)
    host.set_attributes(account.home, Attributes(account.uid, account.gid, bits))


def make_key(host: Host, account: Account, path: str, options: Sequence[str]) -> None:
    """Make an SSH key as the user itself, so that nothing of root's is written to its home."""
    if host.lstat(path) is not None:
        return
    directory = os.path.dirname(path)
    if host.lstat(directory) is None:
        host.mkdir(directory, Attributes(account.uid, account.gid, 0o700))
    argv = ["ssh-keygen", "-q", "-N", "", *options, "-f", path]
    try:
        host.run(argv, user=account.name)
    except CommandFailed as error:
        raise ResourceError(
            f"no SSH key could be made at {path}: {error.output.strip()}"
        ) from error
    except NotYet as error:
        raise NotYet("ssh-keygen is not installed", hint="it comes with openssh-client") from error


def warn_of_other_owner(host: Host, account: Account) -> None:
    """A home that belongs to another user is mostly left from an earlier holder of the name."""
    found = host.lstat(account.home) if account.home else None
    if found is not None and found.st_uid not in (account.uid, 0):
        host.warnings.append(
            f"the home of user '{account.name}', {account.home}, belongs to "
            f"{host.owner_name(found.st_uid)} (uid {found.st_uid}), not to uid {account.uid}"
        )


def _default_mode(host: Host) -> int:
    """What login.defs says a home directory gets."""
    try:
        text = host.read("/etc/login.defs").decode("utf-8", "replace")
    except NotYet:
        return 0o755
    rows = [line.split() for line in text.split("\n")]
    said = {row[0]: row[1] for row in rows if len(row) > 1}
    try:
        return (
            int(said["HOME_MODE"], 8)
            if "HOME_MODE" in said
            else 0o777 & ~int(said.get("UMASK", "022"), 8)
        )
    except ValueError as error:
        raise Unsupported("/etc/login.defs: HOME_MODE or UMASK is not octal") from error
