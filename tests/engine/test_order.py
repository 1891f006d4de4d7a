"""Declared order is the order, unless something is required."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.toys import Toy, handler, toy
from reconciler.catalog import Declaration
from reconciler.engine.order import Node, Order, arrange, check
from reconciler.errors import ClaimConflict, ConfigErrors, CycleError, Mark, SchemaError
from reconciler.modules.file import File
from reconciler.resource import State


def names(order: Order) -> list[str]:
    return [node.id.removeprefix("toy:") for node in order.nodes]


def errors(*nodes: Node) -> tuple[str, ...]:
    with pytest.raises(ConfigErrors) as refused:
        arrange(nodes)
    return tuple(str(error) for error in refused.value.errors)


def test_without_requirements_the_declared_order_stays() -> None:
    assert names(arrange([toy("c"), toy("a"), toy("b")])) == ["c", "a", "b"]


def test_a_requirement_moves_a_resource_behind_it_and_nothing_else() -> None:
    order = arrange([toy("a", requires=["d"]), toy("b"), toy("c"), toy("d")])
    assert names(order) == ["b", "c", "d", "a"]


def test_a_need_moves_a_resource_behind_the_claim() -> None:
    assert names(arrange([toy("dir/file", inside=("dir",)), toy("dir")])) == ["dir", "dir/file"]


def test_what_is_to_be_absent_goes_the_other_way_round() -> None:
    order = arrange([toy("group", absent=True), toy("user", absent=True, inside=("group",))])
    assert names(order) == ["user", "group"]


def test_absent_and_present_do_not_wait_for_each_other() -> None:
    order = arrange([toy("a", inside=("b",)), toy("b", absent=True)])
    assert order.requires["toy:a"] == set()


def test_everything_below_is_needed_with_two_stars() -> None:
    order = arrange([toy("package", inside=("*",)), toy("/x"), toy("/y"), toy("z")])
    assert names(order) == ["/x", "/y", "package", "z"]


def test_an_implied_requirement_never_overrules_an_explicit_one() -> None:
    """The implied one goes along with the declared order here, and would still close a cycle."""
    order = arrange([toy("a", requires=["b"]), toy("b", inside=("a",))])
    assert names(order) == ["b", "a"]


def test_implied_requirements_that_close_a_cycle_are_left_out() -> None:
    order = arrange([toy("a", inside=("b",)), toy("b", inside=("c",)), toy("c", inside=("a",))])
    assert sorted(names(order)) == ["a", "b", "c"]


@given(st.data())
def test_every_resource_is_in_the_order_once_and_behind_what_it_explicitly_requires(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(1, 12))
    edges = st.sets(st.integers(0, count - 1), max_size=3)
    rank = data.draw(st.permutations(range(count)))
    nodes: list[Node] = []
    for n in range(count):
        explicit = [str(one) for one in data.draw(edges) if rank[one] < rank[n]]
        implied = tuple(str(one) for one in data.draw(edges) if one != n)
        nodes.append(toy(str(n), requires=explicit, inside=implied))
    order = arrange(nodes)
    found = [node.id for node in order.nodes]
    assert sorted(found) == sorted(node.id for node in nodes)
    for node in nodes:
        assert all(found.index(one) < found.index(node.id) for one in order.requires[node.id])
        assert set(node.declaration.requires) <= order.requires[node.id]


def test_a_cycle_is_named_whole_with_its_places() -> None:
    found = errors(
        toy("a", requires=["c"], line=1),
        toy("b", requires=["a"], line=2),
        toy("c", requires=["b"], line=3),
        toy("d", requires=["a"], line=4),
    )
    (said,) = found
    assert said == (
        "site.yml:1: these resources wait for each other: toy:a (site.yml:1) requires toy:c"
        " (site.yml:3) requires toy:b (site.yml:2) requires toy:a (site.yml:1)\n"
        "  take one `requires` out"
    )


def test_a_resource_that_requires_itself_is_a_cycle() -> None:
    assert "toy:a (site.yml:1) requires toy:a (site.yml:1)" in errors(toy("a", requires=["a"]))[0]


def test_handlers_that_notify_each_other_are_a_cycle() -> None:
    a = handler("a", notify=["handler:b 2"])
    (found,) = errors(a, handler("b", notify=["handler:a 2"]))
    assert "notify each other without end: handler:a 2" in found
    (found,) = errors(handler("a", notify=["handler:a 2"]))
    assert "handler:a 2 (site.yml:1) notifies handler:a 2" in found


def test_a_handler_stands_before_those_that_it_notifies() -> None:
    order = arrange([handler("a"), handler("b", notify=["handler:a 2"]), handler("c")])
    assert list(order.handlers) == ["handler:b 2", "handler:a 2", "handler:c 2"]


def test_a_claim_of_two_is_a_conflict_that_names_both_places() -> None:
    one = Node(Declaration("file", "/a", {}, Mark("a.yml", 3)), File("/a"))
    other = Node(Declaration("file", "/a/", {}, Mark("b.yml", 5)), File("/a"))
    with pytest.raises(ConfigErrors) as refused:
        arrange([one, other])
    (error,) = refused.value.errors
    assert isinstance(error, ClaimConflict)
    assert error.message == "file:/a and file:/a/ both manage /a: a.yml:3 and b.yml:5"
    assert error.mark == Mark("b.yml", 5)


def test_the_same_resource_twice_is_one_conflict_and_never_dropped() -> None:
    (found,) = errors(toy("a", line=1), toy("a", line=2))
    assert "toy:a and toy:a both manage" in found


def test_two_handlers_of_one_name_are_refused() -> None:
    (found,) = errors(handler("a", line=1), handler("a", line=2))
    assert "two handlers are named 'a 2': site.yml:1 and site.yml:2" in found


def test_notifying_nobody_is_an_error() -> None:
    assert (
        "toy:a notifies handler:b, which is not there" in errors(toy("a", notify=["handler:b"]))[0]
    )


def test_all_errors_at_once() -> None:
    assert len(errors(toy("a"), toy("a"), toy("b", requires=["b"]), toy("c", notify=["x:y"]))) == 3


def test_a_module_that_cannot_say_what_it_wants_is_named_with_its_place() -> None:
    class Broken(Toy):
        def desired(self) -> State:
            raise KeyError("oops")

    (found,) = errors(toy("a", kind=Broken, line=3), toy("b"))
    assert found == "site.yml:3: toy:a: the module of type 'toy' failed: KeyError: 'oops'"


def test_ten_thousand_in_a_chain_are_ordered_without_recursion_and_quickly() -> None:
    count = 10_000
    forward = [toy(str(n), requires=[str(n - 1)] if n else []) for n in range(count)]
    backward = [toy(str(n), inside=(str(n + 1),) if n < count - 1 else ()) for n in range(count)]
    ring = [toy(str(n), requires=[str((n + 1) % count)]) for n in range(count)]
    begun = time.process_time()
    assert names(arrange(forward))[-1] == str(count - 1)
    assert names(arrange(backward))[0] == str(count - 1)
    with pytest.raises(ConfigErrors) as refused:
        arrange(ring)
    assert isinstance(refused.value.errors[0], CycleError)
    assert time.process_time() - begun < 5


def test_compile_checks_without_the_modules_of_the_state_repo() -> None:
    """Their code does not run where pull requests are compiled, but their handlers count."""
    content = {"$content": ["0" * 64, 1]}
    declarations = [
        Declaration(
            "file",
            "/a",
            {"path": "/a", "content": content},
            Mark("s.yml", 1),
            notify=("handler:own",),
        ),
        Declaration("mine", "x", {"y": 1}, Mark("s.yml", 2), handler=True, title="own"),
        Declaration("file", "/a", {"path": "/a", "owner": {"$secret": "s"}}, Mark("s.yml", 3)),
        Declaration("file", "/b", {"path": "/b", "mode": "rwx"}, Mark("s.yml", 4)),
        Declaration("file", "/c", {"path": "/c", "colour": "red"}, Mark("s.yml", 5)),
    ]
    found = check(declarations, lambda name: File if name == "file" else None)
    assert [(type(error), error.mark) for error in found] == [
        (SchemaError, Mark("s.yml", 4)),
        (SchemaError, Mark("s.yml", 5)),
        (ClaimConflict, Mark("s.yml", 3)),
    ]
