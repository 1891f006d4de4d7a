"""A push to this machine: the same function that serves every other host."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.catalog import Catalog, Declaration, dumps
from reconciler.errors import ConfigError, HostUnfit, Mark
from reconciler.push.host import push_host
from reconciler.push.parcel import packed_engine
from reconciler.transport.connect import Connector
from reconciler.transport.target import Target


class Directory:
    """A `Project` that wants one directory."""

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        params = {"path": "/srv/pushed", "state": "directory"}
        wanted = Declaration("file", "/srv/pushed", params, Mark("site.yml", 1, 1))
        return dumps(Catalog(host, (wanted,)).to_json())

    def content(self, host: str, facts: Mapping[str, Any], sha256: str) -> Iterable[bytes]:
        raise AssertionError

    def secrets(self, host: str, facts: Mapping[str, Any]) -> Mapping[str, str]:
        raise AssertionError


class Broken(Directory):
    """A `Project` that does not compile."""

    def catalog(self, host: str, facts: Mapping[str, Any]) -> bytes:
        raise ConfigError("no such variable")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "srv").mkdir()
    return tmp_path


def chroot(root: Path) -> Target:
    return Target.of("box", {"ansible_connection": "chroot", "ansible_host": str(root)})


def test_a_directory_root_is_planned_converged_and_then_in_sync(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a chroot takes root")
    with Connector() as connector:
        assert push_host(chroot(root), Directory(), "plan", connector).differs
        assert not (root / "srv/pushed").exists()
        assert push_host(chroot(root), Directory(), "apply", connector).changed
        assert (root / "srv/pushed").is_dir()
        assert not push_host(chroot(root), Directory(), "apply", connector).changed


def test_every_error_names_its_host(root: Path) -> None:
    with Connector() as connector:
        with pytest.raises(ConfigError) as failure:
            push_host(chroot(root), Broken(), "plan", connector)
        assert failure.value.host == "box"
        missing = {"ansible_connection": "local", "ansible_become": True}
        nowhere = Target.of("here", {**missing, "ansible_become_method": "doas"})
        with pytest.raises(HostUnfit) as unfit:
            push_host(nowhere, Directory(), "plan", connector)
        assert unfit.value.host == "here"


def test_the_packed_engine_is_kept_and_a_damaged_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = packed_engine()
    (kept,) = (tmp_path / "reconciler/engines").iterdir()
    assert packed_engine() == first
    kept.write_bytes(kept.read_bytes()[:-1])
    assert packed_engine() == first
    assert kept.stat().st_mode & 0o777 == 0o600
