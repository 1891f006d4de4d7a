"""What tests of pushes share: a project without a compiler, and ways to reach a lab's hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hosts.booted import BootedHost
from reconciler.catalog import Catalog, Declaration, Plan, Report, dumps
from reconciler.errors import Mark
from reconciler.push.host import Options, push_host
from reconciler.transport.connect import Connector
from reconciler.transport.target import Target

HERE = Mark("site.yml", 1, 1)


class Wish:
    """A `Project` that wants some files to be there, and then some scripts to have run once."""

    def __init__(self, files: Mapping[str, bytes], *scripts: str) -> None:
        self._contents = {hashlib.sha256(body).hexdigest(): body for body in files.values()}
        self._resources = [*_files(files), *map(_script, scripts)]

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        return dumps(Catalog(host, tuple(self._resources)).to_json())

    def content(self, host: str, facts: Mapping[str, Any], sha256: str) -> Iterable[bytes]:
        return [self._contents[sha256]]

    def secrets(self, host: str, facts: Mapping[str, Any]) -> Mapping[str, str]:
        return {}


def _files(files: Mapping[str, bytes]) -> Iterator[Declaration]:
    for path, body in files.items():
        content = {"$content": [hashlib.sha256(body).hexdigest(), len(body)]}
        params = {"path": path, "state": "file", "content": content, "mode": "0644"}
        yield Declaration("file", path, params, HERE)


def _script(script: str) -> Declaration:
    done = f"/srv/done-{hashlib.sha256(script.encode()).hexdigest()[:12]}"
    params = {"argv": ["sh", "-c", f"{script}\ntouch {done}"], "creates": done}
    return Declaration("command", done, params, HERE)


def wish(name: str) -> Wish:
    """One small file below /srv."""
    return Wish({f"/srv/{name}": f"this is {name}\n".encode()})


def on_host(host: BootedHost, path: str) -> Path:
    """Where we see a path of the host."""
    return host.root / path.lstrip("/")


def target(host: BootedHost, **variables: object) -> Target:
    """The target of a lab's host; the lab's ssh_config knows its address, user and key."""
    return Target.of(host.name, variables, ssh_config=str(host.access.config))


def plan(to: Target, wish: Wish, **options: Any) -> Plan:
    """One plan over a connection of its own."""
    with Connector() as connector:
        return push_host(to, wish, "plan", connector, Options(**options))


def apply(to: Target, wish: Wish, **options: Any) -> Report:
    """One run over a connection of its own."""
    with Connector() as connector:
        return push_host(to, wish, "apply", connector, Options(**options))


def login(host: BootedHost, user: str, *, shell: str = "/bin/bash", password: str = "") -> None:
    """A user on the host who may log in with the lab's key."""
    host.run(["useradd", "--create-home", "--shell", shell, user])
    if password:
        host.run(["chpasswd"], input=f"{user}:{password}\n")
    ssh = Path(f"/home/{user}/.ssh")
    host.run(["install", "-d", "-m", "0700", "-o", user, "-g", user, str(ssh)])
    keys = "/root/.ssh/authorized_keys"
    host.run(["install", "-m", "0600", "-o", user, "-g", user, keys, str(ssh / "authorized_keys")])
