"""What was read of documents, by path: `documents.db` in the archive, derived, and gone without harm at any time.

A document is not read again while its size, time of change and inode are those of when it was read. That a time of
change proves anything is due to the clock going on: a file that is written again within the same tick of the file
system has the same one. So an entry counts only when the file had last been changed well before the look began that
read it, as git does with its index (Documentation/technical/racy-git.txt); otherwise it is read once more next time.
"Well before" is by the clock of the file system, which on a share is another machine's, or by ours if that is behind.

The cache and the notes of one scan are one database to SQL: the notes are temporary tables, which SQLite keeps in a
file of its own and deletes by itself. Where the archive cannot be written, or another scan holds the cache, there are
only the notes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from refold.errors import FormatOld, FormatUnknown, StorageFailed
from refold_adapters.archive import is_damage, remove_database
from refold_adapters.settings import DOCUMENTS
from refold_adapters.sqlite_connection import close, connect, ensure_schema, failures

from .paths import Stat

LIMIT = 1_000_000
"""Documents that are remembered; further ones are read every time."""

TICK_NS = 2_000_000_000
"""How far apart two times of change can be and look the same: FAT counts in two seconds."""

_SCHEMA = """
CREATE TABLE documents (
    path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, inode INTEGER, began INTEGER, hash TEXT, rot TEXT
) WITHOUT ROWID;
"""


class Known(NamedTuple):
    """What the cache knows of a path: how it stood when it was read, in a look that began then, and its hashes.

    `rot` is what was read last where that is not `hash`, though the file stood as it did when it was `hash`.
    """

    stat: Stat
    began: int
    hash: str
    rot: str | None = None

    def is_trusted(self) -> bool:
        """Whether the file's time of change proves that what was read is what stood there."""
        return self.stat.mtime_ns + TICK_NS < self.began

    def holds(self, stat: Stat) -> bool:
        """Whether a file that stands so need not be read again."""
        return self.stat == stat and self.is_trusted()

    def seems(self, stat: Stat) -> bool:
        """Whether nobody can have changed a file that stands so, by its size and time of change."""
        return self.stat[:2] == stat[:2] and self.is_trusted()


class Cache:
    """The open cache, `note` says why there is none, where there is none. For one thread at a time."""

    def __init__(self, root: Path, now_ns: int) -> None:
        self.path = root / DOCUMENTS
        self.note = ""
        self.began = now_ns
        self.connection = self._opened()
        with failures(self.path, "noting documents"):
            self.connection.execute("PRAGMA temp.cache_size = -16384")
        if not self.note:
            self.began = min(now_ns, self._clock())

    def _opened(self) -> sqlite3.Connection:
        for again in (True, False):
            try:
                return self._connected()
            except FormatOld:
                remove_database(self.path)
            except FormatUnknown as error:
                self.note = str(error)
            except StorageFailed as error:
                if again and is_damage(error):
                    remove_database(self.path)
                    continue
                self.note = f"what was read is not remembered: {error.reason}"
            if self.note:
                break
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        connection.executescript(_SCHEMA)
        return connection

    def _connected(self) -> sqlite3.Connection:
        connection = connect(self.path, synchronous=1)
        try:
            ensure_schema(connection, self.path, "rfdo", 1, _SCHEMA)
            with failures(self.path, "reading what is known of documents"):
                connection.execute("SELECT * FROM documents LIMIT 1").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def _clock(self) -> int:
        """What time it is by the file system, in nanoseconds."""
        with failures(self.path, "asking the file system for the time"):
            os.utime(self.path)
            return os.stat(self.path).st_mtime_ns

    def save(self, read: Iterable[tuple[bytes, Known]]) -> None:
        """Remembers what was read, as far as there is room."""
        with failures(self.path, "remembering documents"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                (count,) = self.connection.execute("SELECT count(*) FROM documents").fetchone()
                for path, known in read:
                    if not self._has(path):
                        if count >= LIMIT:
                            continue
                        count += 1
                    row = (path, *known.stat, known.began, known.hash, known.rot)
                    self.connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            finally:
                self.connection.execute("COMMIT")

    def _has(self, path: bytes) -> bool:
        return self.connection.execute("SELECT 1 FROM documents WHERE path = ?", (path,)).fetchone() is not None

    def close(self) -> None:
        """Lets go of the file."""
        if self.note:
            self.connection.close()
        else:
            close(self.connection, self.path)
