"""What the folders are made of: one consistent view of the tables, and the events behind it.

The tables may be ahead of the run of events that the projection is asked to take in. Everything is read at one
snapshot of theirs, and an event counts when it stands at or before the snapshot's position: a record's history is
taken from the tables, so it ends there by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from refold.decide import settled_branches, settled_values
from refold.errors import ValueRefused
from refold.events import ARCHIVE, Checkpoint, Event
from refold.fold import State, decode_state
from refold.ports import Changelog, Record, Tables
from refold.record import UNPLACED
from refold.replay import load_schemas
from refold.schema import Schema
from refold_adapters.sqlite_connection import failures
from refold_adapters.sqlite_log import SqliteLog
from refold_adapters.sqlite_tables import SqliteTables, keys_by_collection

_PAGE = 1000


class SnapshotTables(Tables, Protocol):
    """Tables that can be read at one moment."""

    def snapshot(self) -> AbstractContextManager[Checkpoint]:
        """While inside, every answer is of the same moment, whose checkpoint this is."""

    def history(self, records: Sequence[Record], after: int = 0) -> list[int]:
        """The positions beyond `after` of all events of these records, ascending."""

    def load_newest(self, records: Sequence[Record]) -> dict[Record, tuple[int, bytes]]:
        """The states of those records that ever were, each with the position of its newest event."""

    def close(self) -> None:
        """Lets go of the file."""


class ReadLog(Changelog, Protocol):
    """A log that its reader closes."""

    def close(self) -> None:
        """Lets go of the file."""


class ReadTables(SqliteTables):
    """SQLite tables as the folders read them."""

    def __init__(self, path: Path, log: SqliteLog) -> None:
        super().__init__(path, log.at, log.bodies_at, readonly=True)

    @contextmanager
    def snapshot(self) -> Iterator[Checkpoint]:
        """See `SnapshotTables.snapshot`."""
        self.refresh()
        with failures(self.path, "reading the tables"):
            self._connection.execute("BEGIN")
        try:
            checkpoint = self.checkpoint()
            self._load_collections()
            yield checkpoint
        finally:
            self._connection.execute("COMMIT")

    def load_newest(self, records: Sequence[Record]) -> dict[Record, tuple[int, bytes]]:
        """See `SnapshotTables.load_newest`."""
        found: dict[Record, tuple[int, bytes]] = {}
        with failures(self.path, "reading the tables"):
            for collection, keys in keys_by_collection(records).items():
                rows = self._rows(self._id(collection), keys)
                for (key, _, position, _), state in zip(rows, self._states(rows), strict=True):
                    found[collection, key] = position, state
        return found


class Source:
    """The log and the tables, read at one snapshot after the other."""

    def __init__(self, log: ReadLog, tables: SnapshotTables) -> None:
        self.log = log
        self.tables = tables
        self.schemas: Mapping[str, Schema] = {}
        self._definitions: dict[str, bytes] = {}

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """While inside, all answers are of the same moment, whose position this is."""
        with self.tables.snapshot() as checkpoint:
            definitions = self.tables.definitions()
            if definitions != self._definitions:
                self.schemas = load_schemas(self.tables)
                self._definitions = definitions
            yield checkpoint.position

    def states(self, records: Sequence[Record]) -> dict[Record, State]:
        """The states of records."""
        return {record: decode_state(data) for record, data in self.tables.load(records).items()}

    def newest(self, records: Sequence[Record]) -> dict[Record, tuple[int, State]]:
        """The states of records, each with the position of its newest event."""
        return {
            record: (position, decode_state(data))
            for record, (position, data) in self.tables.load_newest(records).items()
        }

    def close(self) -> None:
        """Lets go of the log and the tables."""
        self.tables.close()
        self.log.close()

    def history(self, records: Sequence[Record], after: int = 0) -> list[int]:
        """The positions beyond `after` of all events of some records."""
        return self.tables.history(records, after)

    def events(self, positions: Sequence[int]) -> Iterator[list[Event]]:
        """The events at these positions in log order, a page at a time."""
        for start in range(0, len(positions), _PAGE):
            yield self.log.at(positions[start : start + _PAGE])

    def settled(self, record: Record, state: State) -> tuple[dict[str, Any], bool]:
        """A record's fields, and whether it is there."""
        return settled_values(state, record, self.schemas.get(record[0]), self._events_of)

    def branches(self, record: Record, state: State) -> Iterable[dict[str, Any]]:
        """The fields of the branches that keep-both shows beside a record, in the order of their keys."""
        branches = settled_branches(state, record, self.schemas.get(record[0]), self._events_of)
        known = self.tables.load([(record[0], key) for key in branches]) if branches else {}
        return [values for key, values in branches.items() if (record[0], key) not in known]

    def _events_of(self, record: Record) -> Sequence[Event]:
        return self.log.at(self.tables.history([record]))

    def folder(self, record: Record, state: State) -> str:
        """The path of a record's folder, where it lives or last lived; definitions and tags live in the root."""
        name, key = record
        if not key or name == ARCHIVE:
            return ""
        schema = self.schemas.get(name)
        if schema is None:
            return UNPLACED
        try:
            return schema.folder(self.settled(record, state)[0])
        except (ValueRefused, ValueError):
            return UNPLACED
