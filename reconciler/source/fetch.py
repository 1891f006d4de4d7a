"""From remotes into the mirror: what a ref names now, whole and sound, or nothing at all.

A poll asks one remote what the ref names. Only if the mirror does not have that, a pack is
fetched into a quarantine beside the objects, checked there, and moved in; a fetch that fails
leaves objects and refs as they were. Remotes are tried in their order.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from reconciler.errors import ReconcilerError, SourceError, TrustError
from reconciler.safepath import reason
from reconciler.source import network
from reconciler.source.mirror import QUARANTINE, Mirror, Ref, make_repository, sync
from reconciler.source.network import Limits
from reconciler.source.refs import full_ref, is_id
from reconciler.source.remote import Remote

DEFAULT = Limits()
_FETCHED = "refs/fetched"


class Tried(NamedTuple):
    """A remote, and why it brought nothing; None for the one that did."""

    remote: str
    error: ReconcilerError | None


@dataclass(frozen=True)
class Fetched:
    """What a ref named when a remote was asked.

    object: the id that the ref names, a commit or an annotated tag; commit: the commit behind
    it. received_at: when it was here, by our clock. changed: something was fetched. rebuilt:
    what was wrong with the old mirror, "" if it stayed. lost: pointers whose commits the remote
    no longer has. tried: the remotes that were asked, in order.
    """

    commit: str
    object: str
    ref: str
    remote: str
    received_at: datetime
    changed: bool = False
    rebuilt: str = ""
    lost: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()


def fetch(
    mirror: Mirror,
    remotes: Sequence[Remote],
    ref: str,
    limits: Limits = DEFAULT,
    *,
    patience: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> Fetched:
    """What `ref` names at the first remote that answers, with all its history in the mirror.

    ref: a branch, or `refs/tags/NAME`. A mirror that is suspected is read whole first. patience:
    seconds to wait for another fetch. Raises ConfigError (keys, names), LockBusy, UnknownServer if no
    remote could be trusted, SourceError if none brought the ref.
    """
    full = full_ref(ref)
    for remote in remotes:
        remote.check_files()
    with mirror.lock(patience):
        try:
            mirror.tidy()
            damage = mirror.damage(deep=mirror.suspected and mirror.exists)
            if not damage:
                mirror.clear()
            tried: list[Tried] = []
            for remote in remotes:
                try:
                    found = _from(mirror, remote, full, limits, damage)
                except (SourceError, TrustError) as error:
                    tried.append(Tried(remote.name, error))
                    continue
                mirror.clear()
                now = datetime.fromtimestamp(clock(), UTC)
                tried.append(Tried(remote.name, None))
                return Fetched(
                    found.ref.commit,
                    found.ref.id,
                    full,
                    remote.name,
                    now,
                    found.changed,
                    found.rebuilt,
                    tuple(found.lost),
                    tuple(tried),
                )
        except OSError as error:
            raise SourceError(
                f"cannot write to {mirror.path}: {reason(error, os.path.dirname(mirror.path))}",
                hint="df -h; df -i; ls -ld its directory",
            ) from error
    raise _none_left(tried)


class _Found(NamedTuple):
    ref: Ref
    changed: bool
    rebuilt: str = ""
    lost: Sequence[str] = ()


def _from(mirror: Mirror, remote: Remote, full: str, limits: Limits, damage: str) -> _Found:
    """One remote's answer. Raises SourceError, UnknownServer, OSError."""
    offered = _poll(remote, full, limits)
    if damage:
        return _anew(mirror, remote, full, limits, offered, damage)
    name = _kept_as(remote, full)
    known = mirror.refs()
    here = next((ref for ref in known.values() if ref.id == offered), None)
    if here is not None:
        if known.get(name) != here:
            mirror.update({name: offered})
        return _Found(here, changed=False)
    try:
        return _Found(_bring(mirror, remote, full, limits, list(known.values())), changed=True)
    except SourceError:
        damage = mirror.damage(deep=True)
        if not damage:
            raise
    return _anew(mirror, remote, full, limits, offered, damage)


def _anew(
    mirror: Mirror, remote: Remote, full: str, limits: Limits, offered: str, damage: str
) -> _Found:
    """A new mirror in another directory, swapped in when it is complete."""
    fresh = Mirror(f"{mirror.path}.new")
    shutil.rmtree(fresh.path, ignore_errors=True)
    try:
        fresh.create("sha256" if len(offered) == 64 else "sha1")
        ref = _bring(fresh, remote, full, limits, [])
        existed = mirror.exists
        lost = mirror.replace_by(fresh)
    finally:
        shutil.rmtree(fresh.path, ignore_errors=True)
    return _Found(ref, True, damage if existed else "", lost)


