"""Which record refers to which, in SQLite: the table `_refold_references` of `tables.db`, and the conflicts of those
references that lead nowhere. Kept for collections that have references, in the transaction that saves their records.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping

from refold.conflict import ConflictKind
from refold.conflict_list import Record
from refold.fold import State
from refold.references import dangling_entries
from refold.schema import Schema

from .sqlite_columns import quote
from .sqlite_conflicts import insert_entries

_RECORD = (
    "SELECT 1 FROM _refold_records WHERE collection = (SELECT id FROM _refold_collections WHERE name = ?) AND key = ?"
)
"""A branch that keep-both shows has a row beside its record's, and is no record."""


def save_references(connection: sqlite3.Connection, collection: str, found: Mapping[str, Mapping[str, Record]]) -> None:
    """Notes what records of a collection refer to now, by key and field."""
    connection.executemany(
        "DELETE FROM _refold_references WHERE collection = ? AND key = ?", [(collection, key) for key in found]
    )
    connection.executemany(
        "INSERT INTO _refold_references VALUES (?, ?, ?, ?, ?)",
        [(collection, key, field, *target) for key, fields in found.items() for field, target in fields.items()],
    )


def forget_references(connection: sqlite3.Connection, collection: str) -> None:
    """Forgets what records of a collection refer to, and which of that leads nowhere."""
    connection.execute("DELETE FROM _refold_references WHERE collection = ?", (collection,))
    connection.execute(
        "DELETE FROM _refold_conflicts WHERE collection = ? AND kind = ?", (collection, ConflictKind.DEPENDENCY)
    )


def some_referrers(
    connection: sqlite3.Connection, target: Record, through: Iterable[tuple[str, str]], limit: int
) -> list[Record]:
    """At most so many records that refer to one through any of these fields, of these collections."""
    found: dict[Record, None] = {}
    for collection, field in through:
        rows = connection.execute(
            "SELECT collection, key FROM _refold_references"
            " WHERE target = ? AND target_key = ? AND collection = ? AND field = ? ORDER BY key LIMIT ?",
            (*target, collection, field, limit),
        )
        found.update(dict.fromkeys(rows.fetchall()))
    return sorted(found)[:limit]


def referrers(connection: sqlite3.Connection, records: Iterable[Record]) -> set[Record]:
    """The records that refer to any of these."""
    found: set[Record] = set()
    for record in records:
        found.update(
            connection.execute(
                "SELECT collection, key FROM _refold_references WHERE target = ? AND target_key = ?", record
            ).fetchall()
        )
    return found


def _present(connection: sqlite3.Connection, schemas: Mapping[str, Schema], record: Record) -> bool:
    schema = schemas.get(record[0])
    if schema is None:
        return False
    column = quote(schema.collection.key)
    sql = f"SELECT 1 FROM {quote(schema.name)} WHERE CAST({column} AS TEXT) = ? AND {column} = ?"
    if connection.execute(sql, (record[1], record[1])).fetchone() is None:
        return False
    return not schema.keeps_both or connection.execute(_RECORD, record).fetchone() is not None


def save_dangling(
    connection: sqlite3.Connection,
    records: Iterable[Record],
    schemas: Mapping[str, Schema],
    state_of: Callable[[Record], State],
) -> None:
    """Writes the dependency conflicts of records anew."""
    for record in sorted(records):
        connection.execute(
            "DELETE FROM _refold_conflicts WHERE collection = ? AND key = ? AND kind = ?",
            (*record, ConflictKind.DEPENDENCY),
        )
        rows = connection.execute(
            "SELECT field, target, target_key FROM _refold_references WHERE collection = ? AND key = ?", record
        ).fetchall()
        found = {field: (target, key) for field, target, key in rows}
        if found:
            entries = dangling_entries(
                record,
                schemas[record[0]].read(state_of(record)),
                found,
                lambda target: _present(connection, schemas, target),
            )
            insert_entries(connection, entries)
