"""Another program's table as a projection of a collection: its rows are as the records are, in place.

The rows that the program has written and the log does not have yet are left alone: they are what the capture takes in
next. Once it has, they leave the outbox and are brought to what the records are in one transaction. `seen` is the
snapshot that all other rows are of; the triggers note it beside each write, as what the program can have seen. A row
without a record, which nobody captured, is left alone too, and `verify` names it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from refold.errors import ProjectionFailed, StorageFailed
from refold.events import Checkpoint, Event
from refold.ports import Record
from refold.replay import events_after
from refold.schema import Schema
from refold.verify import Finding
from refold_adapters.folders.source import ReadLog, SnapshotTables, Source
from refold_adapters.settings import MirrorSetting
from refold_adapters.sqlite_columns import quote, sql_value

from . import bookkeeping, polling
from .bookkeeping import Captured, CaptureStopped, immediate, in_thread

_PAGE = 1000


class MirrorTable:
    """One mirrored table. Implements `Projection`; plain calls for the thread of the projections."""

    def __init__(self, root: Path, setting: MirrorSetting, log: ReadLog, tables: SnapshotTables, identity: str) -> None:
        self.name = f"table {setting.table}"
        self._setting = setting
        self._path = root / setting.database
        self._source = Source(log, tables)
        self._connection = self._open(identity)

    @property
    def table(self) -> str:
        """The name of the table."""
        return self._mirror.name

    @property
    def _outbox_name(self) -> str:
        return quote(bookkeeping.outbox_name(self._mirror.name))

    @property
    def collection(self) -> str:
        """The collection that it mirrors."""
        return self._mirror.collection

    @property
    def identity(self) -> str:
        """What tells this outbox from any other, however often one is installed."""
        return self._mirror.identity

    def _open(self, identity: str) -> sqlite3.Connection:
        if not self._path.exists():
            in_thread(self._path, "making the database", lambda: sqlite3.connect(self._path).close())
        connection = bookkeeping.connect(self._path)
        try:
            in_thread(self._path, "opening the table", lambda: self._prepare(connection, identity))
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, identity: str) -> None:
        table = self._setting.table
        with immediate(connection):
            is_new = not bookkeeping.columns_of(connection, table)
            if is_new:
                connection.execute(self._setting.create)
            mirror = bookkeeping.load_mirror(connection, table)
            if mirror is not None and is_new:
                bookkeeping.install(connection, mirror)
                bookkeeping.forget(connection, table)
            if mirror is None:
                if bookkeeping.has_rows(connection, table):
                    raise CaptureStopped(table, "its bookkeeping is gone, so nobody knows what was written in it")
                mirror = bookkeeping.described(connection, table, self._setting.collection, identity)
                bookkeeping.install(connection, mirror)
            self._mirror = mirror

    def checkpoint(self) -> Checkpoint:
        """See `Projection.checkpoint`."""
        position, _, heads = in_thread(self._path, "reading the checkpoint", self._standing)
        return Checkpoint(position, heads, None)

    def _standing(self) -> tuple[int, int, dict[str, Any]]:
        return bookkeeping.standing(self._connection, self._mirror.name)

    def apply(self, events: Sequence[Event], checkpoint: Checkpoint) -> None:  # noqa: ARG002 - a port
        """See `Projection.apply`. The tables may be ahead; then all rows are brought to where they are."""
        with self._source.snapshot() as position:
            if position < checkpoint.position:
                raise ProjectionFailed(self.name, checkpoint.position, f"the tables stand at {position}")
            _, seen, _ = in_thread(self._path, "reading the checkpoint", self._standing)
            in_thread(self._path, "writing the table", lambda: self._apply(seen, position, checkpoint))

    def _apply(self, seen: int, position: int, checkpoint: Checkpoint) -> None:
        with immediate(self._connection):
            bookkeeping.check_table(self._connection, self._mirror)
            self._silence(1)
            while seen < position and (page := events_after(self._source.log, seen, min(_PAGE, position - seen))):
                seen = page[-1].position
                name = self._mirror.collection
                self._write({event.record for event in page if event.collection == name and event.key})
            self._silence(0)
            self._connection.execute(
                "UPDATE refold_mirrors SET position = ?, seen = max(seen, ?), heads = ? WHERE name = ?",
                (checkpoint.position, position, msgspec.msgpack.encode(checkpoint.heads), self._mirror.name),
            )

    def waiting(self, after: int, limit: int, *, look: bool) -> list[Captured]:
        """The next writes of the program that the log does not have; `look` where it is the first to ask.

        Raises `CaptureStopped`.
        """

        def read() -> list[Captured]:
            bookkeeping.check_table(self._connection, self._mirror)
            if self._mirror.polls and look:
                with immediate(self._connection):
                    polling.scan(self._connection, self._mirror, self._outbox_name)
            return bookkeeping.waiting(self._connection, self._mirror, after, limit)

        return in_thread(self._path, "reading the outbox", read)

    def settle(self, done: Sequence[Captured], refusals: Sequence[tuple[int, str]]) -> None:
        """Takes writes out of the outbox that are in the log, and brings their rows to what the records are now."""

        def work() -> None:
            with immediate(self._connection):
                bookkeeping.settle(self._connection, self._mirror, done, refusals)
                self._silence(1)
                self._write({(self._mirror.collection, str(row.key)) for row in done})
                self._silence(0)

        with self._source.snapshot():
            in_thread(self._path, "settling the outbox", work)

    def _silence(self, applying: int) -> None:
        self._connection.execute("UPDATE refold_mirrors SET applying = ? WHERE name = ?", (applying, self._mirror.name))

    def _write(self, records: Iterable[Record]) -> None:
        schema = self._source.schemas.get(self._mirror.collection)
        if schema is None:
            return
        rows = self._rows(schema, sorted(records))
        if self._mirror.polls:
            polling.scan(self._connection, self._mirror, self._outbox_name, list(rows))
        pending = bookkeeping.pending_keys(self._connection, self._mirror.name, list(rows))
        present = {key: row for key, row in rows.items() if row is not None and key not in pending}
        gone = [(key,) for key, row in rows.items() if row is None and key not in pending]
        table, key = quote(self._mirror.name), quote(self._mirror.key)
        names = list(self._fields(schema))
        columns = ", ".join(map(quote, names))
        marks = ", ".join("?" * len(names))
        fields = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in names if name != self._mirror.key)
        change = f"DO UPDATE SET {fields}" if fields else "DO NOTHING"
        self._connection.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({key}) {change}", list(present.values())
        )
        self._connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", gone)
        if self._mirror.polls:
            polling.note(self._connection, self._mirror, list(rows))

    def _rows(self, schema: Schema, records: Sequence[Record]) -> dict[Any, list[Any] | None]:
        """The row of each record by its key; None for one that is deleted."""
        rows: dict[Any, list[Any] | None] = {}
        fields = self._fields(schema).values()
        for record, state in self._source.states(records).items():
            values, present = self._source.settled(record, state)
            key = sql_value(schema.types[schema.collection.key].name, _key(schema, record))
            whole = {**schema.blank, **values}
            rows[key] = [self._sql(schema, name, whole) for name in fields] if present else None
        return rows

    def _fields(self, schema: Schema) -> dict[str, str]:
        """The fields that the table's columns hold, by column: a field may have been renamed since."""
        found = {column: schema.field_of(column) for column in self._mirror.columns}
        return {column: field for column, field in found.items() if field is not None}

    @staticmethod
    def _sql(schema: Schema, name: str, values: Mapping[str, Any]) -> Any:
        return sql_value(schema.types[name].name, values.get(name))

    def reset(self) -> None:
        """See `Projection.reset`. Rows stay, and are compared with what is to be written.

        Positions that the program's waiting writes were noted with are of another log now, and are forgotten.
        """

        def forget() -> None:
            with immediate(self._connection):
                bookkeeping.forget(self._connection, self._mirror.name)
                self._connection.execute(f"UPDATE {self._outbox_name} SET position = NULL")

        in_thread(self._path, "forgetting the checkpoint", forget)

    def verify(self) -> list[Finding]:
        """See `Projection.verify`. Kinds: `mirror-altered`, `mirror-missing`, `mirror-stray`, `mirror-refused`."""
        with self._source.snapshot() as position:
            schema = self._source.schemas.get(self._mirror.collection)
            _, seen, _ = in_thread(self._path, "reading the checkpoint", self._standing)
            if schema is None or seen != position:
                return []
            return in_thread(self._path, "verifying the table", lambda: list(self._differences(schema)))

    def _differences(self, schema: Schema) -> Iterable[Finding]:
        about = partial(Finding, collection=self._mirror.collection, file=self._setting.database)
        for number, key, why in bookkeeping.refused(self._connection, self._mirror):
            yield about("mirror-refused", f"write {number} was not taken: {why}", key=str(key))
        names = list(self._fields(schema))
        columns = ", ".join(map(quote, [self._mirror.key, *names]))
        order = quote(self._mirror.key)
        cursor = self._connection.execute(f"SELECT {columns} FROM {quote(self._mirror.name)} ORDER BY {order}")
        present = 0
        while page := cursor.fetchmany(_PAGE):
            keys = [row[0] for row in page]
            pending = bookkeeping.pending_keys(self._connection, self._mirror.name, keys)
            wanted = self._rows(schema, [(self._mirror.collection, str(key)) for key in keys])
            for row in page:
                present += wanted.get(row[0]) is not None
                if row[0] in pending:
                    continue
                if wanted.get(row[0]) is None:
                    yield about("mirror-stray", "there is no such record", key=str(row[0]))
                elif list(row[1:]) != wanted[row[0]]:
                    pairs = zip(names, row[1:], wanted[row[0]] or [], strict=True)
                    fields = [name for name, have, want in pairs if have != want]
                    yield about("mirror-altered", f"it differs in {', '.join(fields)}", key=str(row[0]))
        if present < self._source.tables.counts().get(self._mirror.collection, 0) and not self._outbox():
            yield about("mirror-missing", "records have no row")

    def _outbox(self) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {self._outbox_name}").fetchone()[0])

    def close(self) -> None:
        """See `Projection.close`."""
        self._source.close()
        try:
            self._connection.close()
        except sqlite3.Error as error:
            raise StorageFailed(str(self._path), "closing the database", str(error)) from error


def _key(schema: Schema, record: Record) -> Any:
    return int(record[1]) if schema.types[schema.collection.key].name == "int" else record[1]
