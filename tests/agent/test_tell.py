"""Notices arrive, by webhook, command and apprise; one that fails stops no other, and no secret
of an address is in any message about it."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from reconciler.agent import tell as module
from reconciler.agent.outbox import deliver
from reconciler.agent.tell import SIGNATURE, compose, title

TOKEN = "t0ken-9f2c"
NOTICE = {
    "type": "Trusted",
    "status": "False",
    "reason": "BadSignature",
    "message": "commit 1234 is not signed\ngit commit --amend -S",
    "since": 1_795_000_000.0,
    "commit": "a" * 40,
    "event": "problem",
    "missed": 0,
}
#: As much of apprise as is used of it; it logs what it must not, as the real one may.
STAND_IN = """\
import logging, os
class Apprise:
    def add(self, url):
        self.url = url
        logging.getLogger("apprise").error("loaded %s", url)
        return url.startswith("json://")
    def notify(self, title, body):
        logging.getLogger("apprise").error("sending to %s", self.url)
        if "broken" in self.url:
            raise RuntimeError(self.url)
        with open(os.environ["TOLD"], "w") as file:
            file.write(title + "\\n" + body)
        return "refused" not in self.url
"""


class Hook(HTTPServer):
    """Keeps what was posted. answer: its status code."""

    posts: list[tuple[bytes, Mapping[str, str]]]
    answer = 204


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Hook)
        self.server.posts.append((body, dict(self.headers)))
        self.send_response(self.server.answer)
        if 300 <= self.server.answer < 400:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/other")
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


def job(*sinks: object) -> dict[str, object]:
    return {
        "sinks": list(sinks),
        "to": list(range(len(sinks))),
        "notices": [NOTICE],
        "host": "web1",
        "id": "0123abcd",
        "next": {"fetch": 1_795_000_060.0, "sweep": 1_795_001_800.0, "gate_opens": None},
        "named": {"failed": [], "drifted": [], "contended": []},
    }


def tell(*sinks: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciler.agent.tell"],
        input=json.dumps(job(*sinks)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which `apprise` can be imported."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/apprise.py").write_text(STAND_IN)
    path = os.pathsep.join([str(tmp_path / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "TOLD": str(tmp_path / "told")}


# -- webhooks ----------------------------------------------------------------------------


def test_a_webhook_gets_json_that_is_signed(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    url = f"http://127.0.0.1:{hook.server_port}/{TOKEN}"
    done = tell({"webhook": url, "secret_file": str(tmp_path / "secret")})
    assert (done.returncode, done.stderr) == (0, "")
    ((body, headers),) = hook.posts
    message = json.loads(body)
    assert message["schema"] == ["reconciler/notices", 1]
    assert message["host"] == "web1"
    assert message["title"] == "web1: Trusted is False (BadSignature)"
    assert message["notices"] == [{**NOTICE, "key": "0123abcd/Trusted"}]
    signed = "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE] == signed


@pytest.mark.parametrize(
    "answer, said", [(500, "answered 500"), (404, "answered 404"), (302, "elsewhere")]
)
def test_a_server_that_does_not_take_it_is_said_without_its_address(
    hook: Hook, answer: int, said: str
) -> None:
    hook.answer = answer
    done = tell({"webhook": f"http://127.0.0.1:{hook.server_port}/{TOKEN}"})
    assert done.returncode == 1
    assert said in done.stderr
    assert TOKEN not in done.stderr
    assert len(hook.posts) == 1


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:1/{TOKEN}",
        f"http://127.0.0.1:{TOKEN}/",
        f"http://{TOKEN}.invalid/",
        f"http://127.0.0.1/a b{TOKEN}",
        f"ftp://x/{TOKEN}",
        f"http://[{TOKEN}/",
    ],
)
def test_no_address_is_in_what_is_said_of_a_failure(url: str) -> None:
    done = tell({"webhook": url})
    assert done.returncode == 1
    assert "notification 1 (webhook) did not arrive: " in done.stderr
    assert TOKEN not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_that_cannot_be_read_sends_nothing_unsigned(hook: Hook) -> None:
    url = f"http://127.0.0.1:{hook.server_port}/"
    done = tell({"webhook": url, "secret_file": "/nonexistent/secret"})
    assert done.returncode == 1
    assert "cannot read /nonexistent/secret: No such file" in done.stderr
    assert hook.posts == []


# -- commands ----------------------------------------------------------------------------


def test_one_that_fails_does_not_stop_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = tell(
        {"webhook": "http://127.0.0.1:1/"},
        {"command": ["/nonexistent", TOKEN]},
        {"command": ["false", TOKEN]},
        {"command": ["tee", str(out)]},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "notification 1 (webhook) did not arrive: Connection refused",
        "notification 2 (command) did not arrive: /nonexistent: No such file or directory",
        "notification 3 (command) did not arrive: false ended with 1",
    ]
    assert json.loads(done.stdout) == [0, 1, 2]
    assert json.loads(out.read_text())["notices"][0]["reason"] == "BadSignature"


def test_a_server_that_never_comes_to_an_end_keeps_no_other_place_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "ENOUGH", 1.0)
    out = tmp_path / "out"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def drip() -> None:
            link, _ = listening.accept()
            with link, contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 100:
                    link.send(bytes([byte]))
                    time.sleep(0.1)

        slow = threading.Thread(target=drip)
        slow.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{TOKEN}"
        told = json.dumps(job({"webhook": url}, {"command": ["tee", str(out)]}))
        monkeypatch.setattr(sys, "stdin", io.StringIO(told))
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert module.main() == 1
        finally:
            signal.signal(signal.SIGTERM, before)
            logging.disable(logging.NOTSET)
        slow.join()
    said = capfd.readouterr()
    assert said.out == "[0]"
    assert said.err == "notification 1 (webhook) did not arrive: it was not over within 1 s\n"
    assert out.exists()


def test_who_is_told_to_end_says_what_has_arrived(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with deliver(
        [{"command": ["cat"]}, {"command": ["sh", "-c", f"> {begun}; exec sleep 20"]}], job(1, 2)
    ) as sender:
        while not begun.exists():
            time.sleep(0.01)
        sender.terminate()
        said, _ = sender.communicate()
    assert json.loads(said) == [1]


def test_what_starts_a_delivery_shows_no_address_to_others(tmp_path: Path) -> None:
    out = tmp_path / "argv"
    look = f"cat /proc/$PPID/cmdline /proc/$PPID/environ | tr '\\0' ' ' > {out}; cat > /dev/null"
    sinks = [{"command": ["sh", "-c", look]}, {"webhook": f"http://127.0.0.1:1/{TOKEN}"}]
    with deliver(sinks, job()) as sender:
        assert TOKEN not in Path(f"/proc/{sender.pid}/cmdline").read_text()
        assert sender.wait(60) == 1
    assert "reconciler.agent.tell" in out.read_text()
    assert TOKEN not in out.read_text()


# -- apprise -----------------------------------------------------------------------------


def test_apprise_gets_a_title_and_a_text(stand_in: dict[str, str]) -> None:
    done = tell({"apprise": f"json://127.0.0.1/{TOKEN}"}, **stand_in)
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = Path(stand_in["TOLD"]).read_text().splitlines()
    assert first == "web1: Trusted is False (BadSignature)"
    assert "  commit 1234 is not signed" in rest


@pytest.mark.parametrize(
    "address, said",
    [
        ("nonsense://x/", "does not know this kind of address"),
        ("json://refused/", "could not deliver it"),
        ("json://broken/", "RuntimeError"),
    ],
)
def test_what_apprise_says_of_its_addresses_is_not_repeated(
    stand_in: dict[str, str], address: str, said: str
) -> None:
    done = tell({"apprise": address + TOKEN}, **stand_in)
    assert done.returncode == 1
    assert said in done.stderr
    assert TOKEN not in done.stderr


def test_without_the_library_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "apprise.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = tell({"apprise": f"json://x/{TOKEN}"}, PYTHONPATH=path)
    assert done.returncode == 1
    assert "the library apprise is missing" in done.stderr
    assert "-m pip install apprise" in done.stderr
    assert TOKEN not in done.stderr


def test_the_real_library_delivers_to_a_server(hook: Hook) -> None:
    done = tell({"apprise": f"json://127.0.0.1:{hook.server_port}/{TOKEN}"})
    assert (done.returncode, done.stderr) == (0, "")
    ((body, _),) = hook.posts
    assert json.loads(body)["title"] == "web1: Trusted is False (BadSignature)"
    failed = tell({"apprise": f"json://127.0.0.1:1/{TOKEN}"})
    assert failed.returncode == 1
    assert TOKEN not in failed.stderr


# -- words -------------------------------------------------------------------------------


def test_a_title_says_what_is_wrong_or_that_it_is_over() -> None:
    assert title(NOTICE) == "Trusted is False (BadSignature)"
    assert title({**NOTICE, "event": "resolved"}) == "Trusted: resolved"
    digest = {**NOTICE, "event": "digest", "missed": 3}
    assert title(digest) == "Trusted: was bad 3 times, and is fine now"


def test_a_message_says_what_since_when_what_next_and_how_to_stop_it() -> None:
    subject = {"author": "Alice", "subject": "raise the limit"}
    failed = {**NOTICE, "type": "InSync", "reason": "Failed", "message": "1 failed", "missed": 1}
    said = {
        **job(),
        "notices": [NOTICE, failed],
        "subject": subject,
        "next": {"fetch": 1_795_000_060.0, "retry": 1_795_000_020.0},
        "named": {"failed": ["file:/srv/my app"]},
    }
    message = compose(said)
    assert message["title"] == "web1: Trusted is False (BadSignature) and 1 more"
    assert message["text"].splitlines() == [
        "Trusted is False (BadSignature)",
        "  commit 1234 is not signed",
        "  git commit --amend -S",
        "  since 2026-11-18 11:06:40 UTC, at commit aaaaaaaaaaaa",
        "  it is judged again once the files of keys are others; another commit is looked for, at 2026-11-18 11:07:40 UTC",
        "  more: reconciler trust show",
        "InSync is False (Failed)",
        "  1 failed",
        "  since 2026-11-18 11:06:40 UTC, at commit aaaaaaaaaaaa",
        "  before that it was bad once and went by",
        "  it is tried again by itself, at 2026-11-18 11:07:00 UTC, a newer commit at once",
        "  more: reconciler why 'file:/srv/my app'",
        "newest commit: raise the limit (Alice)",
        "more: reconciler agent status",
        "to stop it for a while: reconciler agent suspend --reason WHY",
    ]
    assert [one["key"] for one in message["notices"]] == ["0123abcd/Trusted", "0123abcd/InSync"]


def test_what_is_over_says_nothing_of_what_comes_next() -> None:
    over = {**NOTICE, "event": "resolved", "status": "True", "message": ""}
    assert compose({**job(), "notices": [over]})["text"].splitlines() == [
        "Trusted: resolved",
        "  since 2026-11-18 11:06:40 UTC, at commit aaaaaaaaaaaa",
    ]
