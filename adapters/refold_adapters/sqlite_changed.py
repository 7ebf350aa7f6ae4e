"""Which records changed between two positions, in SQLite, as they stood at the later one.

Most still have their newest event there: the index of `_refold_records` by collection and position gives them in order.
The others have been written since. The first event of each beyond the later position has a row in `_refold_chain` that
leads back to where the record stood, so those are found by what was written since, and the log says what they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from refold.events import Event

ReadEvents = Callable[[Sequence[int]], list[Event]]
Span = tuple[str, int, int]
"""A collection, the position after which, and the position up to which."""

_BATCH = 500
_STANDING = (
    "SELECT r.key, r.position, r.state FROM _refold_records r"
    " WHERE r.collection = (SELECT id FROM _refold_collections WHERE name = ?)"
    " AND r.position > ? AND r.position <= ? AND r.key <> '' ORDER BY r.position LIMIT ?"
)
_OF_COLLECTION = "SELECT count(*) FROM _refold_records WHERE collection = c.id AND "
_COUNT = (
    f"SELECT CASE :after WHEN 0 THEN c.records - ({_OF_COLLECTION} position > :upto)"
    f" ELSE ({_OF_COLLECTION} position > :after AND position <= :upto) END"
    f" - ({_OF_COLLECTION} key = '' AND position > :after AND position <= :upto)"
    " FROM _refold_collections c WHERE c.name = :name"
)
_MOVED = (
    "SELECT previous FROM _refold_chain WHERE position > ? AND previous > ? AND previous <= ? ORDER BY previous LIMIT ?"
)


def _moved(
    connection: sqlite3.Connection, read_events: ReadEvents, span: Span, written_since: int
) -> Iterator[tuple[int, str]]:
    """Where records of a collection stood that were written after a position, in order, with their keys."""
    name, after, upto = span
    while found := connection.execute(_MOVED, (written_since, after, upto, _BATCH)).fetchall():
        after = found[-1][0]
        for event in read_events([position for (position,) in found]):
            if event.collection == name and event.key:
                yield event.position, event.key


def find_changed(
    connection: sqlite3.Connection, read_events: ReadEvents, span: Span, limit: int
) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    """The rows that still stand there, as key, position and state, and the positions and keys of those that moved on.

    Those that stand are read first: one that moves on meanwhile is then among both, and none is in neither.
    """
    name, after, upto = span
    standing = connection.execute(_STANDING, (*span, limit)).fetchall()
    until = standing[-1][1] if len(standing) == limit else upto
    moved = []
    for place in _moved(connection, read_events, (name, after, until), upto):
        moved.append(place)
        if len(moved) == limit:
            break
    return standing, moved


def count_changed(connection: sqlite3.Connection, read_events: ReadEvents, span: Span) -> int:
    """How many records `find_changed` finds in all, at one moment."""
    name, after, upto = span
    connection.execute("BEGIN")
    try:
        row = connection.execute(_COUNT, {"name": name, "after": after, "upto": upto}).fetchone()
        return (row[0] if row is not None else 0) + sum(1 for _ in _moved(connection, read_events, span, upto))
    finally:
        connection.execute("COMMIT")
