"""The parameters of a resource as written, against the schema of its type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.compile.check import Misfit, fit, place
from reconciler.compile.gather import Complaints
from reconciler.compile.schema import Field, Kind, TypeSchema
from reconciler.compile.scope import is_template
from reconciler.errors import Mark, SchemaError
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Seq

TEXTS = Kind("list", (Kind("str"),))


@dataclass(frozen=True)
class Param:
    """A parameter as written. value: what it is if it holds no template."""

    field: Field
    raw: object
    mark: Mark
    dynamic: bool
    value: object = None


class ParamReader:
    """Reads parameters; what is wrong goes to `wrong`."""

    def __init__(self, wrong: Complaints) -> None:
        self._wrong = wrong

    def read(
        self, schema: TypeSchema, value: object, mark: Mark, key_mark: Mark, handler: bool
    ) -> Iterator[Param]:
        """The parameters that can be used. mark: of the value; key_mark: of the type."""
        first = schema.fields[0]
        if isinstance(value, str) or (schema.key_list and isinstance(value, Seq)):
            self._refuse_pairs(schema, value, mark)
            yield self._param(schema, first, value, mark)
            given = {first.name}
        elif isinstance(value, Map) or value is None:
            given = set[str]()
            value = Map() if value is None else value
            for key, raw in value.items():
                found = schema.field(key)
                if found is None:
                    self._unknown_param(schema, key, value.key_place(key))
                elif found.name in given:
                    self._wrong.add(
                        f"'{key}' is another name of '{found.name}', which is given too",
                        value.key_place(key),
                        "keep one of the two",
                    )
                else:
                    given.add(found.name)
                    yield self._param(schema, found, raw, value.place(key))
        else:
            self._wrong.add(
                f"the parameters of {schema.name} are a mapping",
                mark,
                f"write {schema.name}: {{{first.name}: ...}}",
            )
            return
        missing = [one.name for one in schema.fields if one.required and one.name not in given]
        if missing:
            self._wrong.add(
                f"{schema.name} needs {' and '.join(missing)}", key_mark, self._example(schema)
            )
        if schema.requires_one_of and not handler and not given & set(schema.requires_one_of):
            self._wrong.add(
                f"nothing says when this {schema.name} is to be done",
                key_mark,
                f"add a guard: {', '.join(schema.requires_one_of)}; or make it a handler and notify it",
            )

    def _example(self, schema: TypeSchema) -> str:
        lines = [
            line
            for line in schema.example.splitlines()
            if line.strip().startswith(f"{schema.name}: ")
        ]
        return f"for example: {lines[0].strip()}" if lines else ""

    def _refuse_pairs(self, schema: TypeSchema, value: object, mark: Mark) -> None:
        """Ansible's old `path=/etc/x mode=0644`."""
        words = value.split() if isinstance(value, str) else []
        pairs = [
            word.partition("=")
            for word in words
            if schema.field(word.partition("=")[0]) and "=" in word
        ]
        if pairs:
            shown = ", ".join(f"{name}: {text}" for name, _, text in pairs)
            self._wrong.add(
                "parameters are a mapping, not name=value",
                mark,
                f"write {schema.name}: {{{shown}}}",
            )

    def _unknown_param(self, schema: TypeSchema, key: object, mark: Mark) -> None:
        if key in schema.refused:
            self._wrong.add(f"'{key}' is not supported", mark, schema.refused[str(key)])
            return
        hint = (
            did_you_mean(str(key), schema.names())
            or f"it has {', '.join(one.name for one in schema.fields)}"
        )
        self._wrong.add(f"{schema.name} has no parameter '{key}'", mark, hint)

    def _param(self, schema: TypeSchema, found: Field, raw: object, mark: Mark) -> Param:
        if schema.key_list and found is schema.fields[0]:
            found = Field(found.name, TEXTS, found.type, found.required)
        if is_template(raw):
            return Param(found, raw, mark, dynamic=True)
        try:
            return Param(found, raw, mark, dynamic=False, value=fit(found, raw))
        except Misfit as error:
            self._wrong.append(misfit(found, error, raw, mark))
            return Param(found, raw, mark, dynamic=False)


def misfit(found: Field, error: Misfit, raw: object, mark: Mark) -> SchemaError:
    """A value that does not fit, at its place. A secret is not shown."""
    where = place(raw, mark, error.path)
    if found.kind.name == "Secret":
        return SchemaError(f"{found.name} is not text", mark=where, hint="put it in quotes")
    return SchemaError(error.message, mark=where, hint=error.hint)
