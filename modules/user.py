"""Keep a user account as declared.

    - name: the account that deploys
      user:
        name: deploy
        uid: 2000
        groups: [sudo]
        append: true
        shell: /bin/bash
        password: "{{ secret('deploy#password') }}"
    - name: an account that left
      user: {name: mallory, state: absent, remove: true}

Removing a user keeps its files unless `remove` is declared. `password` is a hash, never the
password itself; the tools get it on standard input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from reconciler.errors import NotYet, SchemaError
from reconciler.host import Host
from reconciler.modules import _accounts, _home
from reconciler.modules._put import parents
from reconciler.resource import Diff, Path, Resource, Secret, State, Value

KILL = "stop them first (loginctl terminate-user NAME), or declare force: true"


@dataclass(frozen=True)
class User(Resource):
    name: str  #: Name of the user.
    uid: int | None = None  #: Its number; left out, the system chooses one and keeps it.
    #: Primary group, by name or number; a new user gets one of its own name.
    group: str | None = None
    #: Supplementary groups: exactly these, or with `append` at least these. `[]` takes it out of
    #: all.
    groups: list[str] | None = None
    append: bool = False  #: Add to the groups that it is in, and leave none.
    shell: str | None = None  #: Login shell.
    home: str | None = None  #: Home directory.
    #: Make the home directory if it is not there, with what the skeleton holds.
    create_home: bool = True
    move_home: bool = False  #: If `home` changes, move what is in the old one.
    system: bool = False  #: A new user gets a number from the range of system users.
    comment: str | None = None  #: Full name, or what else the account is for.
    #: Hash of the password (`openssl passwd -6`); `!` or `*`: no password can log in.
    password: Secret | None = None
    #: `on_create` leaves the password of a user that is there alone.
    update_password: Literal["always", "on_create"] = "always"  # noqa: S105  a policy
    password_lock: bool | None = None  #: Lock or unlock the password and keep it.
    #: When the account expires, in seconds since 1970; negative: never.
    expires: float | None = None
    password_expire_min: int | None = None  #: Days before the password may be changed again.
    password_expire_max: int | None = None  #: Days before the password must be changed.
    password_expire_warn: int | None = None  #: Days of warning before that.
    remove: bool = False  #: With `state: absent`: also remove its home directory and mail.
    force: bool = False  #: With `state: absent`: even if it is logged in.
    non_unique: bool = False  #: Another user may have the same `uid`.
    skeleton: Path | None = None  #: Directory that a new home is copied from instead of /etc/skel.
    umask: str | None = None  #: Takes rights away from a new home directory, in octal: `"077"`.
    local: bool = False  #: Only /etc/passwd counts, even if a name service knows the name.
    #: `absent` removes the user, and keeps its files.
    state: Literal["present", "absent"] = "present"
    generate_ssh_key: bool = False  #: Make an SSH key if there is none.
    ssh_key_bits: int | None = None  #: Size of the key; left out, ssh-keygen chooses.
    ssh_key_type: str = "rsa"  #: Type of the key: rsa, ed25519, ecdsa.
    #: Where the key goes, below the home directory; `.ssh/id_TYPE` if left out.
    ssh_key_file: str | None = None
    #: Comment of the key; left out, ssh-keygen writes USER@HOST.
    ssh_key_comment: str | None = None

    aliases: ClassVar[Mapping[str, str]] = {"user": "name", "createhome": "create_home"}
    refused: ClassVar[Mapping[str, str]] = {
        "ssh_key_passphrase": "it would be seen in the list of processes; make such a key by hand"
    }

    def __post_init__(self) -> None:
        _accounts.check_name("user", self.name)
        for name in ("comment", "home", "shell"):
            value = getattr(self, name) or ""
            if ":" in value or "\n" in value:
                raise SchemaError(f"`{name}` of user '{self.name}' contains ':' or a new line")
        for group in (self.group, *(self.groups or ())):
            if group is not None and not group.isdigit():
                _accounts.check_name("group", group)

    def claims(self) -> set[str]:
        return {f"user:{self.name}"}

    def undone(self) -> dict[str, Value] | None:
        return {"name": self.name, "state": "absent"} if self.state == "present" else None

    def needs(self) -> set[str]:
        named = [self.group or self.name, *(self.groups or ())]
        needs = {f"group:{group}" for group in named}
        if self.shell is not None:
            needs |= {f"path:{self.shell}", *parents(self.shell)}
        return needs | parents(self.home or f"/home/{self.name}")

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wish: State = {"uid": self.uid, "group": self.group}
        wish["groups"] = None if self.groups is None else [*sorted(set(self.groups))]
        wish.update({"shell": self.shell, "home": self.home, "comment": self.comment})
        if self.password is not None and self.update_password == "always":  # noqa: S105  a policy
            wish["password"] = _accounts.AS_DECLARED
        wish["password_lock"] = self.password_lock
        if self.expires is not None:
            wish["expires"] = _accounts.day(_accounts.days(self.expires))
        for name in ("password_expire_min", "password_expire_max", "password_expire_warn"):
            wish[name] = getattr(self, name)
        wish["create_home"] = self.create_home or None
        wish["ssh_key"] = self._key_file if self.generate_ssh_key else None
        return {name: value for name, value in wish.items() if value is not None}

    @property
    def _key_file(self) -> str:
        return self.ssh_key_file or f".ssh/id_{self.ssh_key_type}"

    def actual(self, host: Host) -> State:
        if self.password is not None:
            _accounts.check_hash(self.name, self.password)
        account = host.account(self.name)
        if account is None:
            if self.local or not _accounts.from_name_service(host, "user", self.name):
                for group in () if self.state == "absent" else (self.group, *(self.groups or ())):
                    host.gid(group or "0")  # raises NotYet
                return None
            if self.state == "absent":
                raise _accounts.refuse_name_service("user", self.name)
            account = _home.from_name_service(self.name)
        if self.state == "absent":
            return {"uid": account.uid}
        seen: State = {
            "uid": account.uid,
            "group": self._group_seen(host, account.gid),
            "shell": account.shell,
            "home": account.home,
            "comment": account.comment,
            "create_home": _home.exists(host, account),
        }
        if self.groups is not None:
            seen["groups"] = _accounts.groups_seen(host, account, self.groups, append=self.append)
        if self.generate_ssh_key:
            key = _home.below(account, self._key_file)
            seen["ssh_key"] = self._key_file if host.lstat(key) is not None else None
        wish = self.desired() or {}
        if any(name.startswith(("password", "expires")) for name in wish):
            row = _accounts.shadow(host, self.name)
            seen.update(
                _accounts.shadow_seen(row, self.password, lock=self.password_lock is not None)
            )
        return seen

    def _group_seen(self, host: Host, gid: int) -> str:
        try:
            holds = self.group is not None and host.gid(self.group) == gid
        except NotYet:
            holds = False
        return self.group if holds and self.group is not None else host.group_name(gid)

    def apply(self, host: Host, diff: Diff) -> None:
        if diff.after is None:
            options = [flag for flag, wanted in (("-f", self.force), ("-r", self.remove)) if wanted]
            self._tool(host, ["userdel", *options, self.name])
            return
        new = diff.before is None
        if new:
            self._tool(
                host, ["useradd", *self._options(set(diff.after), host, new=True), self.name]
            )
            host.forget(opaque=False)
        elif self.name not in {row[0] for row in host.table("/etc/passwd", 7)}:
            raise _accounts.refuse_name_service("user", self.name)
        else:
            options = self._options(diff.changed, host, new=False)
            if options:
                self._tool(host, ["usermod", *options, self.name])
                host.forget(opaque=False)
        self._set_shadow(host, diff.changed, new=new)
        self._after(host)

    def _options(self, changed: set[str], host: Host, *, new: bool) -> list[str]:
        """The options of useradd and usermod, which are mostly the same."""
        options: list[str] = []
        if "uid" in changed and self.uid is not None:
            options += ["-u", str(self.uid), *(["-o"] if self.non_unique else [])]
        if "group" in changed and self.group is not None:
            options += ["-g", self.group]
        elif new and self.name in host.groups():
            options += ["-g", self.name]
        if "groups" in changed and self.groups is not None:
            options += [*(["-a"] if self.append and not new else []), "-G", ",".join(self.groups)]
        named = (("shell", "-s"), ("home", "-d"), ("comment", "-c"))
        options += [
            word for name, flag in named if name in changed for word in (flag, getattr(self, name))
        ]
        if new:
            options += ["-r"] if self.system else []
            options += ["-m"] if self.create_home else ["-M"]
            if self.create_home and self.skeleton is not None:
                options += ["-k", self.skeleton]
            options += ["-K", f"UMASK={self.umask}"] if self.umask is not None else []
        elif "home" in changed and self.move_home:
            options += ["-m"]
        return options

    def _set_shadow(self, host: Host, changed: set[str], *, new: bool) -> None:
        if self.password is not None and (new or "password" in changed):
            host.run(["chpasswd", "-e"], input=f"{self.name}:{self.password}\n".encode())
            host.forget(opaque=False)
        if self.password_lock is not None:
            locked = _accounts.shadow(host, self.name).password.startswith("!")
            if locked != self.password_lock:
                self._tool(host, ["usermod", "-L" if self.password_lock else "-U", self.name])
        ages = (("min", "-m"), ("max", "-M"), ("warn", "-W"))
        options = [
            word
            for name, flag in ages
            if f"password_expire_{name}" in changed
            for word in (flag, str(getattr(self, f"password_expire_{name}")))
        ]
        if "expires" in changed:
            options += ["-E", str(_accounts.days(self.expires))]
        if options:
            self._tool(host, ["chage", *options, self.name])

    def _after(self, host: Host) -> None:
        """What is in the home directory; and what an operator should know about it."""
        account = host.account(self.name)
        if account is None:
            return
        if self.create_home and not _home.exists(host, account):
            _home.make(host, account, self.skeleton, self.umask)
        if self.generate_ssh_key:
            key = _home.below(account, self._key_file)
            options = [] if self.ssh_key_bits is None else ["-b", str(self.ssh_key_bits)]
            options += [] if self.ssh_key_comment is None else ["-C", self.ssh_key_comment]
            _home.make_key(host, account, key, ["-t", self.ssh_key_type, *options])
        _home.warn_of_other_owner(host, account)

    def _tool(self, host: Host, argv: list[str]) -> None:
        _accounts.tool(host, argv, f"user '{self.name}'", KILL.replace("NAME", self.name))
