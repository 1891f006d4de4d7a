"""Keep a file, directory or link as declared: what it is, its content, owner, group and mode.

    - name: the data directory
      file: {path: /srv/app, state: directory, owner: app, group: app, mode: "0750"}
    - name: the current release
      file: {path: /srv/app/current, state: link, src: releases/42}
    - name: no default site
      file: {path: /etc/nginx/sites-enabled/default, state: absent}

A path that is a link is managed as a link: what it points to is never touched, unless
`follow` is declared. Missing parents of a directory are made, with mode 0755.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from dataclasses import dataclass
from typing import ClassVar, Iterator, List, Literal, Mapping, Optional, Set, Tuple

from reconciler.errors import CommandFailed, NotYet, ResourceError, UnsafePath, Unsupported
from reconciler.host import Host
from reconciler.modules._mode import mode_bits, mode_holds
from reconciler.resource import Content, Diff, Resource, State
from reconciler.safepath import Attributes

#: Text above this many bytes is not compared line by line: difflib is quadratic at worst.
PREVIEW_CAP = 256 << 10
#: Names listed when a tree below a directory differs.
SHOWN = 3
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class File(Resource):
    path: str  #: Absolute path.
    state: Literal["file", "directory", "link", "hard", "touch", "absent"] = "file"  #: What it should be. `file` without content manages a file that is there; `touch` makes an empty one.
    content: Content | None = None  #: Set by `copy` and `template`.
    src: str | None = None  #: Where a link points, or the file that a hard link shares.
    owner: str | None = None  #: User name or number.
    group: str | None = None  #: Group name or number.
    mode: str | None = None  #: Octal digits in quotes, or symbolic: `u=rwX,g=rX,o=`.
    recurse: bool = False  #: Owner, group and mode also hold for everything below a directory.
    force: bool = False  #: Replace what is there even if it is of another kind.
    follow: bool = False  #: If the path is a link, manage what it points to.
    validate: str | None = None  #: Command that checks the new content; `%s` is its path. Without `%s` it runs with the new file in place, which is put back if it fails.
    backup: bool = False  #: Keep the replaced content beside the file, with the time in its name.
    modification_time: str | None = None  #: `YYYYMMDDhhmm.ss` in UTC; left out, it is not managed.
    access_time: str | None = None  #: Like modification_time.

    aliases: ClassVar[Mapping[str, str]] = {"dest": "path", "name": "path"}

    def claims(self) -> Set[str]:
        claims = {f"path:{self._path}"}
        return claims | {f"content:{self._path}"} if self.content is not None else claims

    def needs(self) -> Set[str]:
        parts = self._path.split("/")[1:-1]
        needs = {"path:/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))}
        if self.owner is not None:
            needs.add(f"user:{self.owner}")
        if self.group is not None:
            needs.add(f"group:{self.group}")
        if self.state == "hard":
            needs.add(f"path:{self.src}")
        return needs

    @property
    def _path(self) -> str:
        return self.path.rstrip("/") or "/"

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wish: State = {"type": "file" if self.state == "touch" else self.state}
        if self.state in ("link", "hard"):
            wish["src"] = self.src
        if self.content is not None:
            wish["content"] = f"{self.content.size} bytes, sha256 {self.content.sha256}"
        for name in ("owner", "group", "mode", "modification_time", "access_time"):
            value = getattr(self, name)
            if value is not None and not (name == "mode" and self.state == "link"):
                wish[name] = f"{int(value, 8):04o}" if name == "mode" and value.isdigit() else value
        if self.recurse:
            wish["below"] = "as declared"
        return wish

    def actual(self, host: Host) -> State:
        path = self._target(host)
        found = host.lstat(path)
        if found is None:
            if self.state == "file" and self.content is None:
                raise NotYet(f"{path} does not exist", hint="state: touch makes an empty one, copy and template one with content")
            return None
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "special")
        if self.state == "absent":
            return {"type": kind}
        if self.state == "hard" and kind == "file":
            kind = "hard"
        self._refuse_other_kind(host, path, kind)
        seen: State = {"type": kind}
        if kind == "link" and self.state == "link":
            seen["src"] = host.readlink(path)
        if kind == "hard":
            other = host.lstat(self.src or "")
            same = other is not None and (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino)
            seen["src"] = self.src if same else "another file"
        if kind == "file" and self.content is not None:
            # A different size tells without reading: what is there may be huge.
            same_size = found.st_size == self.content.size
            digest = f", sha256 {host.digest(path)}" if same_size else ""
            seen["content"] = f"{found.st_size} bytes{digest}"
        seen.update(self._attributes(host, found))
        if self.recurse:
            odd = [name for name, entry in _below(host, path) if not self._as_declared(host, entry)]
            seen["below"] = _listed(odd) if odd else "as declared"
        return seen

    def apply(self, host: Host, diff: Diff) -> None:
        path = self._target(host)
        before, after = diff.before, diff.after
        if after is None:
            host.remove(path, recurse=True)
            return
        if before is not None and "type" in diff.changed:
            host.remove(path, recurse=self.force)
            before = None
        wanted = self._numbers(host)
        if self.content is not None:
            if before is None or "content" in diff.changed:
                self._write(host, path, self.content, wanted, new=before is None)
            else:
                host.set_attributes(path, wanted)
        elif self.state == "link":
            if before is None or "src" in diff.changed:
                host.symlink(path, self.src or "")
            if wanted.uid is not None or wanted.gid is not None:
                host.set_attributes(path, wanted)
        elif self.state == "hard":
            if before is None or "src" in diff.changed:
                host.hardlink(path, self.src or "")
            host.set_attributes(path, wanted)
        elif before is None and self.state == "directory":
            _make_parents(host, path)
            host.mkdir(path, _with_mode(wanted, self._bits(0o755, directory=True)))
        elif before is None:
            host.write(path, [], _with_mode(wanted, self._bits(0o644, directory=False)))
        else:
            host.set_attributes(path, _with_mode(wanted, self._bits_of(host, path)))
        if self.recurse:
            for name, entry in _below(host, path):
                if not self._as_declared(host, entry):
                    is_directory = stat.S_ISDIR(entry.st_mode)
                    bits = None if self.mode is None else mode_bits(self.mode, stat.S_IMODE(entry.st_mode), is_directory)
                    host.set_attributes(f"{path}/{name}", _with_mode(wanted, bits))
        self._set_times(host, path)

    def preview(self, host: Host, diff: Diff) -> Optional[Tuple[bytes, bytes]]:
        if self.content is None or "content" not in diff.changed or self.content.size > PREVIEW_CAP:
            return None
        path = self._target(host)
        found = host.lstat(path)
        old = b""
        if found is not None and stat.S_ISREG(found.st_mode):
            if found.st_size > PREVIEW_CAP:
                return None
            old = host.read(path)
        return old, b"".join(host.content(*self.content))

    # -- content -------------------------------------------------------------------------

    def _write(self, host: Host, path: str, content: Content, wanted: Attributes, *, new: bool) -> None:
        found = host.lstat(path)
        if self.backup and found is not None:
            stamp = time.strftime("%Y-%m-%d@%H:%M:%S~", time.gmtime())
            host.write(f"{path}.{stamp}", host.files.chunks(path), _owned_as(found))
        bits = self._bits(0o644, directory=False) if new else self._bits_of(host, path)
        in_place = self.validate is not None and "%s" not in self.validate
        old = host.read(path) if in_place and found is not None else None
        host.write(
            path,
            host.content(*content),
            _with_mode(wanted, bits),
            expect=found,
            validate=None if in_place or self.validate is None else lambda name: self._check(host, name),
        )
        if in_place:
            try:
                self._check(host, path)
            except ResourceError:
                if found is None or old is None:
                    host.remove(path)
                else:
                    host.write(path, [old], _owned_as(found))
                raise

    def _check(self, host: Host, path: str) -> None:
        argv = [word.replace("%s", path) for word in shlex.split(self.validate or "")]
        try:
            host.run(argv)
        except CommandFailed as error:
            said = error.output.replace(path, self._path).strip()
            raise ResourceError(f"the new content was refused by {self.validate!r}; nothing was changed:\n{said}") from error

    # -- attributes ----------------------------------------------------------------------

    def _attributes(self, host: Host, found: os.stat_result) -> dict[str, str]:
        """What is there, in the words of the wish where it holds."""
        seen: dict[str, str] = {}
        if self.owner is not None:
            seen["owner"] = self.owner if _known(host.uid, self.owner) == found.st_uid else host.owner_name(found.st_uid)
        if self.group is not None:
            seen["group"] = self.group if _known(host.gid, self.group) == found.st_gid else host.group_name(found.st_gid)
        if self.mode is not None and not stat.S_ISLNK(found.st_mode):
            seen["mode"] = _mode_in_words(self.mode, found)
        for name, value in (("modification_time", found.st_mtime), ("access_time", found.st_atime)):
            if getattr(self, name) is not None:
                seen[name] = time.strftime("%Y%m%d%H%M.%S", time.gmtime(value))
        return seen

    def _as_declared(self, host: Host, found: os.stat_result) -> bool:
        wish = self.desired() or {}
        return all(wish.get(name) == value for name, value in self._attributes(host, found).items())

    def _numbers(self, host: Host) -> Attributes:
        uid = None if self.owner is None else host.uid(self.owner)
        gid = None if self.group is None else host.gid(self.group)
        octal = self.mode is not None and self.mode.isdigit()
        return Attributes(uid, gid, int(self.mode or "0", 8) if octal else None)

    def _bits(self, default: int, *, directory: bool) -> int:
        return default if self.mode is None else mode_bits(self.mode, default, directory)

    def _bits_of(self, host: Host, path: str) -> int | None:
        found = host.lstat(path)
        if self.mode is None or found is None:
            return None
        return mode_bits(self.mode, stat.S_IMODE(found.st_mode), stat.S_ISDIR(found.st_mode))

    def _set_times(self, host: Host, path: str) -> None:
        found = host.lstat(path)
        if found is None or (self.modification_time is None and self.access_time is None):
            return
        atime = found.st_atime_ns if self.access_time is None else _nanoseconds(self.access_time)
        mtime = found.st_mtime_ns if self.modification_time is None else _nanoseconds(self.modification_time)
        if (atime, mtime) != (found.st_atime_ns, found.st_mtime_ns):
            host.set_times(path, atime, mtime)

    # -- what is there -------------------------------------------------------------------

    def _target(self, host: Host) -> str:
        """The path, or with `follow` where its links end."""
        path = self._path
        for _ in range(40 if self.follow else 0):
            found = host.lstat(path)
            if found is None or not stat.S_ISLNK(found.st_mode):
                break
            if found.st_uid not in (0, os.geteuid()):
                raise UnsafePath(f"{path} is a link made by uid {found.st_uid}; it is not followed")
            path = os.path.normpath(os.path.join(os.path.dirname(path), host.readlink(path)))
        return path

    def _refuse_other_kind(self, host: Host, path: str, kind: str) -> None:
        """A plan must fail where apply would: nothing of another kind is replaced unasked."""
        wanted = "file" if self.state == "touch" else self.state
        if kind == wanted or self.force:
            return
        if kind == "link" and wanted != "directory":
            return
        if kind == "file" and wanted == "hard":
            return
        if kind == "directory" and wanted == "link" and not host.listdir(path):
            return
        raise Unsupported(f"{path} is a {kind}, not a {wanted}", hint="declare force: true to replace it")


def _known(look: object, name: str) -> int | None:
    """The number of a name; None while it does not exist: an earlier resource may create it."""
    try:
        return look(name)  # type: ignore[operator]
    except NotYet:
        return None


def _mode_in_words(wish: str, found: os.stat_result) -> str:
    now = stat.S_IMODE(found.st_mode)
    if not wish.isdigit() and mode_holds(wish, now, stat.S_ISDIR(found.st_mode)):
        return wish
    return f"{now:04o}"


def _with_mode(wanted: Attributes, bits: int | None) -> Attributes:
    return wanted if bits is None else wanted._replace(mode=bits)


def _owned_as(found: os.stat_result) -> Attributes:
    return Attributes(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def _below(host: Host, path: str, prefix: str = "") -> Iterator[Tuple[str, os.stat_result]]:
    """Everything below a directory on its file system; links are seen, never entered."""
    top = host.lstat(path)
    for name in host.listdir(path) if top is not None else []:
        found = host.lstat(f"{path}/{name}")
        if found is None or top is None or found.st_dev != top.st_dev:
            continue
        yield prefix + name, found
        if stat.S_ISDIR(found.st_mode):
            yield from _below(host, f"{path}/{name}", f"{prefix}{name}/")


def _listed(names: List[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"not as declared: {', '.join(names[:SHOWN])}{more}"


def _make_parents(host: Host, path: str) -> None:
    parent = os.path.dirname(path)
    if parent != "/" and host.lstat(parent) is None:
        _make_parents(host, parent)
        host.mkdir(parent)


def _nanoseconds(text: str) -> int:
    import calendar

    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M.%S")) * 10**9
