"""The conflict list in SQLite: the table `_refold_conflicts` of `tables.db`.

A conflict that is live has a row while its sides stand in the record's state, and whether it is open follows from the
policy; one that was closed keeps its row, with the event that closed it, and one that was closed field by field has a
row for each time. Rows are written in the transaction that saves
the states they were read off.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from refold.conflict import ConflictKind, Policy
from refold.conflict_list import (
    DERIVED,
    OPEN,
    RESOLVED,
    SETTLED,
    ConflictQuery,
    Disputed,
    Entry,
    Listed,
    Tally,
    disputes,
)
from refold.events import Event
from refold.fold import State, is_sole
from refold.schema import Schema

from .sqlite_bulk import insert_many

_MARKS = ", ".join("?" * len(DERIVED))
_INSERT = "INSERT OR REPLACE INTO _refold_conflicts"
_CLOSE = "INSERT INTO _refold_conflicts"
_EARLIER = """
    ON CONFLICT (id, closed, fields) DO UPDATE SET time = excluded.time, replica = excluded.replica, seq = excluded.seq,
    by_hand = excluded.by_hand
    WHERE (excluded.time, excluded.replica, excluded.seq) < (time, replica, seq)"""
_STATUS = {OPEN: "closed = 0 AND open = 1", SETTLED: "closed = 0 AND open = 0", RESOLVED: "closed = 1"}


def _policy(schemas: Mapping[str, Schema], collection: str, key: str) -> Policy:
    schema = schemas.get(collection)
    return schema.policy if schema is not None and key else Policy()


def _row(entry: Entry, is_open: bool) -> tuple[object, ...]:
    fields = msgspec.json.encode(entry.fields).decode()
    closer = entry.closer or (None, None, None)
    return (
        entry.id,
        entry.closer is not None,
        entry.kind,
        entry.collection,
        entry.key,
        fields,
        is_open,
        *closer,
        entry.by_hand,
    )


def save_disputes(
    connection: sqlite3.Connection, disputes: Mapping[tuple[str, str], Disputed], schemas: Mapping[str, Schema]
) -> None:
    """Writes what a run of events does to the list."""
    connection.executemany(
        f"DELETE FROM _refold_conflicts WHERE collection = ? AND key = ? AND closed = 0 AND kind NOT IN ({_MARKS})",
        [(*record, *DERIVED) for record, disputed in disputes.items() if disputed.listed],
    )
    closed = [_row(entry, False) for disputed in disputes.values() for entry in disputed.closed]
    insert_many(connection, _CLOSE, closed, _EARLIER)
    live: list[tuple[object, ...]] = []
    for record, disputed in disputes.items():
        policy = _policy(schemas, *record)
        live += [_row(entry, entry.status(policy) == OPEN) for entry in disputed.live]
    insert_many(connection, _INSERT, live)


def dispute_anew(
    connection: sqlite3.Connection,
    collection: str,
    schemas: Mapping[str, Schema],
    pages: Iterable[Sequence[tuple[str, State]]],
    events_of: Callable[[Sequence[tuple[str, str]]], Sequence[Event]],
) -> None:
    """Finds again what disagrees, and did, in the records of a collection, since its steps changed.

    `pages` are its records by key with their states; `events_of` gives the histories of some.
    """
    connection.execute(
        f"DELETE FROM _refold_conflicts WHERE collection = ? AND key <> '' AND kind NOT IN ({_MARKS})",
        (collection, *DERIVED),
    )
    for page in pages:
        states = {(collection, key): state for key, state in page if key and not is_sole(state)}
        if states:
            found = disputes(events_of(list(states)), {}, states, lambda records: (), schemas)
            save_disputes(connection, found, schemas)


def forget_conversions(connection: sqlite3.Connection, collection: str) -> None:
    """Forgets the values of a collection that could not be converted."""
    connection.execute(
        "DELETE FROM _refold_conflicts WHERE collection = ? AND kind = ?", (collection, ConflictKind.CONVERSION)
    )


def save_conversions(
    connection: sqlite3.Connection, collection: str, found: Iterable[Entry], known: Iterable[str]
) -> None:
    """Writes which values of records could not be converted; `known` are the keys of those that may have had such."""
    connection.executemany(
        "DELETE FROM _refold_conflicts WHERE collection = ? AND key = ? AND kind = ?",
        [(collection, key, ConflictKind.CONVERSION) for key in known],
    )
    insert_entries(connection, found)


def insert_entries(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Adds conflicts that are open."""
    insert_many(connection, _INSERT, [_row(entry, True) for entry in entries])


def settle_anew(connection: sqlite3.Connection, collections: Iterable[str], schemas: Mapping[str, Schema]) -> None:
    """Says of the live conflicts of collections whose policy may have changed whether they are open."""
    for name in collections:
        rows = connection.execute(
            "SELECT * FROM _refold_conflicts WHERE collection = ? AND closed = 0", (name,)
        ).fetchall()
        entries = [_listed(row).entry for row in rows]
        made = [_row(entry, entry.status(_policy(schemas, name, entry.key)) == OPEN) for entry in entries]
        insert_many(connection, _INSERT, made)


def list_conflicts(connection: sqlite3.Connection, query: ConflictQuery) -> list[Listed]:
    """See `Tables.conflicts`."""
    conditions, parameters = ["id > ?"], [query.after]
    if query.status:
        conditions.append(_STATUS[query.status])
    for name in ("kind", "collection", "key", "id"):
        if getattr(query, name):
            conditions.append(f"{name} = ?")
            parameters.append(getattr(query, name))
    where = " AND ".join(conditions)
    sql = f"SELECT * FROM _refold_conflicts WHERE {where} ORDER BY id, closed, fields LIMIT {query.limit:d}"
    return [_listed(row) for row in connection.execute(sql, parameters)]


def count_conflicts(connection: sqlite3.Connection) -> list[Tally]:
    """See `Tables.conflict_counts`."""
    rows = connection.execute(
        "SELECT kind, collection, key = '', fields, closed, open, by_hand, count(*) FROM _refold_conflicts"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )
    tallies = [
        Tally(kind, name, bool(blank), tuple(msgspec.json.decode(fields)), _status(closed, is_open), bool(hand), count)
        for kind, name, blank, fields, closed, is_open, hand, count in rows
    ]
    return sorted(tallies, key=msgspec.structs.astuple)


def _status(closed: object, is_open: object) -> str:
    return RESOLVED if closed else OPEN if is_open else SETTLED


def _listed(row: tuple[object, ...]) -> Listed:
    identity, closed, kind, collection, key, fields, is_open, *closer, by_hand = row
    names = msgspec.json.decode(str(fields))
    told = [identity, ConflictKind(str(kind)), collection, key, names, closer if closed else None, bool(by_hand)]
    entry = msgspec.convert(told, Entry)
    return Listed(entry, _status(closed, is_open))
