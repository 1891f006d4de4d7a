"""The shapes of public inventories, whole: lists, graphs, variables and patterns as Ansible has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compat.oracle import Ansible
from compat.test_fuzz import differences, ours, plain
from inventory.test_shapes import SHAPES, SOURCES
from reconciler.cli.main import main
from reconciler.inventory import Inventory

PATTERNS = (
    "all:!all[0]",
    "*[1:3]",
    "lamp:&multi",
    "etcd[-1]",
    "~.*dc1",
    "debops*:!~app",
    "192.168.*",
)


@pytest.mark.parametrize("sources", SOURCES, ids=" ".join)
def test_a_public_shape_means_the_same(
    ansible: Ansible, tmp_path: Path, sources: tuple[str, ...]
) -> None:
    (tmp_path / "play").mkdir()
    paths = [str(SHAPES / source) for source in sources]
    seen = ansible.load(paths, str(tmp_path / "play"))
    found = ours(paths, tmp_path)
    assert isinstance(found, Inventory), found
    assert not seen.refused
    for what, theirs, mine in differences(seen, found, ansible, PATTERNS):
        assert mine == theirs, what


@pytest.mark.parametrize("sources", SOURCES, ids=" ".join)
def test_the_command_line_prints_what_ansible_inventory_prints(
    ansible: Ansible,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sources: tuple[str, ...],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    paths = [str(SHAPES / source) for source in sources]
    seen = ansible.load(paths, str(tmp_path))
    words = [word for path in paths for word in ("-i", path)]

    def said(*more: str) -> str:
        assert main(["inventory", *more, *words]) == 0
        return capsys.readouterr().out

    document: dict[str, Any] = plain(json.loads(said("list", "--json")))
    assert document == seen.document
    assert said("graph").rstrip("\n") == seen.graph
    host = seen.hosts[0]
    assert plain(json.loads(said("host", host, "--json"))) == seen.variables[host]
