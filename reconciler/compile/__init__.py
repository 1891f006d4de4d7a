"""From a state repo, an inventory and facts to catalogs. Pure: the same give the same bytes."""

from reconciler.compile.project import Compiled, Project
from reconciler.compile.provenance import Layered, Origin, Provenance
from reconciler.compile.schema import Field, TypeSchema
from reconciler.compile.selecting import select

__all__ = ["Compiled", "Field", "Layered", "Origin", "Project", "Provenance", "TypeSchema", "select"]
