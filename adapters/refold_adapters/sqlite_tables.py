"""The state of every record in SQLite: `tables.db`.

A table a collection holds the columns of its fields and nothing else, for whoever wants to query it. What refold needs
to decide and to replay stands in `_refold_records`: each record's state, and the position of its newest event.
`_refold_chain` leads from an event to the one before it of the same record; an event that has none, as most in a young
log, has no row there. Both grow at their end, in the order of the log, so that writing them costs no random access.

Commits are not synced one by one: what a power cut takes is replayed from the log, which is why the checkpoint stands
in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec

from refold.decide import settled_values
from refold.events import Checkpoint, Event, Head, Kind
from refold.fold import State, decode_state, format_digest
from refold.ports import Changes, Query
from refold.schema import Schema

from .sqlite_columns import column_type, page_sql, quote, row_maker, to_sql
from .sqlite_connection import close, connect, ensure_schema, failures

FORMAT = 1
Record = tuple[str, str]

_STEPS = (1, 8, 64, 512)
_heads = msgspec.msgpack.Decoder(dict[str, Head])


def marks(count: int) -> str:
    """`count` placeholders."""
    return ", ".join("?" * count)


def padded(values: Sequence[Any]) -> Iterator[list[Any]]:
    """The values in runs of 1, 8, 64 or 512, the last one repeated, so that few different statements are prepared."""
    rest = iter(values)
    while part := list(islice(rest, _STEPS[-1])):
        size = next(step for step in _STEPS if step >= len(part))
        yield part + [part[-1]] * (size - len(part))


def insert_many(connection: sqlite3.Connection, head: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Inserts rows, many to a statement where the number of parameters allows."""
    if not rows:
        return
    width = len(rows[0])
    one = f"({marks(width)})"
    size = max(1, min(50, 1000 // width))
    whole = len(rows) - len(rows) % size
    if whole:
        many = f"{head} VALUES {', '.join([one] * size)}"
        for start in range(0, whole, size):
            connection.execute(many, list(chain.from_iterable(rows[start : start + size])))
    if whole < len(rows):
        connection.executemany(f"{head} VALUES {one}", rows[whole:])


class SqliteTables:
    """Tables in one SQLite file. Implements `Tables`.

    `read_events` gives the events at some positions of the log; it is needed where a policy sums a record's history.
    """

    def __init__(
        self,
        path: Path,
        read_events: Callable[[Sequence[int]], list[Event]],
        *,
        readonly: bool = False,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self._read_events = read_events
        self._connection = connect(path, readonly=readonly, synchronous=1)
        self._found: dict[Record, tuple[int, int]] = {}
        try:
            script = files(__package__).joinpath("sqlite_tables.sql").read_text()
            ensure_schema(self._connection, path, "rftb", FORMAT, script)
            with failures(path, "reading the tables"):
                self._load_collections()
        except BaseException:
            self._connection.close()
            raise

    def _load_collections(self) -> None:
        rows = self._connection.execute("SELECT id, name, present FROM _refold_collections").fetchall()
        self._ids: dict[str, int] = {name: number for number, name, _ in rows}
        self._present: dict[str, int] = {name: present for _, name, present in rows}

    def _id(self, collection: str) -> int:
        if collection not in self._ids and self.readonly:
            self._load_collections()
        return self._ids.get(collection, 0)

    def load(self, records: Iterable[Record]) -> dict[Record, bytes]:
        """See `Tables.load`."""
        by_collection: dict[str, list[str]] = {}
        for collection, key in records:
            by_collection.setdefault(collection, []).append(key)
        found: dict[Record, bytes] = {}
        with failures(self.path, "reading the tables"):
            for collection, keys in by_collection.items():
                number = self._id(collection)
                for part in padded(keys):
                    rows = self._connection.execute(
                        "SELECT key, id, position, state FROM _refold_records"
                        f" WHERE collection = ? AND key IN ({marks(len(part))})",
                        [number, *part],
                    )
                    for key, row, position, state in rows:
                        found[collection, key] = state
                        self._found[collection, key] = row, position
        if self.readonly:
            self._found.clear()
        return found

    def requests(self, request_ids: Sequence[str]) -> dict[str, int]:
        """See `Tables.requests`."""
        found: dict[str, int] = {}
        with failures(self.path, "reading the tables"):
            for part in padded(request_ids):
                found.update(
                    self._connection.execute(
                        f"SELECT request_id, position FROM _refold_requests WHERE request_id IN ({marks(len(part))})",
                        part,
                    ).fetchall()
                )
        return found

    def history(self, records: Sequence[Record]) -> list[int]:
        """See `Tables.history`."""
        positions: list[int] = []
        with failures(self.path, "reading the tables"):
            for collection, key in records:
                rows = self._connection.execute(
                    "WITH RECURSIVE history (position) AS ("
                    " SELECT position FROM _refold_records WHERE collection = ? AND key = ?"
                    " UNION ALL SELECT previous FROM history JOIN _refold_chain USING (position)"
                    ") SELECT position FROM history",
                    (self._id(collection), key),
                )
                positions += [position for (position,) in rows]
        return sorted(positions)

    def _events(self, record: Record) -> list[Event]:
        return self._read_events(self.history([record]))

    def save(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """See `Tables.save`."""
        connection = self._connection
        try:
            with failures(self.path, "writing the tables"):
                connection.execute("BEGIN IMMEDIATE")
                self._save_records(changes)
                self._define(changes, schemas)
                self._save_rows(changes, schemas)
                self._save_checkpoint(changes.checkpoint)
                connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._load_collections()
            raise
        finally:
            self._found.clear()

    def _save_records(self, changes: Changes) -> None:
        links: list[tuple[int, int]] = []
        requests: list[tuple[str, int]] = []
        last: dict[Record, int] = {}
        found = self._found
        for event in changes.events:
            record = event.collection, event.key
            previous = last.get(record)
            if previous is None and record in found:
                previous = found[record][1]
            if previous is not None:
                links.append((event.position, previous))
            last[record] = event.position
            if event.request_id is not None:
                requests.append((event.request_id, event.position))
        ids = self._ids
        for collection, _ in last:
            if collection not in ids:
                ids[collection] = len(ids) + 1
                self._present[collection] = 0
                self._connection.execute(
                    "INSERT INTO _refold_collections (id, name) VALUES (?, ?)", (ids[collection], collection)
                )
        new: list[tuple[int, str, int, bytes]] = []
        old: list[tuple[int, bytes, int]] = []
        for record, position in last.items():
            state = changes.after[record]
            if record in found:
                old.append((position, state, found[record][0]))
            else:
                new.append((ids[record[0]], record[1], position, state))
        insert_many(self._connection, "INSERT INTO _refold_records (collection, key, position, state)", new)
        self._connection.executemany("UPDATE _refold_records SET position = ?, state = ? WHERE id = ?", old)
        insert_many(self._connection, "INSERT INTO _refold_chain", links)
        insert_many(self._connection, "INSERT OR IGNORE INTO _refold_requests", requests)

    def _define(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """Creates and widens the tables of the collections that were defined."""
        for name in {event.collection for event in changes.events if event.kind is Kind.DEFINE}:
            schema = schemas[name]
            columns = {row[1] for row in self._connection.execute(f"PRAGMA table_info({quote(name)})")}
            if not columns:
                specs = [f"{quote(field)} {column_type(schema, field)}" for field in schema.columns]
                self._connection.execute(f"CREATE TABLE {quote(name)} ({', '.join(specs)})")
                continue
            for field in schema.columns:
                if field not in columns:
                    spec = f"{quote(field)} {column_type(schema, field)}"
                    self._connection.execute(f"ALTER TABLE {quote(name)} ADD COLUMN {spec}")
            self._render(schema, {key for collection, key in changes.states if collection == name})

    def _render(self, schema: Schema, skip: set[str]) -> None:
        """Writes every row of a collection anew: its policy or its defaults may have changed."""
        make = row_maker(schema)
        replace = f"INSERT OR REPLACE INTO {quote(schema.name)} VALUES ({marks(len(schema.columns))})"
        last = 0
        while rows := self._connection.execute(
            "SELECT id, key, state FROM _refold_records WHERE collection = ? AND id > ? ORDER BY id LIMIT 1000",
            (self._ids[schema.name], last),
        ).fetchall():
            last = rows[-1][0]
            changed = []
            for _, key, data in rows:
                if key and key not in skip:
                    values, present = settled_values(decode_state(data), (schema.name, key), schema, self._events)
                    if present:
                        changed.append(make(values))
            self._connection.executemany(replace, changed)

    def _save_rows(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        written: dict[str, list[tuple[Any, ...]]] = {}
        replaced: dict[str, list[tuple[Any, ...]]] = {}
        removed: dict[str, list[tuple[Any]]] = {}
        makers = {
            name: row_maker(schemas[name]) for name in {record[0] for record in changes.states} if name in schemas
        }
        for record, state in changes.states.items():
            name, key = record
            if not key or name not in makers:
                continue
            values, present = settled_values(state, record, schemas[name], self._events)
            if not present:
                removed.setdefault(name, []).append((to_sql(schemas[name], key),))
            elif record in changes.before:
                replaced.setdefault(name, []).append(makers[name](values))
            else:
                written.setdefault(name, []).append(makers[name](values))
        for name, rows in written.items():
            insert_many(self._connection, f"INSERT INTO {quote(name)}", rows)
            self._present[name] += len(rows)
        for name, keys in removed.items():
            key = quote(schemas[name].collection.key)
            count = self._connection.executemany(f"DELETE FROM {quote(name)} WHERE {key} = ?", keys).rowcount
            self._present[name] -= count
        for name, rows in replaced.items():
            self._replace(schemas[name], rows)
        self._connection.executemany(
            "UPDATE _refold_collections SET present = ? WHERE name = ?",
            [(self._present[name], name) for name in {*written, *removed, *replaced}],
        )

    def _replace(self, schema: Schema, rows: list[tuple[Any, ...]]) -> None:
        """Updates rows, and inserts those of records that were deleted and are back."""
        key = schema.columns.index(schema.collection.key)
        fields = ", ".join(f"{quote(field)} = ?" for field in schema.columns)
        update = f"UPDATE {quote(schema.name)} SET {fields} WHERE {quote(schema.collection.key)} = ?"
        count = self._connection.executemany(update, [(*row, row[key]) for row in rows]).rowcount
        if count < len(rows):
            insert = f"INSERT OR IGNORE INTO {quote(schema.name)} VALUES ({marks(len(schema.columns))})"
            self._present[schema.name] += self._connection.executemany(insert, rows).rowcount

    def _save_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO _refold_checkpoint VALUES (1, ?, ?, ?)",
            (
                checkpoint.position,
                msgspec.msgpack.encode(checkpoint.heads, order="deterministic"),
                format_digest(checkpoint.digest or 0),
            ),
        )

    def checkpoint(self) -> Checkpoint:
        """See `Tables.checkpoint`."""
        with failures(self.path, "reading the tables"):
            row = self._connection.execute("SELECT position, heads, digest FROM _refold_checkpoint").fetchone()
        if row is None:
            return Checkpoint()
        return Checkpoint(row[0], _heads.decode(row[1]), int(row[2], 16))

    def find(self, query: Query, schema: Schema) -> list[tuple[tuple[Any, ...], str, bytes]]:
        """See `Tables.find`."""
        sql, values = page_sql(query, schema, self._id(query.collection))
        with failures(self.path, "searching the tables"):
            rows = self._connection.execute(sql, values).fetchall()
        return [(row[:-2], row[-2], row[-1]) for row in rows]

    def definitions(self) -> dict[str, bytes]:
        """See `Tables.definitions`."""
        with failures(self.path, "reading the tables"):
            return dict(
                self._connection.execute(
                    "SELECT name, state FROM _refold_records JOIN _refold_collections c ON c.id = collection"
                    " WHERE key = '' ORDER BY name"
                ).fetchall()
            )

    def counts(self) -> dict[str, int]:
        """See `Tables.counts`."""
        with failures(self.path, "reading the tables"):
            self._load_collections()
        return dict(sorted(self._present.items()))

    def close(self) -> None:
        """Lets go of the file. Raises `StorageFailed`."""
        if self.readonly:
            self._connection.close()
        else:
            close(self._connection, self.path)


def state_of(data: bytes) -> State:
    """The state in a row of `_refold_records`."""
    return decode_state(data)
