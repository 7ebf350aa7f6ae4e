"""Connections that read back what they set, and the thread that aiosqlite lends."""

import asyncio
import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from refold.errors import FormatUnknown, StorageFailed
from refold_adapters import sqlite_connection
from refold_adapters.sqlite_connection import SqliteThread, close, connect, ensure_schema, failures

pytestmark = pytest.mark.anyio


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize("synchronous", [1, 2])
def test_settings_are_in_force(tmp_path: Path, synchronous: int) -> None:
    connection = connect(tmp_path / "ä b?#%.db", synchronous=synchronous)
    assert pragma(connection, "journal_mode") == "wal"
    assert pragma(connection, "synchronous") == synchronous
    assert connection.isolation_level is None
    close(connection, tmp_path / "ä b?#%.db")
    assert [path.name for path in tmp_path.iterdir()] == ["ä b?#%.db"], "the WAL was copied into the database"


def test_a_setting_that_is_not_obeyed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="journal_mode = WAL"):
        sqlite_connection._set(sqlite3.connect(":memory:"), tmp_path, "journal_mode", "WAL", "wal")
    with pytest.raises(StorageFailed, match="PRAGMA never = 1"):
        sqlite_connection._set(sqlite3.connect(":memory:"), tmp_path, "never", "1", 1)


def test_readers_cannot_write_and_create_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        connect(tmp_path / "never.db", readonly=True)
    writer = connect(tmp_path / "a.db")
    writer.execute("CREATE TABLE t (a)")
    reader = connect(tmp_path / "a.db", readonly=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (1)")
    reader.close()
    close(writer, tmp_path / "a.db")


def test_a_database_of_another_kind_or_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = connect(path)
    ensure_schema(connection, path, "abcd", 1, "CREATE TABLE t (a);")
    ensure_schema(connection, path, "abcd", 1, "never run")
    for name, version in (("abcd", 2), ("dcba", 1)):
        with pytest.raises(FormatUnknown):
            ensure_schema(connection, path, name, version, "never run")
    connection.close()
    stranger = connect(tmp_path / "b.db")
    stranger.execute("CREATE TABLE mine (a)")
    with pytest.raises(FormatUnknown):
        ensure_schema(stranger, tmp_path / "b.db", "abcd", 1, "never run")
    stranger.close()


def test_a_schema_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = connect(path)
    with pytest.raises(StorageFailed):
        ensure_schema(connection, path, "abcd", 1, "CREATE TABLE t (a); CREATE TABLE t (a);")
    connection.close()
    connection = connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    connection.close()


def test_failures_are_typed_and_others_pass(tmp_path: Path) -> None:
    for error in (sqlite3.OperationalError("full"), OSError("gone")):
        with pytest.raises(StorageFailed) as caught, failures(tmp_path, "reading"):
            raise error
        assert (caught.value.operation, caught.value.__cause__) == ("reading", error)
    with pytest.raises(ZeroDivisionError), failures(tmp_path, "reading"):
        raise ZeroDivisionError


async def test_the_thread_runs_all_work_one_after_another_in_one_thread() -> None:
    """Holds aiosqlite to what `SqliteThread` needs of its private `_execute`."""
    thread = await SqliteThread.start()
    order: list[int] = []

    def work(number: int) -> int:
        order.append(number)
        return threading.get_ident()

    names = await asyncio.gather(*(thread.run(partial(work, n)) for n in range(50)))
    assert set(names) == {names[0]} and names[0] != threading.get_ident()
    assert order == list(range(50))
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: "still here") == "still here"
    worker = next(running for running in threading.enumerate() if running.ident == names[0])
    await thread.stop()
    await asyncio.to_thread(worker.join, 10)
    assert not worker.is_alive()


async def test_work_that_nobody_waits_for_is_done_all_the_same() -> None:
    thread = await SqliteThread.start()
    done: list[int] = []
    waiting = asyncio.ensure_future(thread.run(lambda: done.append(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await thread.run(lambda: None)
    assert done == [1]
    await thread.stop()
