"""From a state repo, an inventory and facts to catalogs. Pure: the same give the same bytes.

The names are imported when they are asked for: a run that finds its catalog in `cache` must pay
for neither YAML nor Jinja2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.compile.project import Compiled, Project
    from reconciler.compile.provenance import Layered, Origin, Provenance
    from reconciler.compile.schema import Field, TypeSchema
    from reconciler.compile.selecting import select

__all__ = [
    "Compiled",
    "Field",
    "Layered",
    "Origin",
    "Project",
    "Provenance",
    "TypeSchema",
    "select",
]

_PLACES = {
    "Compiled": "project",
    "Field": "schema",
    "Layered": "provenance",
    "Origin": "provenance",
    "Project": "project",
    "Provenance": "provenance",
    "TypeSchema": "schema",
    "select": "selecting",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
