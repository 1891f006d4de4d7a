"""What dpkg knows: its status database, read in one pass, and its order of versions."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import NamedTuple

from reconciler.host import Host

STATUS = "/var/lib/dpkg/status"
#: An interrupted dpkg leaves what it had not yet merged into the status file here.
JOURNAL = "/var/lib/dpkg/updates"
#: A package that waits for triggers is there and works.
WORKING = frozenset({"installed", "triggers-pending", "triggers-awaited"})
ABSENT = frozenset({"not-installed", "config-files"})


class Entry(NamedTuple):
    """One package of one architecture, as dpkg sees it.

    want: `install`, `hold`, `deinstall`, `purge`. state: `installed`, `config-files`,
    `half-configured` and so on. reinstall: dpkg itself says that it must be installed again.
    """

    name: str
    architecture: str
    version: str
    want: str
    state: str
    reinstall: bool
    essential: bool
    provides: tuple[str, ...]

    @property
    def working(self) -> bool:
        """Whether it is installed and configured."""
        return self.state in WORKING

    @property
    def held(self) -> bool:
        """Whether somebody told dpkg to leave it at its version."""
        return self.want == "hold"


class Database:
    """The status database; a paragraph is parsed when somebody asks for it."""

    def __init__(self, status: bytes, journal: bytes = b"") -> None:
        self._texts: dict[str, list[bytes]] = {}
        for text in status.split(b"\n\n"):
            # dpkg writes the name first, in every paragraph.
            if text.startswith(b"Package: "):
                end = text.find(b"\n")
                name = text[9 : end if end > 0 else len(text)].decode("ascii", "replace")
                self._texts.setdefault(name, []).append(text)
        self.interrupted = bool(journal)
        for text in journal.split(b"\n\n"):
            self._overlay(text)

    def _overlay(self, text: bytes) -> None:
        text = text.strip(b"\n")
        if not text.startswith(b"Package: "):
            return
        new = _parse(text)
        texts = self._texts.setdefault(new.name, [])
        texts[:] = [old for old in texts if _parse(old).architecture != new.architecture]
        texts.append(text)

    def get(self, name: str, architecture: str = "") -> Entry | None:
        """The package; without an architecture the native one, or else any that is there."""
        entries = [_parse(text) for text in self._texts.get(name, ())]
        wanted = [architecture] if architecture else [self.native, "all"]
        for entry in entries:
            if entry.architecture in wanted:
                return entry
        present = [entry for entry in entries if entry.state not in ABSENT]
        return present[0] if present and not architecture else None

    @property
    def native(self) -> str:
        """The architecture of the machine: that of dpkg itself."""
        text = self._texts.get("dpkg")
        return _parse(text[0]).architecture if text else ""

    def matching(self, pattern: str) -> list[str]:
        """Names of packages that are there, at least in part, and match a shell pattern."""
        found: list[str] = []
        for name in fnmatch.filter(self._texts, pattern):
            entry = self.get(name)
            if entry is not None and entry.state not in ABSENT:
                found.append(name)
        return sorted(found)

    def providers(self, name: str) -> list[str]:
        """Installed packages that stand in for the virtual package `name`."""
        needle = name.encode()
        found: list[str] = []
        for texts in self._texts.values():
            for text in texts:
                if b"\nProvides: " not in text or needle not in text:
                    continue
                entry = _parse(text)
                if entry.working and name in entry.provides:
                    found.append(entry.name)
        return sorted(found)

    def broken(self) -> list[str]:
        """Packages that dpkg began to install or configure and did not finish."""
        done = WORKING | ABSENT
        return sorted(
            {
                entry.name
                for entry in self._unsettled()
                if entry.state not in done or entry.reinstall
            }
        )

    def _unsettled(self) -> Iterator[Entry]:
        for texts in self._texts.values():
            for text in texts:
                if b"\nStatus: install ok installed\n" not in text:
                    yield _parse(text)


def _parse(text: bytes) -> Entry:
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        if line[:1] not in (" ", "\t"):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    want, flag, state = [*fields.get("Status", "").split(), "", "", ""][:3]
    essential = "yes" in (fields.get("Essential"), fields.get("Protected"))
    provides = (
        one.split("(")[0].split(":")[0].strip() for one in fields.get("Provides", "").split(",")
    )
    return Entry(
        name=fields.get("Package", ""),
        architecture=fields.get("Architecture", ""),
        version=fields.get("Version", ""),
        want=want,
        state=state or "not-installed",
        reinstall=flag == "reinstreq",
        essential=essential,
        provides=tuple(one for one in provides if one),
    )


def database(host: Host) -> Database:
    """The status database, read once until a package changes. Raises ResourceError."""
    return host.memo("package", "dpkg", lambda: read(host))


def read(host: Host) -> Database:
    """The status database as it is now. Raises NotYet where the host has no dpkg."""
    pending = [name for name in host.listdir(JOURNAL) if name.isdigit()]
    return Database(
        host.read(STATUS), b"\n\n".join(host.read(f"{JOURNAL}/{name}") for name in pending)
    )


# -- versions ----------------------------------------------------------------------------


def compare(one: str, other: str) -> int:
    """The order of two versions, as dpkg has it: negative, zero or positive."""
    (epoch, upstream, revision), (epoch2, upstream2, revision2) = _split(one), _split(other)
    return (
        (epoch > epoch2) - (epoch < epoch2)
        or _compare(upstream, upstream2)
        or _compare(revision, revision2)
    )


def _split(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    number = int(epoch) if colon and epoch.isdigit() else 0
    upstream, dash, revision = (rest if colon else version).rpartition("-")
    return (number, upstream, revision) if dash else (number, revision, "")


def _compare(one: str, other: str) -> int:
    """Text and numbers in turn, beginning with text."""
    i = j = 0
    while i < len(one) or j < len(other):
        while (i < len(one) and not _digit(one[i])) or (j < len(other) and not _digit(other[j])):
            difference = _weight(one[i : i + 1]) - _weight(other[j : j + 1])
            if difference:
                return difference
            i, j = i + 1, j + 1
        end, end2 = _number_end(one, i), _number_end(other, j)
        number, number2 = int(one[i:end] or "0"), int(other[j:end2] or "0")
        if number != number2:
            return -1 if number < number2 else 1
        i, j = end, end2
    return 0


def _weight(character: str) -> int:
    """`~` comes before the end, the end before letters, letters before everything else."""
    if character == "~":
        return -1
    if not character or _digit(character):
        return 0
    return ord(character) if character.isalpha() else ord(character) + 256


def _digit(character: str) -> bool:
    return "0" <= character <= "9"


def _number_end(text: str, start: int) -> int:
    while start < len(text) and _digit(text[start]):
        start += 1
    return start