def _poll(remote: Remote, full: str, limits: Limits) -> str:
    """The id that a ref names at a remote. Raises SourceError, UnknownServer."""
    network.reach(remote, limits)
    said = network.git("/", remote, ["ls-remote", "--", remote.url, full], limits, 1 << 20)
    for line in said.decode("utf-8", "replace").splitlines():
        id_, _, name = line.partition("\t")
        if name == full and is_id(id_):
            return id_
    raise SourceError(
        f"{remote.name} ({remote.url}): there is no {full}",
        hint=f"what there is: git ls-remote {remote.url}",
    )


def _bring(mirror: Mirror, remote: Remote, full: str, limits: Limits, have: list[Ref]) -> Ref:
    """Fetch what is missing, by way of a quarantine. Raises SourceError, OSError."""
    mirror.pack_up()
    room = limits.mirror - mirror.size()
    if room <= 0:
        raise _full(mirror, limits)
    # A name of its own: what a killed fetch left running must not write into it.
    apart = os.path.join(mirror.path, QUARANTINE + secrets.token_hex(8))
    objects = os.path.join(mirror.path, "objects")
    try:
        make_repository(apart, mirror.algorithm, objects, [ref.id for ref in have])
        what = ["--", remote.url, f"+{full}:{_FETCHED}"]
        try:
            network.git(apart, remote, [*_FETCH, *what], limits, room)
        except SourceError as error:
            if Mirror(apart).size() < room:
                raise
            raise _full(mirror, limits) from error
        ref = Mirror(apart).refs().get(_FETCHED)
        if ref is None:
            raise SourceError(
                f"{remote.name} ({remote.url}): the repository there has no whole history",
                hint="git fetch --unshallow in it",
            )
        if not is_id(ref.commit) or not Mirror(apart).has(ref.commit):
            raise SourceError(f"{remote.name} ({remote.url}): {full} does not name a commit")
        _move_in(apart, objects, limits)
    finally:
        shutil.rmtree(apart, ignore_errors=True)
    mirror.update({_kept_as(remote, full): ref.id})
    return ref


_FETCH = [
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-recurse-submodules",
    "--refmap=",
]


def _full(mirror: Mirror, limits: Limits) -> SourceError:
    return SourceError(
        f"the state repo is larger than its mirror {mirror.path} may become: {limits.mirror} bytes",
        hint="raise `limits: {mirror: ...}`, or take large files out of the history",
    )


def _move_in(apart: str, objects: str, limits: Limits) -> None:
    """Packs become visible with their index, so that comes last. Raises SourceError, OSError."""
    packs = os.path.join(apart, "objects", "pack")
    names = sorted(os.listdir(packs), key=lambda name: name.endswith(".idx"))
    for name in names:
        with open(os.path.join(packs, name), "rb") as file:
            os.fsync(file.fileno())
            if name.endswith(".pack"):
                count = int.from_bytes(file.read(12)[8:], "big")
                if count > limits.objects:
                    raise SourceError(
                        f"{count} objects are more than the limit of {limits.objects}",
                        hint="raise `limits: {objects: ...}`, or start the state repo anew",
                    )
    for name in names:
        os.rename(os.path.join(packs, name), os.path.join(objects, "pack", name))
    sync(os.path.join(objects, "pack"))


def _kept_as(remote: Remote, full: str) -> str:
    return f"refs/remotes/{remote.name}/{full.removeprefix('refs/')}"


def _none_left(tried: Sequence[Tried]) -> ReconcilerError:
    """One error for all remotes: of trust only if there is no other reason to retry."""
    errors = [one.error for one in tried if one.error is not None]
    if len(errors) == 1:
        return errors[0]
    if not errors:
        return SourceError("there is no remote to fetch from", hint="configure at least one")
    kind = TrustError if all(isinstance(error, TrustError) for error in errors) else SourceError
    if kind is TrustError:
        kind = type(errors[0])
    return kind(
        "no remote brought the state repo:\n" + "\n".join(error.message for error in errors),
        hint="\n".join(dict.fromkeys(error.hint for error in errors if error.hint)),
    )
