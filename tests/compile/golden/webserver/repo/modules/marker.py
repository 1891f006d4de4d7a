"""Leave a mark.

    - marker: {name: here, value: x}

It stands for whatever a state repo brings itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.resource import Resource


@dataclass(frozen=True)
class Marker(Resource):
    name: str  #: Its name.
    value: str  #: What it says.
