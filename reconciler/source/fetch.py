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

from reconciler.errors import ConfigError, Damaged, ReconcilerError, SourceError, TrustError
from reconciler.refusals import reason
from reconciler.source import network
from reconciler.source.bare import make_repository, sync, walk
from reconciler.source.mirror import QUARANTINE, Mirror, Ref
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
    seconds to wait for another fetch. Raises LockBusy, ConfigError for a name, and SourceError if no
    remote brought the ref; TrustError or ConfigError if all of them failed for one such reason.
    """
    full = full_ref(ref)
    with mirror.lock(patience):
        try:
            mirror.tidy()
            damage = mirror.damage() or mirror.examine(limits.total)
            tried: list[Tried] = []
            for remote in remotes:
                asked = _Asked(remote, full, limits, time.monotonic() + limits.total)
                try:
                    found = _from(mirror, asked, damage)
                except (ConfigError, SourceError, TrustError) as error:
                    if isinstance(error, Damaged):
                        # What came, or what we have: the next fetch finds out.
                        mirror.suspect()
                    tried.append(Tried(remote.name, error))
                    continue
                if found.changed:
                    mirror.pack_up()
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


class _Asked(NamedTuple):
    """A remote that is asked for a ref. end: when it must be over, by the monotonic clock."""

    remote: Remote
    ref: str
    limits: Limits
    end: float

    def __str__(self) -> str:
        return f"{self.remote.name} ({self.remote.url})"

    @property
    def kept_as(self) -> str:
        """The name in the mirror."""
        return f"refs/remotes/{self.remote.name}/{self.ref.removeprefix('refs/')}"

    def git(self, directory: str, args: list[str], room: int) -> bytes:
        """What git prints. Raises SourceError, UnknownServer."""
        return network.git(directory, self.remote, args, self.limits, room, self.end)

    def poll(self) -> str:
        """The id that the ref names. Raises SourceError, UnknownServer."""
        network.reach(self.remote, self.limits)
        said = self.git("/", ["ls-remote", "--", self.remote.url, self.ref], 1 << 20)
        for line in said.decode("utf-8", "replace").splitlines():
            id_, _, name = line.partition("\t")
            if name == self.ref and is_id(id_):
                return id_
        raise SourceError(
            f"{self}: there is no {self.ref}",
            hint=f"what there is: git ls-remote {self.remote.url}",
        )


def _from(mirror: Mirror, asked: _Asked, damage: str) -> _Found:
    """One remote's answer. Raises SourceError, TrustError, ConfigError (keys), OSError."""
    asked.remote.check_files()
    asked.remote.check_trusted()
    offered = asked.poll()
    if damage:
        return _anew(mirror, asked, offered, damage)
    known = mirror.refs()
    here = next((ref for ref in known.values() if ref.id == offered), None)
    if here is not None:
        if known.get(asked.kept_as) != here:
            mirror.update({asked.kept_as: offered})
        return _Found(here, changed=False)
    return _Found(_bring(mirror, asked, list(known.values())), changed=True)


def _anew(mirror: Mirror, asked: _Asked, offered: str, damage: str) -> _Found:
    """A new mirror in another directory, swapped in when it is complete."""
    fresh = Mirror(f"{mirror.path}.new")
    shutil.rmtree(fresh.path, ignore_errors=True)
    try:
        fresh.create("sha256" if len(offered) == 64 else "sha1")
        ref = _bring(fresh, asked, [])
        existed = mirror.exists
        lost = mirror.replace_by(fresh)
    finally:
        shutil.rmtree(fresh.path, ignore_errors=True)
    return _Found(ref, True, damage if existed else "", lost)


