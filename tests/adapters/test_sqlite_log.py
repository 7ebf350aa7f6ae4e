"""What is particular to the log in SQLite: its files, its failures, its readers. The rest is conformance."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.errors import EventForked, FormatUnknown, LogCorrupt, StorageFailed, StorePoisoned
from refold.events import canonical
from refold.replay import events_after, newest_time
from refold.testing import Scribe, append, caught
from refold_adapters.sqlite_log import SqliteLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changelog.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path, owner="home")
    yield log
    log.close()


NESTED = canonical(Scribe("a").write("c", "1", {"n": 1})).replace(b"\xa1n\x01", b"\xa1n" + b"\x91" * 100_000 + b"\x01")


class Failing:
    """A connection on which statements that begin with `statement` fail, before or after they were run."""

    def __init__(self, connection: sqlite3.Connection, statement: str, *, after: bool = False) -> None:
        self.connection = connection
        self.statement = statement
        self.after = after

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if not sql.startswith(self.statement):
            return self.connection.execute(sql, *arguments)
        if self.after:
            self.connection.execute(sql, *arguments)
        raise sqlite3.OperationalError("disk I/O error")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def break_at(log: SqliteLog, statement: str, *, after: bool = False) -> sqlite3.Connection:
    whole = log._connection
    log._connection = Failing(whole, statement, after=after)  # type: ignore[assignment]
    return whole


def test_every_commit_is_synced(log: SqliteLog) -> None:
    assert log._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert log._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_that_fails_poisons_the_log_until_it_is_opened_again(path: Path, after: bool) -> None:
    log, scribe = SqliteLog(path, owner="home"), Scribe("a")
    first = append(log, [scribe.write("c", "1", {"n": 1})])
    whole = break_at(log, "COMMIT", after=after)
    lost = scribe.write("c", "1", {"n": 2})
    with pytest.raises(StorageFailed, match="committing"):
        append(log, [lost])
    log._connection = whole
    for _ in range(2):
        with pytest.raises(StorePoisoned, match="disk I/O error"):
            append(log, [lost])
    log.close()
    log = SqliteLog(path)
    assert events_after(log, 0, 10)[:1] == first
    assert log.end() == (2 if after else 1), "what was not acknowledged may be there or not"
    if not after:
        append(log, [lost])
    log.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO events", "INSERT INTO replicas"])
def test_an_append_that_fails_before_its_commit_changes_nothing(log: SqliteLog, statement: str) -> None:
    scribe = Scribe("a")
    append(log, [Scribe("first").write("c", "1", {"n": 1})])
    events = [scribe.write("c", "2", {"n": n}) for n in range(60)]
    whole = break_at(log, statement)
    with pytest.raises(StorageFailed, match="appending"):
        append(log, events)
    log._connection = whole
    assert log.end() == 1 and "a" not in log.heads()
    assert [event.position for event in append(log, events)] == list(range(2, 62))


def test_a_rollback_that_fails_poisons_the_log(log: SqliteLog) -> None:
    event = Scribe("a").write("c", "1", {"n": 1})
    whole = break_at(log, "INSERT INTO replicas")
    break_at(log, "ROLLBACK")
    with pytest.raises(StorageFailed):
        append(log, [event])
    log._connection = whole
    with pytest.raises(StorePoisoned):
        append(log, [event])
    whole.execute("ROLLBACK")


def test_a_reader_sees_what_is_committed_and_nothing_else(path: Path, log: SqliteLog) -> None:
    scribe = Scribe("a")
    reader = SqliteLog(path, readonly=True)
    assert (reader.end(), reader.heads(), newest_time(reader)) == (0, {}, 0)
    events = append(log, [scribe.write("c", "1", {"n": 1})])
    assert events_after(reader, 0, 10) == events and reader.heads() == {"a": scribe.head}
    assert newest_time(reader) == events[0].time and reader.replica() == "home"
    reader.close()


def test_the_owner_is_set_once(path: Path) -> None:
    SqliteLog(path, owner="home").close()
    log = SqliteLog(path, owner="other")
    assert log.replica() == "home"
    log.close()


def test_other_files_are_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageFailed):
        SqliteLog(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE mine (a); PRAGMA user_version = 7;")
    connection.close()
    with pytest.raises(FormatUnknown):
        SqliteLog(path)
    SqliteLog(path.with_name("newer.db"), owner="home").close()
    connection = sqlite3.connect(path.with_name("newer.db"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FormatUnknown, match="99"):
        SqliteLog(path.with_name("newer.db"))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x9e", NESTED], ids=["empty", "never", "cut", "nested"])
def test_an_event_that_does_not_decode_is_named(path: Path, body: bytes) -> None:
    log, scribe = SqliteLog(path, owner="home"), Scribe("a")
    append(log, [scribe.write("c", "1", {"n": n}) for n in range(3)])
    log.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE events SET body = ? WHERE position = 2", (body,))
    connection.commit()
    connection.close()
    log = SqliteLog(path)
    assert caught(LogCorrupt, events_after, log, 0, 10).position == 2
    assert caught(LogCorrupt, log.at, [2]).position == 2
    assert [event.position for event in log.at([1, 3])] == [1, 3]
    assert log.bodies(1, 1) == [(2, body)]
    log.close()


def test_the_file_holds_the_canonical_bytes_and_little_else(path: Path, log: SqliteLog) -> None:
    scribe = Scribe("a")
    events = append(log, [scribe.write("c", "1", {"n": 1}), scribe.write("c", "1", {"n": 2})])
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    rows = connection.execute("SELECT position, seq, body FROM events ORDER BY position").fetchall()
    connection.close()
    assert [(position, seq) for position, seq, _ in rows] == [(1, 1), (2, 2)]
    assert [body for *_, body in rows] == [body for _, body in log.bodies(0, 10)]
    assert events == events_after(log, 0, 10)


def test_a_fork_is_told_with_both_hashes(log: SqliteLog) -> None:
    scribe = Scribe("a")
    events = append(log, [scribe.write("c", "1", {"n": n}) for n in range(3)])
    twin = Scribe("a")
    twin.write("c", "1", {"n": 0})
    other = twin.write("c", "1", {"n": 7})
    with pytest.raises(EventForked) as forked:
        append(log, [other])
    assert (forked.value.seq, forked.value.ours, forked.value.theirs) == (2, events[1].hash.hex(), other.hash.hex())
