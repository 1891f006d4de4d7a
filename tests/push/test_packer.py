"""The engine as one file: the same bytes everywhere, small, and standard library alone."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import reconciler
from reconciler.catalog import Catalog, Declaration, dumps
from reconciler.engine.wire import Wire
from reconciler.errors import ConfigError, Mark
from reconciler.push.packer import pack

PACKAGE = Path(reconciler.__file__).parent


def pythons() -> list[str]:
    """This one, and the oldest that hosts may have, where it can be found."""
    old = shutil.which("python3.9")
    places = sorted(Path.home().glob(".pyenv/versions/3.9*/bin/python3"))
    return [sys.executable, *filter(None, [str(places[0]) if places else old])]


def names(packed: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(packed)).namelist()


def test_it_is_deterministic() -> None:
    assert pack() == pack()
    assert pack(["file"]) == pack(iter(["file", "file"]))


def test_another_place_another_time_and_other_modes_give_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "reconciler"
    shutil.copytree(PACKAGE, copy, symlinks=False)
    for path in copy.rglob("*.py"):
        os.utime(path, (0, 10**9))
        path.chmod(0o600)
    code = "import sys, hashlib; from reconciler.push.packer import pack; print(hashlib.sha256(pack()).hexdigest())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(pack()).hexdigest()


def test_comments_stay_at_home_and_everything_else_on_its_line() -> None:
    with zipfile.ZipFile(io.BytesIO(pack())) as archive:
        packed = archive.read("reconciler/host.py").decode()
    source = (PACKAGE / "host.py").read_text()
    assert len(packed) < len(source)
    trees = [ast.dump(ast.parse(one), include_attributes=True) for one in (packed, source)]
    assert trees[0] == trees[1]


def test_it_is_small_with_all_modules() -> None:
    assert len(pack()) <= 150 * 1024


def test_what_compile_makes_others_of_does_not_travel() -> None:
    packed = {name.rpartition("/")[2] for name in names(pack()) if "/modules/" in name}
    assert {"file.py", "package.py", "service.py", "_apt.py"} <= packed
    assert packed.isdisjoint({"copy.py", "template.py", "apt.py", "systemd.py"})


def test_it_holds_ring_0_and_the_modules_that_were_named_with_what_they_import() -> None:
    packed = names(pack(["file"]))
    assert packed == sorted(packed)
    assert "reconciler/modules/file.py" in packed
    assert "reconciler/modules/_mode.py" in packed
    assert "reconciler/modules/package.py" not in packed
    assert {name.split("/")[1] for name in packed if name.startswith("reconciler/")} == {
        "__init__.py", "catalog.py", "engine", "errors.py", "host.py", "modules", "patience.py", "refusals.py",
        "resource.py", "safepath.py", "safewrite.py", "words.py",
    }  # fmt: skip
    assert not any("__pycache__" in name or ".." in name for name in packed)


def test_a_type_that_is_not_built_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="no resource type 'nonsense'"):
        pack(["nonsense"])


@pytest.mark.parametrize("name", names(pack()))
def test_ring_0_imports_the_standard_library_and_itself_alone(name: str) -> None:
    """Whatever is in it would have to be on every host, in that version."""
    source = zipfile.ZipFile(io.BytesIO(pack())).read(name)
    inside = {
        one.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for one in names(pack())
    }
    for node in ast.walk(ast.parse(source, feature_version=(3, 9))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports do not say where they lead"
            module = node.module or ""
            found = (
                {module} if module in inside else {f"{module}.{alias.name}" for alias in node.names}
            )
        elif isinstance(node, ast.Import):
            found = {alias.name for alias in node.names}
            module = ""
        else:
            continue
        for one in found:
            standard = one.partition(".")[0] in sys.stdlib_module_names
            assert standard or one in inside, f"{name}:{node.lineno} imports {one}"


@pytest.mark.parametrize("python", pythons())
def test_it_answers_facts_plans_and_applies_wherever_it_lies(python: str, tmp_path: Path) -> None:
    engine = tmp_path / "dir with spaces" / "engine.pyz"
    engine.parent.mkdir()
    engine.write_bytes(pack())
    root = tmp_path / "root"
    root.mkdir()
    content = b"hello\n"
    digest = hashlib.sha256(content).hexdigest()
    params = {"path": "/motd", "content": {"$content": [digest, len(content)]}, "mode": "0640"}
    catalog = Catalog("h", (Declaration("file", "/motd", params, Mark("site.yml", 1)),))
    process = subprocess.Popen(
        [python, "-I", "-S", str(engine)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    wire = Wire(process.stdout, process.stdin)  # type: ignore[arg-type]
    try:
        assert wire.receive()["hello"] == 1
        wire.send({"op": "facts"})
        assert wire.receive()["facts"]["system"] == "Linux"  # type: ignore[index]
        for operation, document, status in (
            ("plan", "plan", "pending"), ("apply", "report", "changed"), ("plan", "plan", "ok"),
        ):  # fmt: skip
            wire.send({"op": operation, "root": str(root)})
            wire.send_json(dumps(catalog.to_json()))
            message = wire.receive()
            while document not in message:
                assert "error" not in message, message
                if message.get("ask") == "content":
                    wire.send_content([content])
                message = wire.receive()
            assert message[document]["results"][0]["status"] == status  # type: ignore[index]
        assert (root / "motd").read_bytes() == content
        process.stdin.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert [path.name for path in engine.parent.iterdir()] == ["engine.pyz"]
