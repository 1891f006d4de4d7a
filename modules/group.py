"""Keep a group as declared.

    - name: the group of those who deploy
      group: {name: deploy, gid: 2000}
    - name: nobody plays here
      group: {name: games, state: absent}

A group that is the primary one of a user is not removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reconciler.errors import ResourceError
from reconciler.host import Host
from reconciler.modules._accounts import check_name, from_name_service, refuse_name_service, tool
from reconciler.resource import Diff, Resource, State, Value


@dataclass(frozen=True)
class Group(Resource):
    name: str  #: Name of the group.
    gid: int | None = None  #: Its number; left out, the system chooses one and keeps it.
    state: Literal["present", "absent"] = "present"  #: `absent` removes it.
    system: bool = False  #: A new group gets a number from the range of system groups.
    local: bool = False  #: Only /etc/group counts, even if a name service knows the name.
    non_unique: bool = False  #: Another group may have the same `gid`.
    force: bool = False  #: Remove it even if it is the primary group of a user.

    def __post_init__(self) -> None:
        check_name("group", self.name)

    def claims(self) -> set[str]:
        return {f"group:{self.name}"}

    def undone(self) -> dict[str, Value] | None:
        return {"name": self.name, "state": "absent"} if self.state == "present" else None

    def desired(self) -> State:
        if self.state == "absent":
            return None
        return {} if self.gid is None else {"gid": self.gid}

    def actual(self, host: Host) -> State:
        found = host.groups().get(self.name)
        if found is None:
            if (
                self.local
                or self.state == "absent"
                or not from_name_service(host, "group", self.name)
            ):
                return None
            return {"gid": host.gid(self.name)}
        if self.state == "absent":
            self._refuse_primary(host, found[0])
        return {"gid": found[0]}

    def apply(self, host: Host, diff: Diff) -> None:
        numbered = [] if self.gid is None else ["-g", str(self.gid)]
        shared = ["-o"] if self.non_unique and self.gid is not None else []
        if diff.after is None:
            self._tool(host, ["groupdel", *(["-f"] if self.force else []), self.name])
        elif diff.before is None:
            system = ["-r"] if self.system else []
            self._tool(host, ["groupadd", *system, *numbered, *shared, self.name])
        else:
            if self.name not in host.groups():
                raise refuse_name_service("group", self.name)
            old = diff.before["gid"]
            self._tool(host, ["groupmod", *numbered, *shared, self.name])
            host.warnings.append(
                f"group '{self.name}' had the number {old}; files keep it: find / -xdev -gid {old}"
            )

    def _tool(self, host: Host, argv: list[str]) -> None:
        tool(
            host,
            argv,
            f"group '{self.name}'",
            "it is the primary group of a user; remove the user first",
        )

    def _refuse_primary(self, host: Host, gid: int) -> None:
        users = [row[0] for row in host.table("/etc/passwd", 7) if row[3] == str(gid)]
        others = [name for name, (number, _) in host.groups().items() if number == gid]
        if users and len(others) == 1 and not self.force:
            raise ResourceError(
                f"group '{self.name}' is the primary group of {', '.join(users)}",
                hint="remove those users first or give them another group, or declare force: true",
            )
