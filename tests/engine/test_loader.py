"""From a type's name to its class, also for what the state repo brings itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.catalog import Declaration
from reconciler.engine.loader import Loader
from reconciler.errors import ConfigError, Mark, SchemaError
from reconciler.modules.file import File
from reconciler.resource import Secret

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from reconciler.modules._shared import VALUE
from reconciler.resource import Resource, Secret

@dataclass(frozen=True)
class Mine(Resource):
    name: str
    value: str = VALUE

    def broken(self):
        raise KeyError("x")
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    Loader()


def declared(kind: str = "mine", **params: object) -> Declaration:
    return Declaration(kind, "x", params, Mark("site.yml", 4))


def test_built_in_types_are_found_by_name() -> None:
    assert Loader().type("file") is File


@pytest.mark.parametrize("name", ["nothing", "_mode", "../x", "os.path", "", "file.File"])
def test_what_is_no_type_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Loader().type(name)


def test_own_modules_come_with_the_catalog_and_import_each_other() -> None:
    loader = Loader({"mine": OWN, "_shared": "VALUE = 'shared'"})
    assert loader.build(declared(name="x")).value == "shared"  # type: ignore[attr-defined]


def test_which_types_there_are_is_known_without_loading_one() -> None:
    loader = Loader({"mine": "1 / 0", "_shared": ""})
    names = ["file", "mine", "nothing", "_mode", "_shared", "file.File", ""]
    assert [name for name in names if loader.knows(name)] == ["file", "mine"]
    assert not Loader().knows("mine")


def test_the_next_catalog_brings_its_own_text() -> None:
    Loader({"mine": OWN, "_shared": "VALUE = 'old'"}).build(declared(name="x"))
    loader = Loader({"mine": OWN, "_shared": "VALUE = 'new'"})
    assert loader.build(declared(name="x")).value == "new"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="no resource type 'mine'"):
        Loader().type("mine")


def test_an_own_module_cannot_replace_a_built_in_one() -> None:
    assert Loader({"file": OWN}).type("file") is File
    Loader()
    assert Loader().type("file") is File


@pytest.mark.parametrize(
    "text, said",
    [
        ("import not_there", "needs not_there"),
        ("def", "cannot be loaded: SyntaxError"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("from reconciler.errors import Nothing", "cannot be loaded: ImportError"),
        ("x = 1", "holds no Resource"),
    ],
)
def test_a_module_that_cannot_be_loaded_says_why_and_who_wanted_it(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        Loader({"mine": text}).build(declared())
    assert refused.value.mark == Mark("site.yml", 4)
    assert refused.value.exit_code == 3


def test_params_that_do_not_fit_name_the_declaration() -> None:
    with pytest.raises(SchemaError, match=r"site.yml:4: file:x does not fit its type: .*'colour'"):
        Loader().build(declared("file", path="/x", colour="red"))


def test_the_place_of_a_bug_in_an_own_module_is_its_file() -> None:
    resource = Loader({"mine": OWN, "_shared": "VALUE = ''"}).build(declared(name="x"))
    with pytest.raises(KeyError) as raised:
        resource.broken()  # type: ignore[attr-defined]
    assert raised.traceback[-1].path is not None
    assert str(raised.tb.tb_next.tb_frame.f_code.co_filename) == "modules/mine.py"  # type: ignore[union-attr]


def test_handles_become_secrets_and_missing_ones_are_said() -> None:
    handle = {"$secret": "file:x#owner"}
    resource = Loader().build(declared("file", path="/x", owner=handle), {"file:x#owner": "s3"})
    assert isinstance(resource, File)
    assert isinstance(resource.owner, Secret)
    assert "s3" not in repr(resource)
    with pytest.raises(ConfigError, match="needs the secret 'file:x#owner'"):
        Loader().build(declared("file", path="/x", owner=handle))
