"""Checks between batches, against servers on loopback and programs of this machine."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from reconciler.errors import ConfigErrors
from reconciler.push.settings import Settings, read_settings
from reconciler.push.verify import Check, Verifier
from reconciler.transport.connect import Connector
from reconciler.transport.target import Target
from reconciler.tree import Entry


class Answers(BaseHTTPRequestHandler):
    """`/ok` is 200, `/moved` a redirect to it, `/N` is status N; `/soon` becomes 200."""

    times = 0

    def do_GET(self) -> None:
        word = self.path[1:]
        code = {"ok": 200, "moved": 302}.get(word) or (int(word) if word.isdigit() else 503)
        if word == "soon":
            Answers.times += 1
            code = 200 if Answers.times > 1 else 503
        self.send_response(code)
        self.send_header("Location", "/ok")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def verify(check: Check, *hosts: str) -> str:
    variables = {"ansible_connection": "local"}
    with Connector() as connector:
        verifier = Verifier([check], lambda host: Target.of(host, variables), connector)
        return verifier(hosts or ("127.0.0.1",))


def http(port: int, path: str, status: int = 200, within: float = 0.5) -> Check:
    return Check("http", (f"http://{{address}}:{port}/{path}",), status, within)


def test_http_holds_if_the_status_is_the_expected_one(port: int) -> None:
    assert verify(http(port, "ok")) == ""
    assert verify(http(port, "404", 404)) == ""
    assert "status 500, expected 200" in verify(http(port, "500"))


def test_http_follows_no_redirect(port: int) -> None:
    assert verify(http(port, "moved", 302)) == ""
    assert "status 302" in verify(http(port, "moved"))


def test_a_check_is_tried_again_until_its_time_is_up(port: int) -> None:
    Answers.times = 0
    assert verify(http(port, "soon", within=5.0)) == ""
    assert Answers.times == 2


def test_tcp_holds_if_somebody_listens(port: int) -> None:
    assert verify(Check("tcp", ("{address}",), port, 0.5)) == ""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
        wrong = verify(Check("tcp", ("127.0.0.1",), closed, 0.5))
    assert "refused" in wrong


def test_a_command_holds_if_it_ends_with_0() -> None:
    exits = "import sys; print('x' * 99999); sys.stderr.write('why not\\n'); sys.exit({})"
    good = Check("command", (sys.executable, "-c", exits.format(0)), within=10.0)
    assert verify(good) == ""
    bad = Check("command", (sys.executable, "-c", exits.format(3)), within=0.9)
    assert "why not" in verify(bad) or "not done" in verify(bad)
    assert "cannot start" in verify(Check("command", ("/nonexistent",), within=0.5))


def test_the_words_of_a_command_are_never_a_shells() -> None:
    argv = (sys.executable, "-c", "import sys; sys.exit(sys.argv[1] != '$(id);{x}')", "$(id);{x}")
    assert verify(Check("command", argv, within=5.0)) == ""


def test_a_command_that_hangs_costs_its_time() -> None:
    begun = time.monotonic()
    wrong = verify(
        Check("command", (sys.executable, "-c", "import time; time.sleep(60)"), within=0.3)
    )
    assert "not done" in wrong
    assert time.monotonic() - begun < 5


def test_with_the_host_in_its_words_a_check_is_made_for_every_host() -> None:
    code = "import sys; sys.exit(sys.argv[1] == 'b')"
    each = Check("command", (sys.executable, "-c", code, "{host}"), within=0.9)
    assert each.each
    assert "for b does not hold" in verify(each, "a", "b")
    assert verify(each, "a", "c") == ""


# -- as written --------------------------------------------------------------------------------


class OneFile:
    """A `Tree` that has reconciler.yml and nothing else."""

    commit, dirty, key = "", False, ""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def entry(self, path: str) -> Entry | None:
        return Entry(path, "file", size=len(self._text)) if path == "reconciler.yml" else None

    def listdir(self, path: str) -> list[Entry]:
        return []

    def read(self, path: str) -> bytes:
        return self._text

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self._text


def settings(text: str) -> Settings:
    return read_settings(OneFile(text))


def refused(text: str) -> str:
    with pytest.raises(ConfigErrors) as failure:
        settings(text)
    return str(failure.value)


FULL = """\
name: production
rollout:
  batches: [1, 10%, 100%]
  canary: web1
  max_failed: 5%
  max_unreachable: 2
  order: shuffle
  seed: 7
  pause: 5m
  on_failure: stop
  parallel: 20
  host_timeout: 30m
  connect_retries: 0
  verify:
    - http: {url: "https://{host}/health", status: 204, within: 1m}
    - tcp: {port: 443}
    - command: [./smoke, "{host}"]
    - unit: nginx
"""


def test_all_of_the_settings_are_read() -> None:
    found = settings(FULL)
    rollout = found.rollout
    assert [str(size) for size in rollout.batches] == ["1", "10%", "100%"]
    assert (rollout.canary, str(rollout.max_failed), str(rollout.max_unreachable)) == (
        "web1",
        "5%",
        "2",
    )
    assert (rollout.order, rollout.seed, rollout.pause) == ("shuffle", 7, 300.0)
    assert (found.parallel, found.host_timeout, found.connect_retries) == (20, 1800.0, 0)
    assert [str(check) for check in found.verify] == [
        "http https://{host}/health 204",
        "tcp {address} 443",
        "command ./smoke {host}",
        "unit nginx",
    ]
    assert found.verify[0].within == 60.0


@pytest.mark.parametrize("text", ["", "name: x\n", "rollout:\n", "prune: {}\n"])
def test_without_a_rollout_there_are_the_defaults(text: str) -> None:
    assert settings(text) == Settings()


@pytest.mark.parametrize(
    "line, place, words",
    [
        ("batch: [1]", "2:3", "did you mean 'batches'?"),
        ("batches: [0]", "2:12", "a batch of 0 is none"),
        ("batches: [many]", "2:12", "expected a number of hosts"),
        ("batches: []", "2:12", "at least one"),
        ("max_failed: 120%", "2:15", "expected a number of hosts"),
        ("order: shufle", "2:10", "did you mean 'shuffle'?"),
        ("pause: soon", "2:10", "expected a time"),
        ("on_failure: rollback", "2:15", "expected stop"),
        ("parallel: 0", "2:13", "from 1 to 1000"),
        ("canary: [a]", "2:11", "expected a pattern"),
        ("verify: [{htttp: x}]", "2:13", "did you mean 'http'?"),
        ("verify: [{http: {url: 'file:///etc/passwd'}}]", "2:19", "must begin with http"),
        ("verify: [{http: {urll: x}}]", "2:20", "did you mean 'url'?"),
        ("verify: [{command: ls -l}]", "2:22", "argv must be a list"),
        ("verify: [{unit: --all}]", "2:19", "no name of a unit"),
        ("verify: [{tcp: {port: 99999}}]", "2:18", "from 1 to 65535"),
        ("verify: nginx", "2:11", "must be a list"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(line: str, place: str, words: str) -> None:
    said = refused(f"rollout:\n  {line}\n")
    assert f"reconciler.yml:{place}: " in said
    assert words in said


def test_all_errors_come_at_once() -> None:
    said = refused("rollout:\n  batch: [1]\n  pause: soon\n  verify: [{unit: ''}]\n")
    assert said.count("reconciler.yml:") == 3
