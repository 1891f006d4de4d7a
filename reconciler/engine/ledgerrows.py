"""The rows of a ledger: what is kept as JSON, and whether all is as we write it.

SQLite's own check is about pages. A bit that flipped within a value it does not see: JSON that is
none, text that is no UTF-8, a number where there must be a name. That is damage like any other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

#: What a look needs; the history is for people and for runs that change something.
MEMORY = ("resources", "tombstones", "intents", "owed", "images", "lost")
HISTORY = ("runs", "changes", "diffs")
#: What a value may be, by what its column is declared as.
KINDS = {"TEXT": "'text', 'null'", "INTEGER": "'integer', 'null'", "REAL": "'real', 'null'"}
#: Columns that hold names of files, which need not be text.
NAMES = {("images", "path"), ("images", "link")}


def texts(value: object) -> tuple[str, ...]:
    """A list of texts. Raises sqlite3.DatabaseError, as all that follow."""
    return tuple(_read(value, _is_texts))


def undo(value: object) -> dict[str, Any] | None:
    """The parameters that take a resource away; None if there are none."""
    return _read(value, _is_mapping) if value else None


def changes(value: object) -> list[dict[str, Any]]:
    """What differed: `attribute`, `before`, `after`."""
    return _read(value, _is_changes) if value else []


def counts(value: object) -> dict[str, int]:
    """Status -> number."""
    return _read(value, _is_counts) if value else {}


def check(database: sqlite3.Connection, tables: Iterable[str]) -> None:
    """Raise sqlite3.DatabaseError for a row of these tables that is not as we write it.

    The tables must be ours, for they are named in the text of a query. All rows of a column are
    read as one text: that is ten times faster than one after the other.
    """
    for table in tables:
        columns = dict(database.execute("SELECT name, type FROM pragma_table_info(?)", [table]))
        _check_kinds(database, table, columns)
        _check_json(database, table, [name for name in SHAPES.get(table, {}) if name in columns])


def _check_kinds(database: sqlite3.Connection, table: str, columns: Mapping[str, str]) -> None:
    """Whether each value is of a kind that its column has, and text is UTF-8."""
    odd = ["0"]
    decoded = ["0"]
    for name, kind in columns.items():
        if kind in KINDS:  # that of a newer version may be another one
            kinds = KINDS[kind] + (", 'blob'" if (table, name) in NAMES else "")
            odd.append(f'typeof("{name}") NOT IN ({kinds})')
        if kind == "TEXT":
            decoded.append(f'group_concat(CASE typeof("{name}") WHEN \'text\' THEN "{name}" END)')
    if database.execute(f"SELECT 1 FROM {table} WHERE {' OR '.join(odd)} LIMIT 1").fetchone():  # noqa: S608
        raise sqlite3.DatabaseError(f"the table {table} holds what we never write there")
    database.execute(f"SELECT {', '.join(decoded)} FROM {table}").fetchone()  # noqa: S608


def _check_json(database: sqlite3.Connection, table: str, names: Sequence[str]) -> None:
    """Whether what is kept as JSON is, and of the shape that it must be."""
    for name in names:
        shape = SHAPES[table][name]
        some = "" if shape is _is_texts else f"WHERE {name} <> ''"
        count, joined = database.execute(
            f"SELECT count(*), group_concat({name}) FROM {table} {some}"  # noqa: S608
        ).fetchone()
        found = _read(f"[{joined or ''}]", _is_list)
        if len(found) != count or not all(map(shape, found)):
            raise sqlite3.DatabaseError(f"the table {table} holds JSON that we never write")


def _read(value: object, fits: Callable[[Any], bool]) -> Any:
    try:
        found = json.loads(str(value))
    except (ValueError, RecursionError) as error:
        raise _misfit(value) from error
    if not fits(found):
        raise _misfit(value)
    return found


def _misfit(value: object) -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError(f"it holds {str(value)[:40]!r}, which we never write")


def _is_list(found: object) -> bool:
    return isinstance(found, list)


def _is_texts(found: object) -> bool:
    return isinstance(found, list) and set(map(type, found)) <= {str}


def _is_mapping(found: object) -> bool:
    return isinstance(found, dict)


def _is_changes(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("attribute"), str)
        and one.keys() >= {"before", "after"}
        for one in found
    )


def _is_counts(found: object) -> bool:
    return isinstance(found, dict) and set(map(type, found.values())) <= {int}


#: What is kept as JSON, and what it must be.
SHAPES: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "resources": {"claims": _is_texts, "undo": _is_mapping},
    "intents": {"notify": _is_texts, "paths": _is_texts},
    "changes": {"changes": _is_changes},
    "runs": {"summary": _is_counts},
}
