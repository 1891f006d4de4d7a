"""Which state repo this is, as its reconciler.yml says.

A host compares that before it uses a commit, and compile tells what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from reconciler.errors import SchemaError

FILE = "reconciler.yml"


class Identity(NamedTuple):
    """name: what hosts may ask for, "" for none. epoch: what may only grow."""

    name: str = ""
    epoch: int = 0


def read_identity(size: int, content: Iterable[bytes]) -> Identity:
    """From reconciler.yml, whose other keys concern others.

    size: in bytes; of a file that is too large nothing is asked. Raises ConfigError, mostly with the place.
    """
    from reconciler.yamldoc import Map, check_size, load

    check_size(size, FILE)
    document = load(b"".join(content), FILE)
    if document is None:
        return Identity()
    if not isinstance(document, Map):
        raise SchemaError(f"{FILE} must be a mapping", hint="name: production")
    said = {key: document[key] for key in ("name", "epoch") if document.get(key) is not None}
    name, epoch = said.get("name", ""), said.get("epoch", 0)
    if not isinstance(name, str):
        raise SchemaError(
            f"name is {name!r:.60}, expected a text",
            mark=document.place("name"),
            hint="name: production",
        )
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
        raise SchemaError(
            f"epoch is {epoch!r:.60}, expected a number from 0 on",
            mark=document.place("epoch"),
            hint="epoch: 2",
        )
    return Identity(name, int(epoch))
