"""The part without privileges: fetches, verifies and compiles, as the user `reconciler`.

Started for one conversation, on stdin and stdout, which systemd may have made of a socket:
frames of `engine.wire`, one answer for each request, in their order.

    {"op": "fetch", "config", "resting"}                 -> {"fetched": {...}}
    {"op": "judge", "config", "mark", "offer"}           -> {"judged": {...}}, of what was fetched
    {"op": "describe", "config", "commit"}               -> {"described": {...}}, who made it
    {"op": "compile", "config", "commit", "facts"}       -> {"compiled": {...}}, the catalog
    {"op": "point", "config", "pointers"}                -> {"pointed": {...}}, what has moved
    {"ask": "content", "sha256": ...}                    -> content, of what was compiled last
    {"op": "secrets"}                                    -> {"secrets": {...}}

or {"error": {...}}. What only some requests need is imported by these: most conversations are a
poll that brings nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reconciler.agent.config import SECRETS, Config
from reconciler.agent.places import HANDED, credential
from reconciler.engine.wire import PIECE, Wire, error_to_json
from reconciler.errors import (
    ConfigError,
    Damaged,
    NotFastForward,
    ReconcilerError,
    SourceError,
    TrustError,
    UsageError,
    unforeseen,
)

if TYPE_CHECKING:
    from reconciler.compile import Compiled
    from reconciler.source.mirror import Mirror
    from reconciler.source.remote import Remote

#: Seconds that a fetch waits for another one.
PATIENCE = 30.0
#: Facts by which an inventory may know this machine.
NAMES = ("nodename", "fqdn", "hostname")


def main() -> int:
    """Serve one conversation; 0, whatever came of it."""
    incoming = io.BufferedReader(io.FileIO(os.dup(0)), PIECE)
    outgoing = os.fdopen(os.dup(1), "wb", buffering=PIECE)
    os.dup2(2, 1)
    wire = Wire(incoming, outgoing)
    provider = Provider(wire, sys.argv[1])
    try:
        while True:
            _serve(wire, provider)
    except (EOFError, ConnectionError):  # whoever asked is gone
        wire.abandon()
    return 0


def _serve(wire: Wire, provider: Provider) -> None:
    """One request. Raises EOFError or ConnectionError when the other side is gone."""
    try:
        provider.answer(wire.receive())
    except (EOFError, ConnectionError):
        raise
    except ReconcilerError as error:
        wire.send({"error": error_to_json(error)})
    except Exception as error:  # noqa: BLE001  # said as what it is, and the next request may do
        said = f"fetching or compiling failed: {unforeseen(error)}"
        bug = ReconcilerError(said, hint="this is a bug in reconciler")
        wire.send({"error": error_to_json(bug)})


class Provider:
    """Answers the requests of one conversation. directory: where the mirrors are."""

    def __init__(self, wire: Wire, directory: str) -> None:
        self._wire = wire
        self._directory = directory
        self._compiled: Compiled | None = None
        self._compiled_from: Mirror | None = None

    def answer(self, request: Mapping[str, Any]) -> None:
        """Answer one. Raises ReconcilerError."""
        operation = request.get("op")
        if operation == "fetch":
            self._fetch(Config.from_json(request["config"]), request.get("resting", ()))
        elif operation == "judge":
            self._judge(Config.from_json(request["config"]), request["mark"], request["offer"])
        elif operation == "describe":
            self._describe(Config.from_json(request["config"]), request["commit"])
        elif operation == "compile":
            self._compile(Config.from_json(request["config"]), request["commit"], request["facts"])
        elif operation == "point":
            self._point(Config.from_json(request["config"]), request["pointers"])
        elif request.get("ask") == "content":
            self._wire.send_content(self._content(str(request["sha256"])))
        elif operation == "secrets":
            compiled = self._compiled
            self._wire.send({"secrets": dict(compiled.secrets) if compiled else {}})
        else:
            raise ConfigError(f"unknown request {operation!r}")

    def _mirror(self, config: Config) -> Mirror:
        from reconciler.source.mirror import Mirror, mirror_path

        return Mirror(mirror_path(self._directory, config.remotes[0]["url"], config.branch))

    def _fetch(self, config: Config, resting: Collection[str]) -> None:
        """What a remote offers, in the mirror, which is the only one then; nothing is judged."""
        from reconciler.source.fetch import fetch
        from reconciler.source.mirror import remove_others
        from reconciler.source.remote import in_order

        mirror, limits = self._mirror(config), config.fetch_limits()
        remotes = in_order((_remote(one) for one in config.remotes), resting)
        got = fetch(mirror, remotes, config.branch, limits, patience=PATIENCE)
        remove_others(mirror)
        self._wire.send({
            "fetched": {
                "commit": got.commit,
                "object": got.object,
                "ref": got.ref,
                "remote": got.remote,
                "received_at": got.received_at.timestamp(),
                "rebuilt": got.rebuilt,
                "tried": {one.remote: one.error.message for one in got.tried if one.error},
            }
        })  # fmt: skip

    def _judge(self, config: Config, mark: Mapping[str, Any], offer: Mapping[str, Any]) -> None:
        """Whether what was fetched may be used."""
        from reconciler.source.fetch import Fetched
        from reconciler.source.mark import Mark
        from reconciler.source.trust import judge, review

        mirror, policy, before = self._mirror(config), config.policy(), Mark.from_json(dict(mark))
        received = datetime.fromtimestamp(float(offer["received_at"]), UTC)
        commit, tag, ref = str(offer["commit"]), str(offer["object"]), str(offer["ref"])
        got = Fetched(commit, tag, ref, str(offer["remote"]), received)
        answer: dict[str, Any] = {}
        with _suspecting(mirror):
            try:
                verdict = judge(mirror, got, before, policy)
                answer["mark"] = verdict.mark.to_json()
                mirror.point("trusted", got.commit)
                alarm = None if verdict.advanced else review(mirror, before, policy)
                if alarm is not None:
                    answer["alarm"] = error_to_json(alarm)
            except TrustError as error:
                answer["refused"] = error_to_json(error)
                answer["behind"] = isinstance(error, NotFastForward) and error.behind
        self._wire.send({"judged": answer})

    def _describe(self, config: Config, commit: str) -> None:
        """Who made a commit, and what it says."""
        said = self._mirror(config).git.run(
            "log", "-1", "--no-show-signature", "--format=%T%x00%an%x00%aI%x00%s", commit, "--"
        )
        tree, author, date, subject = said.decode("utf-8", "replace").strip("\n").split("\0", 3)
        found = {"tree": tree, "author": author[:200], "date": date, "subject": subject[:200]}
        self._wire.send({"described": found})

    def _compile(self, config: Config, commit: str, facts: dict[str, Any]) -> None:
        from reconciler.catalog import dumps

        mirror = self._mirror(config)
        with _suspecting(mirror):
            if not mirror.exists or not mirror.has(commit):
                raise SourceError(
                    f"the commit {commit[:12]} cannot be read from the mirror {mirror.path}",
                    hint="the next fetch looks for damage and makes it anew",
                )
            host, self._compiled = _compile(mirror.path, config, commit, facts)
            self._compiled_from = mirror
        self._wire.send({"compiled": {"host": host}})
        self._wire.send_json(dumps(self._compiled.catalog.to_json()))

    def _point(self, config: Config, pointers: Mapping[str, str]) -> None:
        from reconciler.source.refs import OWN

        mirror = self._mirror(config)
        here = {name: one.commit for name, one in mirror.refs().items()}
        moved = {
            name: commit
            for name, commit in pointers.items()
            if commit != here.get(f"{OWN}{name}", "") and (not commit or mirror.has(commit))
        }
        for name, commit in moved.items():
            mirror.point(name, commit)
        self._wire.send({"pointed": moved})

    def _content(self, sha256: str) -> Iterator[bytes]:
        contents = self._compiled.contents if self._compiled else None
        if contents is None or sha256 not in contents or self._compiled_from is None:
            raise ConfigError(f"no content has the digest {sha256[:12]}")
        with _suspecting(self._compiled_from):
            yield from contents.pieces(sha256)


@contextlib.contextmanager
def _suspecting(mirror: Mirror) -> Iterator[None]:
    """What cannot be read may be damaged: the next fetch shall find out, or knows it already."""
    try:
        yield
    except SourceError as error:
        mirror.suspect(error.message if isinstance(error, Damaged) else "")
        raise


def _compile(
    mirror: str, config: Config, commit: str, facts: Mapping[str, Any]
) -> tuple[str, Compiled]:
    """The name of this host in the inventory, and its catalog. Raises ConfigError, SourceError."""
    from reconciler.compile import Project
    from reconciler.compile.expressions import InventoryExpressions
    from reconciler.inventory import Inventory, Places
    from reconciler.source import GitTree

    tree = GitTree(mirror, commit)  # left open: large contents are read from it later
    names = [config.host] if config.host else list(dict.fromkeys(str(facts[k]) for k in NAMES))
    if not config.inventory:
        host, inventory = names[0], Inventory.localhost(names[0], tree)
        return host, Project(tree, inventory, every_module=True).compile(host, facts)
    # Groups that are constructed from facts: of other hosts than this one nothing is known.
    expressions = InventoryExpressions(lambda host: facts if host in names else None)
    inventory = Inventory.load([config.inventory], Places(tree), tree, expressions)
    known = set(inventory.hosts())
    host = next((name for name in names if name in known), "")
    if not host:
        raise UsageError(
            f"the inventory {config.inventory} has no host {' or '.join(names)}",
            hint="set `host:` in agent.yml to the name of this machine in the inventory",
        )
    return host, Project(tree, inventory, every_module=True).compile(host, facts)


def _remote(settings: Mapping[str, str]) -> Remote:
    """A remote; its keys are where root put them, if it did."""
    from reconciler.source.remote import Remote

    found = {name: _handed(settings[name]) for name in SECRETS if settings.get(name)}
    return Remote(**{**settings, **{name: place for name, place in found.items() if place}})


def _handed(path: str) -> str:
    """Where a copy is that only we can read, and git and ssh with us; "" if nobody handed it over.

    Systemd lets us read its own by an access list, which ssh takes for a file open to others. Of
    one that others can read there is no use in a copy: it is refused under its own name.
    """
    from reconciler.agent import keys

    if _is_open(path):
        return ""

    name, directory = credential(path), os.environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        file = os.path.join(directory, name)
        return keys.place(keys.copy(file)) if os.path.exists(file) else ""
    given = dict(word.split("=") for word in os.environ.get(HANDED, "").split())
    return keys.place(int(given[name])) if name in given else ""


def _is_open(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o077)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
