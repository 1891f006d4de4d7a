"""Keep a systemd unit running or stopped, and enabled, disabled or masked.

    - name: nginx runs, also after a boot
      systemd_service: {name: nginx, state: started, enabled: true}

The same as `service`.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.modules.systemd import Systemd


@dataclass(frozen=True)
class SystemdService(Systemd):
    pass
