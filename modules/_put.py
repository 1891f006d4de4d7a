"""Put content into a file: with a backup, with a check before it counts, parents made."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Sequence

from reconciler.errors import CommandFailed, NotYet, ResourceError, SchemaError
from reconciler.host import Host
from reconciler.modules._owned import kept
from reconciler.resource import plain_path
from reconciler.safewrite import Attributes


def put(
    host: Host,
    path: str,
    content: Iterable[bytes],
    attributes: Attributes,
    found: os.stat_result | None,
    *,
    validate: Sequence[str] = (),
    backup: bool = False,
) -> None:
    """Write a file, whole or not at all.

    found: what the caller saw at `path`. validate: commands; `%s` is the path of the new
    content, and a command without it runs with the new file in place, which is put back if it
    fails. backup: keep the old content beside the file.
    Raises ResourceError.
    """
    if backup and found is not None:
        copy = f"{path}.{time.strftime('%Y-%m-%d@%H:%M:%S', time.gmtime())}~"
        host.write(copy, host.files.chunks(path), kept(found))
    before = [command for command in validate if "%s" in command]
    after = [command for command in validate if "%s" not in command]
    old = host.read(path) if after and found is not None else None

    def check(temporary: str) -> None:
        for command in before:
            _check(host, command, temporary, path)

    host.write(path, content, attributes, expect=found, validate=check if before else None)
    try:
        for command in after:
            _check(host, command, path, path)
    except BaseException:
        if found is None or old is None:
            host.remove(path)
        else:
            host.write(path, [old], kept(found))
        raise


def check_path(path: str, validate: str | None) -> None:
    """Raise SchemaError for what cannot be a path, or a command to check its content."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise SchemaError(
            f"{path!r} is not an absolute path", hint="write it from / on, without .."
        )
    try:
        if validate is not None and not shlex.split(validate):
            raise ValueError("it is empty")
    except ValueError as error:
        raise SchemaError(f"validate: {validate!r} is no command: {error}") from error


def check_parent(host: Host, path: str) -> None:
    """Raise NotYet if there is no directory to put `path` into."""
    parent = os.path.dirname(path)
    if host.lstat(parent) is None:
        raise NotYet(
            f"the directory {parent} does not exist",
            hint=f"declare it: file: {{path: {parent}, state: directory}}",
        )


def make_parents(host: Host, path: str) -> None:
    """Make the directories that lead to `path`, with mode 0755."""
    parent = os.path.dirname(path)
    if parent != "/" and host.lstat(parent) is None:
        make_parents(host, parent)
        host.mkdir(parent)


def parents(path: str) -> set[str]:
    """The claims of the directories that lead to `path`."""
    parts = plain_path(path).strip("/").split("/")
    return {"path:/" + "/".join(parts[:depth]) for depth in range(1, len(parts))}


def _check(host: Host, command: str, temporary: str, path: str) -> None:
    try:
        host.run([word.replace("%s", temporary) for word in shlex.split(command)])
    except CommandFailed as error:
        said = error.output.replace(temporary, path).strip()
        raise ResourceError(
            f"the new content was refused by {command!r}; nothing was changed:\n{said}"
        ) from error
