"""What holds for every resource type, also for the one that somebody adds tomorrow.

A contributor adds `modules/x.py` and `tests/modules/test_x.py`; this file finds them.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import reconciler.modules
from reconciler import yamldoc
from reconciler.compile import Project
from reconciler.compile.check import fit
from reconciler.compile.schema import TypeSchema
from reconciler.compile.types import builtin, builtin_names
from reconciler.engine.loader import Loader
from reconciler.errors import ConfigErrors, ResourceError
from reconciler.host import Host
from reconciler.resource import Resource, Secret

ROOM = Path(reconciler.modules.__file__ or "").parent
TYPES = sorted(builtin_names())
FILES = sorted(path.stem for path in ROOM.glob("*.py") if path.stem != "__init__")
LINES = 250
#: Files that are longer, and why that is better than two files.
LONGER = {
    "_apt": "one transaction: what to ask for, in which order, and what apt answered",
    "_aptget": "the words of apt-get's options, locks and errors in one place",
    "_aptlook": "reads apt's and dpkg's state at once, so that a plan asks once",
    "_systemd": "a unit's states as systemd tells them, and what each means for us",
    "service": "one type with the states of every kind of unit",
}
#: What may be imported from the product: the contract, and private siblings.
ROOMS = {"errors", "host", "patience", "resource", "safepath", "safewrite", "words", "modules"}
#: Parameters that stand for any template in an example.
TEMPLATE = re.compile(r"\{\{.*?\}\}")
HASH = "$6$salt$" + "x" * 86
CLAIM = re.compile(r"[a-z]+:.+", re.DOTALL)


def schema_of(name: str) -> TypeSchema:
    schema = builtin(name)
    assert schema is not None
    return schema


def tree_of(name: str) -> ast.Module:
    return ast.parse((ROOM / f"{name}.py").read_text(), feature_version=(3, 9))


def examples(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(type, parameters) of each resource in a module's example."""
    document = yamldoc.load(schema_of(name).example.encode(), f"modules/{name}.py")
    assert isinstance(document, list), "the example is a list of resources"
    for item in document:
        (kind,) = [key for key in item if key in TYPES]
        yield kind, dict(item[kind])


