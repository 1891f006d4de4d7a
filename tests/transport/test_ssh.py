"""Our SSH connections know their host, and wait for nothing."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fabric
import paramiko
import pytest

from reconciler.errors import AuthFailed, ConnectionLost, HostKeyRefused, HostUnreachable
from reconciler.transport import strict
from reconciler.transport.ssh import Connections
from reconciler.transport.target import Target
from transport.server import SshServer


@pytest.fixture(scope="module")
def key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


@pytest.fixture(scope="module")
def rsa() -> paramiko.PKey:
    return paramiko.RSAKey.generate(2048)


def config(tmp_path: Path, server: SshServer, *known: paramiko.PKey, more: str = "") -> str:
    """An ssh_config in which only these keys of the server are known."""
    lines = [f"[127.0.0.1]:{server.port} {k.get_name()} {k.get_base64()}\n" for k in known]
    (tmp_path / "known").write_text("".join(lines))
    path = tmp_path / "config"
    path.write_text(
        f"UserKnownHostsFile {tmp_path}/known\nGlobalKnownHostsFile /dev/null\n"
        f"IdentitiesOnly yes\nIdentityFile /nonexistent\n{more}"
    )
    return str(path)


def target(server: SshServer, ssh_config: str, password: str = "right", **more: Any) -> Target:  # noqa: S107  of a test server
    reach = {"ansible_host": "127.0.0.1", "ansible_port": server.port, "ansible_user": "me"}
    return Target.of("web", {**reach, "ansible_password": password, **more}, ssh_config)


def test_plain_fabric_accepts_any_key_and_ours_does_not(tmp_path: Path, key: paramiko.PKey) -> None:
    with SshServer(key) as server:
        plain = fabric.Connection(
            "127.0.0.1",
            user="me",
            port=server.port,
            config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
            connect_kwargs={"password": "right", "allow_agent": False, "look_for_keys": False},
        )
        plain.open()
        assert plain.is_connected, "if this fails, Fabric has become strict: say so in strict.py"
        plain.close()
        server.logins.clear()
        with pytest.raises(HostKeyRefused, match="unknown") as failure:
            Connections().open(target(server, config(tmp_path, server)))
        assert f"ssh-keyscan -p {server.port} 127.0.0.1" in failure.value.hint
        assert key.fingerprint in failure.value.message
        assert server.logins == [], "nothing is said to a host that is not known"


def test_no_code_of_ours_accepts_unknown_keys() -> None:
    for path in Path(strict.__file__).parents[1].rglob("*.py"):
        words = path.read_text()
        calls = [line for line in words.splitlines() if "AutoAddPolicy" in line]
        assert all(line.lstrip().startswith("#") for line in calls), path
        assert "StrictHostKeyChecking=no" not in words, path


def test_a_known_key_is_asked_for_even_if_the_host_prefers_another(
    tmp_path: Path, key: paramiko.PKey, rsa: paramiko.PKey
) -> None:
    with SshServer(key, rsa) as server:
        for known in (key, rsa):
            Connections().open(target(server, config(tmp_path, server, known))).close()


def test_a_host_whose_messages_could_be_dropped_is_refused(
    tmp_path: Path, key: paramiko.PKey
) -> None:
    with SshServer(key, droppable=True) as server:
        with pytest.raises(HostUnreachable, match="no strict key exchange"):
            Connections().open(target(server, config(tmp_path, server, key)))
        assert server.logins == []


def test_a_wrong_password_fails_once(tmp_path: Path, key: paramiko.PKey) -> None:
    with SshServer(key) as server:
        to = target(server, config(tmp_path, server, key), password="wrong")
        with pytest.raises(AuthFailed) as failure:
            Connections().open(to)
        assert "wrong" not in str(failure.value)
        assert server.logins == ["me"]


def test_a_round_trip_does_not_wait_for_nagle(tmp_path: Path, key: paramiko.PKey) -> None:
    with SshServer(key) as server:
        transport = Connections().open(target(server, config(tmp_path, server, key)))
        link: Any = transport._connection.session_transport.sock
        assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        channel = transport.start(["cat"])
        times: list[float] = []
        for _ in range(20):
            started = time.perf_counter()
            # Two writes in a row are what Nagle's algorithm holds up.
            channel.send(b"one", 5)
            channel.send(b"two", 5)
            got = b""
            while len(got) < 6:
                got += channel.receive(5) or b""
            times.append(time.perf_counter() - started)
        transport.close()
        assert statistics.median(times) < 0.03


def test_the_agent_is_never_forwarded(tmp_path: Path, key: paramiko.PKey) -> None:
    with SshServer(key) as server:
        path = config(tmp_path, server, key, more="ForwardAgent yes\n")
        transport = Connections().open(target(server, path))
        transport.start(["true"]).close()
        transport.close()
        assert not server.forwarding_asked


def test_a_port_that_accepts_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reach = {"ansible_host": "127.0.0.1", "ansible_port": silent.getsockname()[1]}
        config = tmp_path / "config"
        config.write_text("ConnectTimeout 1\n")
        for variables, path in (({}, str(config)), ({"ansible_timeout": 1}, None)):
            to = Target.of("web", {**reach, **variables, "ansible_password": "x"}, path)
            started = time.monotonic()
            with pytest.raises(HostUnreachable, match="does not speak SSH in time"):
                Connections().open(to)
            assert time.monotonic() - started < 4


@pytest.mark.parametrize("inventory", [True, False])
def test_a_host_that_falls_silent_is_noticed(
    tmp_path: Path, key: paramiko.PKey, inventory: bool
) -> None:
    alive = {"ServerAliveInterval": 1, "ServerAliveCountMax": 2}
    words = " ".join(f"-o {name}={value}" for name, value in alive.items())
    more = "".join(f"{name} {value}\n" for name, value in alive.items())
    with SshServer(key) as server:
        path = config(tmp_path, server, key, more="" if inventory else more)
        variables = {"ansible_ssh_common_args": words} if inventory else {}
        transport = Connections().open(target(server, path, **variables))
        channel = transport.start(["cat"])
        channel.send(b"hello", 5)
        assert channel.receive(5) == b"hello"
        assert channel.receive(4) is None, "who answers may be silent"
        server.freeze()
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="fell silent: it has not answered for 2 s"):
            channel.receive(60)
        assert time.monotonic() - started < 8
        transport.close()


def test_many_connections_are_made_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host h*\n  HostName 127.0.0.1\n  Port 1\n")
    connections = Connections()
    errors: list[BaseException] = []

    def reach(number: int) -> None:
        try:
            connections.open(Target.of(f"h{number}", {}, str(tmp_path / "config")))
        except BaseException as error:  # noqa: BLE001  whatever it is, it is shown
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # what threads share is met by them in every state
    try:
        threads = [threading.Thread(target=reach, args=(number,)) for number in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(errors) == 60
    assert not [one for one in errors if not isinstance(one, HostUnreachable)]


def test_what_libraries_log_is_not_shown_to_operators() -> None:
    code = (
        "import sys\n"
        "from reconciler.transport.ssh import Connections\n"
        "from reconciler.transport.target import Target\n"
        "reach = {'ansible_host': '127.0.0.1', 'ansible_port': int(sys.argv[1])}\n"
        "reach['ansible_timeout'] = 1\n"
        "try: Connections().open(Target.of('web', {**reach, 'ansible_password': 'x'}))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        argv = [sys.executable, "-c", code, str(silent.getsockname()[1])]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("HostUnreachable\n", "")


def test_ssh_is_not_imported_before_it_is_used() -> None:
    look = (
        "import sys; import reconciler.push.host; "
        "print([n for n in ('paramiko', 'fabric', 'invoke') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_the_libraries_import_and_we_never_use_is_left_out() -> None:
    look = (
        "import sys; from reconciler.transport.libraries import import_ssh; import_ssh(); "
        "from reconciler.transport.ssh import Connections; "
        "print([n for n in ('asyncio', 'unittest', 'email', 'yaml') if n in sys.modules]); "
        # Whoever does use them gets the real ones.
        "import unittest.mock, importlib.metadata, invoke.vendor.yaml; "
        "print(unittest.mock.patch.object, importlib.metadata.version('paramiko'), "
        "invoke.vendor.yaml.safe_load('[1]'))"
    )
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first == "[]"
    assert second.endswith("[1]")
