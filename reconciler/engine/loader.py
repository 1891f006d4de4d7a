"""From declarations to live resources: finds a type's module by name, at run time.

The state repo's own modules come with the catalog as text. They are loaded under the same
package as the built-in ones, so `from reconciler.modules._mine import X` works in them.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from reconciler.catalog import Declaration, decode_param
from reconciler.errors import ConfigError, SchemaError
from reconciler.resource import Lowered, Resource

PACKAGE = "reconciler.modules"


class Loader:
    """Loads resource types; `own` are the state repo's modules, name -> source text."""

    def __init__(self, own: Mapping[str, str] | None = None) -> None:
        self._types: dict[str, type[Resource]] = {}
        _forget_own()
        if own:
            sys.meta_path.append(_OwnModules(own))

    def type(self, name: str) -> builtins.type[Resource]:
        """The class of a resource type. Raises ConfigError for one that is not there."""
        found = self._types.get(name)
        if found is None:
            self._types[name] = found = _load(name)
        return found

    def knows(self, name: str) -> bool:
        """Whether there is a module of that name; it is not loaded for that."""
        from importlib.util import find_spec  # only prune asks

        return _is_type(name) and find_spec(f"{PACKAGE}.{name}") is not None

    def build(self, declaration: Declaration, secrets: Mapping[str, str] | None = None) -> Resource:
        """The live resource of a declaration. Raises ConfigError; the mark says where."""
        try:
            return built(declaration, self.type(declaration.type), secrets or {})
        except ConfigError as error:
            error.mark = error.mark or declaration.mark
            raise


def built(declaration: Declaration, kind: type[Resource], secrets: Mapping[str, str]) -> Resource:
    """The declaration as a resource of this class. Raises ConfigError."""
    mark = declaration.mark
    try:
        params = {name: decode_param(one, secrets) for name, one in declaration.params.items()}
    except KeyError as error:
        raise ConfigError(
            f"{declaration.id} needs the secret {error}, which did not come with it", mark=mark
        ) from error
    try:
        return kind(**params)
    except (TypeError, AttributeError, ValueError) as error:
        raise SchemaError(f"{declaration.id} does not fit its type: {error}", mark=mark) from error
    except ConfigError as error:
        error.mark = error.mark or mark
        raise


def _load(name: str) -> type[Resource]:
    if not _is_type(name):
        raise ConfigError(f"{name!r} is not the name of a resource type")
    try:
        module = importlib.import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{PACKAGE}.{name}":
            raise ConfigError(
                f"the module of type '{name}' needs {error.name}, which is not there"
            ) from error
        raise ConfigError(f"there is no resource type '{name}'") from error
    except Exception as error:
        raise ConfigError(
            f"the module of type '{name}' cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, (Resource, Lowered))
            and value.__module__ == module.__name__
        ):
            if issubclass(value, Lowered):
                raise ConfigError(
                    f"'{name}' is made into another type by compile and has no place in a catalog"
                )
            return value
    raise ConfigError(f"the module of type '{name}' holds no Resource")


def _is_type(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_")


def _forget_own() -> None:
    """What an earlier catalog of this process brought: the next one may bring another text."""
    for finder in [one for one in sys.meta_path if isinstance(one, _OwnModules)]:
        sys.meta_path.remove(finder)
        for name in finder.names:
            module = sys.modules.get(name)
            # A built-in module of the same name was never replaced, and stays.
            if module is not None and getattr(module.__spec__, "loader", None) is finder:
                del sys.modules[name]
                vars(sys.modules[PACKAGE]).pop(name.rpartition(".")[2], None)


class _OwnModules:
    """Imports from texts. Comes last, so that it cannot replace a built-in module.

    A finder and loader by shape: `importlib.abc` alone would double the time to start.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = {f"{PACKAGE}.{name}": text for name, text in sources.items()}

    @property
    def names(self) -> Sequence[str]:
        """Their full names."""
        return tuple(self._sources)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, if it is one of ours."""
        if fullname not in self._sources:
            return None
        return ModuleSpec(fullname, self, origin=_file(fullname))  # type: ignore[arg-type]  # by shape

    def create_module(self, spec: ModuleSpec) -> None:
        """Nothing special."""

    def exec_module(self, module: ModuleType) -> None:
        """Run its text."""
        name = module.__name__
        exec(compile(self._sources[name], _file(name), "exec"), vars(module))  # noqa: S102  what a module is


def _file(fullname: str) -> str:
    return f"modules/{fullname.rpartition('.')[2]}.py"
