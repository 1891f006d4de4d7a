"""State repos in memory, and the questions that tests ask of a compile."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator, Mapping

from reconciler.catalog import Declaration
from reconciler.compile import Compiled, Project
from reconciler.errors import ConfigError, ConfigErrors
from reconciler.inventory import Inventory
from reconciler.tree import Entry, clean

FACTS: dict[str, object] = {
    "os_family": "Debian",
    "distribution": "Debian",
    "distribution_major_version": "12",
    "hostname": "web1",
    "memtotal_mb": 2048,
    "interfaces": ["lo", "eth0"],
}
#: Stands before the text of a link.
LINK = "-> "


class MemoryTree:
    """A tree of texts. A name ending in `*` is executable, a text starting with `-> ` is a link."""

    def __init__(self, files: Mapping[str, str | bytes], commit: str = "c0ffee") -> None:
        self.commit = commit
        self.dirty = False
        self.files = {
            path.rstrip("*"): text.encode() if isinstance(text, str) else text
            for path, text in files.items()
        }
        self.executable = {path.rstrip("*") for path in files if path.endswith("*")}
        self.reads = 0

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()

    def entry(self, path: str) -> Entry | None:
        path = clean(path)
        if path in self.files:
            data = self.files[path]
            if data.startswith(LINK.encode()):
                return Entry(path, "link")
            blob = hashlib.sha256(data).hexdigest()
            return Entry(path, "file", blob, len(data), path in self.executable)
        if any(one.startswith(f"{path}/") for one in self.files) or not path:
            return Entry(path, "directory")
        return None

    def listdir(self, path: str) -> list[Entry]:
        start = f"{clean(path)}/" if path else ""
        names = {one[len(start) :].split("/")[0] for one in self.files if one.startswith(start)}
        entries = (self.entry(start + name) for name in sorted(names))
        return [entry for entry in entries if entry is not None]

    def read(self, path: str) -> bytes:
        found = self.entry(path)
        if found is None or found.kind != "file":
            raise ConfigError(f"{path} is not a file of the state repo")
        self.reads += 1
        return self.files[found.path]

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self.read(path)


def tree(files: Mapping[str, str | bytes]) -> MemoryTree:
    """A state repo; texts may be indented."""
    return MemoryTree(
        {
            path: textwrap.dedent(text) if isinstance(text, str) else text
            for path, text in files.items()
        }
    )


def project(files: Mapping[str, str | bytes], inventory: str = "") -> Project:
    """inventory: the text of a YAML inventory; without one the host stands alone."""
    if not inventory:
        return Project(tree(files))
    whole = tree({**files, "inventory.yml": inventory})
    return Project(whole, Inventory.load(["inventory.yml"], whole, whole))


def compiled(
    files: Mapping[str, str | bytes],
    host: str = "web1",
    facts: Mapping[str, object] = FACTS,
    inventory: str = "",
) -> Compiled:
    return project(files, inventory).compile(host, facts)


def resources(
    files: Mapping[str, str | bytes], host: str = "web1", **more: str
) -> dict[str, Declaration]:
    """What a host gets, by id."""
    return {one.id: one for one in compiled(files, host, **more).catalog.resources}  # type: ignore[arg-type]


def site(text: str) -> dict[str, str | bytes]:
    """A play for every host with these resources (and whatever comes behind them)."""
    return {
        "site.yml": "- hosts: all\n  resources:\n" + textwrap.indent(textwrap.dedent(text), "    ")
    }


def errors(
    files: Mapping[str, str | bytes],
    host: str = "web1",
    facts: Mapping[str, object] = FACTS,
    inventory: str = "",
) -> list[ConfigError]:
    """Everything that is wrong."""
    try:
        compiled(files, host, facts, inventory)
    except ConfigErrors as error:
        return list(error.errors)
    return []


def only_error(
    files: Mapping[str, str | bytes],
    host: str = "web1",
    facts: Mapping[str, object] = FACTS,
    inventory: str = "",
) -> ConfigError:
    """The one thing that is wrong."""
    found = errors(files, host, facts, inventory)
    assert len(found) == 1, "\n".join(map(str, found)) or "nothing is wrong"
    return found[0]


def text_of(whole: Compiled, one: Declaration) -> str:
    """The content of a file, whose digest and size must be right."""
    reference = one.params["content"]
    assert isinstance(reference, dict)
    digest, size = reference["$content"]
    data = whole.contents[digest]
    assert len(data) == size
    assert hashlib.sha256(data).hexdigest() == digest
    return data.decode()


def content(files: Mapping[str, str | bytes], path: str, **more: object) -> str:
    """The content that a file will have."""
    whole = compiled(files, **more)  # type: ignore[arg-type]  # as `compiled` takes them
    return next(text_of(whole, one) for one in whole.catalog.resources if one.key == path)