def fitted(kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as compile would hand them to the type."""
    schema = schema_of(kind)
    found: dict[str, Any] = {}
    for key, value in params.items():
        field = schema.field(key)
        assert field is not None, f"{kind} has no parameter {key}"
        if isinstance(value, str):
            value = TEMPLATE.sub(HASH if field.kind.name == "Secret" else "x", value)
        if schema.key_list and field is schema.fields[0] and isinstance(value, list):
            found[field.name] = [fit(field, one) for one in value]
            continue
        value = fit(field, value)
        found[field.name] = Secret(value) if field.kind.name == "Secret" else value
    return found


def resources(name: str) -> list[Resource]:
    """The live resources of an example; a name that is a list stands for several."""
    made: list[Resource] = []
    for kind, params in examples(name):
        schema = schema_of(kind)
        if schema.lowered:
            continue
        values = fitted(kind, params)
        first = schema.fields[0].name
        listed = schema.key_list and isinstance(values.get(first), list)
        for one in values[first] if listed else [None]:
            own = {**values, first: one} if listed else values
            made.append(Loader().type(kind)(**own))
    return made


@pytest.mark.parametrize("name", FILES)
class TestFile:
    def test_its_syntax_is_that_of_python_3_9(self, name: str) -> None:
        for node in ast.walk(tree_of(name)):
            newer = isinstance(node, ast.keyword) and node.arg in ("strict", "slots", "kw_only")
            assert not newer, f"line {getattr(node, 'lineno', 0)} needs a newer Python"

    def test_annotations_are_text_so_that_newer_types_can_be_written(self, name: str) -> None:
        imported = [
            one.name
            for node in tree_of(name).body
            if isinstance(node, ast.ImportFrom) and node.module == "__future__"
            for one in node.names
        ]
        if any(
            isinstance(node, ast.AnnAssign | ast.FunctionDef) for node in ast.walk(tree_of(name))
        ):
            assert imported == ["annotations"]

    def test_it_imports_the_standard_library_and_the_contract_only(self, name: str) -> None:
        for node in ast.walk(tree_of(name)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level, "imports are absolute"
                names = [node.module or ""]
            for one in names:
                top, _, rest = one.partition(".")
                assert top in sys.stdlib_module_names or top == "reconciler", one
                assert top != "reconciler" or not rest or rest.partition(".")[0] in ROOMS, one

    def test_it_reaches_the_machine_through_the_host_only(self, name: str) -> None:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.Import):
                assert {one.name for one in node.names}.isdisjoint(
                    {"subprocess", "shutil", "socket"}
                )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("open", "exec", "eval", "print", "input"), node.lineno
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                if isinstance(owner, ast.Name) and owner.id == "os":
                    assert node.func.attr in ("geteuid", "fsencode", "fsdecode", "strerror"), (
                        f"line {node.lineno}: os.{node.func.attr} goes past the host"
                    )

    def test_it_is_short_or_says_why_not(self, name: str) -> None:
        lines = len((ROOM / f"{name}.py").read_text().splitlines())
        assert lines <= LINES or name in LONGER, f"{lines} lines"
        assert name not in LONGER or lines > LINES, "no longer long: take it out of LONGER"

    def test_every_public_function_says_what_it_is(self, name: str) -> None:
        tree = tree_of(name)
        assert ast.get_docstring(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("name", TYPES)
class TestType:
    def test_it_has_a_title_an_example_and_a_test(self, name: str) -> None:
        schema = schema_of(name)
        assert schema.title.endswith(".")
        assert schema.example
        if not schema.lowered and len(ast.parse((ROOM / f"{name}.py").read_text()).body) > 3:
            assert (Path(__file__).parents[1] / "modules" / f"test_{name}.py").exists()

    def test_every_field_is_documented(self, name: str) -> None:
        schema = schema_of(name)
        assert schema.fields
        for field in schema.fields:
            assert field.doc, f"{field.name} has no doc"
            assert field.doc[-1] in ".`)!", f"{field.name}: {field.doc}"

    def test_types_of_fields_are_of_the_closed_vocabulary(self, name: str) -> None:
        for field in schema_of(name).fields:
            assert field.kind.name != "object", f"{field.name} may be anything"

    def test_what_its_attributes_name_is_there(self, name: str) -> None:
        schema = schema_of(name)
        names = {field.name for field in schema.fields}
        assert set(schema.aliases.values()) <= names
        assert not set(schema.aliases) & names
        assert {one for keys in schema.key_fields for one in keys.split("|")} <= names
        assert set(schema.requires_one_of) <= names
        assert set(schema.handler_only) <= names
        assert not set(schema.refused) & (names | set(schema.aliases))

    def test_the_example_is_valid_for_the_schema(self, name: str) -> None:
        found = list(examples(name))
        assert name in [kind for kind, _ in found]
        for kind, params in found:
            values = fitted(kind, params)
            required = [field.name for field in schema_of(kind).fields if field.required]
            assert set(required) <= set(values)

    def test_an_unknown_key_is_refused_and_the_nearest_named(self, name: str) -> None:
        known = max((field.name for field in schema_of(name).fields), key=len)
        site = f"- hosts: all\n  resources:\n    - {name}: {{{known}x: y}}\n"
        with pytest.raises(ConfigErrors) as caught:
            Project(OneFile(site)).compile("web1", {"os_family": "Debian"})
        assert any(
            f"'{known}x'" in error.message and known in error.hint and error.mark is not None
            for error in caught.value.errors
        ), str(caught.value)

    def test_pictures_claims_and_needs_are_plain_data(self, name: str) -> None:
        for resource in resources(name):
            desired = resource.desired()
            assert json.loads(json.dumps(desired)) == desired
            for claim in [*resource.claims(), *resource.needs()]:
                assert CLAIM.fullmatch(claim), claim
            assert isinstance(resource.claims(), set)
            assert resource.claims(), "what it owns cannot be pruned, watched or ordered"

    def test_looking_writes_nothing(self, name: str) -> None:
        for resource in resources(name):
            host = Host()
            acts: list[str] = []
            host.before_change = acts.append
            refusal = ""
            try:
                seen = resource.actual(host)
                assert json.loads(json.dumps(seen)) == seen
            except ResourceError as error:
                refusal = error.message  # what it is about is not on this machine
            finally:
                host.files.close()
            assert not refusal[:1].isupper(), "messages begin in lower case"
            assert acts == []

    def test_a_secret_appears_nowhere(self, name: str) -> None:
        secret = [field.name for field in schema_of(name).fields if field.kind.name == "Secret"]
        for resource in resources(name):
            for field in secret:
                value = getattr(resource, field)
                if value:
                    assert value not in repr(resource)
                    assert value not in json.dumps(resource.desired())
                    assert not any(value in claim for claim in resource.claims() | resource.needs())


class OneFile:
    """A state repo of a single site.yml."""

    commit = "c0ffee"
    dirty = False
    key = "one"

    def __init__(self, site: str) -> None:
        self._site = site.encode()

    def entry(self, path: str) -> Any:
        from reconciler.tree import Entry

        return (
            Entry(path, "file", str(hash(self._site)), len(self._site))
            if path == "site.yml"
            else None
        )

    def listdir(self, path: str) -> list[Any]:
        return [self.entry("site.yml")] if not path else []

    def read(self, path: str) -> bytes:
        return self._site

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self._site


def test_modules_are_found() -> None:
    assert {"file", "lineinfile", "user", "group", "cron", "command", "package", "service"} <= set(
        TYPES
    )
