"""Keep packages installed, at a version, up to date, or away, with apt's own parameters.

    - name: what every host has
      apt: {name: [curl, "nginx=1.22*", vim-tiny], install_recommends: false}
    - name: security fixes within an hour
      apt: {upgrade: safe, update_cache: true, cache_valid_time: 3600}

The same as `package`, on Debian and its relatives; without a name it is about everything that
is installed. `update_cache` alone changes nothing: lists are refreshed when something is to be
installed, or when they are older than cache_valid_time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from reconciler.modules.package import Package
from reconciler.resource import Lowered


@dataclass(frozen=True)
class Apt(Package, Lowered):
    name: str = "*"  #: `nginx`, `nginx=1.22*`, `nginx>=1.2`, `nginx/bookworm-backports`, `libc6:i386`, `php8.2-*`, or `*` for everything installed.
    use: str = "apt"  #: Always apt.

    refused: ClassVar[Mapping[str, str]] = {
        "autoclean": "cleaning up is no state; use a command in a handler",
        "clean": "cleaning up is no state; use a command in a handler",
        "force": "it hides errors; declare allow_downgrade, allow_unauthenticated or allow_change_held_packages",
        "force_apt_get": "apt-get is what is used; leave it out",
        "auto_install_module_deps": "nothing has to be installed for this; leave it out",
        "update_cache_retries": "failed downloads are tried again anyway; leave it out",
        "update_cache_retry_max_delay": "failed downloads are tried again anyway; leave it out",
    }
