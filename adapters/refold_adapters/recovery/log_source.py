"""A changelog.db as a source, whole or rotten, and the heads that tables.db remembers.

SQLite reads it as long as it can. Where it cannot, or where positions do not come as the unbroken run that appending
makes, the rows are carved out of the file page by page besides. A row that is no event tells at least whose it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from refold.errors import StorageFailed
from refold.events import Head
from refold.verify import Finding

from .carving import carve
from .source import Damage, Found, Item, Known, Reading

_PAGE = 500
_heads = msgspec.msgpack.Decoder(dict[str, Head])


def connect_as_is(path: Path) -> sqlite3.Connection:
    """A connection that reads a file and writes nothing beside it, unless there is a write-ahead log that has to be
    read, on a disk that can be written. Raises `sqlite3.Error`."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists():
        address += "&immutable=1"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def log_events(path: Path) -> Iterator[Item]:
    """What is left of a log. Raises `StorageFailed` when the file cannot be read at all."""
    rows = _Rows()
    try:
        yield from rows.selected(path)
        if not rows.whole:
            for seq, body in carve(path):
                found = rows.reading.event(body, sealed=False, finding=Finding("log-rot"))
                if isinstance(found, Found) and found.event.seq == seq:
                    yield found
    except OSError as error:
        raise StorageFailed(str(path), "reading the log", str(error)) from error


class _Rows:
    """The rows of a log as SQLite finds them; `whole` is whether it found them all.

    Every event has a position of its own, so between two rows a replica's seq goes up by no more than the position
    does. That tells a number that rotted from one to be believed.
    """

    def __init__(self) -> None:
        self.reading = Reading()
        self.whole = True
        self._last: dict[str, tuple[int, int]] = {}

    def selected(self, path: Path) -> Iterator[Item]:
        """What the rows hold, and what is wrong with them."""
        position = 0
        try:
            with closing(connect_as_is(path)) as connection:
                connection.text_factory = bytes
                names = _names(connection)
                while rows := connection.execute(_ROWS, (position, _PAGE)).fetchall():
                    for place, replica, seq, body in rows:
                        self.whole = self.whole and place == position + 1
                        position = place
                        yield self._row(place, names.get(replica), seq, body)
        except sqlite3.Error as error:
            why = f"after position {position} SQLite cannot read it: {error}"
            yield Damage(Finding("log-rot", why, file=path.name))
            self.whole = False
            return
        if not self.whole:
            yield Damage(Finding("log-position", "its positions are not an unbroken run", file=path.name))

    def _row(self, position: int, replica: str | None, seq: object, body: object) -> Item:
        finding = Finding("log-rot", position=position)
        known = replica if replica is not None and self._fits(replica, seq, position) else None
        if known is not None and isinstance(seq, int):
            finding = msgspec.structs.replace(finding, replica=known, seq=seq)
        if not isinstance(body, bytes):
            return Damage(msgspec.structs.replace(finding, detail="it holds no bytes"))
        found = self.reading.event(body, sealed=False, finding=finding)
        if isinstance(found, Found):
            event = found.event
            if (event.replica, event.seq) != (known, seq) and not self._fits(event.replica, event.seq, position):
                why = f"it says that it is {event.replica}:{event.seq}, which does not fit where it stands"
                return Damage(msgspec.structs.replace(finding, detail=why), body)
            self._last[event.replica] = event.seq, position
        return found

    def _fits(self, replica: str, seq: object, position: int) -> bool:
        last, place = self._last.get(replica, (0, 0))
        return isinstance(seq, int) and 0 < seq - last <= position - place


_ROWS = "SELECT position, replica, seq, body FROM events WHERE position > ? ORDER BY position LIMIT ?"


def _names(connection: sqlite3.Connection) -> dict[object, str]:
    try:
        rows = connection.execute("SELECT id, replica FROM replicas").fetchall()
    except sqlite3.Error:
        return {}  # a rotten row is then nobody's; the events name their replica themselves
    return {number: name.decode(errors="replace") for number, name in rows if isinstance(name, bytes)}


def table_heads(path: Path) -> Iterator[Item]:
    """The heads that the tables had come to."""
    try:
        with closing(connect_as_is(path)) as connection:
            row = connection.execute("SELECT heads FROM _refold_checkpoint").fetchone()
        heads = _heads.decode(row[0]) if row is not None else {}
    except (sqlite3.Error, msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
        yield Damage(Finding("tables-unreadable", f"what they had come to cannot be read: {error}", file=path.name))
        return
    for replica, head in heads.items():
        yield Known(replica, head.seq, head.hash, path.name)
