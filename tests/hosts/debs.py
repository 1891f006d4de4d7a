"""A package repository of our own on a host: no network, and packages that misbehave on demand."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hosts.booted import BootedHost

REPOSITORY = "/srv/debs"


def build(
    directory: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, str] | None = None,
    conffiles: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
    **fields: str,
) -> Path:
    """Make a .deb. `scripts`: postinst and the like, as shell text; `fields`: Depends and so on."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        control = tree / "DEBIAN"
        control.mkdir(mode=0o755)
        tree.chmod(0o755)
        head = {"Package": name, "Version": version, "Architecture": "all"}
        head |= {"Maintainer": "nobody <nobody@example.org>", "Description": "a test"}
        head |= {field.replace("_", "-"): value for field, value in fields.items()}
        lines = "".join(f"{field}: {value}\n" for field, value in head.items())
        (control / "control").write_text(lines)
        for path, text in {**(files or {}), **(conffiles or {})}.items():
            target = tree / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        if conffiles:
            (control / "conffiles").write_text("".join(f"{path}\n" for path in conffiles))
        for script, text in (scripts or {}).items():
            (control / script).write_text(f"#!/bin/sh\nset -e\n{text}\n")
            (control / script).chmod(0o755)
        made = directory / f"{name}_{version}_all.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(made)]
        subprocess.run(command, check=True, capture_output=True)
    return made


def publish(host: BootedHost, directory: Path) -> None:
    """Make the .debs of a directory the only repository that apt knows on the host."""
    paragraphs: list[str] = []
    for deb in sorted(directory.glob("*.deb")):
        show = ["dpkg-deb", "-f", str(deb)]
        control = subprocess.run(show, check=True, capture_output=True, text=True).stdout
        content = deb.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        where = f"Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {digest}\n"
        paragraphs.append(control.strip("\n") + "\n" + where)
    (directory / "Packages").write_text("\n".join(paragraphs))
    target = host.root / REPOSITORY.lstrip("/")
    subprocess.run(["rm", "-rf", str(target)], check=True)
    subprocess.run(["cp", "-r", str(directory), str(target)], check=True)
    host.run(["chmod", "-R", "a+rX", REPOSITORY])
    source = f"deb [trusted=yes] file:{REPOSITORY} ./\n"
    host.run(["tee", "/etc/apt/sources.list"], input=source)
