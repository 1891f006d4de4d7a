"""Sources that are not there or may not be read: an error, or a warning where that is allowed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, ConfigErrors, InventoryError
from reconciler.inventory import Disk, Inventory

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """An inventory directory with two sources, seen by a user for whom permissions count."""
    directory = Path(tempfile.mkdtemp())
    (directory / "a").write_text("[web]\nh1\n")
    (directory / "b").write_text("h2\n")
    (directory / "group_vars").mkdir()
    (directory / "group_vars/web").write_text("x: 1\n")
    (directory / "deeper").mkdir()
    (directory / "deeper/c").write_text("h3\n")
    directory.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield directory
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(directory)


def close(path: Path) -> None:
    """Nobody may read it any more; done by its owner."""
    euid = os.geteuid()
    os.seteuid(path.stat().st_uid)
    path.chmod(0)
    os.seteuid(euid)


def load(place: Path, *, allow_missing: bool = False) -> Inventory:
    return Inventory.load([str(place)], Disk(), allow_missing=allow_missing)


def test_of_a_directory_every_source_is_read(place: Path) -> None:
    inventory = load(place)
    assert inventory.hosts() == ["h1", "h2", "h3"]
    assert inventory.variables("h1") == {"x": 1}


@pytest.mark.parametrize("name, left", [("b", ["h1", "h3"]), ("deeper", ["h1", "h2"])])
def test_a_source_in_a_directory_that_may_not_be_read_is_an_error_or_is_left_out(
    place: Path, name: str, left: list[str]
) -> None:
    close(place / name)
    with pytest.raises(InventoryError, match=f"cannot read {place}/{name}: permission denied"):
        load(place)
    inventory = load(place, allow_missing=True)
    assert inventory.hosts() == left
    assert inventory.warnings == [f"cannot read {place}/{name}: permission denied"]


@pytest.mark.parametrize("inside", ["", "/a"])
def test_a_closed_directory_is_said_to_be_closed_and_not_to_be_missing(
    place: Path, inside: str
) -> None:
    close(place)
    with pytest.raises(InventoryError, match=r"permission denied") as caught:
        load(Path(f"{place}{inside}"))
    assert not isinstance(caught.value, ConfigErrors)
    inventory = load(Path(f"{place}{inside}"), allow_missing=True)
    assert inventory.hosts() == []
    assert len(inventory.warnings) == 1


@pytest.mark.parametrize("name", ["group_vars", "group_vars/web"])
def test_variables_that_may_not_be_read_are_always_an_error(place: Path, name: str) -> None:
    close(place / name)
    with pytest.raises(ConfigError, match="permission denied"):
        load(place, allow_missing=True)


def test_a_link_that_leads_nowhere_is_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("h1\n")
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(InventoryError, match=r"cannot read .*/b: no such file"):
        load(tmp_path)
    assert load(tmp_path, allow_missing=True).hosts() == ["h1"]
    (tmp_path / "b").unlink()
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/h1.yml").symlink_to("nowhere")
    with pytest.raises(InventoryError, match=r"cannot read .*/h1.yml: no such file"):
        load(tmp_path).variables("h1")


@pytest.mark.parametrize("source", ["", "/", "//"])
def test_what_an_empty_variable_of_a_shell_leaves_is_no_inventory(source: str) -> None:
    """As the root directory it would run every program of this machine."""
    with pytest.raises(InventoryError, match="is no inventory"):
        Inventory.load([source], Disk(), allow_missing=True)
