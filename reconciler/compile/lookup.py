"""`lookup(...)`: what a template may read, which is the state repo and variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reconciler.compile import advice
from reconciler.compile.scope import ABSENT, Scope
from reconciler.compile.sources import Sources
from reconciler.errors import ConfigError, TemplateError
from reconciler.words import did_you_mean

if TYPE_CHECKING:
    from reconciler.compile.template import Renderer

KNOWN = ("file", "template", "vars")


class Lookup:
    """The function behind `lookup` and `query`: a list with one result for each argument."""

    renderer: Renderer

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def __call__(
        self, scope: Scope, kind: str, args: tuple[object, ...], options: Mapping[str, object]
    ) -> list[object]:
        """Raises TemplateError for a lookup that is not there."""
        name = str(kind).rpartition(".")[2]
        if name not in KNOWN:
            hint = (
                advice.LOOKUPS.get(name)
                or did_you_mean(name, KNOWN)
                or f"the lookups are {', '.join(KNOWN)}"
            )
            raise TemplateError(f"there is no lookup '{kind}'", hint=hint)
        try:
            return [getattr(self, f"_{name}")(scope, str(one), options) for one in args]
        except TemplateError:
            raise
        except ConfigError as error:
            raise TemplateError(error.message, mark=error.mark, hint=error.hint) from error

    def _file(self, scope: Scope, name: str, options: Mapping[str, object]) -> str:
        text = self._sources.text(self._sources.find("files", name, scope.role).path)
        text = text.rstrip() if options.get("rstrip", True) else text
        return text.lstrip() if options.get("lstrip") else text

    def _template(self, scope: Scope, name: str, options: Mapping[str, object]) -> str:
        path, text = self._sources.template(name, scope.role)
        return self.renderer.file(path, text, scope, {}).rstrip("\n")

    def _vars(self, scope: Scope, name: str, options: Mapping[str, object]) -> object:
        value = scope.get(name)
        if value is not ABSENT:
            return value
        if "default" in options:
            return options["default"]
        raise TemplateError(
            f"there is no variable '{name}'", hint=did_you_mean(name, scope.all_names())
        )
