"""Files of the state repo that resources and templates name, and contents by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from reconciler.compile.check import no_text
from reconciler.errors import ConfigError, Mark
from reconciler.resource import Content
from reconciler.tree import Entry, Tree, clean
from reconciler.words import did_you_mean
from reconciler.yamldoc import decode

#: Largest file that a template or `lookup` reads, in bytes.
MAX_TEXT = 8 << 20
#: Text files that errors point into are shown up to this size.
SHOWN = 2 << 20


class Sources:
    """Finds files below a role's own directory first, then below the state repo's."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._found: dict[tuple[str, str, str], Entry] = {}
        self._texts: dict[str, str] = {}
        self._shown: dict[str, str | None] = {}
        self._digests: dict[str, Content] = {}

    def find(self, kind: str, name: str, role: str) -> Entry:
        """What `name` means below `files` or `templates`. Raises ConfigError."""
        key = (kind, name, role)
        if key not in self._found:
            self._found[key] = self._find(kind, name, role)
        return self._found[key]

    def _find(self, kind: str, name: str, role: str) -> Entry:
        inside = clean(name)
        places = [f"roles/{role}/{kind}", kind] if role else [kind]
        for place in places:
            entry = self.tree.entry(f"{place}/{inside}" if inside else place)
            if entry is not None:
                if entry.kind in ("file", "directory"):
                    return entry
                raise ConfigError(
                    f"{entry.path} is a {entry.kind}, which is never followed",
                    hint="put the file itself there",
                )
        names = [path for place in places for path in self._names(place)]
        where = " and ".join(f"{place}/" for place in places)
        raise ConfigError(f"there is no '{name}' in {where}", hint=did_you_mean(name, names))

    def _names(self, place: str) -> Iterator[str]:
        return (entry.path.removeprefix(f"{place}/") for entry in self.walk(place))

    def walk(self, path: str) -> Iterator[Entry]:
        """All files and directories below a directory, parents first."""
        for entry in self.tree.listdir(path):
            yield entry
            if entry.kind == "directory":
                yield from self.walk(entry.path)

    def text(self, path: str) -> str:
        """The text of a file. Raises ConfigError for one that is too large or not UTF-8."""
        if path not in self._texts:
            entry = self.tree.entry(path)
            if entry is not None and entry.size > MAX_TEXT:
                raise ConfigError(
                    f"{path} has {entry.size} bytes, more than the limit of {MAX_TEXT} for a text",
                    hint="copy takes files of any size",
                )
            content = self.tree.read(path)
            try:
                self._texts[path] = content.decode("utf-8")
            except UnicodeDecodeError:
                decode(content, path, len(content))
                raise
        return self._texts[path]

    def template(self, name: str, role: str) -> tuple[str, str]:
        """The path and text of a template. Raises ConfigError."""
        entry = self.find("templates", name, role)
        if entry.kind != "file":
            raise ConfigError(
                f"{entry.path} is a {entry.kind}, not a template", mark=Mark(entry.path)
            )
        return entry.path, self.text(entry.path)

    def shown(self, path: str) -> str | None:
        """The text of a file for an error; None if it cannot be shown."""
        if path not in self._shown:
            self._shown[path] = self._read_shown(path)
        return self._shown[path]

    def _read_shown(self, path: str) -> str | None:
        try:
            entry = self.tree.entry(clean(path))
            if entry is None or entry.kind != "file" or entry.size > SHOWN:
                return None
            return self.tree.read(entry.path).decode("utf-8", "replace")
        except ConfigError:
            return None

    def content(self, entry: Entry) -> Content:
        """The digest of a file."""
        if entry.path not in self._digests:
            digest, size = hashlib.sha256(), 0
            for piece in self.tree.chunks(entry.path):
                digest.update(piece)
                size += len(piece)
            self._digests[entry.path] = Content(digest.hexdigest(), size)
        return self._digests[entry.path]


class Contents(Mapping[str, bytes]):
    """The bytes that a catalog names by digest; files of the state repo are read when asked for."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._made: dict[str, bytes] = {}
        self._files: dict[str, str] = {}

    def add_text(self, text: str) -> Content:
        """Keep a text. Raises ConfigError for one that has no bytes."""
        odd = no_text("the content", text)
        if odd:
            raise ConfigError(odd, hint="what is no text goes into a file that is copied as it is")
        data = text.encode("utf-8")
        digest = hashlib.sha256(data).hexdigest()
        self._made[digest] = data
        return Content(digest, len(data))

    def add_file(self, content: Content, path: str) -> Content:
        """Keep the path of a file."""
        self._files[content.sha256] = path
        return content

    def __contains__(self, digest: object) -> bool:
        return digest in self._made or digest in self._files

    def __getitem__(self, digest: str) -> bytes:
        if digest in self._made:
            return self._made[digest]
        return self._tree.read(self._files[digest])

    def pieces(self, digest: str) -> Iterator[bytes]:
        """The same, a piece at a time: files of the state repo may be of any size."""
        if digest in self._made:
            return iter([self._made[digest]])
        return self._tree.chunks(self._files[digest])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._made, **self._files})

    def __len__(self) -> int:
        return len(self._made.keys() | self._files.keys())
