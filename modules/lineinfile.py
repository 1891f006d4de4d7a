"""Keep one line of a file as declared, and the rest of the file as it is.

    - name: no passwords over ssh
      lineinfile:
        path: /etc/ssh/sshd_config
        regexp: ^#?PasswordAuthentication
        line: PasswordAuthentication no
        validate: sshd -t -f %s
      notify: reload ssh
    - name: no proxy
      lineinfile: {path: /etc/environment, regexp: ^https?_proxy=, state: absent}

The last line that `regexp` matches is replaced. Where it matches none, the line is put at the
end of the file (or where `insertafter`, `insertbefore` say), unless it is there already.
Several edits of one file are one write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from reconciler.errors import Moved, NotYet, ResourceError, SchemaError, Unsupported
from reconciler.host import Host
from reconciler.modules import _lines
from reconciler.modules._mode import check_mode
from reconciler.modules._owned import Owned
from reconciler.modules._put import check_path, make_parents, parents, put
from reconciler.resource import Diff, Path, Resource, State, Value
from reconciler.safewrite import Attributes

#: How often an edit is made anew because somebody else wrote the file meanwhile.
TRIES = 3


@dataclass(frozen=True)
class Lineinfile(Resource):
    path: Path  #: Absolute path. A link of root's is followed.
    line: str | None = None  #: The line, without its end; several lines stay together.
    #: Regular expression that finds the line to replace or remove; it should match `line`, too.
    regexp: str | None = None
    search_string: str | None = None  #: Text that finds the line, instead of `regexp`.
    state: Literal["present", "absent"] = "present"  #: `absent` removes every line that matches.
    create: bool = False  #: Make the file if it is not there.
    #: `line` may hold `\1` or `\g<name>` of the match; without a match nothing is done.
    backrefs: bool = False
    #: `EOF`, or a regular expression: a new line goes after the last line that it matches.
    insertafter: str | None = None
    #: `BOF`, or a regular expression: a new line goes before the last line that it matches.
    insertbefore: str | None = None
    firstmatch: bool = False  #: Where several lines match, the first counts and not the last.
    backup: bool = False  #: Keep the old content beside the file, with the time in its name.
    validate: str | None = None  #: Command that checks the new content; `%s` is its path.
    owner: str | None = None  #: User name or number.
    group: str | None = None  #: Group name or number.
    mode: str | None = None  #: Octal digits in quotes, or symbolic: `u=rw,g=r,o=`.

    aliases: ClassVar[Mapping[str, str]] = {
        "dest": "path",
        "destfile": "path",
        "name": "path",
        "value": "line",
        "regex": "regexp",
    }
    key_fields: ClassVar[tuple[str, ...]] = ("path", "regexp|search_string|line")
    batched: ClassVar[str] = "adjacent"

    def __post_init__(self) -> None:
        check_path(self.path, self.validate)
        check_mode(self.mode)
        if self.state == "present" and self.line is None:
            raise SchemaError("`line` is missing", hint="state: absent removes lines")
        if self._wanted == "":
            raise SchemaError("`regexp`, `search_string` or `line` must say which line")
        for one, other in (
            ("regexp", "search_string"),
            ("insertafter", "insertbefore"),
            ("backrefs", "search_string"),
        ):
            if getattr(self, one) and getattr(self, other) is not None:
                raise SchemaError(f"`{one}` and `{other}` exclude each other")
        if self.backrefs and self.regexp is None:
            raise SchemaError("`backrefs` needs `regexp`")
        self._matcher()
        self._anchor()

    def claims(self) -> set[str]:
        return {f"line:{self.path}#{self._wanted}"}

    def undone(self) -> dict[str, Value] | None:
        gone: dict[str, Value] = {"path": self.path, "line": self.line, "state": "absent"}
        return None if self.state == "absent" or self.backrefs else gone

    def needs(self) -> set[str]:
        return {f"path:{self.path}"} | parents(self.path) | self.owned.needs()

    @property
    def _wanted(self) -> str:
        return self.regexp or self.search_string or self.line or ""

    @property
    def owned(self) -> Owned:
        """Owner, group and mode as declared."""
        return Owned(self.owner, self.group, self.mode)

    def desired(self) -> State:
        if self.state == "absent":
            return None
        return {"line": self.line, **self.owned.wish()}

    def actual(self, host: Host) -> State:
        path = host.resolve(self.path)
        found = host.lstat(path)
        if found is None:
            if self.state == "present" and not self.create:
                raise NotYet(f"{path} does not exist", hint="create: true makes it")
            return None
        lines = host.memo("lines", path, lambda: _lines.split(host.read(path)))
        edited = self.edit(lines)
        if self.state == "absent":
            gone = [_lines.shown(line) for line in lines if line not in edited]
            return {"line": "\n".join(gone)} if edited != lines else None
        seen: State = {"line": self.line}
        if edited != lines:
            self._must_converge(edited)
            seen["line"] = self._replaced(lines, edited)
        seen.update(self.owned.seen(host, found))
        return seen

    def ready(self, host: Host) -> None:
        self.owned.fresh(host, None)

    def apply(self, host: Host, diff: Diff) -> None:
        for error in self.apply_many(host, [(self, diff)]):
            if error is not None:
                raise error

    @classmethod
    def apply_many(
        cls, host: Host, work: Sequence[tuple[Resource, Diff]]
    ) -> list[ResourceError | None]:
        by_path: dict[str, list[int]] = {}
        outcomes: list[ResourceError | None] = [None] * len(work)
        edits = [resource for resource, _ in work if isinstance(resource, Lineinfile)]
        for index, one in enumerate(edits):
            by_path.setdefault(one.path, []).append(index)
        for path, members in by_path.items():
            error = _attempt(host, path, [edits[index] for index in members])
            # Together they failed: alone, only those fail whose fault it is.
            alone = error is not None and len(members) > 1
            for index in members:
                outcomes[index] = _attempt(host, path, [edits[index]]) if alone else error
        return outcomes

    def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes] | None:
        path = host.resolve(self.path)
        old = host.read(path) if host.lstat(path) is not None else b""
        return old, b"".join(self.edit(_lines.split(old)))

    def edit(self, lines: list[bytes]) -> list[bytes]:
        """The lines as they should be; the same list if they are."""
        match = self._matcher()
        line = _lines.encoded(self.line or "")
        with _lines.bounded(self._wanted):
            if self.state == "absent":
                return _lines.absent(lines, line, match)
            wish = _lines.Wish(line, match, self._anchor(), self.firstmatch, self.backrefs)
            return _lines.present(lines, wish)

    def _matcher(self) -> _lines.Matcher | None:
        if self.regexp is not None:
            return _lines.searcher(self.regexp)
        if self.search_string is not None:
            text = _lines.encoded(self.search_string)
            return lambda line: text in line
        return None

    def _anchor(self) -> _lines.Anchor:
        pattern = self.insertbefore or self.insertafter or "EOF"
        if pattern in ("BOF", "EOF"):
            return _lines.Anchor(before=pattern == "BOF")
        return _lines.Anchor(_lines.searcher(pattern), before=self.insertbefore is not None)

    def _must_converge(self, edited: list[bytes]) -> None:
        """An edit that would change its own result must not be made even once."""
        if self.edit(edited) != edited:
            raise Unsupported(
                f"this edit of {self.path} would never end: a second run would change its result again",
                hint="let `regexp` match the line that it makes, and no other",
            )

    def _replaced(self, lines: list[bytes], edited: list[bytes]) -> str | None:
        """The line that the edit replaces; None if it adds one."""
        old, new = [_lines.body(one) for one in lines], [_lines.body(one) for one in edited]
        pairs = enumerate(zip(old, new))
        start = next((index for index, (was, now) in pairs if was != now), len(old))
        more = len(new) - len(old)
        added = start == len(old) or (more > 0 and old[start:] == new[start + more :])
        return None if added else _lines.shown(lines[start])

    def warn(self, host: Host) -> None:
        """Say so if a later change of `line` would leave the old one behind."""
        if self.regexp is None or self.backrefs or self.state == "absent":
            return
        match = _lines.searcher(self.regexp)
        if not any(match(line) for line in _lines.split(_lines.encoded(self.line or ""))):
            host.warnings.append(
                f"{self.path}: the regexp {self.regexp!r} does not match the line {self.line!r} "
                "that replaces what it finds; should the line change, both would stay"
            )


def _attempt(host: Host, path: str, resources: Sequence[Lineinfile]) -> ResourceError | None:
    """Make all these edits of one file in one write."""
    outcome: ResourceError | None = None
    for _ in range(TRIES):
        try:
            _write(host, path, resources)
            return None
        except ResourceError as error:
            outcome = error
            if not isinstance(error, Moved):
                break
    return outcome


def _write(host: Host, declared: str, resources: Sequence[Lineinfile]) -> None:
    path = host.resolve(declared)
    found = host.lstat(path)
    if found is None:
        resources = [one for one in resources if one.state == "present"]
        if not resources:
            return
        make_parents(host, path)
    lines = old = _lines.split(host.read(path)) if found is not None else []
    for resource in resources:
        lines = resource.edit(lines)
        resource.warn(host)
    numbers = Attributes()
    for resource in resources:
        owned = resource.owned
        own = owned.fresh(host, 0o644) if found is None else owned.onto(host, found)
        numbers = Attributes(*(new if new is not None else now for now, new in zip(numbers, own)))
    if lines == old and found is not None:
        host.set_attributes(path, numbers)
        return
    validate = list(dict.fromkeys(one.validate for one in resources if one.validate is not None))
    backup = any(one.backup for one in resources)
    put(host, path, [b"".join(lines)], numbers, found, validate=validate, backup=backup)
