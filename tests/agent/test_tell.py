"""Notices arrive: by webhook with a signature, by command; one that fails does not stop another."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from reconciler.agent.tell import SIGNATURE, title

NOTICE = {
    "type": "Trusted",
    "status": "False",
    "reason": "BadSignature",
    "message": "no",
    "event": "problem",
}


class Hook(HTTPServer):
    """Keeps what was posted."""

    posts: list[tuple[bytes, str]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Hook)
        self.server.posts.append((body, self.headers.get(SIGNATURE, "")))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook(("127.0.0.1", 0), Handler) as server:
        server.posts = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tell(*sinks: object) -> subprocess.CompletedProcess[bytes]:
    job = {"sinks": sinks, "notices": [NOTICE], "host": "web1"}
    return subprocess.run(
        [sys.executable, "-m", "reconciler.agent.tell"],
        input=json.dumps(job).encode(),
        capture_output=True,
        check=False,
    )


def test_a_webhook_gets_json_that_is_signed(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    url = f"http://127.0.0.1:{hook.server_port}/x"
    done = tell({"webhook": url, "secret_file": str(tmp_path / "secret")})
    assert done.returncode == 0, done.stderr
    ((body, signature),) = hook.posts
    assert json.loads(body)["host"] == "web1"
    assert signature == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


def test_one_that_fails_does_not_stop_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = tell({"webhook": "http://127.0.0.1:1/"}, {"command": ["tee", str(out)]})
    assert done.returncode == 1
    assert b"did not arrive" in done.stderr
    assert json.loads(out.read_text())["reason"] == "BadSignature"


def test_a_title_says_where_and_what() -> None:
    assert title({**NOTICE, "host": "web1"}) == "web1: Trusted is False (BadSignature)"
    assert title({**NOTICE, "host": "web1", "event": "resolved"}) == "web1: Trusted: resolved"
