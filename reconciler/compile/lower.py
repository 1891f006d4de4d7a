"""Types that are others underneath: `copy` and `template` are files with content."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.catalog import encode_param
from reconciler.compile.check import Misfit
from reconciler.compile.schema import TypeSchema
from reconciler.compile.scope import Scope
from reconciler.compile.sources import Contents, Sources
from reconciler.compile.types import Types
from reconciler.errors import ConfigError
from reconciler.resource import plain_path
from reconciler.tree import Entry

PRESERVE = "preserve"
#: Parameters that mean the same for `file`.
SAME = ("owner", "group", "backup", "force", "follow", "validate")
DEFAULTS = {"owner": "root", "group": "root", "mode": "0644"}
#: Parameters of a template that are about Jinja2.
JINJA = (
    "trim_blocks", "lstrip_blocks", "newline_sequence", "variable_start_string", "variable_end_string",
    "block_start_string", "block_end_string",
)  # fmt: skip

Params = Mapping[str, Any]


class Lowered(NamedTuple):
    """A resource as the catalog has it.

    content_from: the parameter that the content is from. implied: it is only there for what
    is in it, so a declaration of its own decides what it looks like.
    """

    schema: TypeSchema
    params: dict[str, object]
    content_from: str = ""
    implied: bool = False


@dataclass
class Lowering:
    """Carries lowering out for one host. render: (path, text, scope, options) -> text."""

    types: Types
    sources: Sources
    contents: Contents
    render: Any

    def lower(self, schema: TypeSchema, params: Params, scope: Scope) -> Iterator[Lowered]:
        """What a resource becomes in the catalog. Raises ConfigError, Misfit."""
        if not schema.lowered:
            yield Lowered(schema, dict(params))
        elif schema.into:
            yield self._inherited(schema, params)
        elif schema.name == "copy":
            yield from self._copy(params, scope)
        elif schema.name == "template":
            yield from self._template(params, scope)
        else:
            raise ConfigError(
                f"'{schema.name}' inherits from Lowered, and compile does not know into what",
                hint="let it inherit from the type that it is a form of, too",
            )

    def _inherited(self, schema: TypeSchema, params: Params) -> Lowered:
        """A form of another type: the same parameters, with other defaults."""
        target = self._type(schema.into)
        own = dict(params)
        for one in schema.fields:
            there = target.field(one.name)
            if (
                one.name not in own
                and there is not None
                and (there.required or there.default != one.default)
            ):
                own[one.name] = one.default
        return Lowered(target, own)

    def _type(self, name: str) -> TypeSchema:
        found = self.types.get(name)
        if found is None:
            raise ConfigError(f"there is no type '{name}'")
        return found

    def _template(self, params: Params, scope: Scope) -> Iterator[Lowered]:
        src = str(params["src"])
        path, text = self.sources.template(src, scope.role)
        options = {name: params[name] for name in JINJA if name in params}
        rendered = self.render(path, text, scope, options)
        entry = self.sources.find("templates", src, scope.role)
        name = posixpath.basename(src).removesuffix(".j2")
        yield self._file(
            params,
            _target(params, name),
            encode_param(self.contents.add_text(rendered)),
            entry,
            "src",
        )

    def _copy(self, params: Params, scope: Scope) -> Iterator[Lowered]:
        src, content = params.get("src"), params.get("content")
        if (src is None) == (content is None):
            raise Misfit(
                "copy needs src or content, and not both",
                "src names a file below files/; content is the text itself",
            )
        if src is None:
            if str(params["dest"]).endswith("/"):
                raise Misfit(
                    "a content needs the path of a file, not of a directory",
                    "write dest without a slash at its end",
                )
            text = content if isinstance(content, str) else json.dumps(content)
            yield self._file(
                params,
                str(params["dest"]),
                encode_param(self.contents.add_text(text)),
                None,
                "content",
            )
            return
        entry = self.sources.find("files", src, scope.role)
        if entry.kind == "directory":
            yield from self._tree(params, entry, whole=not src.endswith("/"))
        else:
            yield self._from(params, _target(params, posixpath.basename(src)), entry)

    def _tree(self, params: Params, top: Entry, *, whole: bool) -> Iterator[Lowered]:
        dest = str(params["dest"]).rstrip("/") or "/"
        if whole:
            dest = posixpath.join(dest, posixpath.basename(top.path))
        yield self._directory(params, dest)
        for entry in self.sources.walk(top.path):
            target = posixpath.join(dest, entry.path.removeprefix(top.path + "/"))
            if entry.kind == "directory":
                yield self._directory(params, target)
            elif entry.kind == "file":
                yield self._from(params, target, entry)
            else:
                raise ConfigError(
                    f"{entry.path} is a {entry.kind}, which is never followed",
                    hint="put the file itself there",
                )

    def _from(self, params: Params, target: str, entry: Entry) -> Lowered:
        content = self.contents.add_file(self.sources.content(entry), entry.path)
        return self._file(params, target, encode_param(content), entry, "src")

    def _directory(self, params: Params, path: str) -> Lowered:
        own = {name: params[name] for name in ("owner", "group") if name in params}
        mode = params.get("directory_mode", "0755")
        return Lowered(
            self._type("file"),
            {"path": plain_path(path), "state": "directory", **_defaults(), **own, "mode": mode},
            implied=True,
        )

    def _file(
        self, params: Params, path: str, content: object, entry: Entry | None, origin: str
    ) -> Lowered:
        own = {name: params[name] for name in SAME if name in params}
        mode = params.get("mode", DEFAULTS["mode"])
        if mode == PRESERVE:
            mode = "0755" if entry is not None and entry.executable else "0644"
        return Lowered(
            self._type("file"),
            {"path": plain_path(path), "content": content, **_defaults(), **own, "mode": mode},
            origin,
        )


def _defaults() -> dict[str, object]:
    return {name: DEFAULTS[name] for name in ("owner", "group")}


def _target(params: Params, name: str) -> str:
    dest = str(params["dest"])
    return dest + name if dest.endswith("/") else dest
