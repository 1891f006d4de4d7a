"""A directory root with files in it, and the real engine process that converges it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.catalog import Catalog, Declaration, Plan, Report, dumps
from reconciler.engine.ledger import Ledger
from reconciler.errors import Mark
from reconciler.transport.engine import Engine

#: A handler that counts: each restart and reload of a target is a line in a file.
BELL = '''
"""Ring: a line in the log for each notification."""
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
import os
from reconciler.errors import ResourceError
from reconciler.resource import Refresh, Resource

@dataclass(frozen=True)
class Bell(Resource):
    name: str
    log: str
    state: Literal["started", "reloaded", "restarted"] = "started"
    broken: str | None = None  #: Fails while this file exists.

    def _log(self, host, text):
        host.act()
        if self.broken is not None and os.path.exists(self.broken):
            raise ResourceError(f"{self.name} does not ring")
        with open(self.log, "a") as log:
            log.write(f"{text} {self.name}\\n")

    def claims(self):
        return {f"bell:{self.name}"}

    def desired(self):
        return {"started": True}

    def actual(self, host):
        try:
            with open(self.log) as log:
                return {"started": f"start {self.name}\\n" in log.readlines()}
        except FileNotFoundError:
            return {"started": False}

    def apply(self, host, diff):
        self._log(host, "start")

    def refresh(self):
        strength = {"reloaded": 1, "restarted": 2}.get(self.state)
        return None if strength is None else Refresh(f"bell:{self.name}", strength)

    def on_notify(self, host):
        self._log(host, {"reloaded": "reload", "restarted": "restart"}[self.state])

    def absorbs(self, diff):
        return diff.after == {"started": True} and bool(diff)
'''


#: A type of a state repo's own, which says how it is undone.
NOTE = """\
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from reconciler.modules._words import NAME
from reconciler.resource import Resource

@dataclass(frozen=True)
class Note(Resource):
    path: str
    state: Literal["present", "absent"] = "present"
    def claims(self): return {f"{NAME}:{self.path}"}
    def undone(self): return {"path": self.path, "state": "absent"}
    def desired(self): return {} if self.state == "present" else None
    def actual(self, host): return {} if host.lstat(self.path) else None
    def apply(self, host, diff):
        if self.state == "present":
            host.write(self.path, [b"x"])
        else:
            host.remove(self.path)
"""
#: What it imports.
WORDS = "NAME = 'note'\n"


@dataclass
class World:
    """root: the directory root. content: what a controller would send, by digest. partial: what is
    declared is not all. chosen: ids of what is converged of it; none for all."""

    root: Path
    content: dict[str, bytes] = field(default_factory=dict)
    resources: list[Declaration] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)
    partial: bool = False
    chosen: set[str] = field(default_factory=set)
    events: list[Mapping[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        etc = self.root / "etc"
        etc.mkdir(parents=True, exist_ok=True)
        uid, gid = os.geteuid(), os.getegid()
        (etc / "passwd").write_text(f"root:x:{uid}:{gid}:root:/root:/bin/sh\n")
        (etc / "group").write_text(f"root:x:{gid}:\n")

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @property
    def log(self) -> Path:
        return self.root.parent / f"{self.root.name}.log"

    def rung(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    # -- what is declared ----------------------------------------------------------------

    def declare(self, kind: str, key: str, params: Mapping[str, object], **more: object) -> None:
        mark = Mark("site.yml", len(self.resources) + 1)
        self.resources.append(Declaration(kind, key, params, mark, **more))  # type: ignore[arg-type]

    def file(self, path: str, text: str | None = None, **params: object) -> None:
        """A file with content, or (with `state`) anything that the file module can be."""
        more = {
            name: params.pop(name)
            for name in ("requires", "notify", "no_log", "timeout")
            if name in params
        }
        if text is not None:
            digest = hashlib.sha256(text.encode()).hexdigest()
            self.content[digest] = text.encode()
            params["content"] = {"$content": [digest, len(text.encode())]}
        self.declare("file", path, {"path": path, **params}, **more)

    def gate(self, path: str) -> None:
        """A file that is large enough for `crash.kill_at`."""
        self.file(path, f"{path}\n" * 150_000)

    def bell(self, name: str, state: str = "started", **more: object) -> None:
        """A service that is started as a resource, or notified as a handler."""
        self.modules["bell"] = BELL
        handler = state != "started"
        params: dict[str, object] = {"name": name, "log": str(self.log), "state": state}
        if "broken" in more:
            params["broken"] = more.pop("broken")
        title = f"{state} {name}" if handler else name
        self.declare("bell", name, params, title=title, handler=handler, **more)

    def catalog(self) -> bytes:
        catalog = Catalog(
            "h", tuple(self.resources), commit="c" * 40, modules=self.modules, partial=self.partial
        )
        if self.chosen:
            catalog = catalog.only(one for one in self.resources if one.id in self.chosen)
        return dumps(catalog.to_json())

    # -- what is done --------------------------------------------------------------------

    def fetch(self, sha256: str) -> Iterable[bytes]:
        return [self.content[sha256]]

    def plan(self) -> Plan:
        with Engine.local(str(self.root)) as engine:
            return engine.plan(self.catalog(), content=self.fetch, secrets=dict)

    def apply(self) -> Report:
        self.events.clear()
        with Engine.local(str(self.root)) as engine:
            return engine.apply(
                self.catalog(), content=self.fetch, secrets=dict, on_event=self.events.append
            )

    def owed(self) -> dict[str, tuple[str, ...]]:
        with Ledger.open_readonly(str(self.root)) as ledger:
            return {} if ledger is None else ledger.owed()

    # -- what is there -------------------------------------------------------------------

    def tree(self, *, times: bool = False, without: Sequence[str] = ()) -> dict[str, object]:
        """Everything below the root: kind, mode, owner, content, xattrs, and if asked times."""
        found: dict[str, object] = {}
        for path in sorted([self.root, *self.root.rglob("*")]):
            name = str(path.relative_to(self.root))
            if any(name == one or name.startswith(f"{one}/") for one in without):
                continue
            look = path.lstat()
            what: list[object] = [oct(look.st_mode), look.st_uid, look.st_gid, look.st_nlink]
            if stat.S_ISREG(look.st_mode):
                what.append(hashlib.sha256(path.read_bytes()).hexdigest())
            elif stat.S_ISLNK(look.st_mode):
                what.append(os.readlink(path))
            if times:
                what += [look.st_mtime_ns, look.st_ino]
            names = os.listxattr(path, follow_symlinks=False)
            what += [(one, os.getxattr(path, one, follow_symlinks=False)) for one in names]
            found[name] = what
        return found

    def leftovers(self) -> list[str]:
        """Temporary files."""
        return [
            str(path)
            for path in self.root.rglob("*")
            if ".rec-" in path.name or path.name.endswith(".new")
        ]


#: What belongs to the tool itself and differs from run to run.
OWN = ("var/lib/reconciler", "run/reconciler")


def statuses(outcome: Plan | Report) -> dict[str, str]:
    return {result.id: result.status for result in outcome.results}


def as_json(outcome: Plan | Report) -> str:
    return json.dumps(outcome.to_json())
