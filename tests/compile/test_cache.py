"""The cache of catalogs: what it keeps, for how long, and whom it believes."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.compile import cache as cache_file
from reconciler.compile.cache import CatalogCache, cache_home, catalog_key, private_directory

KEY = "0" * 64


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "reconciler")


def key(**changes: object) -> str:
    parts: dict[str, object] = {
        "tree": "t",
        "commit": "c",
        "dirty": False,
        "inventory": "i",
        "host": "h",
        "facts": {"a": 1},
    }
    return catalog_key(**(parts | changes))  # type: ignore[arg-type]


def test_a_catalog_comes_back_as_it_was_kept(home: str) -> None:
    CatalogCache(home).keep_catalog(KEY, b'{"a":1}\n\0')
    assert CatalogCache(home).catalog(KEY) == b'{"a":1}\n\0'


def test_an_unknown_catalog_is_none(home: str) -> None:
    assert CatalogCache(home).catalog(KEY) is None


@pytest.mark.parametrize(
    "change",
    [
        {"tree": "u"},
        {"commit": "d"},
        {"dirty": True},
        {"inventory": "j"},
        {"host": "g"},
        {"facts": {"a": 2}},
        {"choice": (("web",), ())},
        {"choice": ((), ("web",))},
    ],
    ids=str,
)
def test_all_that_a_catalog_depends_on_is_in_its_key(change: dict[str, object]) -> None:
    assert key() == key()
    assert key(**change) != key()


def test_another_version_of_reconciler_has_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr("reconciler.__version__", "99")
    assert key() != before


@pytest.mark.parametrize("damage", [b"", b"\n", b'{"a":2}', b"0" * 64 + b'\n{"a":1}'])
def test_a_damaged_catalog_is_not_believed(home: str, damage: bytes) -> None:
    CatalogCache(home).keep_catalog(KEY, b'{"a":1}')
    Path(home, "catalogs", KEY).write_bytes(damage)
    assert CatalogCache(home).catalog(KEY) is None


def test_only_the_newest_are_kept_and_use_counts(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "KEEP", 2)
    cache = CatalogCache(home)
    for age, name in enumerate(("first", "second")):
        cache.keep_catalog(name, b"{}")
        os.utime(Path(home, "catalogs", name), (age, age))
    assert cache.catalog("first") == b"{}"
    cache.keep_catalog("third", b"{}")
    assert sorted(os.listdir(Path(home, "catalogs"))) == ["first", "third"]


def test_a_large_fleet_finds_all_of_its_catalogs_next_time(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "KEEP", 8)
    for _ in range(3):
        with closing(CatalogCache(home)) as cache:
            cache.make_room(50)
            for number in range(50):
                cache.keep_catalog(f"host{number}", b"{}")
    again = CatalogCache(home)
    assert all(again.catalog(f"host{number}") for number in range(50))
    with closing(CatalogCache(home)) as small:
        small.keep_catalog("other", b"{}")
    assert len(os.listdir(Path(home, "catalogs"))) == 8


def test_everything_is_private_from_the_start(home: str) -> None:
    cache = CatalogCache(home)
    cache.keep_catalog(KEY, b"{}")
    cache.keep_facts("web1", {"a": 1})
    for directory, _, files in os.walk(home):
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert all(
            os.stat(os.path.join(directory, name)).st_mode & 0o777 == 0o600 for name in files
        )


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_to_is_not_used(home: str, mode: int) -> None:
    os.makedirs(home)
    os.chmod(home, mode)
    cache = CatalogCache(home)
    assert not cache.usable
    cache.keep_catalog(KEY, b"{}")
    assert cache.catalog(KEY) is None
    assert os.listdir(home) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_not_used(home: str) -> None:
    os.makedirs(home, 0o700)
    os.chown(home, 65534, 65534)
    assert private_directory("catalogs", home) is None


def test_a_planted_link_is_not_followed(home: str, tmp_path: Path) -> None:
    CatalogCache(home)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n{}")
    Path(home, "catalogs", KEY).symlink_to(elsewhere)
    assert CatalogCache(home).catalog(KEY) is None


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    cache = CatalogCache(str(blocked / "reconciler"))
    cache.keep_catalog(KEY, b"{}")
    assert not cache.usable
    assert cache.facts("web1") is None


def test_no_temporary_file_stays_behind(home: str) -> None:
    cache = CatalogCache(home)
    for n in range(5):
        cache.keep_catalog(KEY, b"%d" % n)
    assert os.listdir(Path(home, "catalogs")) == [KEY]


def test_facts_of_the_last_contact_come_back_whatever_the_host_is_called(home: str) -> None:
    cache = CatalogCache(home)
    cache.keep_facts("../../etc/x", {"hostname": "x"})
    assert cache.facts("../../etc/x") == {"hostname": "x"}
    assert cache.facts("other") is None


def test_damaged_facts_are_no_facts(home: str) -> None:
    cache = CatalogCache(home)
    cache.keep_facts("web1", {"a": 1})
    (name,) = os.listdir(Path(home, "facts"))
    Path(home, "facts", name).write_bytes(b"[1")
    assert cache.facts("web1") is None


@pytest.mark.parametrize(
    "environment, place",
    [
        ({"XDG_CACHE_HOME": "/var/cache/x"}, "/var/cache/x/reconciler"),
        ({"XDG_CACHE_HOME": "relative"}, os.path.expanduser("~/.cache/reconciler")),
        ({}, os.path.expanduser("~/.cache/reconciler")),
    ],
)
def test_the_place_is_the_one_of_the_xdg_base_directory_specification(
    environment: dict[str, str], place: str
) -> None:
    assert cache_home(environment) == place


def test_a_hit_imports_neither_yaml_nor_jinja2() -> None:
    program = (
        "import sys, reconciler.compile.cache; print(sorted({'yaml', 'jinja2'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout
        == "[]\n"
    )
