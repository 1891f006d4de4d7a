"""Which hosts there are, in which groups, with which variables; compatible with Ansible."""

from reconciler.inventory.constructed import Expressions, Names
from reconciler.inventory.graph import Layer
from reconciler.inventory.inventory import Inventory
from reconciler.inventory.names import short_name
from reconciler.inventory.reader import Disk, Places, Reader, Run

__all__ = [
    "Disk",
    "Expressions",
    "Inventory",
    "Layer",
    "Names",
    "Places",
    "Reader",
    "Run",
    "short_name",
]
