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

import calendar
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from reconciler.errors import NotYet, SchemaError, Unsupported
from reconciler.host import Host
from reconciler.modules._mode import check_mode
from reconciler.modules._owned import Owned
from reconciler.modules._put import check_parent, check_path, make_parents, parents, put
from reconciler.resource import Content, Diff, Path, Resource, State, plain_path

#: Text above this many bytes is not compared line by line: difflib is quadratic at worst.
PREVIEW_CAP = 256 << 10
#: Names listed when a tree below a directory differs.
SHOWN = 3
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
TIME = "%Y%m%d%H%M.%S"


@dataclass(frozen=True)
class File(Resource):
    path: Path  #: Absolute path.
    #: What it should be. `file` without content manages a file that is there; `touch` makes an
    #: empty one.
    state: Literal["file", "directory", "link", "hard", "touch", "absent"] = "file"
    content: Content | None = None  #: Set by `copy` and `template`.
    src: str | None = None  #: Where a link points, or the file that a hard link shares.
    owner: str | None = None  #: User name or number.
    group: str | None = None  #: Group name or number.
    mode: str | None = None  #: Octal digits in quotes, or symbolic: `u=rwX,g=rX,o=`.
    recurse: bool = False  #: Owner, group and mode also hold for everything below a directory.
    force: bool = False  #: Replace what is there even if it is of another kind.
    follow: bool = False  #: If the path is a link, manage what it points to.
    #: Command that checks the new content; `%s` is its path. Without `%s` it runs with the new file
    #: in place, which is put back if it fails.
    validate: str | None = None
    backup: bool = False  #: Keep the replaced content beside the file, with the time in its name.
    #: `YYYYMMDDhhmm.ss` in UTC; left out, or `preserve`: it is not managed.
    modification_time: str | None = None
    access_time: str | None = None  #: Like modification_time.

    aliases: ClassVar[Mapping[str, str]] = {"dest": "path", "name": "path"}

    def __post_init__(self) -> None:
        check_path(self.path, self.validate)
        check_mode(self.mode)
        if self.state in ("link", "hard") and not self.src:
            raise SchemaError(f"state: {self.state} needs `src`", hint="what the link leads to")
        if self.recurse and self.state != "directory":
            raise SchemaError("recurse is for state: directory")
        for text in self._times.values():
            _nanoseconds(text, 0)

    def claims(self) -> set[str]:
        claims = {f"path:{self.path}"}
        if self.state == "absent":
            return claims
        if self.content is not None or self.state == "hard":
            claims |= {f"content:{self.path}", f"entry:{self.path}#file"}
        elif self.state != "file":
            claims.add(f"entry:{self.path}#{self._kind}")
        attributes = self._owned.wish(link=self.state == "link")
        return claims | {f"attribute:{self.path}#{name}" for name in attributes}

    def needs(self) -> set[str]:
        needs = parents(self.path) | self._owned.needs()
        return needs | {f"path:{plain_path(self.src or '')}"} if self.state == "hard" else needs

    @property
    def _owned(self) -> Owned:
        return Owned(self.owner, self.group, self.mode)

    @property
    def _kind(self) -> str:
        return "file" if self.state == "touch" else self.state

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wish: State = {"type": self._kind}
        if self.state in ("link", "hard"):
            wish["src"] = self.src
        if self.content is not None:
            wish["content"] = f"{self.content.size} bytes, sha256 {self.content.sha256}"
        wish.update(self._owned.wish(link=self.state == "link"))
        wish.update(self._times)
        if self.recurse:
            wish["below"] = "as declared"
        return wish

    @property
    def _times(self) -> dict[str, str]:
        times = {"modification_time": self.modification_time, "access_time": self.access_time}
        return {name: value for name, value in times.items() if value not in (None, "preserve")}

    def actual(self, host: Host) -> State:
        path = self._target(host)
        found = host.lstat(path)
        if found is None:
            if self.state == "file" and self.content is None:
                raise NotYet(
                    f"{path} does not exist",
                    hint="state: touch makes an empty one, copy and template one with content",
                )
            return None
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "special")
        if self.state == "absent":
            return {"type": kind}
        kind = "hard" if self.state == "hard" and kind == "file" else kind
        self._refuse_other_kind(host, path, kind)
        seen: State = {"type": kind}
        if kind in ("link", "hard"):
            seen["src"] = self._source(host, path, found)
        if kind == "file" and self.content is not None:
            # A different size tells without reading: what is there may be huge.
            same_size = found.st_size == self.content.size
            digest = f", sha256 {host.digest(path)}" if same_size else ""
            seen["content"] = f"{found.st_size} bytes{digest}"
        seen.update(self._owned.seen(host, found))
        for name, value in (("modification_time", found.st_mtime), ("access_time", found.st_atime)):
            if name in self._times:
                seen[name] = time.strftime(TIME, time.gmtime(value))
        if self.recurse and kind == "directory":
            odd = [
                entry.name for entry in host.below(path) if not self._owned.holds(host, entry.found)
            ]
            seen["below"] = _listed(odd) if odd else "as declared"
        return seen

    def _source(self, host: Host, path: str, found: os.stat_result) -> str | None:
        """Where a link points, or whose inode a hard link shares."""
        if self.state != "hard":
            return host.readlink(path)
        other = host.lstat(self.src or "")
        same = other is not None and os.path.samestat(other, found)
        return self.src if same else "another file"

    def ready(self, host: Host) -> None:
        if self.state != "directory":
            check_parent(host, self._target(host))
        self._owned.fresh(host, None)

    def apply(self, host: Host, diff: Diff) -> None:
        path = self._target(host)
        if diff.after is None:
            host.remove(path, recurse=True)
            return
        if diff.before is not None and "type" in diff.changed:
            host.remove(path, recurse=self.force)
        found = host.lstat(path)
        if found is None or "content" in diff.changed or "src" in diff.changed:
            self._make(host, path, found)
        else:
            host.set_attributes(path, self._owned.onto(host, found))
        for entry in host.below(path) if self.recurse else ():
            if not self._owned.holds(host, entry.found):
                entry.set_attributes(self._owned.onto(host, entry.found))
        self._set_times(host, path)

    def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes] | None:
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

    def _make(self, host: Host, path: str, found: os.stat_result | None) -> None:
        """Put there what is missing, or other than declared."""
        if self.state == "directory":
            make_parents(host, path)
            host.mkdir(path, self._owned.fresh(host, None, directory=True))
        elif self.state == "link":
            host.symlink(path, self.src or "")
            host.set_attributes(path, self._owned._replace(mode=None).fresh(host, None))
        elif self.state == "hard":
            host.hardlink(path, self.src or "")
            shared = host.lstat(path)
            if shared is not None:
                host.set_attributes(path, self._owned.onto(host, shared))
        else:
            new = found is None
            numbers = self._owned.fresh(host, 0o644) if new else self._owned.onto(host, found)
            content = [] if self.content is None else host.content(*self.content)
            validate = [] if self.validate is None else [self.validate]
            put(host, path, content, numbers, found, validate=validate, backup=self.backup)

    def _set_times(self, host: Host, path: str) -> None:
        found = host.lstat(path)
        if found is None or not self._times:
            return
        atime = _nanoseconds(self._times.get("access_time"), found.st_atime_ns)
        mtime = _nanoseconds(self._times.get("modification_time"), found.st_mtime_ns)
        if (atime, mtime) != (found.st_atime_ns, found.st_mtime_ns):
            host.set_times(path, atime, mtime)

    def _target(self, host: Host) -> str:
        """The path, or with `follow` where its links end."""
        return host.resolve(self.path) if self.follow else self.path

    def _refuse_other_kind(self, host: Host, path: str, kind: str) -> None:
        """A plan must fail where apply would: nothing of another kind is replaced unasked."""
        wanted = self._kind
        if kind == wanted or self.force or (kind, wanted) == ("file", "hard"):
            return
        empty = kind == "directory" and wanted == "link" and not host.listdir(path)
        if empty or (kind == "link" and wanted != "directory"):
            return
        raise Unsupported(
            f"{path} is a {kind}, not a {wanted}", hint="declare force: true to replace it"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"not as declared: {', '.join(names[:SHOWN])}{more}"


def _nanoseconds(text: str | None, now: int) -> int:
    if text is None:
        return now
    try:
        return calendar.timegm(time.strptime(text, TIME)) * 10**9
    except ValueError as error:
        raise SchemaError(
            f"{text!r} is not a time", hint="write YYYYMMDDhhmm.ss, in UTC"
        ) from error
