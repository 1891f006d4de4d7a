"""The state repo that the agent of this host follows: its mirror, and what of it may be used.

A mirror holds refused commits too. A plan already runs what a commit brings: its own modules, and
the guards of its commands, as root. So `plan` and `apply` take what this host trusts, compiled by
the part without privileges, as the agent has it. What only compiles runs nothing of a commit and
may ask about any: it does so as the owner of the mirror, not as root.
"""

from __future__ import annotations

import argparse
import os
import socket
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reconciler.agent.places import Places, read_json
from reconciler.cli.places import Known
from reconciler.errors import TrustError, UsageError

if TYPE_CHECKING:
    from reconciler.agent.config import Config
    from reconciler.source.mirror import Mirror

#: What makes a directory one that a person means when they name none.
OWN = ("site.yml", "HEAD", ".git")


def is_at_hand(repo: str) -> bool:
    """Whether a person means this state repo: it was named, or they are in one."""
    return repo != "." or any(map(os.path.lexists, OWN))


def in_mirrors(repo: str) -> bool:
    """Whether a directory is, or is in, a mirror of this host's agent.

    Neither a link to a mirror nor a link in its place makes it something else.
    """
    mirrors = os.path.realpath(Places().mirrors)
    above, name = os.path.split(os.path.abspath(repo))
    places = (os.path.join(os.path.realpath(above), name), os.path.realpath(repo))
    return any(f"{place}/".startswith(f"{mirrors}/") for place in places)


def give_up_rights(repo: str) -> None:
    """Be the owner of a mirror from here on, if we are root. Raises TrustError."""
    from reconciler.source.git import Git

    owner = Git(repo).owner()
    if owner is not None:
        os.setgroups([])
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)


@dataclass(frozen=True)
class Followed:
    """The settings of the agent, with what was asked in their place, and the mirror."""

    places: Places
    config: Config
    mirror: Mirror

    @classmethod
    def asked(cls, args: argparse.Namespace, *, unnamed: bool = True) -> Followed | None:
        """What -C names; None if that is no mirror of the agent's.

        unnamed: where there is no state repo at hand and an agent is, its mirror is meant.
        Raises UsageError, ConfigError.
        """
        places = Places()
        named = in_mirrors(args.repo)
        if not named and (
            is_at_hand(args.repo) or not unnamed or not os.path.exists(places.config)
        ):
            return None
        if os.geteuid() != 0:
            raise UsageError(
                "the mirror of the agent is closed to others than root",
                hint="sudo reconciler ...; or name another state repo with -C",
            )
        from reconciler.agent.config import load
        from reconciler.source.mirror import Mirror, mirror_path

        config = _instead(load(places.config), args)
        mirror = Mirror(mirror_path(places.mirrors, config.remotes[0]["url"], config.branch))
        if named and os.path.realpath(args.repo) != os.path.realpath(mirror.path):
            raise UsageError(
                f"{args.repo} is not the mirror of what the agent follows now",
                hint=f"that is {mirror.path}; without -C it is taken by itself",
            )
        if not mirror.exists:
            raise UsageError(
                "the agent has fetched nothing yet", hint="reconciler agent status tells why"
            )
        return cls(places, config, mirror)

    @property
    def host(self) -> str:
        """The name of this machine in the inventory."""
        applied = read_json(self.places.catalog) or {}
        return self.config.host or str(applied.get("host") or socket.gethostname())

    def facts(self) -> Known | None:
        """Those that the agent has compiled with last; None before that."""
        found = read_json(self.places.facts)
        return None if found is None else Known(found, "last contact")

    def commit(self, ref: str) -> str:
        """The full id of a pointer of the agent, a branch of a remote, or a commit.

        Raises UsageError, StateLost.
        """
        from reconciler.source.git import check_ref
        from reconciler.source.objects import Objects
        from reconciler.source.refs import POINTERS

        if ref in POINTERS:
            return self._pointer(ref)
        check_ref(ref)
        with closing(Objects(self.mirror.git)) as objects:
            for name in (ref, *self._branches(ref)):
                found = objects.find(f"{name}^{{commit}}")
                if found is not None:
                    return found.id
        raise UsageError(
            f"the mirror of the agent has no commit {ref!r}",
            hint=f"a commit, a branch such as {self._branches('main')[-1].split('/')[2]}/main, "
            f"or one of {', '.join(POINTERS)}",
        )

    def usable(self, ref: str | None, *, untrusted: bool) -> str:
        """The id of a commit that may run here: the last trusted one, or one below it.

        What is trusted is in a file of root's; pointers in the mirror are whoever's it is.
        untrusted: take any other as well. Raises TrustError, UsageError.
        """
        from reconciler.source.mark import Marks

        commit = self.commit(ref or "trusted")
        if untrusted:
            return commit
        trusted = Marks(self.places.trust).load().commit
        if trusted and self._is_ancestor(commit, trusted):
            return commit
        last = f"neither {trusted[:12]}, the last trusted commit, nor older"
        raise TrustError(
            f"this host does not trust commit {commit[:12]}: it is {last if trusted else 'not verified'}",
            hint="its modules and the guards of its commands would run as root, in a plan too\n"
            f"what it changes, without running it: reconciler diff applied {commit[:12]}\n"
            "if you know whose it is, and mean it: --allow-untrusted",
        )

    def options(self, args: argparse.Namespace, **more: Any) -> argparse.Namespace:
        """The options of a verb that only compiles, with what the agent knows of this host."""
        inventories = [self.config.inventory] if self.config.inventory else []
        limit = args.limit or (self.host if inventories else None)
        known = {"repo": self.mirror.path, "inventories": inventories, "limit": limit}
        return argparse.Namespace(**{**vars(args), **known, "host": self.host, **more})

    def _is_ancestor(self, old: str, new: str) -> bool:
        from reconciler.source.ancestry import Ancestry
        from reconciler.source.objects import Objects

        git = self.mirror.git
        with closing(Objects(git)) as objects:
            return Ancestry(git, objects).is_ancestor(old, new)

    def _pointer(self, name: str) -> str:
        from reconciler.agent.state import State
        from reconciler.source.mark import Marks

        trusted = name == "trusted"
        found = Marks(self.places.trust).load() if trusted else State.load(self.places)
        commit = str(getattr(found, "commit" if trusted else name))
        if not commit:
            raise UsageError(
                f"the agent has no {name} commit now", hint="reconciler agent status shows them"
            )
        return commit

    def _branches(self, ref: str) -> list[str]:
        """What `origin/main` and `main` may stand for in a mirror."""
        names = [one.get("name", "origin") for one in self.config.remotes]
        full = [
            f"refs/remotes/{name}/heads/{ref.removeprefix(f'{name}/')}"
            for name in names
            if ref.startswith(f"{name}/")
        ]
        return [*full, *(f"refs/remotes/{name}/heads/{ref}" for name in names)]


def _instead(config: Config, args: argparse.Namespace) -> Config:
    """The settings, with the inventory and the name that the options give. Raises UsageError."""
    if len(args.inventories) > 1:
        raise UsageError(
            "the state repo of the agent takes one inventory", hint="give one -i, or none"
        )
    return replace(
        config,
        inventory=args.inventories[0] if args.inventories else config.inventory,
        host=args.host or config.host,
    )
