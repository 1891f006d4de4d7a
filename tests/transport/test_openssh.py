"""What we ask of `ssh`: nothing is forwarded, and its sockets are ours alone."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from reconciler.errors import ConfigError
from reconciler.transport.openssh import MAX_DIRECTORY, OpenSshTransport, Sockets
from reconciler.transport.target import Target

#: An ssh_config of somebody who forwards everything he has.
GENEROUS = """\
ForwardAgent yes
ForwardX11 yes
LocalForward 1234 localhost:22
RemoteForward 1235 localhost:22
DynamicForward 1236
PermitLocalCommand yes
LocalCommand touch /tmp/never
RequestTTY force
StrictHostKeyChecking no
BatchMode no
"""


def test_whatever_ssh_config_says_nothing_is_forwarded_and_keys_are_checked(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(GENEROUS)
    sockets = Sockets()
    try:
        target = Target.of("web", {"ansible_connection": "openssh"}, str(tmp_path / "config"))
        argv = OpenSshTransport(target, sockets)._argv
        shown = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, check=True).stdout
    finally:
        sockets._masters.clear()
        sockets.close()
    found = dict(line.split(" ", 1) for line in shown.decode().splitlines() if " " in line)
    expected = {
        "forwardagent": "no",
        "forwardx11": "no",
        "clearallforwardings": "yes",
        "permitlocalcommand": "no",
        "requesttty": "false",
        "stricthostkeychecking": "true",
        "batchmode": "yes",
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("runtime", ["", "ours", "/a/very/long/path/" * 10, "open"])
def test_sockets_lie_where_nobody_else_can_write_and_paths_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(open_to_all) if runtime == "open" else runtime)
    first, second = Sockets(), Sockets()
    try:
        for sockets in (first, second):
            found = os.stat(sockets.path)
            assert stat.S_IMODE(found.st_mode) == 0o700
            assert found.st_uid == os.geteuid()
            assert len(sockets.path) <= MAX_DIRECTORY
            assert not sockets.path.startswith(str(open_to_all))
        assert first.path != second.path
    finally:
        first.close()
        second.close()
    assert not os.path.exists(first.path)


@pytest.mark.parametrize("secret", ["ansible_password", "ansible_ssh_private_key_passphrase"])
def test_secrets_that_ssh_cannot_be_given_are_refused(secret: str) -> None:
    sockets = Sockets()
    try:
        target = Target.of("web", {"ansible_connection": "openssh", secret: "canary"})
        with pytest.raises(ConfigError) as failure:
            OpenSshTransport(target, sockets)
        assert "canary" not in str(failure.value)
    finally:
        sockets.close()
