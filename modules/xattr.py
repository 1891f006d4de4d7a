"""Keep an extended attribute of a file or directory as declared.

    - name: backups leave the cache out
      xattr: {path: /var/cache/app, name: user.xdg.robots.backup, value: "false"}
    - name: nobody sees where it was downloaded from
      xattr: {path: /srv/app/run, name: user.xdg.origin.url, state: absent}

Each attribute is a resource of its own, `xattr:PATH#NAME`; attributes that are not declared stay
as they are, and new content of the file takes none away. Values are written and shown as setfattr
and getfattr do it: text, or `0x…` where the bytes are no text. `system.*` and `security.*` are
refused: access lists and capabilities have tools of their own.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from reconciler.errors import NotYet, SchemaError, Unsupported
from reconciler.host import Host
from reconciler.modules._lines import encoded
from reconciler.modules._put import check_path, parents
from reconciler.resource import Diff, Path, Resource, State, Value

#: The most that Linux takes, in bytes; a file system may keep less.
LONGEST_NAME = 255
LONGEST_VALUE = 65536
NAMESPACES = ("user", "trusted")
#: Namespaces that are not ours to write, and what to do instead.
FOREIGN = {
    "system": "the kernel keeps access lists there in a form of its own: use setfacl",
    "security": "capabilities and labels give power to what a file holds, and go with its content: "
    "use setcap, or the policy that sets labels",
    "btrfs": "it is a property of btrfs: use `btrfs property set`",
}
#: How a value begins that is no text, and what follows.
ENCODED = {"0x": "hexadecimal", "0s": "base64"}


@dataclass(frozen=True)
class Xattr(Resource):
    path: Path  #: Absolute path of a file or directory. A link of root's is followed.
    #: Name of the attribute: `user.note` or `trusted.note`; `note` is `user.note`.
    name: str
    #: Its value: text, `0x` and hexadecimal digits, or `0s` and base64.
    value: str | None = None
    state: Literal["present", "absent"] = "present"  #: `absent` removes it, whatever its value.

    aliases: ClassVar[Mapping[str, str]] = {"key": "name"}
    key_fields: ClassVar[tuple[str, ...]] = ("path", "name")
    refused: ClassVar[Mapping[str, str]] = {
        "namespace": "write it before the name: `name: trusted.note`",
        "follow": "links are followed that only root can have put there, and no others",
    }

    def __post_init__(self) -> None:
        check_path(self.path, None)
        namespace, _, rest = self._name.partition(".")
        first = self.name.partition(".")[0]
        if "." in self.name and first in FOREIGN:
            raise SchemaError(
                f"{self.name}: attributes of {first}.* are not managed", hint=FOREIGN[first]
            )
        if not rest or "\0" in rest or len(encoded(self._name)) > LONGEST_NAME:
            raise SchemaError(
                f"{self.name!r} is not the name of an extended attribute",
                hint=f"write {namespace}. and a name, together at most {LONGEST_NAME} bytes",
            )
        if self.state == "present" and self.value is None:
            raise SchemaError("`value` is missing", hint="state: absent removes an attribute")
        size = len(_read(self.value or ""))
        if size > LONGEST_VALUE:
            raise SchemaError(
                f"`value` has {size} bytes; an extended attribute takes at most {LONGEST_VALUE}",
                hint="put it into a file",
            )

    def claims(self) -> set[str]:
        return {f"xattr:{self._path}#{self._name}"}

    def undone(self) -> dict[str, Value] | None:
        gone: dict[str, Value] = {"path": self.path, "name": self.name, "state": "absent"}
        return gone if self.state == "present" else None

    def needs(self) -> set[str]:
        return {f"path:{self._path}"} | parents(self._path)

    @property
    def _path(self) -> str:
        return "/" + os.path.normpath(self.path).lstrip("/")

    @property
    def _name(self) -> str:
        known = self.name.startswith(tuple(f"{one}." for one in NAMESPACES))
        return self.name if known else f"user.{self.name}"

    def desired(self) -> State:
        return None if self.state == "absent" else {"value": _shown(_read(self.value or ""))}

    def actual(self, host: Host) -> State:
        path = host.resolve(self._path)
        if host.lstat(path) is None:
            if self.state == "absent":
                return None
            raise NotYet(
                f"{path} does not exist", hint="declare it as a file, too, or create it first"
            )
        try:
            found = host.xattr(path, self._name)
        except Unsupported:
            if self.state == "absent":
                return None
            raise
        return None if found is None else {"value": _shown(found)}

    def apply(self, host: Host, diff: Diff) -> None:
        value = None if diff.after is None else _read(self.value or "")
        host.set_xattr(host.resolve(self._path), self._name, value)


def _read(text: str) -> bytes:
    """The bytes that a value stands for. Raises SchemaError."""
    start, rest = text[:2].lower(), text[2:]
    try:
        if start == "0x":
            return binascii.unhexlify(rest)
        if start == "0s":
            return base64.b64decode(rest, validate=True)
    except ValueError as error:
        raise SchemaError(
            f"what follows {start} in `value` is not {ENCODED[start]}: {error}",
            hint=f"write a text that begins with {start} as 0x and its bytes in hexadecimal",
        ) from error
    return encoded(text)


def _shown(value: bytes) -> str:
    """A value as `_read` would read it, the same for equal bytes only."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"0x{value.hex()}"
    printable = text.replace("\n", "").replace("\t", "").isprintable()
    return text if printable and text[:2].lower() not in ENCODED else f"0x{value.hex()}"
