"""Capture where triggers are not wanted: the table is compared with how it was seen last.

`refold_rows_TABLE` holds the text of every row as refold wrote it or last took it in. What differs is put into the same
outbox that triggers would fill, and from there on all is the same. Writes between two looks are one change, and their
order is that of the keys. Before refold writes a row it looks at it, so that nothing is written over unseen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refold_adapters.sqlite_columns import quote

if TYPE_CHECKING:
    from .bookkeeping import Mirror

_PART = 500


def rows_name(table: str) -> str:
    """The table of rows as they were seen last."""
    return f"refold_rows_{table}"


def _text(mirror: Mirror, of: str) -> str:
    """An SQL expression for a row's text: every value as a literal, so that no two values look the same."""
    return " || ',' || ".join(f"quote({of}.{quote(column)})" for column in mirror.columns)


def create(connection: sqlite3.Connection, mirror: Mirror) -> None:
    """Makes the table of rows, of what stands there now."""
    name = quote(rows_name(mirror.name))
    connection.execute(f"DROP TABLE IF EXISTS {name}")
    connection.execute(f"CREATE TABLE {name} (key PRIMARY KEY, row TEXT NOT NULL)")
    connection.execute(
        f"INSERT INTO {name} SELECT this.{quote(mirror.key)}, {_text(mirror, 'this')} FROM {quote(mirror.name)} this"
    )


def scan(connection: sqlite3.Connection, mirror: Mirror, outbox: str, keys: Sequence[Any] | None = None) -> None:
    """Puts the rows that have changed since they were seen last into the outbox: all, or those with some keys."""
    if keys is None:
        _scan(connection, mirror, outbox, "", ())
        return
    for start in range(0, len(keys), _PART):
        part = keys[start : start + _PART]
        _scan(connection, mirror, outbox, f"AND {{of}} IN ({', '.join('?' * len(part))})", part)


def _scan(connection: sqlite3.Connection, mirror: Mirror, outbox: str, limit: str, parameters: Sequence[Any]) -> None:
    rows, table, key = quote(rows_name(mirror.name)), quote(mirror.name), quote(mirror.key)
    text = _text(mirror, "this")
    cells = [f"this.{quote(column)}" for column in mirror.columns]
    names = [quote(f"c_{column}") for column in mirror.columns]
    changed = f"FROM {table} this LEFT JOIN {rows} seen ON seen.key = this.{key} WHERE seen.row IS NOT {text}"
    gone = f"FROM {rows} seen WHERE NOT EXISTS (SELECT 1 FROM {table} this WHERE this.{key} = seen.key)"
    for operation, of, source, columns, values in (
        ("put", f"this.{key}", changed, names, cells),
        ("delete", "seen.key", gone, [], []),
    ):
        said = f"'{operation}'"
        before = f"SELECT min(position) FROM {outbox} waits WHERE waits.key = {of}"
        position = f"coalesce(({before}), (SELECT seen FROM refold_mirrors WHERE name = ?))"
        number = f"row_number() OVER (ORDER BY {of}) + (SELECT written FROM refold_mirrors WHERE name = ?)"
        found = connection.execute(
            f"INSERT INTO {outbox} ({', '.join(['id', 'operation', 'position', 'key', *columns])})"
            f" SELECT {', '.join([number, said, position, of, *values])} {source} {limit.format(of=of)}",
            (mirror.name, mirror.name, *parameters),
        ).rowcount
        if found > 0:
            sql = "UPDATE refold_mirrors SET written = written + ? WHERE name = ?"
            connection.execute(sql, (found, mirror.name))
    _note(connection, mirror, limit, parameters)


def note(connection: sqlite3.Connection, mirror: Mirror, keys: Sequence[Any]) -> None:
    """Takes in how rows with some keys stand now."""
    for start in range(0, len(keys), _PART):
        part = keys[start : start + _PART]
        _note(connection, mirror, f"AND {{of}} IN ({', '.join('?' * len(part))})", part)


def _note(connection: sqlite3.Connection, mirror: Mirror, limit: str, parameters: Sequence[Any]) -> None:
    rows, table, key = quote(rows_name(mirror.name)), quote(mirror.name), quote(mirror.key)
    text = _text(mirror, "this")
    changed = f"FROM {table} this LEFT JOIN {rows} seen ON seen.key = this.{key} WHERE seen.row IS NOT {text}"
    connection.execute(
        f"INSERT OR REPLACE INTO {rows} SELECT this.{key}, {text} {changed} {limit.format(of=f'this.{key}')}",
        parameters,
    )
    connection.execute(
        f"DELETE FROM {rows} WHERE NOT EXISTS (SELECT 1 FROM {table} this WHERE this.{key} = {rows}.key)"
        f" {limit.format(of=f'{rows}.key')}",
        parameters,
    )