def _bring(mirror: Mirror, asked: _Asked, have: list[Ref]) -> Ref:
    """Fetch what is missing, by way of a quarantine. Raises SourceError, OSError."""
    limits, remote = asked.limits, asked.remote
    room = limits.mirror - mirror.size()
    if room <= 0:
        raise _full(limits)
    # A name of its own: what a killed fetch left running must not write into it.
    apart = os.path.join(mirror.path, QUARANTINE + secrets.token_hex(8))
    objects = os.path.join(mirror.path, "objects")
    try:
        make_repository(apart, mirror.algorithm, objects, [ref.id for ref in have])
        what = ["--", remote.url, f"+{asked.ref}:{_FETCHED}"]
        try:
            asked.git(apart, [*_FETCH, *what], room)
        except SourceError as error:
            if Mirror(apart).size() < room:
                raise
            raise _full(limits) from error
        ref = Mirror(apart).refs().get(_FETCHED)
        if ref is None:
            raise SourceError(
                f"{asked}: the repository there has no whole history",
                hint="git fetch --unshallow in it",
            )
        if not is_id(ref.commit) or not Mirror(apart).has(ref.commit):
            raise SourceError(f"{asked}: {asked.ref} does not name a commit")
        if remote.place.protocol == "https":
            _check_files(asked, apart, room)
        if Mirror(apart).size() > room:
            raise _full(limits)
        _move_in(apart, objects, limits)
    finally:
        shutil.rmtree(apart, ignore_errors=True)
    mirror.update({asked.kept_as: ref.id})
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


def _check_files(asked: _Asked, apart: str, room: int) -> None:
    """A server of mere files is asked for them one by one, and git takes what it gets unchecked.

    Whether it was such a server git does not tell, so this looks whatever it was. Raises SourceError.
    """
    top = os.path.join(apart, "objects")
    if {os.path.relpath(path, top).split("/")[0] for path, _ in walk(top)} - {"pack", "info"}:
        raise SourceError(
            f"{asked}: the server hands out files, and objects there are in no pack",
            hint="let `git http-backend` serve it; or, in the repository there, after each push:\n"
            "git repack -a -d; git update-server-info",
        )
    packs = os.listdir(os.path.join(apart, "objects", "pack"))
    for name in (name for name in packs if name.endswith(".pack")):
        pack = os.path.join("objects", "pack", name)
        asked.git(apart, ["index-pack", "--strict", "--verify", "--threads=1", pack], room)


def _full(limits: Limits) -> SourceError:
    return SourceError(
        f"the state repo is larger than its mirror may become: {limits.mirror} bytes",
        hint="raise `limits: {mirror: ...}`, or take large files out of the history",
    )


def _move_in(apart: str, objects: str, limits: Limits) -> None:
    """Packs become visible with their index, so that comes last. Raises SourceError, OSError.

    A server of mere files chooses their names, and may choose those of packs that are here: so each
    gets one of its own. It leaves an index without its pack, too, of those that were not needed.
    """
    packs = os.path.join(apart, "objects", "pack")
    found = os.listdir(packs)
    stems = [name.removesuffix(".pack") for name in found if name.endswith(".pack")]
    own = {stem: f"pack-{secrets.token_hex(20)}" for stem in stems if f"{stem}.idx" in found}
    names = [
        stem + part for part in (".pack", ".rev", ".idx") for stem in own if stem + part in found
    ]
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
        stem, part = os.path.splitext(name)
        os.rename(os.path.join(packs, name), os.path.join(objects, "pack", own[stem] + part))
    sync(os.path.join(objects, "pack"))


def _none_left(tried: Sequence[Tried]) -> ReconcilerError:
    """One error for all remotes: of trust or keys only if there is no other reason to retry."""
    errors = [one.error for one in tried if one.error is not None]
    if len(errors) == 1:
        return errors[0]
    if not errors:
        return SourceError("there is no remote to fetch from", hint="configure at least one")
    kinds = (TrustError, ConfigError)
    kind = next((one for one in kinds if all(isinstance(error, one) for error in errors)), None)
    kind = type(errors[0]) if kind is TrustError else kind or SourceError
    return kind(
        "no remote brought the state repo:\n" + "\n".join(error.message for error in errors),
        hint="\n".join(dict.fromkeys(error.hint for error in errors if error.hint)),
    )
