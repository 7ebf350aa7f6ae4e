"""What a survey has found so far, on disk: rows by key, so that no archive is too large to be compared."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import msgspec

from refold.errors import StorageFailed

from .candidates import Candidate

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Candidate).decode

_TABLES = """
CREATE TABLE found (key TEXT, body BLOB);
CREATE TABLE accounted (place TEXT, hash BLOB);
CREATE TABLE chosen (updated INTEGER, holds INTEGER, body BLOB);
"""


class Scratch:
    """A database that SQLite deletes by itself. For one thread at a time."""

    def __init__(self) -> None:
        try:
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._connection.executescript(_TABLES)
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise StorageFailed("temporary directory", "noting the rows", str(error)) from error

    def close(self) -> None:
        """Forgets everything."""
        self._connection.close()

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Notes rows."""
        self._execute("INSERT INTO found VALUES (?, ?)", [(row.key, _encode(row)) for row in candidates])

    def account(self, place: str, digest: bytes) -> None:
        """Notes that all which a data file holds is noted, or in the quarantine."""
        self._execute("INSERT INTO accounted VALUES (?, ?)", [(place, digest)])

    def accounted(self, size: int) -> Iterator[list[tuple[str, bytes]]]:
        """The data files of which all is noted, by place and SHA-256, so many at a time."""
        cursor = self._connection.execute("SELECT place, hash FROM accounted")
        while page := cursor.fetchmany(size):
            yield page

    def by_key(self) -> Iterator[list[Candidate]]:
        """The rows of each key."""
        rows: list[Candidate] = []
        for (body,) in self._connection.execute("SELECT body FROM found ORDER BY key"):
            row = _decode(body)
            if rows and rows[0].key != row.key:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def choose(self, rows: Sequence[tuple[Candidate, bool]]) -> None:
        """Notes rows that are to be written, and of each whether it holds."""
        self._execute(
            "INSERT INTO chosen VALUES (?, ?, ?)",
            [(row.updated, holds, _encode(row)) for row, holds in rows],
        )

    def in_time(self, size: int) -> Iterator[list[tuple[Candidate, bool]]]:
        """The rows to write, oldest first, the losing ones of a moment before those that hold, so many at a time.

        Of those that tell no time the losing ones come first of all, and those that hold last.
        """
        cursor = self._connection.execute(
            "SELECT body, holds FROM chosen ORDER BY updated = 0 AND holds, updated, holds, rowid"
        )
        while page := cursor.fetchmany(size):
            yield [(_decode(body), bool(holds)) for body, holds in page]

    def _execute(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise StorageFailed("temporary directory", "noting the rows", str(error)) from error
