"""Which record holds which unique value, in SQLite: the table `_refold_unique` of `tables.db`, and the conflicts of
values that several hold. Kept for collections that have unique fields, in the transaction that saves their records.

The holders of a value stand in the order of their ranks, so its conflict is found from the first two, however many
there are; and only values that have two are looked at one by one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

from refold.conflict import ConflictKind
from refold.conflict_list import Entry
from refold.unique import Holder, UniqueValue, clash

from .sqlite_conflicts import insert_entries

_PART = 500
_FIRST = (
    "SELECT time, replica, seq, key FROM _refold_unique WHERE collection = ? AND field = ? AND value = ?"
    " ORDER BY time, replica, seq, key LIMIT ?"
)
_COUNTED = (
    "SELECT value, count(*), time, replica, seq, key FROM _refold_unique"
    " WHERE collection = ? AND field = ? AND value IN ({}) GROUP BY value"
)
_HELD = "SELECT field, value, time, replica, seq, key FROM _refold_unique WHERE collection = ? AND key IN ({})"


def _parts(found: Iterable[str | bytes]) -> Iterator[tuple[Sequence[str | bytes], str]]:
    """Runs of parameters for a query with IN, and the placeholders for each."""
    values = list(found)
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART]
        yield part, ", ".join("?" * len(part))


def holders(
    connection: sqlite3.Connection, values: Iterable[UniqueValue], limit: int, least: int = 1
) -> dict[UniqueValue, list[Holder]]:
    """The first holders of each value, of those values that have at least so many."""
    codes: dict[tuple[str, str], list[bytes]] = {}
    for value in values:
        codes.setdefault((value.collection, value.field), []).append(value.code)
    found: dict[UniqueValue, list[Holder]] = {}
    for where, wanted in codes.items():
        for part, marks in _parts(wanted):
            for code, count, *only in connection.execute(_COUNTED.format(marks), [*where, *part]).fetchall():
                if count == 1 and least == 1:
                    found[UniqueValue(*where, code)] = [Holder(*only)]
                elif count >= least:
                    rows = connection.execute(_FIRST, (*where, code, limit))
                    found[UniqueValue(*where, code)] = [Holder(*row) for row in rows]
    return found


def _clashes(connection: sqlite3.Connection, values: Iterable[UniqueValue]) -> list[Entry]:
    found = (clash(value, first) for value, first in holders(connection, values, 2, 2).items())
    return [entry for entry in found if entry is not None]


def forget_holdings(connection: sqlite3.Connection, collection: str) -> None:
    """Forgets what records of a collection hold, and the conflicts about it."""
    connection.execute("DELETE FROM _refold_unique WHERE collection = ?", (collection,))
    connection.execute(
        "DELETE FROM _refold_conflicts WHERE collection = ? AND kind = ?", (collection, ConflictKind.UNIQUE)
    )


def save_holdings(
    connection: sqlite3.Connection,
    collection: str,
    held: Mapping[str, Mapping[UniqueValue, Holder]],
    known: Iterable[str],
) -> None:
    """Notes what records of a collection hold now, by key, and the conflicts that this begins and ends.

    `known` are those of them that may have held something before.
    """
    before: set[tuple[UniqueValue, Holder]] = set()
    for part, marks in _parts(known):
        for field, code, *rank in connection.execute(_HELD.format(marks), [collection, *part]):
            before.add((UniqueValue(collection, field, code), Holder(*rank)))
    after = {row for holding in held.values() for row in holding.items()}
    gone, new = before - after, after - before
    values = sorted({value for value, _ in gone | new})
    if not values:
        return
    standing = _clashes(connection, values)
    connection.executemany(
        "DELETE FROM _refold_unique WHERE collection = ? AND field = ? AND value = ?"
        " AND time = ? AND replica = ? AND seq = ? AND key = ?",
        [(*value, *holder) for value, holder in gone],
    )
    connection.executemany(
        "INSERT INTO _refold_unique VALUES (?, ?, ?, ?, ?, ?, ?)", [(*value, *holder) for value, holder in new]
    )
    connection.executemany(
        "DELETE FROM _refold_conflicts WHERE id = ? AND closed = 0 AND kind = ?",
        [(entry.id, ConflictKind.UNIQUE) for entry in standing],
    )
    insert_entries(connection, _clashes(connection, values))
