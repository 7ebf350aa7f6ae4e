"""SQLite connections that say what they did, and the threads they live in.

SQLite answers a PRAGMA it could not obey by returning another value, or none, and not by raising; so every setting is
read back. Its errors become `StorageFailed`. A WAL database may be written and checkpointed by one connection only
(releases before 3.51.3 can corrupt it otherwise), so readers open with mode=ro, which does neither.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiosqlite

from refold.errors import EngineClosed, FormatOld, FormatUnknown, StorageFailed

T = TypeVar("T")

BUSY_MILLISECONDS = 5000
CACHE_KIBIBYTES = 16384


class failures:  # noqa: N801 - reads as the statement it is: with failures(path, "reading the log")
    """Turns what SQLite or the operating system raises into `StorageFailed`."""

    __slots__ = ("operation", "path")

    def __init__(self, path: Path, operation: str) -> None:
        self.path = path
        self.operation = operation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError | UnicodeDecodeError):
            raise StorageFailed(str(self.path), self.operation, str(error)) from error


def _set(connection: sqlite3.Connection, path: Path, pragma: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {pragma} = {value}").fetchall()
    found = connection.execute(f"PRAGMA {pragma}").fetchone()
    if found is None or found[0] != expected:
        raise StorageFailed(str(path), f"PRAGMA {pragma} = {value}", f"it is {found and found[0]!r} instead")


def connect(path: Path, *, readonly: bool = False, synchronous: int = 2) -> sqlite3.Connection:
    """A connection in autocommit mode, every setting of which was read back. Raises `StorageFailed`.

    `synchronous` is SQLite's: 2 (FULL) syncs every commit, 1 (NORMAL) only when the WAL is copied into the database.
    """
    mode = "ro" if readonly else "rwc"
    with failures(path, "opening the database"):
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            timeout=BUSY_MILLISECONDS / 1000,
        )
    try:
        with failures(path, "setting up the database"):
            if not readonly:
                _set(connection, path, "journal_mode", "WAL", "wal")
                _set(connection, path, "synchronous", str(synchronous), synchronous)
                _set(connection, path, "wal_autocheckpoint", "1000", 1000)
            _set(connection, path, "cache_size", str(-CACHE_KIBIBYTES), -CACHE_KIBIBYTES)
    except BaseException as error:
        connection.close()
        if isinstance(error, StorageFailed) and readonly and not os.access(path.parent, os.W_OK):
            why = "SQLite writes beside what it reads, and nothing can be written there: read a copy of the archive"
            raise StorageFailed(str(path), "opening the database", f"{error.reason} ({why})") from error
        raise
    return connection


def ensure_schema(connection: sqlite3.Connection, path: Path, name: str, version: int, script: str) -> None:
    """Creates the schema in an empty database, and refuses one of another kind or version.

    Raises `FormatUnknown`, for an earlier version `FormatOld`.

    SQLite's header holds both: `application_id` the first four letters of `name`, `user_version` the version.
    """
    application = int.from_bytes(name.encode()[:4], "big")
    with failures(path, "reading the schema"):
        found = (
            connection.execute("PRAGMA application_id").fetchone()[0],
            connection.execute("PRAGMA user_version").fetchone()[0],
        )
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if found == (application, version):
        return
    if found != (0, 0) or not empty:
        kind = FormatOld if found[0] == application and found[1] < version else FormatUnknown
        raise kind(str(path), f"application {found[0]:#x}, version {found[1]}", f"{application:#x}, {version}")
    with failures(path, "creating the schema"):
        header = f"PRAGMA application_id = {application}; PRAGMA user_version = {version};"
        connection.executescript(f"BEGIN IMMEDIATE; {script} {header} COMMIT;")


def close(connection: sqlite3.Connection, path: Path) -> None:
    """Copies the WAL into the database and closes. Raises `StorageFailed` where SQLite would close without a word."""
    with failures(path, "closing the database"):
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()


def file_identity(path: Path | str) -> tuple[int, int] | None:
    """What tells the file at a path from another that takes its place; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


class SqliteThread:
    """A thread of its own for a set of connections: aiosqlite's worker, entered once for each piece of work."""

    def __init__(self, anchor: aiosqlite.Connection) -> None:
        self._anchor = anchor
        self._stopped = False

    @classmethod
    async def start(cls) -> SqliteThread:
        """A running thread that holds no connection of the caller's yet."""
        return cls(await aiosqlite.connect(":memory:"))

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in the thread, after what was handed to it before.

        aiosqlite's public calls each enter the thread for one statement; `_execute` is what they are made of, and the
        one way to enter it once for a whole batch. `tests/adapters/test_sqlite_connection.py` holds it to that.
        """
        if self._stopped:
            raise EngineClosed("the archive")
        result: T = await self._anchor._execute(work)  # type: ignore[no-untyped-call]
        return result

    async def stop(self) -> None:
        """Ends the thread once all work is done."""
        self._stopped = True
        await self._anchor.close()
