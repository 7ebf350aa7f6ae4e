"""The state of every record in SQLite: `tables.db`.

A table a collection holds the columns of its fields and nothing else, for whoever wants to query it. What refold needs
to decide and to replay stands in `_refold_records`: each record's state, and the position of its newest event. The
state of a record that was written once is that event, so it is left out here and read from the log.
`_refold_chain` leads from an event to the one before it of the same record; an event that has none, as most in a young
log, has no row there. Both grow at their end, in the order of the log, so that writing them costs no random access.

Commits are not synced one by one: what a power cut takes is replayed from the log, which is why the checkpoint stands
in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from refold.conflict import branch_key
from refold.conflict_list import ConflictQuery, Entry, Listed, Tally
from refold.conversions import conversion_entries
from refold.decide import branch_of, settled_branches, settled_values
from refold.errors import StorageFailed
from refold.events import Checkpoint, Event, Head, canonical, is_event
from refold.fold import State, decode_state, format_digest, latest
from refold.ports import Changes, Query
from refold.references import references
from refold.replay import reads_otherwise
from refold.schema import Schema
from refold.unique import Holder, UniqueValue, holdings

from .sqlite_bulk import insert_many, marks, padded
from .sqlite_changed import count_changed, find_changed
from .sqlite_columns import TableStatements, page_sql, quote
from .sqlite_conflicts import (
    count_conflicts,
    dispute_anew,
    forget_conversions,
    list_conflicts,
    save_conversions,
    save_disputes,
    settle_anew,
)
from .sqlite_connection import close, connect, ensure_schema, failures, file_identity
from .sqlite_references import forget_references, referrers, save_dangling, save_references, some_referrers
from .sqlite_unique import forget_holdings, holders, save_holdings

FORMAT = 5
Record = tuple[str, str]
ReadEvents = Callable[[Sequence[int]], list[Event]]
ReadBodies = Callable[[Sequence[int]], Sequence[tuple[int, bytes]]]

_REMEMBERED = 10_000
"""Rows whose place is remembered from loading to saving."""

_MISFITS = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)
"""What SQLite raises for a value that a column cannot have."""

_COLLECTION_TABLES = (
    "SELECT c.name FROM _refold_collections c JOIN sqlite_schema s ON s.type = 'table' AND s.name = c.name ORDER BY 1"
)
_LOAD = "SELECT key, id, position, state FROM _refold_records WHERE collection = ? AND key"
_LOAD_ONE = f"{_LOAD} = ?"
_heads = msgspec.msgpack.Decoder(dict[str, Head])


def keys_by_collection(records: Iterable[Record]) -> dict[str, list[str]]:
    """The keys of records, for one query a collection."""
    keys: dict[str, list[str]] = {}
    for collection, key in records:
        keys.setdefault(collection, []).append(key)
    return keys


def _encoded(read_events: ReadEvents, positions: Sequence[int]) -> list[tuple[int, bytes]]:
    return [(event.position, canonical(event)) for event in read_events(positions)]


class SqliteTables:
    """Tables in one SQLite file. Implements `Tables`.

    `read_events` gives the events at some positions of the log, `read_bodies` their canonical bytes with the positions.
    """

    def __init__(
        self,
        path: Path,
        read_events: ReadEvents,
        read_bodies: ReadBodies | None = None,
        *,
        readonly: bool = False,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self._read_events = read_events
        self._read_bodies = read_bodies or partial(_encoded, read_events)
        self._file = file_identity(path)
        self._connection = connect(path, readonly=readonly, synchronous=1)
        self._found: dict[Record, tuple[int, int]] = {}
        self._careful = False
        self._compiled: dict[str, TableStatements] = {}
        try:
            script = files(__package__).joinpath("sqlite_tables.sql").read_text()
            ensure_schema(self._connection, path, "rftb", FORMAT, script)
            with failures(path, "reading the tables"):
                self._load_collections()
        except BaseException:
            self._connection.close()
            raise

    def _load_collections(self) -> None:
        rows = self._connection.execute("SELECT name, id FROM _refold_collections").fetchall()
        self._ids: dict[str, int] = dict(rows)

    def refresh(self) -> None:
        """Goes on in the file that stands at the path now, if the one that was opened there has been replaced."""
        found = file_identity(self.path)
        if found is None or found == self._file:
            return
        connection = connect(self.path, readonly=self.readonly, synchronous=1)
        self._connection.close()
        self._connection, self._file = connection, found
        self._found.clear()
        with failures(self.path, "reading the tables"):
            self._load_collections()

    def _id(self, collection: str) -> int:
        if collection not in self._ids and self.readonly:
            self._load_collections()
        return self._ids.get(collection, 0)

    def load(self, records: Iterable[Record]) -> dict[Record, bytes]:
        """See `Tables.load`."""
        found: dict[Record, bytes] = {}
        if len(self._found) > _REMEMBERED:
            self._found.clear()
        with failures(self.path, "reading the tables"):
            for collection, keys in keys_by_collection(records).items():
                rows = self._rows(self._id(collection), keys)
                for (key, row, position, _), state in zip(rows, self._states(rows), strict=True):
                    found[collection, key] = state
                    self._found[collection, key] = row, position
        if self.readonly:
            self._found.clear()
        return found

    def _find_again(self, changes: Changes) -> None:
        """Looks for the rows of records that were loaded so long ago that they are forgotten."""
        forgotten = [record for record in changes.before if record in changes.states and record not in self._found]
        if forgotten:
            self.load(forgotten)

    def _rows(self, collection: int, keys: Sequence[str]) -> list[tuple[str, int, int, bytes | None]]:
        if len(keys) == 1:
            return self._connection.execute(_LOAD_ONE, (collection, keys[0])).fetchall()
        parts = ((part, f"{_LOAD} IN ({marks(len(part))})") for part in padded(keys))
        return list(chain.from_iterable(self._connection.execute(sql, [collection, *part]) for part, sql in parts))

    def _states(self, rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
        """The states of rows that end in position and state, where a state that is left out is the log's event."""
        left_out = sorted({row[-2] for row in rows if row[-1] is None})
        bodies = dict(self._read_bodies(left_out)) if left_out else {}
        try:
            return [bodies[row[-2]] if row[-1] is None else row[-1] for row in rows]
        except KeyError as error:
            raise StorageFailed(str(self.path), "reading the tables", f"the log has no position {error}") from None

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

    def history(self, records: Sequence[Record], after: int = 0) -> list[int]:
        """The positions beyond `after` of all events of these records, ascending; see `Tables.history`."""
        positions: list[int] = []
        with failures(self.path, "reading the tables"):
            newest = [self._found[record][1] for record in records if record in self._found]
            if len(newest) == len(records):
                return self._chain(newest, after)
            for collection, keys in keys_by_collection(records).items():
                number = self._id(collection)
                for part in padded(keys):
                    rows = self._connection.execute(
                        "WITH RECURSIVE history (position) AS ("
                        " SELECT position FROM _refold_records"
                        f" WHERE collection = ? AND key IN ({marks(len(part))}) AND position > ?"
                        " UNION ALL SELECT previous FROM history JOIN _refold_chain USING (position) WHERE previous > ?"
                        ") SELECT position FROM history",
                        [number, *part, after, after],
                    )
                    positions += [position for (position,) in rows]
        return sorted(positions)

    def _chain(self, newest: Sequence[int], after: int) -> list[int]:
        """The positions beyond `after` of events and of those before them of the same records."""
        positions = [position for position in newest if position > after]
        links: list[int] = positions
        while links:
            found: list[int] = []
            for part in padded(links):
                sql = f"SELECT previous FROM _refold_chain WHERE position IN ({marks(len(part))}) AND previous > ?"
                found += [position for (position,) in self._connection.execute(sql, [*part, after])]
            positions += found
            links = found
        return sorted(positions)

    def holders(self, values: Sequence[UniqueValue], limit: int) -> dict[UniqueValue, list[Holder]]:
        """See `Tables.holders`."""
        with failures(self.path, "reading the tables"):
            return holders(self._connection, values, limit)

    def referrers(self, target: Record, through: Sequence[tuple[str, str]], limit: int) -> list[Record]:
        """See `Tables.referrers`."""
        with failures(self.path, "reading the tables"):
            return some_referrers(self._connection, target, through, limit)

    def _events(self, record: Record) -> list[Event]:
        return self._events_of([record])

    def _events_of(self, records: Sequence[Record]) -> list[Event]:
        return self._read_events(self.history(records))

    def save(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """See `Tables.save`.

        Values that do not fit their columns come from replicas that define a field otherwise. They are so rare that
        rows are made without looking, and made anew with care when SQLite does not take them.
        """
        try:
            self._save(changes, schemas)
        except (StorageFailed, TypeError, ValueError, AttributeError) as error:
            if self._careful or (isinstance(error, StorageFailed) and not isinstance(error.__cause__, _MISFITS)):
                raise
            self._careful = True
            try:
                self._save(changes, schemas)
            finally:
                self._careful = False

    def _save(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        connection = self._connection
        try:
            with failures(self.path, "writing the tables"):
                connection.execute("BEGIN IMMEDIATE")
                self._find_again(changes)
                self._save_records(changes)
                self._save_rows(changes, schemas)
                self._save_relations(changes, schemas)
                save_disputes(connection, changes.disputes, schemas)
                for name in [name for name, key in changes.states if not key]:
                    if reads_otherwise(name, changes.before.get((name, "")), schemas.get(name)):
                        dispute_anew(connection, name, schemas, self._pages(name), self._events_of)
                settle_anew(connection, [name for name, key in changes.states if not key], schemas)
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
                self._connection.execute(
                    "INSERT INTO _refold_collections (id, name) VALUES (?, ?)", (ids[collection], collection)
                )
        new: list[tuple[int, str, int, bytes | None]] = []
        old: list[tuple[int, int, str, int, bytes | None]] = []
        for record, position in last.items():
            data = changes.after[record]
            state = None if is_event(data) else data
            if record in found:
                old.append((found[record][0], ids[record[0]], record[1], position, state))
            else:
                new.append((ids[record[0]], record[1], position, state))
        insert_many(self._connection, "INSERT INTO _refold_records (collection, key, position, state)", new)
        for number, count in Counter(row[0] for row in new).items():
            self._connection.execute(
                "UPDATE _refold_collections SET records = records + ? WHERE id = ?", (count, number)
            )
        insert_many(
            self._connection,
            "INSERT INTO _refold_records (id, collection, key, position, state)",
            old,
            "ON CONFLICT (id) DO UPDATE SET position = excluded.position, state = excluded.state",
        )
        found.clear()  # what follows reads the history with this run in it
        insert_many(self._connection, "INSERT INTO _refold_chain", links)
        insert_many(self._connection, "INSERT OR IGNORE INTO _refold_requests", requests)

    def _statements(self, schema: Schema) -> TableStatements:
        found = self._compiled.get(schema.name)
        if found is None or found.schema is not schema:
            found = self._compiled[schema.name] = TableStatements(schema)
        return found

    def _define(self, schema: Schema, written: set[str]) -> None:
        """Creates or widens the table of a collection that was defined; makes it anew where columns cannot be added.
        Rows of records that came before are made too, but those `written` in the same run."""
        statements = self._statements(schema)
        rows = self._connection.execute(f"PRAGMA table_info({statements.table})").fetchall()
        standing = [(name, kind, bool(place)) for _, name, kind, _, _, place in rows]
        wanted = statements.declared
        if standing != wanted[: len(standing)]:
            self._connection.execute(f"DROP TABLE {statements.table}")
            standing = []
        if not standing:
            self._connection.execute(statements.create)
            known = "SELECT records FROM _refold_collections WHERE name = ?"
            if not rows and self._connection.execute(known, (schema.name,)).fetchone()[0] <= len(written):
                return
        else:
            for name, *_ in wanted[len(standing) :]:
                self._connection.execute(f"ALTER TABLE {statements.table} ADD COLUMN {statements.columns[name]}")
        self._render(statements, written)

    def _pages(self, collection: str) -> Iterator[list[tuple[str, State]]]:
        """The records of a collection with their states, and its definition among them, so many at a time."""
        last = 0
        while rows := self._connection.execute(
            "SELECT id, key, position, state FROM _refold_records"
            " WHERE collection = ? AND id > ? ORDER BY id LIMIT 1000",
            (self._ids[collection], last),
        ).fetchall():
            last = rows[-1][0]
            yield [(row[1], decode_state(data)) for row, data in zip(rows, self._states(rows), strict=True)]

    def _render(self, statements: TableStatements, skip: set[str]) -> None:
        """Writes every row of a collection anew: its policy or its defaults may have changed."""
        schema = statements.schema
        for page in self._pages(schema.name):
            changed, gone = [], []
            states = [(key, state) for key, state in page if key and key not in skip]
            branches = self._branches(statements, states, {})
            for key, state in states:
                values, present = settled_values(state, (schema.name, key), schema, self._events)
                row = self._row(statements, key, values) if present else None
                if row is not None:
                    changed.append(row)
                elif statements.can_hold(key):
                    gone.append((statements.key_value(key),))
            self._connection.executemany(statements.replace, changed)
            self._connection.executemany(statements.delete, gone)
            self._connection.executemany(statements.restore, branches)

    def _save_rows(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        by_collection: dict[str, list[tuple[str, State]]] = {}
        for (collection, key), state in changes.states.items():
            by_collection.setdefault(collection, []).append((key, state))
        for collection, states in by_collection.items():
            if collection not in schemas:
                continue
            defined = any(not key for key, _ in states)
            if defined:
                self._define(schemas[collection], {key for key, _ in states})
            self._save_collection(self._statements(schemas[collection]), states, changes, defined)

    def _save_collection(
        self,
        statements: TableStatements,
        states: list[tuple[str, State]],
        changes: Changes,
        defined: bool,
    ) -> None:
        schema = statements.schema
        name = schema.name
        before, disputes = changes.before, changes.disputes
        new, old, gone = [], [], []
        branches = self._branches(statements, states, before) if schema.keeps_both or defined else []
        for key, state in states:
            if not key:
                continue
            disputed = disputes.get((name, key))
            if disputed is None:
                values, present = latest(schema.read(state))
            else:
                values, present = settled_values(state, (name, key), schema, self._events, disputed.sides)
            row = self._row(statements, key, values) if present else None
            if row is None:
                if statements.can_hold(key):
                    gone.append((statements.key_value(key),))
            elif (name, key) in before:
                old.append(row)
            else:
                new.append(row)
        insert_many(self._connection, statements.replace_all, new)
        if gone:
            self._connection.executemany(statements.delete, gone)
        insert_many(self._connection, statements.insert, old, statements.or_update)
        self._connection.executemany(statements.restore, branches)

    def _branches(
        self, statements: TableStatements, states: Iterable[tuple[str, State]], before: Mapping[Record, bytes]
    ) -> list[tuple[Any, ...]]:
        """The rows of the branches that keep-both shows beside records; rows left from earlier are removed.

        A record that has a branch's key itself keeps its row.
        """
        rows: list[tuple[Any, ...]] = []
        schema = statements.schema
        for key, state in states:
            data = before.get((schema.name, key))
            writes = [*state.writes, *(decode_state(data).writes if data is not None else ())]
            if not key or len(writes) < 2 or statements.numeric:
                continue
            shown = {branch_key(key, (write.replica, write.seq)) for write in writes}
            held = {found[0] for found in self._rows(self._id(schema.name), sorted(shown))}
            self._connection.executemany(statements.delete, [(name,) for name in sorted(shown - held)])
            branches = settled_branches(state, (schema.name, key), schema, self._events)
            made = [self._row(statements, name, values) for name, values in branches.items() if name not in held]
            rows += [row for row in made if row is not None]
        return rows

    def _save_relations(self, changes: Changes, schemas: Mapping[str, Schema]) -> None:
        """Notes whom the changed records refer to and which unique values they hold, and the conflicts of both."""
        defined = [name for name, key in changes.states if not key and name in schemas]
        for name in defined:
            forget_references(self._connection, name)
            forget_holdings(self._connection, name)
            forget_conversions(self._connection, name)
        if not any(schema.references or schema.unique or schema.upgrade for schema in schemas.values()):
            return
        by_collection: dict[str, dict[str, State]] = {}
        for (name, key), state in changes.states.items():
            if key and name in schemas and name not in defined:
                by_collection.setdefault(name, {})[key] = state
        for name, states in by_collection.items():
            self._relate(schemas, name, states, [key for key in states if (name, key) in changes.before])
        for name in defined:
            for page in self._pages(name):
                self._relate(schemas, name, {key: state for key, state in page if key}, ())

    def _relate(
        self, schemas: Mapping[str, Schema], name: str, states: Mapping[str, State], known: Iterable[str]
    ) -> None:
        schema = schemas[name]
        affected: set[Record] = set()
        if schema.references or schema.unique or schema.upgrade is not None:
            refers: dict[str, Mapping[str, Record]] = {}
            held: dict[str, Mapping[UniqueValue, Holder]] = {}
            kept: list[Entry] = []
            for key, state in states.items():
                now = schema.read(state)
                values, present = settled_values(now, (name, key), schema, self._events)
                refers[key] = references(schema, values) if present else {}
                held[key] = holdings(key, schema, now, values) if present else {}
                kept += conversion_entries((name, key), schema, state) if present else []
            if schema.upgrade is not None:
                save_conversions(self._connection, name, kept, known)
            if schema.references:
                save_references(self._connection, name, refers)
                affected = {(name, key) for key in states}
            if schema.unique:
                save_holdings(self._connection, name, held, known)
        if any(name in other.references.values() for other in schemas.values()):
            affected |= referrers(self._connection, [(name, key) for key in states])
        save_dangling(self._connection, affected, schemas, self._state)

    def _state(self, record: Record) -> State:
        rows = self._rows(self._id(record[0]), [record[1]])
        return decode_state(self._states(rows)[0])

    def _row(self, statements: TableStatements, key: str, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        if self._careful:
            return statements.careful_row(key, values)
        row = statements.row(values)
        return row if str(row[statements.key]) == key else statements.careful_row(key, values)

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
            if schema.keeps_both:
                rows = self._beside(rows, self._id(query.collection))
            states = self._states(rows)
        return [(row[:-3], row[-3], state) for row, state in zip(rows, states, strict=True)]

    def _beside(self, rows: Sequence[tuple[Any, ...]], collection: int) -> list[tuple[Any, ...]]:
        """The rows of a page, those of branches with the position and state of the record they stand beside."""
        bases = {branch_of(row[-3]) for row in rows if row[-2] is None}
        found = {row[0]: row[2:] for row in self._rows(collection, sorted(bases))} if bases else {}
        return [row if row[-2] is not None else (*row[:-2], *found[branch_of(row[-3])]) for row in rows]

    def records(self, after: Record, limit: int) -> list[tuple[Record, bytes]]:
        """See `Tables.records`."""
        found: list[tuple[Record, bytes]] = []
        with failures(self.path, "reading the tables"):
            self._load_collections()
            for name in sorted(name for name in self._ids if name >= after[0]):
                bound, compare = (after[1], ">") if name == after[0] else ("", ">=")
                rows = self._connection.execute(
                    "SELECT key, position, state FROM _refold_records"
                    f" WHERE collection = ? AND key {compare} ? ORDER BY key LIMIT ?",
                    (self._ids[name], bound, limit - len(found)),
                ).fetchall()
                found += [((name, row[0]), state) for row, state in zip(rows, self._states(rows), strict=True)]
                if len(found) == limit:
                    break
        return found

    def changed(self, collection: str, after: int, upto: int, limit: int) -> list[tuple[int, str, bytes | None]]:
        """See `Tables.changed`."""
        with failures(self.path, "reading the tables"):
            standing, moved = find_changed(self._connection, self._read_events, (collection, after, upto), limit)
            states = self._states(standing)
        found: dict[int, tuple[int, str, bytes | None]] = {at: (at, key, None) for at, key in moved}
        rows = {row[1]: (row[1], row[0], state) for row, state in zip(standing, states, strict=True)}
        return [row for _, row in sorted((found | rows).items())][:limit]

    def count_changed(self, collection: str, after: int, upto: int) -> int:
        """See `Tables.count_changed`."""
        with failures(self.path, "counting the records"):
            return count_changed(self._connection, self._read_events, (collection, after, upto))

    def definitions(self) -> dict[str, bytes]:
        """See `Tables.definitions`."""
        with failures(self.path, "reading the tables"):
            rows = self._connection.execute(
                "SELECT name, position, state FROM _refold_records JOIN _refold_collections c ON c.id = collection"
                " WHERE key = '' ORDER BY name"
            ).fetchall()
            return {row[0]: state for row, state in zip(rows, self._states(rows), strict=True)}

    def counts(self) -> dict[str, int]:
        """See `Tables.counts`."""
        with failures(self.path, "counting the records"):
            tables = [name for (name,) in self._connection.execute(_COLLECTION_TABLES)]
            return {
                name: self._connection.execute(f"SELECT count(*) FROM {quote(name)}").fetchone()[0] for name in tables
            }

    def conflicts(self, query: ConflictQuery) -> list[Listed]:
        """See `Tables.conflicts`."""
        with failures(self.path, "reading the conflict list"):
            return list_conflicts(self._connection, query)

    def conflict_counts(self) -> list[Tally]:
        """See `Tables.conflict_counts`."""
        with failures(self.path, "counting the conflicts"):
            return count_conflicts(self._connection)

    def close(self) -> None:
        """Lets go of the file. Raises `StorageFailed`."""
        if self.readonly:
            self._connection.close()
        else:
            close(self._connection, self.path)
