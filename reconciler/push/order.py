"""What a worker is told: which commit is wanted of a host and how it is treated, never a secret.

The worker has the state repo, the keys and the way to the hosts from its own surroundings. That both
sides mean the same is held by a digest over all that catalogs are made from, save the facts, which
only a host can tell: the code, the tree, the inventory and the selection.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import reconciler
from reconciler.catalog import dumps
from reconciler.engine.wire import Message
from reconciler.errors import ConfigError
from reconciler.push.outcome import Outcome
from reconciler.push.task import Call, Manner

#: What the operator of a worker has set: `reconciler.*` of dask's configuration.
Settings = Mapping[str, str]
Tell = Callable[[str, Message], None]


@dataclass(frozen=True)
class Order:
    """The part of a task that all hosts of a run have in common; the other part is a host's name.

    id: of this run of this coordinator, never used again. inventories: sources in the state repo.
    events: whether anybody watches. code, desired: digests, of our own files, and of these with the
    tree, the inventories and the selection.
    """

    id: str
    commit: str
    inventories: tuple[str, ...]
    tags: tuple[str, ...]
    skip_tags: tuple[str, ...]
    allow_empty: bool
    manner: Manner
    events: bool
    code: str
    desired: str

    def check_code(self) -> None:
        """Refuse the order of another version of ourselves. Raises ConfigError."""
        if self.code != code_digest():
            raise ConfigError(
                f"the worker runs other code than the controller: it has {reconciler.__version__}",
                hint="install the same version of reconciler on both, and start the worker anew",
            )

    def check(self, tree_key: str) -> None:
        """Refuse a tree that is not the coordinator's. Raises ConfigError."""
        if self.desired != desired_digest(tree_key, self.inventories, self.tags, self.skip_tags):
            raise ConfigError(
                f"the worker's commit {self.commit[:12]} is not the controller's",
                hint="its repository is damaged: git fsck",
            )


class Opened(Protocol):
    """The work of one order on one worker; a `Work` that ends."""

    def run(self, host: str, wait: float = 0.0) -> Outcome:
        """As `Work.run`."""
        ...

    def stop(self, host: str) -> None:
        """As `Work.stop`."""
        ...

    def abandon(self, host: str) -> None:
        """As `Work.abandon`."""
        ...

    def close(self) -> None:
        """Let go of what the hosts of the order share."""
        ...


#: Makes a worker ready for an order; a function of a module, since it travels by its name.
Opening = Callable[[Order, Settings, Tell, Call], Opened]


def desired_digest(
    tree_key: str, inventories: tuple[str, ...], tags: tuple[str, ...], skip_tags: tuple[str, ...]
) -> str:
    """Equal only where the catalog of every host with the same facts is equal."""
    parts = [code_digest(), tree_key, inventories, tags, skip_tags]
    return hashlib.sha256(dumps(parts)).hexdigest()


@functools.cache
def code_digest() -> str:
    """Equal wherever the same sources of ours are installed; as they were when it was first asked."""
    package = Path(reconciler.__file__).parent
    digest = hashlib.sha256(reconciler.__version__.encode())
    for path in sorted([*package.glob("*.py"), *package.glob("*/*.py")]):
        digest.update(f"\n{path.relative_to(package)}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
