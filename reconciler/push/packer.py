"""The engine as one small file: ring 0 and the modules that a catalog names, in a zip.

`python3 -I engine.pyz` runs it. The same sources give the same bytes, whether they come from
a checkout or from an installed package: names sorted, times fixed, no compiled files. So its
digest says what code ran on a host. What packing takes is imported when something is packed:
mostly the packed engine is kept from the run before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import reconciler
from reconciler.errors import ConfigError

RING_0 = (
    *("__init__.py", "errors.py", "resource.py", "host.py", "safepath.py", "safewrite.py"),
    *("refusals.py", "catalog.py", "patience.py", "words.py"),
)
MAIN = "import sys\n\nfrom reconciler.engine.__main__ import main\n\nsys.exit(main())\n"
#: The oldest time that a zip can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(types: Iterable[str] | None = None) -> bytes:
    """The engine with the modules of these resource types; None: with all that catalogs name.

    The state repo's own modules are not in it: they travel with the catalog.
    Raises ConfigError for a type that is not built in.
    """
    package = Path(reconciler.__file__).parent
    sources = {"__main__.py": MAIN.encode()}
    for name in RING_0:
        sources[f"reconciler/{name}"] = (package / name).read_bytes()
    for path in (package / "engine").glob("*.py"):
        sources[f"reconciler/engine/{path.name}"] = path.read_bytes()
    modules = package / "modules"
    names = _all(modules) if types is None else types
    for name in _with_imports(modules, ["__init__", *names]):
        sources[f"reconciler/modules/{name}.py"] = (modules / f"{name}.py").read_bytes()
    return _zip(sources)


def _all(modules: Path) -> Iterator[str]:
    """What compile makes others of is in no catalog."""
    from reconciler.compile.types import builtin, builtin_names

    types = builtin_names()
    for path in modules.glob("*.py"):
        schema = builtin(path.stem) if path.stem in types else None
        if schema is None or not schema.lowered:
            yield path.stem


def _with_imports(modules: Path, names: Iterable[str]) -> set[str]:
    """These modules and the private siblings that they import, and theirs."""
    import ast

    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        path = modules / f"{name}.py"
        if not path.is_file():
            raise ConfigError(f"there is no resource type '{name}'")
        found.add(name)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                parent, _, sibling = node.module.rpartition(".")
                if parent == "reconciler.modules":
                    todo.append(sibling)
                elif node.module == "reconciler.modules":
                    todo.extend(alias.name for alias in node.names)
    return found


def _zip(sources: dict[str, bytes]) -> bytes:
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # Unix, wherever it was packed
            archive.writestr(info, _bare(sources[name]), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()


def _bare(source: bytes) -> bytes:
    """Without comments, which nobody reads on a host; everything else stays on its line."""
    import tokenize

    lines = source.decode().splitlines(keepends=True)
    for token in tokenize.generate_tokens(iter(tuple(lines)).__next__):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip() + "\n"
    return "".join(lines).encode()
