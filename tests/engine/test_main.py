"""The engine as a process: hello, requests one after the other, and a clean end."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reconciler
from reconciler.catalog import Catalog, Declaration, Report
from reconciler.engine.wire import PROTOCOL, Message, Wire
from reconciler.errors import Mark

MAIN = Path(reconciler.__file__).parent / "engine" / "__main__.py"


class Speaker:
    """An engine process, spoken to frame by frame. stderr must stay empty."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(MAIN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.wire = Wire(self.process.stdout, self.process.stdin)  # type: ignore[arg-type]
        self.hello = self.wire.receive()
        self.said: set[str] = set()

    def ask(self, request: Message, catalog: Message | None = None) -> Message:
        self.wire.send(request)
        if catalog is not None:
            self.wire.send(catalog)
        return self.answer()

    def answer(self) -> Message:
        while "event" in (message := self.wire.receive()):
            pass
        return message

    def end(self) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait(20)
        return code, self.process.stderr.read().decode()


@pytest.fixture
def engine() -> Iterator[Speaker]:
    speaker = Speaker()
    try:
        yield speaker
        code, said = speaker.end()
        assert (code, {line for line in said.split("\n") if line}) == (0, speaker.said)
    finally:
        speaker.process.kill()
        speaker.process.wait()
        for stream in (speaker.process.stdin, speaker.process.stdout, speaker.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]


def catalog(*resources: Declaration, **more: object) -> Message:
    return Catalog("h", resources, **more).to_json()  # type: ignore[arg-type]


def file(path: str, **params: object) -> Declaration:
    return Declaration("file", path, {"path": path, **params}, Mark("site.yml", 7))


def error(answer: Message) -> Message:
    found = answer["error"]
    assert isinstance(found, dict)
    return found


def test_it_says_hello_and_ends_with_its_input(engine: Speaker) -> None:
    assert engine.hello["hello"] == PROTOCOL
    assert engine.hello["pid"] == engine.process.pid
    assert engine.hello["python"] == list(sys.version_info[:3])


def test_requests_are_served_one_after_the_other(engine: Speaker, tmp_path: Path) -> None:
    root = str(tmp_path)
    assert "hostname" in engine.ask({"op": "facts", "root": root})["facts"]  # type: ignore[operator]
    wish = catalog(file("/dir", state="directory"))
    assert engine.ask({"op": "plan", "root": root}, wish)["plan"]["summary"]["pending"] == 1  # type: ignore[index]
    for status in ("changed", "ok"):
        report = engine.ask({"op": "apply", "root": root, "mode": "push"}, wish)["report"]
        assert isinstance(report, dict)
        assert (report["mode"], report["results"][0]["status"]) == ("push", status)
        Report.from_json(report)


