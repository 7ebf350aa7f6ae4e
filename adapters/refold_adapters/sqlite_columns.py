"""How fields become SQLite columns, and how a query becomes SQL.

| field type | column | value |
| --- | --- | --- |
| str, date, datetime, decimal | TEXT | as stored |
| json | TEXT | JSON |
| int, bool | INTEGER | as stored, 0 or 1 |
| float | REAL | as stored |
| bytes | BLOB | the bytes |
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from refold.errors import FieldUnknown
from refold.schema import Schema

if TYPE_CHECKING:
    from refold.ports import Query

_COLUMNS = {"int": "INTEGER", "bool": "INTEGER", "float": "REAL", "bytes": "BLOB"}
_RANKS = {"decimal": ("CAST(", " AS REAL)"), "datetime": ("rtrim(", ", 'Z')")}
_json = msgspec.json.Encoder(order="deterministic")

_CONVERT: dict[str, Callable[[Any], Any]] = {
    "bytes": b64decode,
    "json": lambda value: _json.encode(value).decode(),
}


_INTEGER = re.compile(r"-?[0-9]{1,19}")


def _fits(kind: str, value: Any) -> bool:
    """Whether a column takes a stored value as it is; one of another type than its field's may do so too."""
    if kind == "bytes" and value is not None:
        try:
            return isinstance(value, str) and b64decode(value) is not None
        except ValueError:
            return False
    return kind == "json" or not isinstance(value, list | dict)


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def column_type(schema: Schema, field: str) -> str:
    """The declaration of a field's column."""
    declared = _COLUMNS.get(schema.types[field].name, "TEXT")
    return f"{declared} PRIMARY KEY NOT NULL" if field == schema.collection.key else declared


def sql_value(kind: str, stored: Any) -> Any:
    """A stored value of a field type as a column holds it."""
    convert = _CONVERT.get(kind)
    return stored if stored is None or convert is None else convert(stored)


def row_maker(schema: Schema) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """A function from a record's stored values to its row."""
    blank = schema.blank
    columns = schema.columns
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
        itemgetter(*columns) if len(columns) > 1 else lambda values: (values[columns[0]],)
    )
    convert = {
        index: _CONVERT[schema.types[name].name]
        for index, name in enumerate(columns)
        if schema.types[name].name in _CONVERT
    }

    def plain(values: Mapping[str, Any]) -> tuple[Any, ...]:
        try:
            return pick(values)
        except KeyError:
            return tuple([values.get(name, blank[name]) for name in columns])

    def converted(values: Mapping[str, Any]) -> tuple[Any, ...]:
        row = list(plain(values))
        for index, function in convert.items():
            if row[index] is not None:
                row[index] = function(row[index])
        return tuple(row)

    return converted if convert else plain


class TableStatements:
    """The statements that keep one collection's table, and how its rows are made; compiled once a schema."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        table, key = quote(schema.name), quote(schema.collection.key)
        marks = ", ".join("?" * len(schema.columns))
        fields = ", ".join(f"{quote(field)} = excluded.{quote(field)}" for field in schema.columns)
        specs = [f"{quote(field)} {column_type(schema, field)}" for field in schema.columns]
        self.table = table
        self.create = f"CREATE TABLE {table} ({', '.join(specs)})"
        self.columns = dict(zip(schema.columns, specs, strict=True))
        self.declared = [
            (field, column_type(schema, field).partition(" ")[0], field == schema.collection.key)
            for field in schema.columns
        ]
        self.replace_all = f"INSERT OR REPLACE INTO {table}"
        self.insert = f"INSERT INTO {table}"
        self.or_update = f"ON CONFLICT ({key}) DO UPDATE SET {fields}"
        self.restore = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"
        self.replace = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"
        self.delete = f"DELETE FROM {table} WHERE {key} = ?"
        self.key = schema.columns.index(schema.collection.key)
        self.numeric = schema.types[schema.collection.key].name == "int"
        self.row = row_maker(schema)

    def careful_row(self, key: str, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The row of a record whose values need not fit its fields: those that do not are JSON.

        None when the key column cannot hold the key; the record is then in the log and in no row.
        """
        if not self.can_hold(key):
            return None
        types = self.schema.types
        fitting = {name: value for name, value in values.items() if name in types and _fits(types[name].name, value)}
        row = list(self.row(fitting))
        for index, name in enumerate(self.schema.columns):
            if name in values and name not in fitting:
                row[index] = _json.encode(values[name]).decode()
        row[self.key] = self.key_value(key)
        return tuple(row)

    def can_hold(self, key: str) -> bool:
        """Whether the key column can hold a record's key."""
        if self.schema.types[self.schema.collection.key].name != "int":
            return True
        return _INTEGER.fullmatch(key) is not None and -(2**63) <= int(key) < 2**63 and str(int(key)) == key

    def key_value(self, key: str) -> Any:
        """The value of the key column for a record's key."""
        return int(key) if self.schema.types[self.schema.collection.key].name == "int" else key


def _rank(schema: Schema, field: str) -> str:
    """What to order a field's column by: the text of a decimal, or of a time with a fraction, does not sort as it."""
    before, after = _RANKS.get(schema.types[field].name, ("", ""))
    return f"{before}t.{quote(field)}{after}"


def page_sql(query: Query, schema: Schema, collection: int) -> tuple[str, list[Any]]:
    """The SQL of one page of a query, and its parameters. Raises `FieldUnknown`, `ValueRefused`.

    A page starts after the row that the page before ended with, so a reader that pauses holds no transaction open.
    """
    key = _rank(schema, schema.collection.key)
    plain_key = f"t.{quote(schema.collection.key)}"
    conditions, parameters = [], []
    stored = schema.store({name: value for name, value in query.where.items() if value is not None})
    for name in query.where:
        if name not in schema.types:
            raise FieldUnknown(schema.name, name, list(schema.columns))
        if name not in stored:
            conditions.append(f"t.{quote(name)} IS NULL")
            continue
        conditions.append(f"t.{quote(name)} = ?")
        convert = _CONVERT.get(schema.types[name].name)
        parameters.append(convert(stored[name]) if convert else stored[name])
    field = query.order.removeprefix("-")
    if field and field not in schema.types:
        raise FieldUnknown(schema.name, field, list(schema.columns))
    ranks = [key]
    if field and field != schema.collection.key:
        ranks = [f"t.{quote(field)} IS NOT NULL", f"ifnull({_rank(schema, field)}, '')", key]
    direction, compare = ("DESC", "<") if query.order.startswith("-") else ("ASC", ">")
    if query.after is not None:
        conditions.append(f"({', '.join(ranks)}) {compare} ({', '.join('?' * len(ranks))})")
        parameters += query.after
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = ", ".join(f"{rank} {direction}" for rank in ranks)
    join = "LEFT JOIN" if schema.keeps_both else "JOIN"
    sql = (
        f"SELECT {', '.join(ranks)}, CAST({plain_key} AS TEXT), r.position, r.state FROM {quote(schema.name)} t"
        f" {join} _refold_records r ON r.collection = {collection} AND r.key = CAST({plain_key} AS TEXT)"
        f"{where} ORDER BY {order} LIMIT {query.limit:d}"
    )
    return sql, parameters
