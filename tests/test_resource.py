"""The contract of a module: what is compared, and what an author gets for nothing."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ResourceError, Unsupported
from reconciler.host import Host
from reconciler.resource import Change, Diff, Resource, Secret, State, plain_path

values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
pictures = st.none() | st.dictionaries(st.sampled_from("abcd"), values)


@given(pictures, pictures)
def test_a_difference_is_true_exactly_if_something_is_to_be_done(
    before: State, after: State
) -> None:
    diff = Diff(before, after)
    if before is None or after is None:
        assert bool(diff) == (before is not after)
    else:
        assert bool(diff) == bool(diff.changes)
    assert diff.changed == {change.attribute for change in diff.changes}


@given(pictures, pictures)
def test_carrying_the_changes_out_closes_the_gap(before: State, after: State) -> None:
    if after is not None:
        mended = {
            **(before or {}),
            **{one.attribute: one.after for one in Diff(before, after).changes},
        }
        assert not Diff(mended, after)


def test_what_is_not_wished_for_is_not_managed() -> None:
    assert not Diff({"mode": "0644", "owner": "x"}, {"mode": "0644"})
    assert Diff({"a": 1, "b": 2}, {"b": 3}).changes == (Change("b", 2, 3),)


def test_creation_shows_every_wish_in_its_order() -> None:
    assert Diff(None, {"b": 1, "a": None}).changes == (
        Change("b", None, 1),
        Change("a", None, None),
    )


def test_removal_shows_what_goes() -> None:
    assert Diff({"type": "file"}, None).changes == (Change("type", "file", None),)
    assert Diff(None, {})
    assert not Diff(None, None)
    assert not Diff({}, {})


def test_a_secret_hides_in_every_repr() -> None:
    secret = Secret("hunter2")

    @dataclass(frozen=True)
    class Account(Resource):
        password: Secret

    assert "hunter2" not in f"{secret!r} {[secret]} {Account(secret)} {Diff(None, {'p': secret})}"
    assert secret == "hunter2"


def test_defaults_do_nothing_and_refuse_notifications(tmp_path: object) -> None:
    bare = Resource()
    host = Host(str(tmp_path))
    assert bare.needs() == set()
    assert bare.refresh() is None
    assert bare.preview(host, Diff(None, {})) is None
    assert not bare.absorbs(Diff(None, {}))
    with pytest.raises(Unsupported):
        bare.on_notify(host)
    for call in (bare.claims, bare.desired):
        with pytest.raises(NotImplementedError):
            call()


def test_several_at_once_are_one_by_one_unless_a_module_knows_better(tmp_path: object) -> None:
    @dataclass(frozen=True)
    class Odd(Resource):
        number: int

        def apply(self, host: Host, diff: Diff) -> None:
            if self.number % 2:
                raise ResourceError(f"{self.number} is odd")

    work = [(Odd(n), Diff(None, {})) for n in range(3)]
    assert [str(one) for one in Odd.apply_many(Host(str(tmp_path)), work)] == [
        "None",
        "1 is odd",
        "None",
    ]


# -- paths -------------------------------------------------------------------------------


@given(st.text("/.a\0 ", max_size=12))
def test_a_path_is_written_plainly_once_and_leads_where_it_led(path: str) -> None:
    plain = plain_path(path)
    assert plain_path(plain) == plain
    if not path.startswith("/"):
        assert plain == path
        return
    assert plain == "/" or not plain.endswith("/")
    assert "//" not in plain
    assert not {"."} & set(plain.split("/"))
    assert plain.split("/").count("..") == path.split("/").count("..")
    if ".." not in path.split("/"):
        assert plain == "/" + posixpath.normpath(path).lstrip("/")


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/x.d/y", "/..a/.b", "/a b", "/a\nb", "/*?[a]"])
def test_a_plain_path_stays_as_it_is(path: str) -> None:
    assert plain_path(path) == path
