"""What a resource type looks like, read from the syntax tree of its module.

No module is imported for that, so compiling a pull request never runs its code. The same
reader serves the built-in types and the state repo's own `modules/*.py`.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.errors import Mark, SchemaError

#: The scalar types of the vocabulary; `object` accepts everything that YAML can say.
SCALARS = {"str", "int", "float", "bool", "Path", "Content", "Secret", "object"}
LISTS = {"list", "List", "Sequence", "tuple", "Tuple"}
DICTS = {"dict", "Dict", "Mapping"}
#: Class attributes that are part of the schema.
ATTRIBUTES = ("aliases", "key_fields", "requires_one_of", "handler_only", "key_list", "refused")


@dataclass(frozen=True)
class Kind:
    """The type of a field. name: a scalar type, `list`, `dict`, `choice` or `union`.

    of: the element type, or the alternatives of a union. optional: None is a value too.
    """

    name: str
    of: tuple[Kind, ...] = ()
    choices: tuple[object, ...] = ()
    optional: bool = False

    def __str__(self) -> str:
        """In words, for an error."""
        words = {
            "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false",
            "Path": "a path", "Secret": "text", "Content": "content", "object": "anything",
        }  # fmt: skip
        if self.name == "choice":
            return "one of " + ", ".join(map(_word, self.choices))
        if self.name == "union":
            return " or ".join(map(str, self.of))
        if self.name == "list":
            return f"a list of {self.of[0]}"
        if self.name == "dict":
            return f"a mapping to {self.of[0]}"
        return words[self.name]


def _word(choice: object) -> str:
    text = str(choice)
    return text if text.isprintable() and text else repr(choice)


@dataclass(frozen=True)
class Field:
    """A parameter. type: as written in the module. required: it has no default."""

    name: str
    kind: Kind
    type: str
    required: bool
    default: object = None
    doc: str = ""


@dataclass(frozen=True)
class TypeSchema:
    """A resource type.

    title: the first line of the docstring; example: its indented part; doc: the rest.
    aliases, key_fields, requires_one_of, handler_only, key_list, refused: as
    `reconciler.resource` says. lowered: compile turns it into another type; into: that type, if
    it is the one that it inherits from.
    builtin: it comes with the product, and not from the state repo.
    """

    name: str
    file: str
    fields: tuple[Field, ...]
    title: str = ""
    doc: str = ""
    example: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    key_fields: tuple[str, ...] = ()
    requires_one_of: tuple[str, ...] = ()
    handler_only: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    key_list: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    lowered: bool = False
    into: str = ""
    builtin: bool = True

    def __post_init__(self) -> None:
        by_name = {one.name: one for one in self.fields}
        for alias, name in self.aliases.items():
            if name in by_name:
                by_name.setdefault(alias, by_name[name])
        object.__setattr__(self, "_by_name", by_name)

    def field(self, name: object) -> Field | None:
        """The field of that name or alias."""
        return self._by_name.get(name)  # type: ignore[attr-defined, no-any-return]

    def names(self) -> list[str]:
        """What may be written: fields, then aliases."""
        return list(self._by_name)  # type: ignore[attr-defined]


#: Gives the syntax tree's schema of another module that a class inherits from.
Base = Callable[[str], "TypeSchema | None"]


def read_type(name: str, source: str, file: str, base: Base, *, builtin: bool = True) -> TypeSchema:
    """The schema of the one resource type in a module. Raises SchemaError with the place."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", 0) or 0
        column = getattr(error, "offset", 0) or 0
        raise SchemaError(
            f"this module is not Python: {getattr(error, 'msg', error)}",
            mark=Mark(file, line, column),
        ) from error
    imported = dict(_imports(tree))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found = _class(node, name, source, file, imported, base)
            if found is not None:
                return replace(found, builtin=builtin, **_docstring(tree))
    raise SchemaError(
        f"the module of type '{name}' holds no resource type",
        mark=Mark(file, 1),
        hint="a resource type is a dataclass that inherits from Resource",
    )


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Class name -> name of the module under reconciler.modules that it comes from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "reconciler.modules."
        ):
            for one in node.names:
                yield (
                    one.asname or one.name,
                    (node.module or "").removeprefix("reconciler.modules."),
                )


