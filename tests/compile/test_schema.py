"""Schemas from syntax trees, and values against them."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile.repo import FACTS, compiled, errors, only_error, project, site, tree
from reconciler.compile import Project
from reconciler.compile.check import Misfit, fit
from reconciler.compile.schema import ATTRIBUTES, Field, Kind, TypeSchema, read_type
from reconciler.compile.types import builtin, builtin_names
from reconciler.errors import ConfigErrors, Mark, SchemaError
from reconciler.resource import Lowered, Resource
from reconciler.yamldoc import load

OWN = '''"""Keep a widget in shape.

    - name: it is round
      widget: {name: w, size: 3}

It is never square.
"""

from __future__ import annotations
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Optional
import os
from reconciler.resource import Resource, Secret
from reconciler.modules._tools import helper

os.environ["COMPILED_A_MODULE"] = "yes"
raise RuntimeError("a module must not run while compiling")

@dataclass(frozen=True)
class Widget(Resource):
    name: str  #: What it is called.
    size: int = 1  #: In metres.
    shape: Literal["round", "square"] = (
        "round"  #: As seen from above.
    )
    #: Who may
    #: touch it.
    owners: list[str] = field(default_factory=list)
    label: Optional[dict[str, str]] = None
    token: Secret | None = None
    free: "int | str" = 0

    aliases: ClassVar[dict[str, str]] = {"title": "name"}
    key_fields: ClassVar[tuple[str, ...]] = ("name", "label|shape")
    refused: ClassVar[dict[str, str]] = {"colour": "paint is no state"}
'''


def read(source: str, name: str = "widget") -> TypeSchema:
    return read_type(name, source, f"modules/{name}.py", lambda _: None, builtin=False)


# -- reading ---------------------------------------------------------------------------------


def test_fields_defaults_and_documentation_come_from_the_syntax_tree() -> None:
    schema = read(OWN)
    assert (schema.title, schema.doc) == ("Keep a widget in shape.", "It is never square.")
    assert schema.example == "- name: it is round\n  widget: {name: w, size: 3}"
    assert [(one.name, one.required, one.default, one.doc) for one in schema.fields] == [
        ("name", True, None, "What it is called."),
        ("size", False, 1, "In metres."),
        ("shape", False, "round", "As seen from above."),
        ("owners", False, [], "Who may touch it."),
        ("label", False, None, ""),
        ("token", False, None, ""),
        ("free", False, 0, ""),
    ]
    assert str(schema.fields[2].kind) == "one of round, square"
    assert schema.fields[4].kind == Kind("dict", (Kind("str"),), optional=True)
    assert schema.fields[6].kind == Kind("union", (Kind("int"), Kind("str")))
    assert schema.field("title") is schema.fields[0]
    assert schema.key_fields == ("name", "label|shape")
    assert schema.refused == {"colour": "paint is no state"}


@pytest.mark.parametrize(
    "source,line,message",
    [
        ("class X(:\n", 1, "is not Python"),
        ("x = 1\n", 1, "holds no resource type"),
        ("class X(Resource):\n    a: Where\n", 2, "Where is not a type"),
        ("class X(Resource):\n    a: str = os.environ['x']\n", 2, "is no literal"),
        ("class X(Resource):\n    a: dict[str]\n", 2, "is not a type"),
        ("(" * 5000, 0, "is not Python"),
        ("x = '\0'", 0, "is not Python"),
    ],
)
def test_a_module_that_cannot_be_read_is_an_error_with_its_place(
    source: str, line: int, message: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        read(source)
    assert message in caught.value.message
    assert caught.value.mark is not None
    assert caught.value.mark.file == "modules/widget.py"
    assert not line or caught.value.mark.line == line


@pytest.mark.parametrize("name", sorted(builtin_names()))
def test_the_schema_of_every_built_in_type_is_what_python_sees(name: str) -> None:
    schema = builtin(name)
    assert schema is not None
    module = importlib.import_module(f"reconciler.modules.{name}")
    kinds = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, (Resource, Lowered))
        and one.__module__ == module.__name__
    ]
    assert [one.name for one in schema.fields] == [one.name for one in dataclasses.fields(kinds[0])]
    assert all(one.doc for one in schema.fields)
    assert schema.title
    assert f"{name}:" in schema.example
    for attribute in ATTRIBUTES:
        fallback = getattr(Resource, attribute)
        assert getattr(schema, attribute) == getattr(kinds[0], attribute, fallback)


# -- the state repo's own types --------------------------------------------------------------


def own(item: str, **more: str) -> dict[str, str | bytes]:
    return {**site(item), "modules/widget.py": OWN, "modules/_tools.py": "helper = 1\n", **more}


def test_a_type_of_the_state_repo_is_checked_like_a_built_in_one_and_never_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    monkeypatch.delenv("COMPILED_A_MODULE", raising=False)
    whole = compiled(own("- widget: {title: w, size: '3', token: hunter2, label: {a: b}}\n"))
    widget = whole.catalog.resources[0]
    assert widget.id == "widget:w#{'a': 'b'}"
    assert widget.params["size"] == 3
    assert whole.secrets == {f"{widget.id}#token": "hunter2"}
    assert set(whole.catalog.modules) == {"widget", "_tools"}
    assert "COMPILED_A_MODULE" not in os.environ
    assert "did you mean 'size'" in only_error(own("- widget: {name: w, sise: 3}\n")).hint
    assert only_error(own("- widget: {name: w, colour: red}\n")).hint == "paint is no state"


def test_modules_that_a_host_does_not_use_are_in_its_catalog_only_where_they_are_asked_for() -> (
    None
):
    files = own("- group: x\n")
    assert compiled(files).catalog.modules == {}
    whole = Project(tree(files), every_module=True).compile("web1", FACTS)
    assert set(whole.catalog.modules) == {"widget", "_tools"}


def test_a_type_of_the_state_repo_may_be_about_a_place_on_the_host() -> None:
    text = "from reconciler.resource import Path, Resource\nclass Site(Resource):\n"
    text += "    name: str\n    top: Path\n    more: list[Path] | None = None\n"
    text += "    key_fields: ClassVar[tuple[str, ...]] = ('top', 'name')\n"
    item = "- site: {name: a//b, top: /srv//a/, more: [/etc/./x, y//z]}\n"
    (found,) = compiled({**site(item), "modules/site.py": text}).catalog.resources
    assert found.id == "site:/srv/a#a//b"
    assert found.params == {"name": "a//b", "top": "/srv/a", "more": ["/etc/x", "y//z"]}


def test_modules_travel_only_with_catalogs_that_need_them() -> None:
    assert compiled(own("- group: x\n")).catalog.modules == {}


def test_a_type_with_the_name_of_a_built_in_one_is_an_error() -> None:
    error = only_error({**site("- group: x\n"), "modules/file.py": OWN})
    assert "there is a built-in module of the name 'file'" in error.message
    assert error.mark == Mark("modules/file.py", 1)
    assert "_apt" in only_error({**site("- group: x\n"), "modules/_apt.py": "x = 1"}).message


def test_a_broken_type_is_one_error_however_often_it_is_used() -> None:
    files = {**site("- broken: a\n- broken: b\n"), "modules/broken.py": "class X(:\n"}
    assert [error.mark for error in errors(files)] == [Mark("modules/broken.py", 1, 9)]


def test_types_lists_built_in_ones_and_the_state_repos_own() -> None:
    found = project(own("- group: x\n")).types()
    assert found["widget"].builtin is False
    assert found["file"].builtin is True
    assert "_tools" not in found
    assert list(found) == sorted(found)
    with pytest.raises(ConfigErrors):
        project({**site("[]"), "modules/broken.py": "x"}).types()


# -- values ----------------------------------------------------------------------------------


def value(kind: Kind, text: str) -> object:
    document = load(f"key: {text}\n".encode(), "x.yml")
    return fit(Field("key", kind, "", required=True), document["key"])  # type: ignore[index]


STR, INT, FLOAT, BOOL = Kind("str"), Kind("int"), Kind("float"), Kind("bool")
TEXTS = Kind("list", (STR,))


@pytest.mark.parametrize(
    "kind,text,expected",
    [
        (STR, "x", "x"), (STR, "5", "5"), (STR, "1.5", "1.5"), (STR, "'0644'", "0644"), (STR, "''", ""),
        (INT, "5", 5), (INT, "'5'", 5), (INT, "0644", 420), (FLOAT, "5", 5.0), (FLOAT, "'1.5'", 1.5),
        (BOOL, "yes", True), (BOOL, "'no'", False), (BOOL, "1", True), (BOOL, "'On'", True),
        (Kind("choice", choices=("no", "yes", "full")), "no", "no"),
        (Kind("choice", choices=("no", "yes", "full")), "yes", "yes"),
        (TEXTS, "[a, 5]", ["a", "5"]), (TEXTS, "a, b", ["a", "b"]), (TEXTS, "a", ["a"]), (TEXTS, "''", []),
        (TEXTS, "test -f a, b", ["test -f a, b"]), (TEXTS, "5", ["5"]),
        (Kind("dict", (INT,)), "{a: '1', 5: 2}", {"a": 1, "5": 2}),
        (Kind("union", (STR, TEXTS)), "[a]", ["a"]), (Kind("union", (INT, STR)), "x", "x"),
        (Kind("union", (STR, INT)), "5", 5), (Kind("str", optional=True), "null", None),
        (Kind("object"), "{a: [1, {b: null}]}", {"a": [1, {"b": None}]}),
    ],
)  # fmt: skip
def test_what_is_clear_is_converted(kind: Kind, text: str, expected: object) -> None:
    found = value(kind, text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "kind,text,message,hint",
    [
        (STR, "0644", "key: 0644 is the number 420", 'write key: "0644"'),
        (STR, "1.10", "key: 1.10 is the number 1.1", 'write key: "1.10"'),
        (STR, "0x1F", "key: 0x1F is the number 31", 'write key: "0x1F"'),
        (STR, "no", "key is the truth value false", "in quotes"),
        (STR, "[a]", "key is a list, expected text", "write key: a"),
        (Kind("Path"), "[/a]", "key is a list, expected text", "write key: /a"),
        (Kind("Path"), "null", "key is empty, expected a path", "give it a value"),
        (STR, "{a: b}", "key is a mapping, expected text", ""),
        (STR, "null", "key is empty, expected text", "give it a value"),
        (INT, "x", "key is the text 'x', expected a whole number", ""),
        (INT, "1.5", "key is the number 1.5", ""), (INT, "yes", "the truth value true", ""),
        (FLOAT, "'nan'", "expected a number", ""), (BOOL, "2", "expected true or false", ""),
        (BOOL, "perhaps", "expected true or false", ""),
        (Kind("choice", choices=("present", "absent")), "presnet", "expected one of present, absent", "did you mean 'present'?"),
        (Kind("choice", choices=("present", "absent")), "yes", "the truth value true", ""),
        (TEXTS, "{a: b}", "expected a list of text", "[item, item]"), (TEXTS, "[no]", "item 1 of key is the truth value", ""),
        (Kind("dict", (STR,)), "[a]", "expected a mapping to text", "{key: value}"),
        (Kind("dict", (STR,)), "{on: a}", "a key of key is the truth value", ""),
        (Kind("dict", (STR,)), "{a: 010}", "key.a: 010 is the number 8", ""),
        (Kind("Content"), "x", "cannot be written here", "copy or template"),
    ],
)  # fmt: skip
def test_what_yaml_changed_or_does_not_fit_is_refused_with_the_way_to_write_it(
    kind: Kind, text: str, message: str, hint: str
) -> None:
    with pytest.raises(Misfit) as caught:
        value(kind, text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_place_of_a_value_deep_inside_is_exact() -> None:
    error = only_error(
        site(
            "- command:\n    cmd: x\n    creates: /x\n    environment:\n      A: 1\n      B: 010\n"
        )
    )
    assert error.mark == Mark("site.yml", 8, 14)


def test_a_value_that_is_a_secret_is_not_in_the_error() -> None:
    error = only_error(site("- user: {name: ada, password: 0123456}\n"))
    assert "123456" not in str(error)


kinds = st.recursive(
    st.sampled_from(
        [STR, Kind("Path"), INT, FLOAT, BOOL, Kind("object"), Kind("choice", choices=("a", "no"))]
    ),
    lambda inner: st.one_of(
        inner.map(lambda kind: Kind("list", (kind,))),
        inner.map(lambda kind: Kind("dict", (kind,))),
        st.lists(inner, min_size=2, max_size=3).map(lambda of: Kind("union", tuple(of))),
    ),
    max_leaves=4,
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=3), st.integers(), st.booleans()), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


@given(kinds, values)
def test_a_value_either_fits_and_then_fits_again_or_is_refused_with_a_message(
    kind: Kind, given_value: object
) -> None:
    field = Field("key", kind, "", required=True)
    try:
        found = fit(field, given_value)
    except Misfit as error:
        assert error.message  # noqa: PT017  # either outcome is fine
        return
    assert repr(fit(field, found)) == repr(found)
