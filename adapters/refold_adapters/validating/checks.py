"""What is wrong with a record by the definition of its collection: all of it, and not the first bad field alone. Pure.

The rules are those that a write has to pass (`refold.schema`); only here nothing is refused, and all is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from refold.errors import RefoldError, ValueRefused
from refold.schema import Field, Schema
from refold.values import Refused, show


class FieldError(msgspec.Struct, frozen=True):
    """Why a record is not as its collection wants it; the field is null for what concerns the whole record."""

    field: str | None
    code: str
    message: str


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A record to be looked at: its row in a file (0 in a collection), and its cells or members by field.

    `text` says that values are texts as in CSV, and have to be read by the type of their field.
    """

    number: int
    cells: Mapping[str, Any]
    text: bool = False


def errors_of(schema: Schema, row: Row) -> list[FieldError]:
    """What is wrong with a record, in the order of the definition."""
    fields = schema.collection.fields
    wrong = [
        FieldError(str(name), "field-unknown", f"{schema.name} has no such field")
        for name in row.cells
        if name not in fields
    ]
    for name, field in fields.items():
        why = _refusal(schema, name, field, row)
        if why is not None:
            wrong.append(FieldError(name, "value-refused", why))
    return wrong


def _refusal(schema: Schema, name: str, field: Field, row: Row) -> str | None:
    if name not in row.cells:
        return None if field.null or field.default is not None else "is required, and is not there"
    value = row.cells[name]
    try:
        schema.store({name: _read(schema, name, field, value) if row.text else value})
    except Refused as error:
        return f"{error} (got {show(value)})"
    except ValueRefused as error:
        return f"{error.why} (got {error.value})"
    except RefoldError as error:
        return str(error)
    return None


def _read(schema: Schema, name: str, field: Field, cell: str | None) -> Any:
    """The value that a cell of a CSV file stands for."""
    if field.type == "str":
        return cell if cell is not None or field.null else ""
    return schema.types[name].parse(cell) if cell else None


def needs_limit(schema: Schema) -> bool:
    """Whether looking at a record may take for ever: a pattern can, everything else goes by the size of the record."""
    return any(field.pattern is not None for field in schema.collection.fields.values())


def check_all(schema: Schema, rows: Sequence[Row]) -> list[list[FieldError]]:
    """What is wrong with each of some records."""
    return [errors_of(schema, row) for row in rows]