def _class(
    node: ast.ClassDef, name: str, source: str, file: str, imported: Mapping[str, str], base: Base
) -> TypeSchema | None:
    parents = [ast.unparse(one).rpartition(".")[2] for one in node.bases]
    inherited = TypeSchema(name, file, ())
    for parent in parents:
        if parent in imported:
            inherited = base(imported[parent]) or inherited
    if not inherited.fields and not {"Resource", "Lowered"} & set(parents):
        return None
    fields = {one.name: one for one in inherited.fields}
    attributes: dict[str, Any] = {
        attribute: getattr(inherited, attribute) for attribute in ATTRIBUTES
    }
    lines = source.splitlines()
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            target = statement.target.id
            if ast.unparse(statement.annotation).partition("[")[0].endswith("ClassVar"):
                if target in ATTRIBUTES and statement.value is not None:
                    attributes[target] = _literal(statement.value, file)
            else:
                fields[target] = _field(statement, target, lines, file)
    lowered = inherited.lowered or "Lowered" in parents
    return TypeSchema(
        name=name,
        file=file,
        fields=tuple(fields.values()),
        lowered=lowered,
        into=(inherited.into or inherited.name) if lowered and inherited.fields else "",
        **attributes,
    )


def _field(statement: ast.AnnAssign, name: str, lines: list[str], file: str) -> Field:
    default: object = None
    if statement.value is not None:
        default = _default(statement.value, file)
    return Field(
        name=name,
        kind=_kind(statement.annotation, file),
        type=ast.unparse(statement.annotation),
        required=statement.value is None,
        default=default,
        doc=_comment(statement, lines),
    )


def _comment(statement: ast.AnnAssign, lines: list[str]) -> str:
    """The `#:` comment behind the field, on any of its lines, or on lines of its own above it."""
    own = (statement.end_lineno or statement.lineno) - 1
    offset = statement.end_col_offset or 0
    for number in range(own, statement.lineno - 2, -1):
        text = lines[number].encode()[offset if number == own else 0 :].decode(errors="replace")
        _, mark, comment = text.rpartition("#: ")
        if mark:
            return comment.strip()
    above: list[str] = []
    number = statement.lineno - 2
    while number >= 0 and lines[number].lstrip().startswith("#: "):
        above.insert(0, lines[number].strip()[3:])
        number -= 1
    return " ".join(above)


def _default(node: ast.expr, file: str) -> object:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "default_factory" and isinstance(keyword.value, ast.Name):
                return {"list": [], "dict": {}}.get(keyword.value.id)
            if keyword.arg == "default":
                return _literal(keyword.value, file)
        return None
    return _literal(node, file)


def _literal(node: ast.expr, file: str) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise SchemaError(
            f"{ast.unparse(node)} is no literal, so it cannot be read without running the module",
            mark=Mark(file, node.lineno, node.col_offset + 1),
        ) from error


def _kind(node: ast.expr, file: str) -> Kind:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _kind(ast.parse(node.value, mode="eval").body, file)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(_alternatives(node), file)
    if isinstance(node, ast.Subscript):
        outer = ast.unparse(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return Kind("choice", choices=tuple(_literal(one, file) for one in inner))
        if outer in ("Optional", "Union"):
            return _union([*inner, *([ast.Constant(None)] if outer == "Optional" else [])], file)
        if outer in LISTS:
            return Kind("list", (_kind(inner[0], file),))
        if outer in DICTS and len(inner) == 2:
            return Kind("dict", (_kind(inner[1], file),))
    name = ast.unparse(node).rpartition(".")[2]
    if name in SCALARS:
        return Kind(name)
    raise SchemaError(
        f"{ast.unparse(node)} is not a type that a field can have",
        mark=Mark(file, node.lineno, node.col_offset + 1),
        hint="str, int, float, bool, list[T], dict[str, T], Literal[...], Path, Content, Secret, and T | None",
    )


def _alternatives(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    return [node]


def _union(nodes: list[ast.expr], file: str) -> Kind:
    given = [one for one in nodes if not (isinstance(one, ast.Constant) and one.value is None)]
    kinds = tuple(_kind(one, file) for one in given)
    optional = len(given) < len(nodes) or any(kind.optional for kind in kinds)
    return (
        replace(kinds[0], optional=optional)
        if len(kinds) == 1
        else Kind("union", kinds, optional=optional)
    )


def _docstring(tree: ast.Module) -> dict[str, str]:
    text = ast.get_docstring(tree) or ""
    title, _, rest = text.partition("\n")
    example: list[str] = []
    prose: list[str] = []
    for paragraph in rest.strip("\n").split("\n\n"):
        (example if paragraph.startswith("    ") else prose).append(paragraph)
    return {
        "title": title,
        "example": textwrap.dedent("\n\n".join(example)),
        "doc": "\n\n".join(prose).strip(),
    }
