"""Keep a systemd unit running or stopped, and enabled, disabled or masked.

    - name: the backup runs every night
      systemd: {name: backup.timer, state: started, enabled: true}
    - name: systemd knows the unit files as they are
      systemd: {daemon_reload: true}

The same as `service`. Without a name it is about systemd itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from reconciler.modules.service import Service
from reconciler.resource import Lowered


@dataclass(frozen=True)
class Systemd(Service, Lowered):
    name: str = "*"  #: Name of the unit; `.service` is added where it has no type. Left out: systemd itself, with daemon_reload.

    refused: ClassVar[Mapping[str, str]] = {
        "daemon_reexec": "systemd executes itself again when its package is upgraded; leave it out",
    }
