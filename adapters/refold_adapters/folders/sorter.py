"""Events in the order `(time, replica, seq)`, however many: SQLite sorts on disk what memory should not hold.

The order is a causal one, since a clock that has seen an event gives later times, and it is the same on every replica.
A dot that comes twice is kept once; `put` says when the two differ.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from refold.errors import EventForked
from refold_adapters.sqlite_connection import failures

Entry = tuple[int, str, int, bytes, bytes]
"""An event's time, replica and seq, its hash, and what to carry along."""

_PAGE = 500


class Sorter:
    """A sort on disk, in a temporary database that is gone when it is closed."""

    def __init__(self) -> None:
        self._path = Path("a temporary database")
        with failures(self._path, "opening"):
            self._connection = sqlite3.connect("", isolation_level=None)
            for statement in (
                "PRAGMA journal_mode = MEMORY",
                "PRAGMA synchronous = OFF",
                "PRAGMA cache_size = -16384",
                "CREATE TABLE replicas (id INTEGER PRIMARY KEY, replica TEXT NOT NULL UNIQUE)",
                "CREATE TABLE entries (replica, seq, time, hash, carried, PRIMARY KEY (replica, seq)) WITHOUT ROWID",
            ):
                self._connection.execute(statement)
        self._ids: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def put(self, entries: Iterable[Entry]) -> None:
        """Takes in entries in any order. Raises `EventForked` when a dot comes with another hash."""
        rows = [(self._id(replica), seq, time, digest, carried) for time, replica, seq, digest, carried in entries]
        with failures(self._path, "sorting events"):
            self._connection.execute("BEGIN")
            added = self._connection.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?)", rows).rowcount
            if added < len(rows):
                for row in rows:
                    self._compare(row)
            self._connection.execute("COMMIT")

    def _compare(self, row: Sequence[object]) -> None:
        number, seq, _, digest, _ = row
        assert isinstance(seq, int)
        assert isinstance(digest, bytes)
        (known,) = self._connection.execute(
            "SELECT hash FROM entries WHERE replica = ? AND seq = ?", (number, seq)
        ).fetchone()
        if known != digest:
            replica = next(name for name, found in self._ids.items() if found == number)
            raise EventForked(replica, seq, known.hex(), digest.hex())

    def _id(self, replica: str) -> int:
        number = self._ids.get(replica)
        if number is None:
            number = self._ids[replica] = len(self._ids) + 1
            with failures(self._path, "sorting events"):
                self._connection.execute("INSERT INTO replicas VALUES (?, ?)", (number, replica))
        return number

    def sorted(self) -> Iterator[Entry]:
        """All entries in order."""
        with failures(self._path, "sorting events"):
            cursor = self._connection.execute(
                "SELECT time, r.replica, seq, hash, carried FROM entries e JOIN replicas r ON r.id = e.replica"
                " ORDER BY time, r.replica, seq"
            )
            while rows := cursor.fetchmany(_PAGE):
                yield from rows
