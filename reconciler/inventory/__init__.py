"""Which hosts there are, in which groups, with which variables; compatible with Ansible."""

from reconciler.inventory.graph import Layer
from reconciler.inventory.inventory import Inventory
from reconciler.inventory.reader import Disk, Places, Reader

__all__ = ["Disk", "Inventory", "Layer", "Places", "Reader"]
