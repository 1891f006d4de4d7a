"""The engine arrives in a Python on this machine, as it does on a host."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.errors import HostUnfit, ProtocolError, ReconcilerError
from reconciler.push.packer import pack
from reconciler.transport import bootstrap
from reconciler.transport.become import Become
from reconciler.transport.bootstrap import Launch, launch
from reconciler.transport.engine import Engine
from reconciler.transport.local import LocalTransport
from reconciler.transport.remote import Limits

HELLO = (
    'import struct,json,os,sys,time\nf=lambda b,k=b"J":os.write(1,struct.pack(">cI",k,len(b))+b)\n'
)


def engine(interpreter: str = sys.executable, **limits: float) -> Engine:
    how = Launch(pack(["file"]), interpreter=interpreter, keep=False, patience=10)
    return Engine(launch(LocalTransport(), how, Limits(**limits)))  # type: ignore[arg-type]


def hostile(tmp_path: Path, program: str) -> str:
    """An interpreter that says the nonce and `go` like ours, and then whatever it likes."""
    path = tmp_path / "python"
    enter = "import sys,os\nos.write(1,sys.argv[-4].encode()+b'\\ngo\\n')\n"
    path.write_text(f"#!{sys.executable}\n{enter}{HELLO}{program}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["arrival.py", "terminal.py"])
def test_what_runs_first_is_read_by_every_python_3_that_has_isolated_mode(name: str) -> None:
    tree = ast.parse(bootstrap._text(name), feature_version=(3, 4))
    young = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.Match)
    # What stands behind the check of the version may be younger.
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, young)]


def test_what_dataclasses_does_without_everybody_else_still_has() -> None:
    code = bootstrap._text("arrival.py").decode().partition('if __name__ == "__main__"')[0]
    code += """
lighten()
assert "inspect" not in sys.modules
import dataclasses
@dataclasses.dataclass(frozen=True)
class One:
    x: int = 1
assert dataclasses.inspect.get_annotations if sys.version_info >= (3, 10) else True
import inspect
assert str(inspect.signature(lambda a, b=2: a)) == "(a, b=2)"
assert dataclasses.replace(One(), x=2) == One(2)
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_it_says_what_the_host_is() -> None:
    with engine() as one:
        assert one.facts()["python"] == list(sys.version_info[:3])


def test_a_stray_line_before_ours_is_not_run(tmp_path: Path) -> None:
    # As su does where it asks for no password: ours comes first, and nobody has read it.
    become = Become("su", "root", "__import__('os')._exit(7)")
    fake = tmp_path / "su"
    fake.write_text('#!/bin/sh\necho "Password: " >&2; sleep 0.3\nexec sh -c "$4"\n')
    fake.chmod(0o755)

    class Wrapped(LocalTransport):
        def start(self, argv):  # type: ignore[no-untyped-def]
            return super().start(["env", f"PATH={tmp_path}:/usr/bin:/bin", *argv])

    how = Launch(pack(["file"]), sys.executable, become, keep=False)
    with Engine(launch(Wrapped(), how, Limits())) as one:
        assert one.facts()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(HostUnfit, match="there is no /nowhere/python3 on the host"):
        engine("/nowhere/python3")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("while 1: os.write(1, b'x' * 65536)", id="never ends"),
        pytest.param("while 1: f(b'{\"event\": 1}')", id="endless events"),
        pytest.param("f(b'[' * 1000000)", id="deep"),
        pytest.param("f(b'{\"a\":' * 1000000)", id="deep objects"),
        pytest.param("os.write(1, b'J\\xff\\xff\\xff\\xff')", id="a frame of 4 GiB"),
        pytest.param("f(b'not json')", id="no JSON"),
        pytest.param("f(b'{\"hello\": 99}')", id="another protocol"),
        pytest.param("f(b'{\"hello\": 1}'); f(b'{\"facts\": 7}')", id="facts of another shape"),
        pytest.param('f(b\'{"hello": 1}\'); f(b\'{"ask": "content"}\')', id="asks for all"),
        pytest.param("f(b'{\"hello\": 1}'); sys.exit(3)", id="ends early"),
        pytest.param("f(b'{\"hello\": 1}'); os.kill(os.getpid(), 9)", id="is killed"),
        pytest.param("time.sleep(1000)", id="never says a word"),
        pytest.param('f(b\'{"error": {"type": "SystemExit"}}\')', id="error of no type of ours"),
        pytest.param("f(b'{\"error\": 5}')", id="error of no shape"),
    ],
)
def test_whatever_a_host_says_is_one_error_within_its_limits(tmp_path: Path, program: str) -> None:
    interpreter = hostile(tmp_path, program)
    with (
        pytest.raises(ReconcilerError) as failure,
        engine(interpreter, seconds=3.0, received=8 << 20) as one,
    ):
        one.facts()
    assert len(str(failure.value)) < 2000


def test_bytes_are_counted(tmp_path: Path) -> None:
    many = "f(b'{\"hello\": 1}')\nwhile 1: f(b'{\"event\": \"' + b'x' * 100000 + b'\"}')"
    with (
        pytest.raises(ProtocolError, match="more than 8 MiB"),
        engine(hostile(tmp_path, many), received=8 << 20) as one,
    ):
        one.facts()
