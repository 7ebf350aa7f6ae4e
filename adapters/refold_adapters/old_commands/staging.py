"""Rows of the folders and rows of the table, side by side in a database that SQLite deletes by itself.

What the folders hold is noted here as it is read, so no archive is too large. The program's database is attached, and
SQLite itself compares: null and empty text are one thing, since a data.csv spells them alike.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote as quote_path

from refold.errors import StorageFailed
from refold.schema import Schema
from refold_adapters.adopting.candidates import Candidate, Finding, choose
from refold_adapters.sqlite_columns import column_type, quote, row_maker

ROWS = "folder_rows"
PAGE = 500


@dataclass(eq=False)
class DatabaseBusy(StorageFailed):
    """Another program has held the database for as long as a run waits."""

    code: ClassVar[str] = "database-busy"
    hint: ClassVar[str] = "run it again when that program has ended what it does; nothing was changed"


class Staging:
    """The rows of one collection. `failures` turns what SQLite raises into errors that name the database."""

    def __init__(self, schema: Schema, db: Path, wait: float) -> None:
        self.schema = schema
        self.db = db
        self.wait = wait
        self.names = list(schema.columns)
        self.key = schema.collection.key
        self._make = row_maker(schema)
        columns = ", ".join(f"{quote(name)} {_affinity(schema, name)}" for name in self.names)
        with self.failures("noting the rows", Path("temporary directory")):
            self.connection = sqlite3.connect("", isolation_level=None, uri=True, timeout=wait, check_same_thread=False)
            self.connection.execute(
                f"CREATE TABLE {ROWS} ({columns}, _refold_folder TEXT, _refold_row INTEGER, _refold_updated INTEGER)"
            )
            self.connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            self.connection.execute("BEGIN")

    def failures(self, operation: str, path: Path | None = None) -> _Failures:
        """A context in which errors of SQLite become `StorageFailed`, of a database that is held `DatabaseBusy`."""
        return _Failures(path or self.db, operation, self.wait)

    def add(self, rows: Sequence[Candidate]) -> None:
        """Notes good rows of folders."""
        make, marks = self._make, ", ".join("?" * (len(self.names) + 3))
        with self.failures("noting the rows", Path("temporary directory")):
            self.connection.executemany(
                f"INSERT INTO {ROWS} VALUES ({marks})",
                [(*make(row.values), row.folder, row.row, row.updated) for row in rows],
            )

    def settle(self) -> Iterator[Finding]:
        """Leaves one row a key, the one that was changed last, and tells of the others. Ends the noting."""
        with self.failures("comparing the rows", Path("temporary directory")):
            key = quote(self.key)
            self.connection.execute(f"CREATE INDEX {ROWS}_key ON {ROWS} ({key})")
            doubled = self.connection.execute(f"SELECT {key} FROM {ROWS} GROUP BY {key} HAVING count(*) > 1").fetchall()
            for (value,) in doubled:
                rows = self.connection.execute(f"SELECT rowid, * FROM {ROWS} WHERE {key} = ?", (value,)).fetchall()
                found = {number: self._candidate(cells) for number, *cells in rows}
                choice = choose(list(found.values()), has_table=False)
                yield from choice.findings
                gone = [(number,) for number, row in found.items() if row is not choice.holds]
                self.connection.executemany(f"DELETE FROM {ROWS} WHERE rowid = ?", gone)
            self.connection.execute("COMMIT")

    def _candidate(self, cells: Sequence[Any]) -> Candidate:
        values = dict(zip(self.names, cells, strict=False))
        folder, row, updated = cells[-3:]
        return Candidate(folder, row, str(values[self.key]), updated, values)

    def add_from(self, path: Path, table: str) -> None:
        """Notes the rows of a table of ours, which are one a key, in place of those of folders."""
        listed = ", ".join(map(quote, self.names))
        with self.failures("reading the tables", path):
            self.connection.execute("COMMIT")
            self.attach(path, "ours", "ro")
            self.connection.execute(f"INSERT INTO {ROWS} ({listed}) SELECT {listed} FROM ours.{quote(table)}")
            self.connection.execute("DETACH ours")
            self.connection.execute(f"CREATE INDEX {ROWS}_key ON {ROWS} ({quote(self.key)})")

    def count(self) -> int:
        """How many rows of folders there are."""
        return int(self.connection.execute(f"SELECT count(*) FROM {ROWS}").fetchone()[0])

    def attach(self, path: Path, name: str, mode: str) -> None:
        """Makes a database known under a name."""
        uri = f"file:{quote_path(str(path.absolute()))}?mode={mode}"
        self.connection.execute(f"ATTACH ? AS {name}", (uri,))

    def columns(self, name: str, table: str) -> list[str]:
        """The columns of a table of an attached database; none where there is no table."""
        rows = self.connection.execute("SELECT name FROM pragma_table_info(?, ?) ORDER BY cid", (table, name))
        return [row[0] for row in rows]

    def shared(self, columns: Iterable[str]) -> list[str]:
        """Those columns that the collection has too, but for the key."""
        there = set(columns)
        return [name for name in self.names if name in there and name != self.key]

    def close(self) -> None:
        """Forgets everything."""
        self.connection.close()


def differs(one: str, other: str, names: Sequence[str]) -> str:
    """An SQL condition: the rows `one` and `other` differ in one of these columns, null and empty text being one."""
    pairs = (f"nullif({one}.{quote(name)}, '') IS NOT nullif({other}.{quote(name)}, '')" for name in names)
    return f"({' OR '.join(pairs)})" if names else "0"


def declaration(schema: Schema, table: str) -> str:
    """The columns of a new table, as `CREATE TABLE` wants them."""
    columns = ", ".join(column_declaration(schema, name) for name in schema.columns)
    return f"{quote(table)} ({columns})"


def column_declaration(schema: Schema, name: str) -> str:
    """A column of a new table; the key is its primary key."""
    return f"{quote(name)} {column_type(schema, name).replace(' NOT NULL', '')}"


def _affinity(schema: Schema, name: str) -> str:
    return column_type(schema, name).partition(" ")[0]


class _Failures:
    def __init__(self, path: Path, operation: str, wait: float) -> None:
        self._about = path, operation, wait

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, sqlite3.Error | OSError):
            return
        path, operation, wait = self._about
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            why = f"another program has held it for {wait:g} seconds"
            raise DatabaseBusy(str(path), operation, why) from error
        raise StorageFailed(str(path), operation, str(error)) from error
