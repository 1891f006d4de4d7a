"""Fabric and paramiko, without what they import and we never use.

Their test doubles, their YAML files and the look at their own version number bring asyncio, unittest
and a parser of mail with them: a sixth of the CPU time of a run over one host. While the libraries
are imported, empty modules stand in for these.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType

#: By module: what the libraries take from it.
UNUSED: Mapping[str, Mapping[str, object]] = {
    "unittest.mock": {"Mock": object},
    "invoke.vendor.yaml": {},
    "importlib.metadata": {"version": lambda name: ""},
}


def import_ssh() -> None:
    """Import the libraries. They are the same ones where somebody else has imported them before."""
    if "paramiko" in sys.modules:
        return
    # A release that needs more of them than this is imported as it comes.
    with _stand_ins(), contextlib.suppress(ImportError, AttributeError):
        importlib.import_module("fabric")


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    made: list[str] = []
    for name, contents in UNUSED.items():
        if name not in sys.modules:
            module = ModuleType(name)
            vars(module).update(contents)
            sys.modules[name] = module
            made.append(name)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
