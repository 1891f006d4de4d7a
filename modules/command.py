"""Run a command until the state that it brings about is there.

    - name: the database exists
      command: {cmd: createdb app, unless: psql -d app -c "select 1", user: postgres}
    - name: unpacked
      command:
        argv: [tar, -xf, /srv/app.tar, -C, /srv]
        creates: /srv/app/VERSION

The guards (`creates`, `removes`, `unless`, `onlyif`) are evaluated for real, in a plan too;
it runs if every guard that is declared lets it. As a handler it needs none and runs when it is
notified. There is no shell: `|`, `>`, `&&` and `$HOME` are text. Where a shell is wanted, say so:
`argv: [sh, -c, "…"]`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from reconciler.errors import CommandFailed, NotConverged, SchemaError
from reconciler.host import Host
from reconciler.modules._put import parents
from reconciler.resource import Diff, Path, Refresh, Resource, State

#: Words that only a shell understands.
SHELL_WORDS = frozenset(("|", "||", "&&", ";", "&", ">", ">>", "<", "<<", "2>", "2>&1"))


@dataclass(frozen=True)
class Command(Resource):
    #: The command with its arguments, split at blanks as a shell does, run without one.
    cmd: str | None = None
    argv: list[str] | None = None  #: The command as a list, instead of `cmd`.
    #: Runs only if this path is not there; `*`, `?` and `[]` stand for names.
    creates: Path | None = None
    removes: Path | None = None  #: Runs only if this path is there.
    unless: list[str] | None = None  #: Runs only if all of these commands fail.
    onlyif: list[str] | None = None  #: Runs only if all of these commands succeed.
    chdir: Path | None = None  #: Directory to run in.
    stdin: str | None = None  #: Text on its standard input.
    environment: dict[str, str] | None = None  #: Variables beside PATH, HOME and LANG.
    user: str | None = None  #: Run as this user, with its groups.
    success_codes: list[int] | None = None  #: Exit codes that mean success; `[0]` if left out.
    #: Seconds that it may take; then its whole process group is ended.
    timeout: float | None = None
    strip_empty_ends: bool = True  #: Accepted for Ansible's sake: output is not kept.

    aliases: ClassVar[Mapping[str, str]] = {"env": "environment", "runas": "user"}
    key_fields: ClassVar[tuple[str, ...]] = ("cmd|argv", "chdir")
    requires_one_of: ClassVar[tuple[str, ...]] = ("creates", "removes", "unless", "onlyif")
    opaque: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.cmd is None) == (self.argv is None) or not self._words():
            raise SchemaError("a command needs either `cmd` or `argv`")
        for guard in (*(self.unless or ()), *(self.onlyif or ())):
            if not _split(guard):
                raise SchemaError("a guard is empty")

    def claims(self) -> set[str]:
        return {f"command:{self._shown}"}

    def needs(self) -> set[str]:
        paths = [
            self.chdir,
            self.removes,
            *(word for word in self._words()[:1] if word.startswith("/")),
        ]
        needs = {need for path in paths if path for need in (f"path:{path}", *parents(path))}
        return needs | {f"user:{self.user}"} if self.user is not None else needs

    def desired(self) -> State:
        return {"done": True}

    def actual(self, host: Host) -> State:
        self._warn(host)
        return {"done": self._wish_left(host) is None}

    def apply(self, host: Host, diff: Diff) -> None:
        self._run(host)
        host.forget()
        left = self._wish_left(host)
        if left is not None:
            raise NotConverged(
                f"{self._program} went through, but {left}",
                hint="the guard must tell when the work is done; else the command runs each time",
            )

    def refresh(self) -> Refresh:
        return Refresh(f"command:{self._shown}", 0)

    def on_notify(self, host: Host) -> None:
        self._warn(host)
        guarded = any(getattr(self, name) is not None for name in self.requires_one_of)
        if not guarded or self._wish_left(host) is not None:
            self._run(host)

    @property
    def _shown(self) -> str:
        return self.cmd if self.cmd is not None else " ".join(self.argv or ())

    @property
    def _program(self) -> str:
        return self._words()[0]

    def _words(self) -> list[str]:
        return list(self.argv) if self.argv is not None else _split(self.cmd or "")

    def _wish_left(self, host: Host) -> str | None:
        """Why the command must run, in words; None if a guard says that it need not.

        Raises NotYet where a guard cannot be run yet.
        """
        reasons: list[str] = []
        if self.creates is not None:
            if _exists(host, self._path(self.creates)):
                return None
            reasons.append(f"{self.creates} still does not exist")
        if self.removes is not None:
            if not _exists(host, self._path(self.removes)):
                return None
            reasons.append(f"{self.removes} still exists")
        for guard in self.unless or ():
            if self._holds(host, guard):
                return None
            reasons.append(f"`{guard}` still fails")
        for guard in self.onlyif or ():
            if not self._holds(host, guard):
                return None
            reasons.append(f"`{guard}` still succeeds")
        return " and ".join(reasons) or None

    def _holds(self, host: Host, guard: str) -> bool:
        return host.probe(
            _split(guard),
            check=False,
            env=self.environment,
            cwd=self.chdir,
            user=self.user,
            timeout=self.timeout,
        ).ok

    def _run(self, host: Host) -> None:
        done = host.run(
            self._words(),
            input=None if self.stdin is None else self.stdin.encode("utf-8", "surrogateescape"),
            check=False,
            env=self.environment,
            cwd=self.chdir,
            user=self.user,
            timeout=self.timeout,
        )
        if done.code not in (self.success_codes or [0]):
            raise CommandFailed(done.argv, done.code, done.err.strip() or done.out)

    def _path(self, path: str) -> str:
        return path if path.startswith("/") else f"{(self.chdir or '').rstrip('/')}/{path}"

    def _warn(self, host: Host) -> None:
        found = SHELL_WORDS & set(self._words()) if self.argv is None else ()
        if found:
            host.warnings.append(
                f"`{self.cmd}`: no shell runs this, so {' and '.join(sorted(found))} is passed on "
                "as text; where a shell is meant, write argv: [sh, -c, ...]"
            )


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SchemaError(f"`{text}` is no command: {error}") from error


def _exists(host: Host, pattern: str) -> bool:
    """Whether any path matches; a pattern matches the names in one directory each."""
    found = ["/"]
    for part in pattern.strip("/").split("/"):
        if any(sign in part for sign in "*?["):
            names = [
                (one, name) for one in found for name in host.listdir(one) if _matches(name, part)
            ]
        else:
            names = [(one, part) for one in found]
        paths = [f"{one.rstrip('/')}/{name}" for one, name in names]
        found = [path for path in paths if host.lstat(path) is not None]
    return bool(found)


def _matches(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
