"""The changelog in SQLite: `changelog.db`.

One row an event, its canonical bytes as they were hashed; beside them only what finding an event by position or by
dot takes. Positions are counted here and stated in every insert, so that none is ever used twice, without SQLite
writing a counter of its own at each commit. Heads are not stored: the index leads to each replica's newest event, so
opening a log reads one event a replica.

A commit returns after the WAL is synced (`synchronous=FULL`). When a commit fails nobody can tell what is on the disk,
so the log takes no further append until it is opened again (invariant 2): later commits after a failed sync have been
seen to succeed. SQLite writes on into files that were removed or replaced while they were open, so each commit looks
whether they still stand there before it is acknowledged: two calls of the system, a few microseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from refold.errors import EventForked, EventsMissing, StorageFailed, StorePoisoned
from refold.events import Event, Head, stored_event

from .sqlite_bulk import insert_many
from .sqlite_connection import close, connect, ensure_schema, failures, file_identity

FORMAT = 1


class SqliteLog:
    """A log in one SQLite file; `owner` names the replica of a log that is created. Implements `Changelog`."""

    def __init__(self, path: Path, *, owner: str = "", readonly: bool = False) -> None:
        self.path = path
        self._names = str(path), f"{path}-wal"
        self.readonly = readonly
        self._poison: StorageFailed | None = None
        self._connection = connect(path, readonly=readonly)
        try:
            script = files(__package__).joinpath("sqlite_log.sql").read_text()
            ensure_schema(self._connection, path, "rfld", FORMAT, script)
            with failures(path, "reading the heads"):
                if owner and not readonly:
                    self._connection.execute("INSERT OR IGNORE INTO owner VALUES (1, ?)", (owner,))
                self._load()
                self._files = self._standing()
        except BaseException:
            self._connection.close()
            raise

    def _standing(self) -> list[tuple[int, int] | None]:
        """Which files stand under the log's names, its WAL's included."""
        return [file_identity(name) for name in self._names]

    def _load(self) -> None:
        self._ids: dict[str, int] = dict(self._connection.execute("SELECT replica, id FROM replicas").fetchall())
        self._end: int = self._connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        newest = [
            self._connection.execute(
                "SELECT position, body FROM events WHERE replica = ? ORDER BY seq DESC LIMIT 1", (number,)
            ).fetchone()
            for number in self._ids.values()
        ]
        events = [(stored_event(*row), sha256(row[1]).digest()) for row in newest if row is not None]
        self._heads = {event.replica: Head(event.seq, digest) for event, digest in events}

    def append(self, events: Sequence[Event], bodies: Sequence[bytes], hashes: Sequence[bytes]) -> int:
        """See `Changelog.append`."""
        if self._poison is not None:
            raise StorePoisoned(str(self._poison))
        heads = self._check(events, hashes)
        first = self._end + 1
        begun = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            begun = True
            self._insert(first, events, bodies, heads)
        except sqlite3.Error as error:
            failure = StorageFailed(str(self.path), "appending to the log", str(error))
            if begun:
                self._roll_back(failure)
            raise failure from error
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._poison = StorageFailed(str(self.path), "committing to the log", str(error))
            self._roll_back(self._poison)
            raise self._poison from error
        if self._standing() != self._files:
            why = "its files were removed or replaced while it was open"
            self._poison = StorageFailed(str(self.path), "committing to the log", why)
            raise self._poison
        self._heads.update(heads)
        self._end += len(events)
        return first

    def _roll_back(self, failure: StorageFailed) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._load()
        except sqlite3.Error:
            self._poison = failure

    def _check(self, events: Sequence[Event], hashes: Sequence[bytes]) -> dict[str, Head]:
        """The heads after these events, if they follow those of the log and what they have seen is there."""
        heads: dict[str, Head] = {}
        for event, digest in zip(events, hashes, strict=True):
            replica = event.replica
            head = heads.get(replica) or self._heads.get(replica) or Head(0, bytes(32))
            if event.seq != head.seq + 1 or event.prev != head.hash:
                self._refuse(event, head, digest)
            for other, seq in event.context.items():
                known = heads.get(other) or self._heads.get(other)
                if known is None or known.seq < seq:
                    raise EventsMissing([f"{other}:{seq}"])
            heads[replica] = Head(event.seq, digest)
        return heads

    def _refuse(self, event: Event, head: Head, digest: bytes) -> None:
        if event.seq > head.seq + 1:
            raise EventsMissing(
                [f"{event.replica}:{seq}" for seq in range(head.seq + 1, min(event.seq, head.seq + 11))]
            )
        ours = head.hash if event.seq == head.seq + 1 else self._hash_at(event.replica, event.seq)
        theirs = event.prev if event.seq == head.seq + 1 else digest
        raise EventForked(event.replica, min(event.seq, head.seq), ours.hex(), theirs.hex())

    def _hash_at(self, replica: str, seq: int) -> bytes:
        row = self._connection.execute(
            "SELECT position, body FROM events WHERE replica = ? AND seq = ?", (self._ids.get(replica, 0), seq)
        ).fetchone()
        return sha256(row[1]).digest() if row is not None else b""

    def _insert(self, first: int, events: Sequence[Event], bodies: Sequence[bytes], heads: dict[str, Head]) -> None:
        execute = self._connection.execute
        for replica in heads:
            if replica not in self._ids:
                self._ids[replica] = len(self._ids) + 1
                execute("INSERT INTO replicas VALUES (?, ?)", (self._ids[replica], replica))
        ids = self._ids
        rows = [
            (position, ids[event.replica], event.seq, body)
            for position, event, body in zip(range(first, first + len(events)), events, bodies, strict=True)
        ]
        insert_many(self._connection, "INSERT INTO events (position, replica, seq, body)", rows)

    def bodies(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `Changelog.bodies`."""
        return self._run(after, limit)

    def _run(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        with failures(self.path, "reading the log"):
            cursor = self._connection.execute(
                "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?", (after, limit)
            )
            return cursor.fetchall()

    def since(self, vector: Mapping[str, int], limit: int) -> list[tuple[int, bytes]]:
        """See `Changelog.since`.

        A replica's events stand in the order of their seqs, so the first of each are merged, on the index alone.
        """
        lacking: list[int] = []
        self.end()
        with failures(self.path, "reading the log"):
            for replica, head in self._heads.items():
                if head.seq > vector.get(replica, 0):
                    rows = self._connection.execute(
                        "SELECT position FROM events WHERE replica = ? AND seq > ? ORDER BY seq LIMIT ?",
                        (self._ids[replica], vector.get(replica, 0), limit),
                    )
                    lacking += [position for (position,) in rows]
        lacking.sort()
        return self.bodies_at(lacking[:limit])

    def positions(self, dots: Sequence[tuple[str, int]]) -> list[int]:
        """See `Changelog.positions`."""
        found: list[int] = []
        with failures(self.path, "reading the log"):
            for replica, seq in dots:
                row = self._connection.execute(
                    "SELECT position FROM events WHERE replica = ? AND seq = ?", (self._ids.get(replica, 0), seq)
                ).fetchone()
                if row is not None:
                    found.append(row[0])
        return found

    def bodies_at(self, positions: Sequence[int]) -> list[tuple[int, bytes]]:
        """The canonical bytes of the events at these positions, which ascend: those that are a run are read as one."""
        if positions and positions[-1] - positions[0] + 1 == len(positions):
            return self._run(positions[0] - 1, len(positions))
        found: list[tuple[int, bytes]] = []
        with failures(self.path, "reading the log"):
            for start in range(0, len(positions), 500):
                part = positions[start : start + 500]
                marks = ", ".join("?" * len(part))
                sql = f"SELECT position, body FROM events WHERE position IN ({marks}) ORDER BY position"
                found += self._connection.execute(sql, part).fetchall()
        return found

    def at(self, positions: Sequence[int]) -> list[Event]:
        """See `Changelog.at`."""
        return [stored_event(position, body) for position, body in self.bodies_at(positions)]

    def end(self) -> int:
        """See `Changelog.end`."""
        if self.readonly:
            with failures(self.path, "reading the log"):
                self._load()
        return self._end

    def heads(self) -> dict[str, Head]:
        """See `Changelog.heads`."""
        self.end()
        return dict(self._heads)

    def replica(self) -> str:
        """See `Changelog.replica`."""
        with failures(self.path, "reading the owner"):
            row = self._connection.execute("SELECT replica FROM owner").fetchone()
        return row[0] if row is not None else ""

    def close(self) -> None:
        """Lets go of the file. Raises `StorageFailed`."""
        if self.readonly or self._poison is not None:
            self._connection.close()
        else:
            close(self._connection, self.path)
