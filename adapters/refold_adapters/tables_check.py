"""Compares tables with what the log folds to, row by row, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from refold.verdict import Finding

from .sqlite_columns import quote
from .sqlite_connection import connect, failures

FINDINGS_LIMIT = 1000
"""Findings after which a comparison stops: what comes after the first thousand tells nobody more."""

_BOOKKEEPING = {
    "_refold_records": (
        "SELECT c.name, r.key, r.position, r.state FROM _refold_records r"
        " JOIN _refold_collections c ON c.id = r.collection ORDER BY 1, 2"
    ),
    "_refold_collections": "SELECT name, '', records FROM _refold_collections ORDER BY 1",
    "_refold_chain": "SELECT '', position, previous FROM _refold_chain ORDER BY 2",
    "_refold_conflicts": "SELECT '', id, closed, kind, collection, key, fields, open, time, replica, seq, by_hand"
    " FROM _refold_conflicts ORDER BY 2, 3",
    "_refold_references": "SELECT '', collection, key, field, target, target_key FROM _refold_references"
    " ORDER BY 2, 3, 4",
    "_refold_unique": "SELECT '', key, collection, field, value, time, replica, seq FROM _refold_unique"
    " ORDER BY 2, 3, 4, 5",
    "_refold_requests": "SELECT '', request_id, position FROM _refold_requests ORDER BY 2",
    "_refold_checkpoint": "SELECT '', only, position, heads, digest FROM _refold_checkpoint",
}


class TablesCheck:
    """A snapshot of live tables, to be compared with tables folded from the log up to `position`."""

    def __init__(self, live: Path) -> None:
        self._path = live
        self._live = connect(live, readonly=True)
        with failures(live, "reading the tables"):
            self._live.execute("BEGIN")
            row = self._live.execute("SELECT position FROM _refold_checkpoint").fetchone()
        self.position: int = row[0] if row is not None else 0

    def compare(self, truth: Path) -> list[Finding]:
        """What differs, the first thousand of it. Raises `StorageFailed`."""
        expected = connect(truth, readonly=True)
        try:
            with failures(self._path, "comparing the tables"):
                return list(islice(self._differences(expected), FINDINGS_LIMIT))
        finally:
            expected.close()

    def close(self) -> None:
        """Ends the snapshot."""
        self._live.close()

    def _differences(self, expected: sqlite3.Connection) -> Iterator[Finding]:
        damage = self._live.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            yield Finding("table-altered", f"the database is damaged: {damage}", file=self._path.name)
            return
        yield from self._schemas(expected)
        for table, sql in _BOOKKEEPING.items():
            yield from self._rows(table, self._live.execute(sql), expected.execute(sql))
        for (table,) in expected.execute(f"{_USER_TABLES} ORDER BY name").fetchall():
            columns = [row[1] for row in expected.execute(f"PRAGMA table_info({quote(table)})")]
            if columns != [row[1] for row in self._live.execute(f"PRAGMA table_info({quote(table)})")]:
                yield Finding("table-altered", f"table {table} has other columns", file=self._path.name)
                continue
            sql = f"SELECT '', * FROM {quote(table)} ORDER BY {_key(expected, table)}"
            yield from self._rows(table, self._live.execute(sql), expected.execute(sql), _place(expected, table))

    def _schemas(self, expected: sqlite3.Connection) -> Iterator[Finding]:
        here, there = ({name for (name,) in connection.execute(_USER_TABLES)} for connection in (self._live, expected))
        for name in sorted(there - here):
            yield Finding("table-missing", f"table {name} is not there", file=self._path.name, collection=name)

    def _rows(
        self, table: str, live: Iterator[tuple[Any, ...]], truth: Iterator[tuple[Any, ...]], key: int = 1
    ) -> Iterator[Finding]:
        """Walks two results in the same order side by side."""
        one, other = next(live, None), next(truth, None)
        while one is not None or other is not None:
            if one == other:
                one, other = next(live, None), next(truth, None)
                continue
            ahead = _compare(one, other, key)
            row = one if ahead <= 0 else other
            assert row is not None
            kind = ("table-stray", "table-altered", "table-missing")[ahead + 1]
            collection, name = row[0] or table, str(row[key])
            yield Finding(kind, f"table {table}", file=self._path.name, collection=collection, key=name)
            if ahead <= 0:
                one = next(live, None)
            if ahead >= 0:
                other = next(truth, None)


_USER_TABLES = (
    "SELECT name FROM sqlite_schema WHERE type = 'table'"
    " AND name NOT LIKE '\\_refold\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)


def _place(connection: sqlite3.Connection, table: str) -> int:
    """Where the key stands among a table's columns, after the leading collection."""
    infos = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
    return 1 + next(index for index, row in enumerate(infos) if row[5])


def _key(connection: sqlite3.Connection, table: str) -> str:
    infos = connection.execute(f"PRAGMA table_info({quote(table)})").fetchall()
    return next(quote(row[1]) for row in infos if row[5])


def _compare(one: tuple[Any, ...] | None, other: tuple[Any, ...] | None, key: int) -> int:
    """-1, 0 or 1 as `one` stands before, beside or after `other`; None stands after everything."""
    if one is None or other is None:
        return 1 if one is None else -1
    first, second = _rank(one, key), _rank(other, key)
    return (first > second) - (first < second)


def _rank(row: tuple[Any, ...], key: int) -> tuple[bytes, int, int, bytes]:
    """SQLite's order of (collection, key): numbers before text, text by its bytes."""
    value = row[key]
    if isinstance(value, int):
        return str(row[0]).encode(), 0, value, b""
    return str(row[0]).encode(), 1, 0, str(value).encode("utf-8", "surrogateescape")
