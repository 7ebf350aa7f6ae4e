"""Cells of a CSV file or a SQLite row as stored values of a collection's fields, and what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refold.errors import RefoldError, ValueRefused
from refold.schema import Field, Schema
from refold.values import Refused, show


def stored_cells(schema: Schema, cells: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The values of a row as they are stored, and each field that cannot be with the reason.

    A cell is text or None, as in CSV, or what SQLite holds. A column that is missing is null, and empty text is null
    where the field may be; text that the field is not of is read as its type.
    """
    values: dict[str, Any] = {}
    wrong: list[tuple[str, str]] = []
    texts = schema.texts
    for name, field in schema.collection.fields.items():
        cell = cells.get(name)
        if type(cell) is str and cell and name in texts and cell.isascii():
            values[name] = cell
            continue
        if (cell is None or cell == "") and field.null:
            values[name] = None
            continue
        try:
            values[name] = schema.store({name: _parsed(schema, name, field, cell)})[name]
        except Refused as error:
            wrong.append((name, f"{error}; it has {show(cell)}"))
        except ValueRefused as error:
            wrong.append((name, f"{error.why}; it has {show(cell)}"))
        except RefoldError as error:
            wrong.append((name, str(error)))
    return values, wrong


def _parsed(schema: Schema, name: str, field: Field, cell: Any) -> Any:
    if field.type == "str":
        return "" if cell is None else cell
    if isinstance(cell, str):
        return schema.types[name].parse(cell)
    if field.type == "bool" and type(cell) is int and cell in (0, 1):
        return bool(cell)
    return cell