@pytest.mark.parametrize(
    "request_, said",
    [
        ({"op": "dance"}, "unknown request 'dance'"),
        ({}, "unknown request None"),
        ({"op": "facts", "root": "/does/not/exist"}, "is not a directory"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered(
    engine: Speaker, request_: Message, said: str
) -> None:
    assert said in str(error(engine.ask(request_))["message"])
    assert "facts" in engine.ask({"op": "facts"})


def test_a_catalog_that_is_none_is_answered(engine: Speaker) -> None:
    assert error(engine.ask({"op": "plan"}, {"schema": "x"}))["type"] == "ProtocolError"


def test_an_unknown_type_names_the_declaration_and_its_place(
    engine: Speaker, tmp_path: Path
) -> None:
    odd = Declaration("nonsense", "x", {}, Mark("site.yml", 7))
    found = error(engine.ask({"op": "plan", "root": str(tmp_path)}, catalog(odd)))
    assert found["type"] == "ConfigError"
    assert found["message"] == "there is no resource type 'nonsense'"
    assert found["source"] == ["site.yml", 7, 0]


def test_wrong_params_name_the_declaration_and_its_place(engine: Speaker, tmp_path: Path) -> None:
    request: Message = {"op": "plan", "root": str(tmp_path)}
    found = error(engine.ask(request, catalog(file("/x", colour="red"))))
    assert (found["type"], found["source"]) == ("SchemaError", ["site.yml", 7, 0])
    assert "file:/x does not fit its type" in str(found["message"])
    found = error(engine.ask(request, catalog(file("/x", mode=5))))
    assert found["type"] in ("SchemaError", "ConfigErrors")
    assert "file:/x" in str(found)
    assert "site.yml" in str(found)


def test_secrets_are_asked_for_only_where_there_are_handles(
    engine: Speaker, tmp_path: Path
) -> None:
    request: Message = {"op": "plan", "root": str(tmp_path)}
    assert "plan" in engine.ask(request, catalog(file("/x", state="touch")))
    wish = catalog(file("/x", state="touch", owner={"$secret": "a"}))
    assert engine.ask(request, wish) == {"ask": "secrets"}
    engine.wire.send({"secrets": {"a": "0"}})
    answer = engine.answer()
    assert "plan" in answer
    assert engine.ask(request, wish) == {"ask": "secrets"}
    engine.wire.send({"secrets": {}})
    assert "needs the secret 'a'" in str(error(engine.answer())["message"])


def test_content_that_is_not_what_was_named_is_refused(engine: Speaker, tmp_path: Path) -> None:
    wish = catalog(file("/x", content={"$content": ["0" * 64, 3]}))
    question = engine.ask({"op": "apply", "root": str(tmp_path)}, wish)
    while question.get("ask") == "content":
        engine.wire.send_content([b"bad"])
        question = engine.answer()
    report = question["report"]
    assert "is not the one declared" in report["results"][0]["reason"]  # type: ignore[index]
    assert not (tmp_path / "x").exists()


def test_what_a_module_prints_does_not_disturb_the_protocol(
    engine: Speaker, tmp_path: Path
) -> None:
    loud = (
        "import os, sys\nfrom dataclasses import dataclass\nfrom reconciler.resource import Resource\n"
        "@dataclass(frozen=True)\nclass Loud(Resource):\n"
        "    name: str\n"
        "    def claims(self): return {'loud:' + self.name}\n"
        "    def desired(self): return {}\n"
        "    def actual(self, host):\n"
        "        print('J' * 100); os.write(1, b'J\\0\\0\\0\\2{}'); sys.stdin.read()\n"
        "        return {}\n"
    )
    one = Declaration("loud", "x", {"name": "x"}, Mark("s.yml", 1))
    answer = engine.ask({"op": "plan", "root": str(tmp_path)}, catalog(one, modules={"loud": loud}))
    assert answer["plan"]["summary"]["ok"] == 1  # type: ignore[index]
    engine.said = {"J\0\0\0\2{}" + "J" * 100}


def test_garbage_ends_with_an_error_and_not_with_a_trace(engine: Speaker) -> None:
    assert engine.process.stdin is not None
    engine.process.stdin.write(b"GET / HTTP/1.1\r\n\r\n")
    engine.process.stdin.flush()
    assert "not our protocol" in str(error(engine.answer())["message"])


def test_deep_json_is_refused(engine: Speaker) -> None:
    assert engine.process.stdin is not None
    payload = b'{"op":' * 50_000
    engine.process.stdin.write(struct.pack(">cI", b"J", len(payload)) + payload)
    engine.process.stdin.flush()
    assert error(engine.answer())["type"] == "ProtocolError"


def test_a_controller_that_goes_away_in_the_middle_gets_no_trace(
    engine: Speaker, tmp_path: Path
) -> None:
    engine.wire.send({"op": "plan", "root": str(tmp_path)})


def test_programs_run_with_the_usual_umask(engine: Speaker, tmp_path: Path) -> None:
    module = (
        "import os\nfrom dataclasses import dataclass\nfrom reconciler.resource import Resource\n"
        "@dataclass(frozen=True)\nclass Mask(Resource):\n"
        "    path: str\n"
        "    def claims(self): return {'mask:' + self.path}\n"
        "    def desired(self): return {'there': True}\n"
        "    def actual(self, host): return {'there': os.path.exists(self.path)}\n"
        "    def apply(self, host, diff):\n"
        "        import subprocess; subprocess.run(['touch', self.path], check=True)\n"
    )
    made = tmp_path / "made"
    one = Declaration("mask", str(made), {"path": str(made)}, Mark("s.yml", 1))
    old = os.umask(0o077)
    try:
        speaker = Speaker()
    finally:
        os.umask(old)
    request: Message = {"op": "apply", "root": str(tmp_path)}
    assert "report" in speaker.ask(request, catalog(one, modules={"mask": module}))
    assert speaker.end() == (0, "")
    for stream in (speaker.process.stdout, speaker.process.stderr):
        stream.close()  # type: ignore[union-attr]
    assert made.stat().st_mode & 0o777 == 0o644
