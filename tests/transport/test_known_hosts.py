"""known_hosts mean here what they mean to OpenSSH."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, HostKeyRefused
from reconciler.transport import known_hosts
from reconciler.transport.known_hosts import Known


def key(number: int, kind: str = "ssh-ed25519") -> tuple[str, bytes]:
    """A public key that nobody has: its line and its bytes."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + b"\0\0\0\x20" + bytes([number]) * 32
    return f"{kind} {base64.b64encode(blob).decode()}", blob


ONE, ONE_BLOB = key(1)
TWO, TWO_BLOB = key(2)
RSA, RSA_BLOB = key(3, "ssh-rsa")


def known(tmp_path: Path, name: str, *lines: str) -> Known:
    path = tmp_path / "known_hosts"
    path.write_text("\n".join(lines) + "\n")
    return Known(name, known_hosts.read([str(path), str(tmp_path / "missing")]))


@pytest.mark.parametrize(
    "names",
    ["web", "WEB", "db,web", "w?b", "*", "*,!db", "web,10.0.0.1"],
)
def test_names_that_mean_the_host(tmp_path: Path, names: str) -> None:
    known(tmp_path, "web", f"{names} {ONE}").check(ONE_BLOB)


@pytest.mark.parametrize("names", ["db", "*,!web", "!web,*", "[web]:22", "we", "webs", "w[e]b"])
def test_names_that_do_not_mean_the_host(tmp_path: Path, names: str) -> None:
    with pytest.raises(HostKeyRefused, match="unknown"):
        known(tmp_path, "web", f"{names} {ONE}").check(ONE_BLOB)


def test_a_port_of_its_own_has_a_name_of_its_own(tmp_path: Path) -> None:
    name = known_hosts.lookup_name("web", 2222)
    assert known_hosts.lookup_name("web", 22) == "web"
    known(tmp_path, name, f"[web]:2222 {ONE}").check(ONE_BLOB)
    with pytest.raises(HostKeyRefused) as failure:
        known(tmp_path, name, f"web {ONE}").check(ONE_BLOB)
    assert "ssh-keyscan -p 2222 web | ssh-keygen -lf -" in failure.value.hint


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_hashed_names_of_ssh_keygen_are_found(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"web {ONE}\n[db]:2222 {TWO}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "web" not in path.read_text()
    entries = known_hosts.read([str(path)])
    Known("web", entries).check(ONE_BLOB)
    Known("[db]:2222", entries).check(TWO_BLOB)
    with pytest.raises(HostKeyRefused):
        Known("db", entries).check(TWO_BLOB)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(f"{ONE}\n")
    shown = subprocess.run(["ssh-keygen", "-lf", str(path)], check=True, capture_output=True)
    assert known_hosts.fingerprint(ONE_BLOB).encode() in shown.stdout


def test_another_key_than_the_known_one_is_a_changed_key(tmp_path: Path) -> None:
    with pytest.raises(HostKeyRefused, match="HAS CHANGED") as failure:
        known(tmp_path, "web", f"web {ONE}").check(TWO_BLOB)
    assert known_hosts.fingerprint(ONE_BLOB) in failure.value.message
    assert known_hosts.fingerprint(TWO_BLOB) in failure.value.message
    assert "known_hosts:1" in failure.value.message
    assert "ssh-keygen -R 'web'" in failure.value.hint


def test_a_revoked_key_is_refused_wherever_else_it_is_known(tmp_path: Path) -> None:
    with pytest.raises(HostKeyRefused, match="revoked"):
        known(tmp_path, "web", f"web {ONE}", f"@revoked * {ONE}").check(ONE_BLOB)


def test_an_authority_speaks_for_hosts_that_its_line_names(tmp_path: Path) -> None:
    mine = known(tmp_path, "web.example", f"@cert-authority *.example {TWO}")
    mine.check(ONE_BLOB, authority=TWO_BLOB)
    with pytest.raises(HostKeyRefused):
        mine.check(ONE_BLOB, authority=RSA_BLOB)
    with pytest.raises(HostKeyRefused):
        mine.check(TWO_BLOB)
    with pytest.raises(HostKeyRefused):
        known(tmp_path, "web", f"@cert-authority *.example {TWO}").check(ONE_BLOB, TWO_BLOB)


def test_a_revoked_authority_speaks_for_nobody(tmp_path: Path) -> None:
    lines = [f"@cert-authority * {TWO}", f"@revoked * {TWO}"]
    with pytest.raises(HostKeyRefused, match="revoked"):
        known(tmp_path, "web", *lines).check(ONE_BLOB, authority=TWO_BLOB)


@pytest.mark.parametrize(
    "line",
    ["", "# web", "web", "web ssh-ed25519", "web ssh-ed25519 !!!", "@unknown web x y", "|1|a web"],
)
def test_damaged_lines_are_passed_over(tmp_path: Path, line: str) -> None:
    known(tmp_path, "web", line, f"web {ONE}").check(ONE_BLOB)


def test_a_line_that_names_another_type_than_its_key_is_damaged(tmp_path: Path) -> None:
    lying = f"web ssh-rsa {ONE.split()[1]}"
    with pytest.raises(HostKeyRefused, match="unknown"):
        known(tmp_path, "web", lying).check(ONE_BLOB)


def test_the_types_that_are_known_are_the_ones_to_ask_for(tmp_path: Path) -> None:
    assert known(tmp_path, "web", f"web {RSA}", f"web {ONE}").kinds == ["ssh-rsa", "ssh-ed25519"]


def test_pinned_keys_must_be_keys() -> None:
    Known("web", known_hosts.pinned([ONE, f"{RSA} a comment"])).check(RSA_BLOB)
    with pytest.raises(ConfigError, match="not a public key"):
        known_hosts.pinned(["SHA256:abc"])
