"""Extended attributes on a booted host: beside the files that bear them, from first to last."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hosts.booted import BootedHost
from hosts.declared import Declared, failed
from hosts.driver import Driver


@pytest.fixture
def declared(host: BootedHost) -> Declared:
    return Declared(host)


def xattr(path: str, name: str, value: str | None = None, **params: Any) -> dict[str, Any]:
    more = params if value is None else {"value": value, **params}
    return {"xattr": {"path": path, "name": name, **more}}


def copy(path: str, content: str) -> dict[str, Any]:
    return {"copy": {"dest": path, "content": content}}


def borne(host: BootedHost, path: str) -> dict[str, bytes]:
    """What a file of the host bears, as seen from our side of its disk."""
    there = host.root / path.lstrip("/")
    names = [one for one in os.listxattr(there) if one.startswith(("user.", "trusted.note"))]
    return {name: os.getxattr(there, name) for name in names}


def test_an_attribute_comes_with_its_file_changes_and_goes(declared: Declared) -> None:
    note = "xattr:/srv/new/file#note"
    parts = [
        copy("/srv/new/file", "x\n"),
        {"file": {"path": "/srv/new", "state": "directory"}},
    ]
    outcome = declared.converge(
        xattr("/srv/new/file", "note", "one"),
        xattr("/srv/new", "trusted.note", "0x00ff"),
        *parts,
    )
    assert outcome.changes(note) == {"value": (None, "one")}
    assert borne(declared.host, "/srv/new/file") == {"user.note": b"one"}
    assert borne(declared.host, "/srv/new") == {"trusted.note": b"\0\xff"}
    outcome = declared.converge(xattr("/srv/new/file", "note", "two"), *parts)
    assert outcome.changed == {note}
    assert outcome.changes(note) == {"value": ("one", "two")}
    outcome = declared.converge(xattr("/srv/new/file", "note", state="absent"), *parts)
    assert outcome.done[note]["action"] == "remove"
    assert borne(declared.host, "/srv/new/file") == {}


def test_new_content_takes_no_attribute_away(declared: Declared) -> None:
    path = "/srv/content"
    declared.converge(copy(path, "old\n"), xattr(path, "note", "ours"))
    os.setxattr(declared.host.root / path[1:], "user.theirs", b"stays")
    outcome = declared.converge(copy(path, "new\n"), xattr(path, "note", "ours"))
    assert outcome.changed == {f"file:{path}"}
    assert borne(declared.host, path) == {"user.note": b"ours", "user.theirs": b"stays"}


def test_what_by_hand_was_changed_removed_or_lost_with_its_file_comes_back(
    declared: Declared,
) -> None:
    path = "/srv/drifts"
    wishes = [xattr(path, "note", "ours"), copy(path, "x\n")]
    declared.converge(*wishes)
    there = declared.host.root / path[1:]
    os.setxattr(there, "user.note", b"\xfftheirs")
    outcome = declared.converge(*wishes)
    assert outcome.changes(f"xattr:{path}#note") == {"value": ("0xff746865697273", "ours")}
    os.removexattr(there, "user.note")
    assert declared.converge(*wishes).changed == {f"xattr:{path}#note"}
    declared.host.run(["sh", "-c", f"cp {path} /srv/other; mv /srv/other {path}"])
    declared.converge(*wishes)
    assert borne(declared.host, path) == {"user.note": b"ours"}
    declared.host.run(["rm", path])
    assert declared.converge(*wishes).changed == {f"file:{path}", f"xattr:{path}#note"}
    assert borne(declared.host, path) == {"user.note": b"ours"}


def test_where_none_are_kept_only_that_resource_fails_and_says_why(declared: Declared) -> None:
    mount = "mkdir -p /srv/plain; mount -t ramfs none /srv/plain; touch /srv/plain/file"
    declared.host.run(["sh", "-c", mount])
    try:
        planned, done = declared.attempt(
            xattr("/srv/plain/file", "note", "x"),
            xattr("/srv/plain/file", "other", state="absent"),
            xattr("/srv/none", "note", "x"),
            copy("/srv/plain/whole", "x\n"),
        )
    finally:
        declared.host.run(["umount", "/srv/plain"])
    said = failed(done)
    assert said == failed(planned), "a plan fails where apply would"
    assert set(said) == {"xattr:/srv/plain/file#note", "xattr:/srv/none#note"}
    assert "its file system does not keep such attributes" in said["xattr:/srv/plain/file#note"]
    assert said["xattr:/srv/none#note"] == "/srv/none does not exist"


@pytest.mark.parametrize(
    "resources, said",
    [
        ([xattr("/srv/x", "security.capability", "x")], "setcap"),
        ([xattr("/srv/x", "system.posix_acl_access", "x")], "setfacl"),
        ([xattr("/srv/x", "a", "1"), xattr("/srv//x", "user.a", "2")], "both manage /srv/x"),
    ],
    ids=["security", "system", "twice"],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_place(
    declared: Declared, resources: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(AssertionError, match=r"site\.yml") as caught:
        declared.attempt(*resources)
    assert said in str(caught.value)


def test_it_works_with_the_oldest_python(bullseye_host: BootedHost) -> None:
    driver = Driver(bullseye_host)
    bullseye_host.run(["touch", "/srv/file"])
    for name in ("user.note", "trusted.note"):
        note = ("xattr", {"path": "/srv/file", "name": name, "value": "grün"})
        assert driver.apply(note).clean
        assert driver.plan(note).in_sync
        assert borne(bullseye_host, "/srv/file") == {name: "grün".encode()}
        gone = ("xattr", {"path": "/srv/file", "name": name, "state": "absent"})
        assert driver.apply(gone).clean
    assert borne(bullseye_host, "/srv/file") == {}
