# ruff: noqa: S604  `shell` is the login shell of a user
"""Users: what is read from the account files, and what shadow's tools are told."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from reconciler.errors import NotYet, ResourceError, SchemaError, Unsupported
from reconciler.host import Account
from reconciler.modules import _home
from reconciler.modules.user import User
from reconciler.resource import Diff, Secret

HASH = "$6$salt$" + "x" * 86
OTHER = "$y$j9T$salt$" + "y" * 43
PASSWD = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/bash\n"
GROUP = "root:x:0:\nann:x:1000:\nweb:x:2000:ann\nadm:x:4:ann\nsudo:x:27:\n"


@pytest.fixture(autouse=True)
def _accounts(machine: Any) -> None:
    machine.put("/etc/passwd", PASSWD)
    machine.put("/etc/group", GROUP)
    shadow(machine, HASH)
    machine.put("/home/ann/.profile")
    if os.geteuid() == 0:
        os.chown(machine.path("/home/ann"), 1000, 1000)
    for tool in ("useradd", "usermod", "userdel", "chage", "chpasswd", "ssh-keygen"):
        machine.answers(tool)


def shadow(machine: Any, password: str, rest: str = "19000:0:99999:7:::") -> None:
    machine.put("/etc/shadow", f"root:*:19000:0:99999:7:::\nann:{password}:{rest}\n")


def told(machine: Any, wish: User) -> list[str]:
    wish.apply(machine, Diff(wish.actual(machine), wish.desired()))
    return [" ".join(argv) for argv in machine.ran]


def changes(plan: Any, wish: User) -> dict[str, tuple[object, object]]:
    return {change.attribute: (change.before, change.after) for change in plan(wish).changes}


class TestTools:
    @pytest.mark.parametrize(
        "wish, argv",
        [
            (User("new"), "useradd -m new"),
            (User("new", create_home=False), "useradd -M new"),
            (User("web"), "useradd -g web -m web"),
            (
                User("new", uid=3000, group="web", groups=["sudo", "adm"], shell="/bin/zsh", home="/srv/new", comment="New One"),
                "useradd -u 3000 -g web -G sudo,adm -s /bin/zsh -d /srv/new -c New One -m new",
            ),
            (User("new", system=True, create_home=False), "useradd -r -M new"),
            (User("new", uid=1000, non_unique=True), "useradd -u 1000 -o -m new"),
            (User("new", skeleton="/etc/bare", umask="077"), "useradd -m -k /etc/bare -K UMASK=077 new"),
            (User("ann", uid=3000), "usermod -u 3000 ann"),
            (User("ann", groups=["sudo"]), "usermod -G sudo ann"),
            (User("ann", groups=["sudo"], append=True), "usermod -a -G sudo ann"),
            (User("ann", groups=[]), "usermod -G  ann"),
            (User("ann", home="/srv/ann", create_home=False), "usermod -d /srv/ann ann"),
            (User("ann", home="/srv/ann", move_home=True, create_home=False), "usermod -d /srv/ann -m ann"),
            (User("ann", comment=""), "usermod -c  ann"),
            (User("ann", password_lock=True), "usermod -L ann"),
            (User("ann", expires=1893456000.0), "chage -E 21915 ann"),
            (User("ann", password_expire_max=90, password_expire_min=1, password_expire_warn=14), "chage -m 1 -M 90 -W 14 ann"),
            (User("ann", state="absent"), "userdel ann"),
            (User("ann", state="absent", remove=True, force=True), "userdel -f -r ann"),
        ],
    )  # fmt: skip
    def test_are_told_what_differs_and_no_more(self, machine: Any, wish: User, argv: str) -> None:
        assert told(machine, wish)[0] == argv
        assert len(machine.ran) == 1

    @pytest.mark.parametrize(
        "wish",
        [
            User("ann"),
            User("ann", uid=1000, group="ann", shell="/bin/bash", home="/home/ann", comment="Ann"),
            User("ann", group="1000"),
            User("ann", groups=["adm", "web"]),
            User("ann", groups=["web", "adm", "ann"]),
            User("ann", groups=["4", "web"]),
            User("ann", groups=["web"], append=True),
            User("ann", groups=[], append=True),
            User("ann", password=Secret(HASH)),
            User("ann", password=Secret(OTHER), update_password="on_create"),
            User("ann", password_lock=False),
            User("ann", expires=-1.0, password_expire_min=0, password_expire_max=99999),
            User("gone", state="absent"),
        ],
        ids=lambda wish: str(wish.desired()),
    )
    def test_what_is_so_already_is_left_alone(self, plan: Any, wish: User) -> None:
        assert not plan(wish)

    def test_a_busy_user_is_an_error_that_says_what_to_do(self, machine: Any) -> None:
        machine.answers(
            "usermod", code=8, err="usermod: user ann is currently used by process 4711\n"
        )
        with pytest.raises(ResourceError) as caught:
            told(machine, User("ann", uid=3000))
        assert caught.value.message == (
            "usermod refuses to change user 'ann': user ann is currently used by process 4711"
        )
        assert "loginctl terminate-user ann" in caught.value.hint


class TestPictures:
    def test_a_plan_shows_each_attribute(self, plan: Any) -> None:
        wish = User(
            "ann", uid=1, group="web", groups=["sudo"], shell="/bin/sh", comment="A", expires=0.0
        )
        assert changes(plan, wish) == {
            "uid": (1000, 1),
            "group": ("ann", "web"),
            "groups": (["adm", "web"], ["sudo"]),
            "shell": ("/bin/bash", "/bin/sh"),
            "comment": ("Ann", "A"),
            "expires": ("never", "1970-01-01"),
        }

    def test_with_append_only_what_is_missing_differs(self, plan: Any) -> None:
        wish = User("ann", groups=["web", "sudo"], append=True)
        assert changes(plan, wish) == {"groups": (["web"], ["sudo", "web"])}

    def test_a_missing_home_is_made_and_one_that_must_not_be_is_not(
        self, machine: Any, plan: Any
    ) -> None:
        machine.put(
            "/etc/passwd", PASSWD + "bob:x:5:5::/home/bob:/bin/sh\nno:x:6:6::/nonexistent:/bin/sh\n"
        )
        assert changes(plan, User("bob")) == {"create_home": (False, True)}
        assert not plan(User("bob", create_home=False))
        assert not plan(User("no"))

    def test_a_group_that_is_not_there_is_an_error_of_the_plan(self, plan: Any) -> None:
        for wish in (User("new", group="none"), User("new", groups=["none"])):
            with pytest.raises(NotYet, match="group 'none' does not exist"):
                plan(wish)
        assert changes(plan, User("ann", groups=["none"]))["groups"] == (["adm", "web"], ["none"])

    def test_a_host_without_a_shadow_file_is_read_from_passwd(
        self, machine: Any, plan: Any
    ) -> None:
        machine.path("/etc/shadow").unlink()
        machine.put("/etc/passwd", f"ann:{HASH}:1000:1000::/home/ann:/bin/sh\n")
        assert not plan(User("ann", password=Secret(HASH)))
        assert plan(User("ann", password=Secret(OTHER)))


class TestPasswords:
    def test_a_hash_goes_to_standard_input_and_nowhere_else(self, machine: Any, plan: Any) -> None:
        wish = User("ann", password=Secret(OTHER))
        diff = plan(wish)
        assert [tuple(change) for change in diff.changes] == [
            ("password", "another", "as declared")
        ]
        wish.apply(machine, diff)
        assert machine.ran == [("chpasswd", "-e")]
        assert machine.told == [f"ann:{OTHER}\n".encode()]
        assert OTHER not in repr(wish) + repr(diff)
        assert HASH not in repr(diff)

    def test_a_new_user_gets_its_password_also_on_create_only(self, machine: Any) -> None:
        for when in ("always", "on_create"):
            machine.ran.clear()
            argv = told(machine, User("new", password=Secret(HASH), update_password=when))
            assert argv == ["useradd -m new", "chpasswd -e"]

    @pytest.mark.parametrize(
        "now, seen",
        [("!", "none"), ("*", "none"), ("!!", "none"), ("", "none"), (f"!{HASH}", "another")],
    )
    def test_what_is_there_instead_is_told_without_showing_it(
        self, machine: Any, plan: Any, now: str, seen: str
    ) -> None:
        shadow(machine, now)
        assert changes(plan, User("ann", password=Secret(OTHER)))["password"] == (
            seen,
            "as declared",
        )

    def test_a_locked_password_is_the_same_password_when_the_lock_is_declared(
        self, machine: Any, plan: Any
    ) -> None:
        shadow(machine, f"!{HASH}")
        assert not plan(User("ann", password=Secret(HASH), password_lock=True))
        assert changes(plan, User("ann", password=Secret(HASH), password_lock=False)) == {
            "password_lock": (True, False)
        }
        assert plan(User("ann", password=Secret(HASH)))

    @pytest.mark.parametrize("lock", ["!", "*", "!!", "!*"])
    def test_a_lock_instead_of_a_hash_is_accepted(self, machine: Any, plan: Any, lock: str) -> None:
        shadow(machine, lock)
        assert not plan(User("ann", password=Secret(lock)))

    @pytest.mark.parametrize(
        "plain",
        [
            "hunter2",
            "",
            "$6$",
            "$6$salt$x:y" + "z" * 80,
            f"{HASH}\nroot:x",
            "correct horse",
            "abcdefghijklm",
        ],
    )
    def test_a_plain_password_is_refused_and_not_shown(self, plan: Any, plain: str) -> None:
        with pytest.raises(Unsupported, match="is not a hash") as caught:
            plan(User("ann", password=Secret(plain)))
        assert "openssl passwd -6" in caught.value.hint
        assert not plain or plain not in str(caught.value)


class TestHomes:
    @pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, so it needs root")
    def test_a_home_is_made_like_the_skeleton(self, machine: Any) -> None:
        machine.put("/etc/skel/.profile", "hello\n", 0o644)
        machine.put("/etc/skel/bin/tool", "x", 0o755)
        machine.path("/etc/skel/link").symlink_to(".profile")
        machine.put("/etc/login.defs", "# comment\nHOME_MODE\t0750\nUMASK 022\n")
        account = Account("bob", 5, 6, "/srv/deep/bob", "/bin/sh", "")
        _home.make(machine, account, None, None)
        found = {
            name: (entry.st_uid, entry.st_gid, stat.S_IMODE(entry.st_mode))
            for name in ("", ".profile", "bin", "bin/tool")
            for entry in [machine.path(f"/srv/deep/bob/{name}").lstat()]
        }
        assert found == {
            "": (5, 6, 0o750),
            ".profile": (5, 6, 0o644),
            "bin": (5, 6, 0o755),
            "bin/tool": (5, 6, 0o755),
        }
        assert machine.text("/srv/deep/bob/.profile") == "hello\n"
        assert machine.path("/srv/deep/bob/link").lstat().st_uid == 5
        assert machine.path("/srv/deep").stat().st_uid == 0

    @pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, so it needs root")
    def test_a_home_of_another_user_is_a_warning(self, machine: Any) -> None:
        os.chown(machine.path("/home/ann"), 999, 999)
        told(machine, User("ann", comment="x"))
        assert "belongs to 999 (uid 999), not to uid 1000" in machine.warnings[0]

    def test_a_key_is_made_by_the_user_itself(
        self, machine: Any, monkeypatch: pytest.MonkeyPatch, plan: Any
    ) -> None:
        users: list[Any] = []
        run = machine.run
        monkeypatch.setattr(
            machine,
            "run",
            lambda argv, **options: (users.append(options.get("user")), run(argv, **options))[1],
        )
        wish = User(
            "ann", generate_ssh_key=True, ssh_key_type="ed25519", ssh_key_comment="ann@work"
        )
        assert changes(plan, wish) == {"ssh_key": (None, ".ssh/id_ed25519")}
        argv = told(machine, wish)
        assert argv == ["ssh-keygen -q -N  -t ed25519 -C ann@work -f /home/ann/.ssh/id_ed25519"]
        assert users == ["ann"]
        assert stat.S_IMODE(machine.path("/home/ann/.ssh").stat().st_mode) == 0o700

    def test_a_key_that_is_there_is_left_alone(self, machine: Any, plan: Any) -> None:
        machine.put("/home/ann/.ssh/id_rsa")
        owner = machine.path("/home/ann").stat().st_uid
        os.chown(machine.path("/home/ann/.ssh"), owner, -1)
        assert not plan(User("ann", generate_ssh_key=True))


class TestRefusals:
    @pytest.mark.parametrize("name", ["-u", "a:b", "a b", "", "a\nb", "0", "a/b"])
    def test_a_name_that_is_an_option_or_breaks_a_row(
        self, machine: Any, plan: Any, name: str
    ) -> None:
        with pytest.raises(SchemaError, match="cannot be the name of a user"):
            plan(User(name))
        assert machine.ran == []

    @pytest.mark.parametrize(
        "params", [{"comment": "a:b"}, {"home": "/a\nb"}, {"shell": "/bin/sh:x"}]
    )
    def test_a_value_that_breaks_a_row(self, plan: Any, params: Any) -> None:
        with pytest.raises(SchemaError, match="contains ':' or a new line"):
            plan(User("ann", **params))

    def test_a_group_that_is_an_option(self, plan: Any) -> None:
        with pytest.raises(SchemaError, match="name of a group"):
            plan(User("ann", groups=["-x"]))

    def test_a_user_of_a_name_service_is_seen_and_not_changed(
        self, machine: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        account = Account("eve", 7000, 1000, "/home/ann", "/bin/sh", "Eve")
        monkeypatch.setattr(machine, "uid", lambda name: 7000)
        monkeypatch.setattr(_home, "from_name_service", lambda name: account)
        assert not plan(User("eve", uid=7000, shell="/bin/sh"))
        for wish in (User("eve", shell="/bin/bash"), User("eve", state="absent")):
            with pytest.raises(Unsupported, match="comes from a name service"):
                told(machine, wish)
        assert machine.ran == []
        assert plan(User("eve", local=True)).before is None


def test_it_claims_its_name_and_needs_its_groups_shell_and_the_way_home() -> None:
    wish = User("ann", group="web", groups=["sudo"], shell="/usr/bin/zsh", home="/srv/ann")
    assert wish.claims() == {"user:ann"}
    assert wish.needs() == {
        "group:web", "group:sudo", "path:/usr", "path:/usr/bin", "path:/usr/bin/zsh", "path:/srv",
    }  # fmt: skip
    assert User("ann").needs() == {"group:ann", "path:/home"}
