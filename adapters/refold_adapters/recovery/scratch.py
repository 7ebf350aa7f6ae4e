"""Everything that was found, on disk: a temporary database, so that memory holds none of it.

An event that several sources have is kept once, with a bit for each of them. What was rejected is noted beside, so
that the many events that count cost no further write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from refold.events import Event
from refold.verify import Finding
from refold_adapters.sqlite_connection import failures

from .chains import Candidate, Dot
from .source import Damage, Found, Known

_PAGE = 500
_SCRIPT = """
CREATE TABLE replicas (id INTEGER PRIMARY KEY, replica TEXT NOT NULL UNIQUE, upto INTEGER NOT NULL DEFAULT 0);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, replica INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, prev BLOB NOT NULL,
    time INTEGER NOT NULL, sealed INTEGER NOT NULL, sources INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (replica, seq, hash)
);
CREATE TABLE heads (
    replica INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, sources INTEGER NOT NULL,
    PRIMARY KEY (replica, seq, hash)
) WITHOUT ROWID;
CREATE TABLE damage (
    id INTEGER PRIMARY KEY, source INTEGER NOT NULL, replica INTEGER, seq INTEGER, finding BLOB NOT NULL, raw BLOB
);
CREATE TABLE rejected (id INTEGER PRIMARY KEY);
CREATE TABLE records (collection TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (collection, key)) WITHOUT ROWID;
"""
_ENTRY = """
INSERT INTO entries (replica, seq, hash, prev, time, sealed, sources, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sources = sources | excluded.sources, sealed = max(sealed, excluded.sealed)
"""
_HEAD = """
INSERT INTO heads VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET sources = sources | excluded.sources
"""
_COUNTS = "e.seq <= r.upto AND e.id NOT IN (SELECT id FROM rejected)"


class Entry(NamedTuple):
    """An event that was found: its bytes, which sources have it, and whether it counts as far as its chain tells."""

    body: bytes
    hash: bytes
    sources: int
    rejected: bool = False


class Scratch:
    """What a recovery found. Raises `StorageFailed` where the disk for temporary files refuses."""

    def __init__(self, path: str = "") -> None:
        self._path = Path(path or "a temporary database")
        self._ids: dict[str, int] = {}
        with failures(self._path, "opening"):
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16384", "temp_store = FILE"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_SCRIPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def replicas(self) -> list[str]:
        """All whose events, or dots, were found."""
        return sorted(self._ids)

    def _id(self, replica: str) -> int:
        number = self._ids.get(replica)
        if number is None:
            number = self._ids[replica] = len(self._ids) + 1
            self._connection.execute("INSERT INTO replicas (id, replica) VALUES (?, ?)", (number, replica))
        return number

    def put(self, events: Iterable[Found], heads: Iterable[Known], damage: Iterable[Damage], source: int) -> None:
        """Takes in what the source with this number has."""
        bit = 1 << source
        with failures(self._path, "collecting events"):
            self._connection.execute("BEGIN")
            self._connection.executemany(_ENTRY, [self._row(found, bit) for found in events])
            self._connection.executemany(
                _HEAD, [(self._id(head.replica), head.seq, head.hash, bit) for head in heads if head.hash]
            )
            self._connection.executemany(
                "INSERT INTO damage (source, replica, seq, finding, raw) VALUES (?, ?, ?, ?, ?)",
                [self._damage(each, source) for each in damage],
            )
            self._connection.execute("COMMIT")

    def _row(self, found: Found, bit: int) -> tuple[Any, ...]:
        event = found.event
        number = self._id(event.replica)
        return number, event.seq, found.hash, event.prev, event.time, int(found.sealed), bit, found.body

    def _damage(self, damage: Damage, source: int) -> tuple[Any, ...]:
        finding = damage.finding
        number = self._id(finding.replica) if finding.replica is not None else None
        return source, number, finding.seq, msgspec.json.encode(finding), damage.raw or None

    def dots(self, replica: str, *, backwards: bool = False) -> Iterator[Dot]:
        """What was found of one replica and is not rejected, in the order of seqs, or from the last to the first."""
        number = self._ids[replica]
        with failures(self._path, "judging events"):
            rows = self._connection.execute(
                "SELECT seq, id, hash, prev, sealed, sources FROM entries WHERE replica = ?1"
                " AND id NOT IN (SELECT id FROM rejected)"
                " UNION ALL SELECT seq, NULL, hash, NULL, NULL, sources FROM heads WHERE replica = ?1"
                f" ORDER BY seq {'DESC' if backwards else 'ASC'}",
                (number,),
            )
            for seq, group in groupby(rows, key=lambda row: row[0]):
                dot = Dot(seq)
                for _, entry, digest, prev, sealed, sources in group:
                    if entry is None:
                        dot.heads[digest] = sources
                    else:
                        dot.candidates.append(Candidate(entry, digest, prev, bool(sealed), sources))
                yield dot

    def reject(self, ids: Iterable[int]) -> None:
        """Notes that these events do not count."""
        ids = iter(ids)
        with failures(self._path, "judging events"):
            while page := list(islice(ids, _PAGE)):
                self._connection.executemany("INSERT OR IGNORE INTO rejected VALUES (?)", [(each,) for each in page])

    def limit(self, upto: dict[str, int]) -> None:
        """Notes up to which seq events count, by replica; of the others, none do."""
        with failures(self._path, "judging events"):
            self._connection.executemany(
                "UPDATE replicas SET upto = ? WHERE id = ?",
                [(upto.get(name, 0), number) for name, number in self._ids.items()],
            )

    def counting(self) -> Iterator[Entry]:
        """The events that count, ordered by (time, replica, seq)."""
        yield from self._entries(f"WHERE {_COUNTS} ORDER BY e.time, r.replica, e.seq", "0")

    def others(self) -> Iterator[Entry]:
        """The events that do not, replica by replica."""
        yield from self._entries(
            f"WHERE NOT ({_COUNTS}) ORDER BY r.replica, e.seq", "e.id IN (SELECT id FROM rejected)"
        )

    def _entries(self, condition: str, rejected: str) -> Iterator[Entry]:
        with failures(self._path, "reading events"):
            cursor = self._connection.execute(
                f"SELECT e.body, e.hash, e.sources, {rejected} FROM entries e JOIN replicas r ON r.id = e.replica"
                f" {condition}"
            )
            while rows := cursor.fetchmany(_PAGE):
                yield from (Entry(body, digest, sources, bool(no)) for body, digest, sources, no in rows)

    def counts(self, sources: int) -> list[tuple[int, int, int]]:
        """Of each source: events that it has, those that count, and those that no other source has."""
        with failures(self._path, "counting events"):
            return [
                self._connection.execute(
                    f"SELECT count(*), coalesce(sum({_COUNTS}), 0), coalesce(sum({_COUNTS} AND e.sources = ?1), 0)"
                    " FROM entries e JOIN replicas r ON r.id = e.replica WHERE e.sources & ?1",
                    (1 << number,),
                ).fetchone()
                for number in range(sources)
            ]

    def runs(self, source: int, limit: int) -> list[tuple[str, int, int]]:
        """What a source has of what counts, as replica, first and last seq; at most `limit` runs."""
        found: list[tuple[str, int, int]] = []
        with failures(self._path, "counting events"):
            rows = self._connection.execute(
                f"SELECT r.replica, e.seq FROM entries e JOIN replicas r ON r.id = e.replica"
                f" WHERE e.sources & ? AND {_COUNTS} ORDER BY r.replica, e.seq",
                (1 << source,),
            )
            for replica, seq in rows:
                if found and found[-1][0] == replica and found[-1][2] == seq - 1:
                    found[-1] = replica, found[-1][1], seq
                elif len(found) == limit:
                    break
                else:
                    found.append((replica, seq, seq))
        return found

    def add_records(self, events: Iterable[Event]) -> None:
        """Notes the records that events are about."""
        with failures(self._path, "noting records"):
            self._connection.executemany(
                "INSERT OR IGNORE INTO records VALUES (?, ?)", [event.record for event in events]
            )

    def records(self, limit: int) -> tuple[list[tuple[str, str]], int]:
        """The first of the records that were noted, and how many there are."""
        with failures(self._path, "noting records"):
            total: int = self._connection.execute("SELECT count(*) FROM records").fetchone()[0]
            rows = self._connection.execute("SELECT collection, key FROM records LIMIT ?", (limit,)).fetchall()
        return rows, total

    def findings(self, source: int, limit: int) -> tuple[list[Finding], int]:
        """The first findings of a source, and how many there are."""
        with failures(self._path, "reading findings"):
            total: int = self._connection.execute("SELECT count(*) FROM damage WHERE source = ?", (source,)).fetchone()[
                0
            ]
            rows = self._connection.execute(
                "SELECT finding FROM damage WHERE source = ? ORDER BY id LIMIT ?", (source, limit)
            ).fetchall()
        return [msgspec.json.decode(row[0], type=Finding) for row in rows], total

    def damaged(self, have: dict[str, int]) -> Iterator[tuple[int, Finding, bytes]]:
        """The bytes that nothing could be made of, with their source, but where the event is there by now."""
        with failures(self._path, "reading findings"):
            for source, data, raw in self._connection.execute(
                "SELECT source, finding, raw FROM damage WHERE raw IS NOT NULL ORDER BY id"
            ):
                finding = msgspec.json.decode(data, type=Finding)
                if finding.seq is None or have.get(finding.replica or "", 0) < finding.seq:
                    yield source, finding, raw
