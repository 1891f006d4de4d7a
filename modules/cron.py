"""Keep an entry of a crontab as declared: a job and when it runs, or a variable.

    - name: the backup
      cron: {name: backup, minute: "30", hour: "2", job: /usr/local/bin/backup}
    - name: mail goes to the team
      cron: {name: MAILTO, env: true, job: ops@example.com, cron_file: app, user: root}

The entry is found by its name, in a comment `#Ansible: NAME` above it. `%` in a job starts a
new line for cron; write `\\%` for the character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from reconciler.errors import NotYet, SchemaError
from reconciler.host import Host
from reconciler.modules._crontab import (
    DROPINS,
    SPOOLS,
    Crontab,
    Entry,
    find,
    parse,
    variables,
    with_entry,
    with_variable,
)
from reconciler.modules._put import parents
from reconciler.resource import Diff, Path, Resource, State, Value


@dataclass(frozen=True)
class Cron(Resource):
    name: str  #: What identifies the entry; with `env`, the name of the variable.
    job: str | None = None  #: The command, or with `env` the value of the variable.
    minute: str = "*"  #: Minute: 0-59, `*`, `*/5`, lists and ranges.
    hour: str = "*"  #: Hour: 0-23.
    day: str = "*"  #: Day of the month: 1-31.
    month: str = "*"  #: Month: 1-12 or jan-dec.
    weekday: str = "*"  #: Day of the week: 0-7 or sun-sat.
    special_time: (
        Literal["reboot", "hourly", "daily", "weekly", "monthly", "yearly", "annually", "midnight"]
        | None
    ) = None  #: Instead of the five fields.
    #: Whose crontab, or in a `cron_file` who runs the job; root if left out.
    user: str | None = None
    #: File in /etc/cron.d, or an absolute path, instead of a user's crontab.
    cron_file: Path | None = None
    env: bool = False  #: Manage a variable of the crontab and no job.
    insertafter: str | None = None  #: With `env`: put a new variable after this one.
    insertbefore: str | None = None  #: With `env`: put a new variable before this one.
    disabled: bool = False  #: Keep the entry, commented out.
    #: Keep the old crontab: beside a `cron_file`, or as /var/backups/crontab.USER.
    backup: bool = False
    #: `absent` removes the entry, and the file that it leaves empty.
    state: Literal["present", "absent"] = "present"

    aliases: ClassVar[Mapping[str, str]] = {"value": "job", "dow": "weekday", "dom": "day"}
    key_fields: ClassVar[tuple[str, ...]] = ("name", "cron_file|user")

    def __post_init__(self) -> None:
        texts = {
            name: getattr(self, name) or ""
            for name in ("name", "job", "user", "minute", "hour", "day", "month", "weekday")
        }
        for name, text in texts.items():
            if "\n" in text.strip("\r\n") or (name != "job" and "\n" in text):
                raise SchemaError(
                    f"`{name}` of a cron entry must be one line: {text!r}",
                    hint="put the commands into a script",
                )
        for name in ("user", "minute", "hour", "day", "month", "weekday"):
            if re.search(r"\s", texts[name]) or (name != "user" and not texts[name]):
                raise SchemaError(f"`{name}` of a cron entry cannot be {texts[name]!r}")
        if self.state == "present" and not self.job and not (self.env and self.job is not None):
            raise SchemaError("`job` is missing", hint="state: absent removes an entry")
        if self.env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.name):
            raise SchemaError(f"{self.name!r} is not the name of a variable")
        if (
            self.cron_file is not None
            and not self.cron_file.startswith("/")
            and "/" in self.cron_file
        ):
            raise SchemaError(
                f"`cron_file` {self.cron_file!r} must be a file name or an absolute path"
            )

    def claims(self) -> set[str]:
        kind = "env:" if self.env else ""
        tables = [self._path] if self._path else [f"{spool}/{self._user}" for spool in SPOOLS]
        return {f"cron:{table}:{kind}{self.name}" for table in tables}

    def undone(self) -> dict[str, Value] | None:
        if self.state == "absent":
            return None
        place: dict[str, Value] = {"user": self.user, "cron_file": self.cron_file}
        return {"name": self.name, **place, "env": self.env, "state": "absent"}

    def needs(self) -> set[str]:
        needs = {f"user:{self._user}", "package:cron", "package:cronie"}
        if self.cron_file is None:
            return needs
        path = self._path or ""
        return needs | {f"path:{path}"} | parents(path)

    @property
    def _user(self) -> str:
        return self.user or "root"

    @property
    def _path(self) -> str | None:
        if self.cron_file is None or self.cron_file.startswith("/"):
            return self.cron_file
        return f"{DROPINS}/{self.cron_file}"

    @property
    def _entry(self) -> Entry:
        fields = (self.minute, self.hour, self.day, self.month, self.weekday)
        schedule = f"@{self.special_time}" if self.special_time else " ".join(fields)
        user = self._user if self.cron_file is not None else ""
        return Entry(schedule, (self.job or "").strip("\r\n"), user, self.disabled)

    def desired(self) -> State:
        if self.state == "absent":
            return None
        if self.env:
            return {"value": self.job}
        return self._seen(self._entry)

    def _seen(self, entry: Entry) -> dict[str, Value]:
        seen: dict[str, Value] = {
            "schedule": entry.schedule,
            "job": entry.job,
            "disabled": entry.disabled,
        }
        if self.cron_file is not None:
            seen["user"] = entry.user
        return seen

    def actual(self, host: Host) -> State:
        try:
            crontab = Crontab.of(host, self._user, self.cron_file)
        except NotYet:
            if self.state == "absent":
                return None
            raise
        lines = host.memo("cron", crontab, lambda: crontab.read(host))
        places = variables(lines, self.name) if self.env else find(lines, self.name)
        if not places:
            return None
        seen = self._found(lines, places[0])
        if len(places) > 1:
            seen["value" if self.env else "job"] = f"{len(places)} entries of this name"
        return seen

    def _found(self, lines: Sequence[str], place: int) -> dict[str, Value]:
        """The picture of the variable in a line, or of the entry below a mark."""
        if self.env:
            value = lines[place].partition("=")[2].strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            return {"value": value[1:-1] if quoted else value}
        line = lines[place + 1] if place + 1 < len(lines) else ""
        entry = parse(line, self.cron_file is not None)
        return self._seen(entry) if entry is not None else {"job": line}

    def apply(self, host: Host, diff: Diff) -> None:
        crontab = Crontab.of(host, self._user, self.cron_file)
        crontab.write(host, self._edit(crontab.read(host)), backup=self.backup)
        directory, _, name = crontab.path.rpartition("/")
        if directory == DROPINS and re.search(r"[^A-Za-z0-9_-]", name):
            host.warnings.append(
                f"{crontab.path}: Debian's cron ignores files with a dot in their name"
            )

    def preview(self, host: Host, diff: Diff) -> tuple[bytes, bytes] | None:
        lines = Crontab.of(host, self._user, self.cron_file).read(host)
        texts = ["".join(f"{line}\n" for line in one) for one in (lines, self._edit(lines))]
        return texts[0].encode("utf-8", "surrogateescape"), texts[1].encode(
            "utf-8", "surrogateescape"
        )

    def _edit(self, lines: Sequence[str]) -> list[str]:
        gone = self.state == "absent"
        if self.env:
            value = None if gone else self.job or ""
            return with_variable(lines, self.name, value, self.insertafter, self.insertbefore)
        return with_entry(lines, self.name, None if gone else self._entry)
