"""Groups: what is read from /etc/group, and what shadow's tools are told."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.errors import NotYet, ResourceError, SchemaError, Unsupported
from reconciler.modules.group import Group
from reconciler.resource import Diff


@pytest.fixture(autouse=True)
def _accounts(machine: Any) -> None:
    machine.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    machine.put("/etc/group", "root:x:0:\nann:x:1000:\nweb:x:2000:ann\ntwin:x:2000:\n")
    for tool in ("groupadd", "groupmod", "groupdel"):
        machine.answers(tool)


def told(machine: Any, wish: Group) -> list[str]:
    wish.apply(machine, Diff(wish.actual(machine), wish.desired()))
    return [" ".join(argv) for argv in machine.ran]


@pytest.mark.parametrize(
    "wish, argv",
    [
        (Group("new"), "groupadd new"),
        (Group("new", gid=3000, system=True), "groupadd -r -g 3000 new"),
        (Group("new", gid=2000, non_unique=True), "groupadd -g 2000 -o new"),
        (Group("web", gid=3000), "groupmod -g 3000 web"),
        (Group("web", state="absent"), "groupdel web"),
        (Group("ann", state="absent", force=True), "groupdel -f ann"),
    ],
)  # fmt: skip
def test_the_tools_are_told(machine: Any, wish: Group, argv: str) -> None:
    assert told(machine, wish) == [argv]


@pytest.mark.parametrize(
    "wish", [Group("web"), Group("web", gid=2000), Group("gone", state="absent")], ids=str
)
def test_what_is_so_already_is_left_alone(plan: Any, wish: Group) -> None:
    assert not plan(wish)


def test_a_plan_shows_the_number(plan: Any) -> None:
    assert [tuple(change) for change in plan(Group("web", gid=3000)).changes] == [
        ("gid", 2000, 3000)
    ]
    assert plan(Group("new")).before is None


def test_a_primary_group_is_not_removed_and_the_user_is_named(machine: Any, plan: Any) -> None:
    with pytest.raises(ResourceError, match="primary group of ann") as caught:
        plan(Group("ann", state="absent"))
    assert "remove those users first" in caught.value.hint
    machine.put("/etc/group", "ann:x:1000:\nalso:x:1000:\n")
    assert plan(Group("ann", state="absent"))


def test_a_new_number_warns_of_the_files_with_the_old(machine: Any) -> None:
    told(machine, Group("web", gid=3000))
    assert "find / -xdev -gid 2000" in machine.warnings[0]


def test_a_refusal_of_the_tool_is_an_error_in_words(machine: Any) -> None:
    machine.answers("groupadd", code=4, err="groupadd: GID '2000' already exists\n")
    with pytest.raises(ResourceError) as caught:
        told(machine, Group("new", gid=2000))
    assert (
        caught.value.message == "groupadd refuses to change group 'new': GID '2000' already exists"
    )


def test_a_host_without_the_tools_says_what_brings_them(machine: Any, monkeypatch: Any) -> None:
    def missing(*_: object, **__: object) -> None:
        raise NotYet("groupadd does not exist")

    monkeypatch.setattr(machine, "run", missing)
    with pytest.raises(NotYet) as caught:
        told(machine, Group("new"))
    assert "passwd" in caught.value.hint


@pytest.mark.parametrize("name", ["-g", "a b", "a:b", "a\nb", "", "123", "a,b", "~x", "a\u202eb"])
def test_a_name_that_is_an_option_or_breaks_a_row_is_refused(
    machine: Any, plan: Any, name: str
) -> None:
    with pytest.raises(SchemaError, match="cannot be the name of a group"):
        plan(Group(name))
    assert machine.ran == []


def test_a_group_of_a_name_service_is_seen_and_not_changed(
    machine: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gid", lambda name: 7000)
    assert not plan(Group("staff-ldap", gid=7000))
    with pytest.raises(Unsupported, match="comes from a name service"):
        told(machine, Group("staff-ldap", gid=7001))
    assert plan(Group("staff-ldap", gid=7000, local=True)).before is None


def test_it_claims_its_name() -> None:
    assert (Group("web").claims(), Group("web").needs()) == ({"group:web"}, set())
