"""What a host says about itself, from files alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from reconciler.catalog import dumps
from reconciler.engine.facts import gather


def root(tmp_path: Path, release: str) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(release)
    (tmp_path / "etc/hostname").write_text("web1\n")
    (tmp_path / "etc/hosts").write_text("127.0.1.1 web1.example.org web1 # us\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    "release, name, family, major",
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "Debian", "Debian", "12"),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "Ubuntu", "Debian", "24"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.3"\n', "Rocky", "RedHat", "9"),
        ("ID=arch\n", "Arch", "Archlinux", ""),
        ("# nothing\n", "Linux", "Linux", ""),
    ],
)
def test_distributions_are_told_apart(
    tmp_path: Path, release: str, name: str, family: str, major: str
) -> None:
    facts = gather(root(tmp_path, release))
    assert (facts["distribution"], facts["os_family"]) == (name, family)
    assert facts["distribution_major_version"] == major


def test_names_come_from_the_root(tmp_path: Path) -> None:
    facts = gather(root(tmp_path, "ID=debian\n"))
    assert facts["hostname"] == "web1"
    assert (facts["fqdn"], facts["domain"]) == ("web1.example.org", "example.org")


def test_the_package_manager_is_the_one_that_is_installed(tmp_path: Path) -> None:
    place = root(tmp_path, "ID=debian\n")
    assert gather(place)["pkg_mgr"] == "unknown"
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/apt-get").touch()
    assert gather(place)["pkg_mgr"] == "apt"


def test_facts_are_the_same_from_run_to_run_and_are_json() -> None:
    facts = gather()
    assert dumps(facts) == dumps(gather())
    assert json.loads(dumps(facts)) == facts
    assert list(facts) == sorted(facts)


def test_an_empty_root_has_facts_too(tmp_path: Path) -> None:
    facts = gather(str(tmp_path))
    assert facts["default_ipv4"] == {}
    assert facts["hostname"] == "localhost"


def test_hostile_files_are_data(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(b"ID=\xff\xfe\n=\n" + b"A" * 100_000)
    (tmp_path / "etc/hosts").write_bytes(b"\0\n\xff\n::1\n")
    json.dumps(gather(str(tmp_path)))


def test_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("facts start no program")

    monkeypatch.setattr(subprocess, "Popen", never)
    gather()
